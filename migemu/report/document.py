"""The HTML around every page that is drawn: one file that needs nothing else, neither files nor a network.

Rules
    1. plotly.js, styles, figures and data stand in the file; a Content-Security-Policy keeps it from asking for more.
    2. The same data give the same file: no time of writing, no drawn identifiers.
    3. Whatever comes from a file is text, never markup: callers escape what they put into HTML, `script` what is data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from typing import Any, Final

from plotly.offline import get_plotlyjs

import migemu
from migemu.report.draw.style import Panel, Section

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
KINDS: Final = "<b>measured</b>: real time, real bytes, this machine. <b>modelled</b>: virtual time, or a cost model."


def begin(title: str, about: str, links: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The page up to its contents. `about` is HTML; `links` are (anchor, text) of the sections."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>{escape(title)} - migemu</title>"
    yield f"<style>{_ours('page.css')}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="soft">{about}, migemu {migemu.__version__}. {KINDS}</p>'
    yield "<nav>"
    yield from (f'<a href="#{anchor}">{escape(words)}</a>' for anchor, words in links)
    yield "</nav>"


def end() -> str:
    """The scripts of the page and its end."""
    return f"<script>{get_plotlyjs()}</script><script>{_ours('page.js')}</script></body></html>"


def section(each: Section) -> Iterator[str]:
    """The HTML of a section: a heading and its panels."""
    yield f'<h2 id="{each.anchor}">{escape(each.title)}</h2><p class="soft">{escape(each.intro)}</p>'
    yield '<div class="grid">'
    for number, drawn in enumerate(each.panels):
        yield from panel(drawn, f"{each.anchor}-{number}")
    yield "</div>"


def panel(drawn: Panel, name: str, picture: str = "") -> Iterator[str]:
    """The HTML of a figure with heading, kind and note; `picture` names the data of a map (see page.js)."""
    wide = " across" if drawn.across else ""
    yield f'<section class="panel{wide}"><header><h3>{escape(drawn.title)}</h3>{badge(drawn.kind)}</header>'
    if drawn.note:
        yield f'<p class="note">{escape(drawn.note)}</p>'
    map_of = f' data-map="{picture}"' if picture else ""
    yield f'<div class="figure" id="{name}" data-figure="{name}-figure"{map_of}></div>'
    yield script(f"{name}-figure", drawn.figure)
    yield f"{drawn.html}</section>"


def script(name: str, data: Any) -> str:
    """Data as JSON in a script element. `<` is escaped, so nothing in it can end the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def badge(kind: str) -> str:
    """The kind of a figure or table ("measured", "modelled"), as a label."""
    return f'<span class="kind {escape(kind)}">{escape(kind)}</span>'


def notice(heading: str, lines: Sequence[str]) -> str:
    """A box about what is missing or needs attention; `heading` is HTML, the other argument lines of text."""
    if not lines:
        return ""
    return f'<div class="missing">{heading}<ul>{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul></div>'


def _ours(name: str) -> str:
    return resources.files("migemu.report").joinpath(name).read_text(encoding="utf-8")
