"""Every page that is drawn: one HTML file that needs nothing else, neither files nor a network.

Rules
    1. plotly.js, styles, figures and data stand in the file; a Content-Security-Policy keeps it from asking for more.
    2. The same data give the same file: no time of writing, no drawn identifiers.
    3. The HTML is in `templates/` (Jinja), which escapes whatever it is given; data stand in <script> elements that
       nothing in them can end (`data`). No HTML is made anywhere else.
    4. A page stays small. plotly.js is its partial bundle "cartesian", the smallest that has heat maps, as its makers
       publish it (npm: plotly.js-cartesian-dist-min, of the version that plotly for Python carries; licence beside
       it). It stands in the page compressed, 0.7 MB, and is unpacked by the browser (DecompressionStream: Chromium 80,
       Firefox 113, Safari 16.4); so are long data: a map of pieces comes down from 1 MB to 30 KB.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import migemu

PLOTLY: Final = "plotly-cartesian.min.js.gz"
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
#: Characters; shorter data stay legible in the file.
_PACKED_MIN: Final = 8192


class DataCell(NamedTuple):
    """A cell of a table. `by` is the number or text to sort by, "" for what stands last; `links` are (words, href)."""

    text: str = ""
    share: str = ""
    strong: bool = False
    by: str = ""
    hint: str = ""
    key: str = ""
    """A colour, for a swatch before the text."""
    links: tuple[tuple[str, str], ...] = ()


class DataTable(NamedTuple):
    """A table of a page; `name` is its class in page.css. The first cell of a row is its heading, unless it sorts."""

    name: str
    head: Sequence[DataCell]
    rows: Sequence[Sequence[DataCell]]
    sortable: bool = False


def table(name: str, head: Iterable[str | DataCell], rows: Iterable[Iterable[str | DataCell]]) -> DataTable:
    """A table of cells, plain ones given as their text."""
    return DataTable(name, _cells(head), [_cells(row) for row in rows])


def sortable(head: Iterable[str], rows: Iterable[Sequence[DataCell]]) -> DataTable:
    """A table that page.js sorts by the column whose heading is chosen."""
    return DataTable("cells", _cells(head), list(rows), sortable=True)


def _cells(row: Iterable[str | DataCell]) -> list[DataCell]:
    return [each if isinstance(each, DataCell) else DataCell(each) for each in row]


def render(template: str, title: str, about: str, links: Iterable[tuple[str, str]], **values: Any) -> str:
    """The page of `templates/<template>.html`. `links` are (anchor, words) of its sections."""
    page = _environment().get_template(f"{template}.html")
    return page.render(
        title=title, about=about, links=[*links], policy=_POLICY, version=migemu.__version__,
        style=Markup(_ours("page.css")), program=Markup(_ours("page.js")),
        plotly=base64.b64encode(_file(PLOTLY)).decode(), **values,
    )  # fmt: skip


def fragment(template: str, **values: Any) -> str:
    """What `templates/<template>.html` makes, without a page around it: HTML for a notebook."""
    return _environment().get_template(f"{template}.html").render(**values)


def packed(data: bytes) -> str:
    """Bytes for a page: compressed, base64; the same for the same."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def unpacked(text: str) -> bytes:
    """What `packed` was given."""
    return gzip.decompress(base64.b64decode(text))


def data(value: Any, name: str) -> Markup:
    """Data beside the page, compressed where that is worth it. No `<` in it, so that nothing can end the script."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if len(text) > _PACKED_MIN:
        kind, text = "gzip", packed(text.encode())
    else:
        kind, text = "json", text.replace("<", "\\u003c")
    return Markup('<script type="application/{}" id="{}">{}</script>').format(kind, name, Markup(text))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("migemu.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters["data"] = data
    return made


def _ours(name: str) -> str:
    return _file(name).decode()


def _file(name: str) -> bytes:
    return resources.files("migemu.report").joinpath(name).read_bytes()
