"""The HTML around every page: nothing in the data is markup, and what cannot be written is told."""

from __future__ import annotations

import json

from migemu.report import document
from migemu.report.draw.style import Panel, Section
from tests.unit.report.test_page import Words

ODD = "</script><b>&amp;\"'"


def test_every_part_of_a_page_is_text() -> None:
    panel = Panel(ODD, "modelled", {"data": [], "layout": {}}, ODD)
    lines = [*document.begin(ODD, "about", [("a", ODD)]), document.notice("heading", [ODD]),
             *document.section(Section("a", ODD, ODD, [panel])), "</body></html>"]  # fmt: skip
    said = Words("\n".join(lines))
    assert said.open == []
    assert said.words.count(ODD) == 7, "heading, link, notice, section and its intro, panel and its note"
    assert f"{ODD} - migemu" in said.words


def test_data_is_told_as_it_is_and_ends_no_script() -> None:
    text = document.script("x", {"name": ODD})
    inner = text[text.index(">") + 1 : text.rindex("<")]
    assert "<" not in inner
    assert json.loads(inner) == {"name": ODD}


def test_what_has_nothing_to_say_makes_no_box() -> None:
    assert document.notice("heading", []) == ""
