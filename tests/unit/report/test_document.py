"""The HTML around every page: nothing in the data is markup, figures are packed and small, and nothing is asked for."""

from __future__ import annotations

import base64
import gzip
import json
import re
from importlib import resources

from plotly.offline import get_plotlyjs_version

from migemu.report import document
from migemu.report.document import DataCell, packed, render, table, unpacked
from migemu.report.draw.style import Panel, Section
from tests.unit.report.test_page import Words

ODD = "</script><b>&amp;\"'"


class _OddComparison:
    notes = (ODD,)
    kind = "modelled"


def odd_page() -> str:
    """Text that is markup, wherever a page of a comparison takes some."""
    odd = table(ODD, [ODD, DataCell(ODD, ODD)], [[ODD, DataCell(ODD, share=ODD, hint=ODD, links=((ODD, ODD),))]])
    panel = Panel(ODD, "modelled", {"data": [], "layout": {"height": 9}}, ODD, (odd,))
    return render(
        "comparison", ODD, ODD, [("a", ODD)], comparison=_OddComparison(), settings=odd, gates=odd,
        drawn=Section("a", ODD, ODD, [panel]), figures=odd._replace(sortable=True),
    )  # fmt: skip


def test_every_part_of_a_page_is_text() -> None:
    page = odd_page()
    said = Words(page)
    assert said.open == []
    assert "<b>&amp;" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert sum(ODD in words for words in said.words) >= 20
    assert f"{ODD} - migemu" in said.words


def test_data_is_told_as_it_is_and_ends_no_script() -> None:
    text = document.data({"name": ODD}, "x")
    inner = text[text.index(">") + 1 : text.rindex("<")]
    assert "<" not in inner
    assert json.loads(inner) == {"name": ODD}


def test_long_data_are_compressed() -> None:
    value = {"name": [ODD] * 5000}
    text = document.data(value, "x")
    assert text.startswith('<script type="application/gzip" id="x">')
    assert len(text) < 2000
    assert json.loads(unpacked(text[text.index(">") + 1 : text.rindex("<")])) == value


def test_what_is_packed_is_the_same_for_the_same_and_comes_out_again() -> None:
    value = bytes(range(256)) * 9
    assert packed(value) == packed(value)
    assert unpacked(packed(value)) == value


def test_plotly_is_the_partial_bundle_of_the_version_that_made_the_figures() -> None:
    """Figures are checked by plotly for Python; what draws them has to know the same."""
    page = odd_page()
    found = re.search(r'<script type="application/gzip" id="plotly">(.*?)</script>', page)
    assert found is not None
    text = gzip.decompress(base64.b64decode(found[1])).decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in text[:200]
    licence = resources.files("migemu.report").joinpath("plotly-cartesian.LICENSE").read_text()
    assert "MIT" in licence
    assert "Plotly" in licence


def test_a_page_without_much_data_is_well_below_a_megabyte() -> None:
    assert len(odd_page().encode()) < 750_000


def test_a_page_says_what_it_needs_without_scripts() -> None:
    assert "Figures are drawn by JavaScript" in " ".join(Words(odd_page()).words)
