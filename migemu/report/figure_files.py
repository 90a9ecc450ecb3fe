"""The figures of a page as files: SVG, PDF or PNG for a paper, and the data of each as CSV beside it.

Rules
    1. They are the page's figures, drawn by the same plotly.js, on white; nothing is drawn a second time by other code.
    2. Kaleido draws them: it comes from plotly's makers, and uses the Chromium or Chrome that is on this machine,
       offline. (matplotlib would need no browser, and a second version of every figure.) It is the extra `figures`; CSV
       needs neither.
    3. A file is named after its section and its heading, `latency-0-histogram.svg`, so that the same run gives the same
       names; each is complete or not there.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from migemu.errors import BrokenError, InputError, one_line
from migemu.report import page, sweep_page
from migemu.report.draw import memory_figures as memory
from migemu.report.draw.style import Figure, Panel, Section, ShownRun
from migemu.report.grid import Grid
from migemu.store.output import writing

FORMATS: Final = ("svg", "pdf", "png", "csv")
#: Pixels; a column of a page on paper, and its whole width.
_WIDTH: Final = 720
_WIDTH_ACROSS: Final = 1200
_PNG_SCALE: Final = 2
_NAME_MAX: Final = 80
#: Titles of axes whose ticks say their unit, as columns.
_UNITS: Final = {"latency": "latency [ns]"}


class NamedFigure(NamedTuple):
    """A figure and the name of its files, without a suffix."""

    name: str
    figure: Figure
    across: bool = False


def of_sections(sections: Iterable[Section]) -> list[NamedFigure]:
    """All figures of these sections."""
    return [
        _named(f"{section.anchor}-{number}", panel, panel.figure)
        for section in sections
        for number, panel in enumerate(section.panels)
        if panel.figure is not None
    ]


def of_runs(runs: Sequence[ShownRun]) -> list[NamedFigure]:
    """All figures of the page of these runs, the maps of pieces too."""
    found = of_sections(page.sections(runs))
    for number, (picture, *panels) in enumerate(memory.pictures(runs)):
        found += [
            _named(f"map-{number}", each, memory.filled(each.figure, picture)) for each in panels if each.figure
        ]  # fmt: skip
    return found


def of_sweep(grid: Grid) -> list[NamedFigure]:
    """All figures of the page of a sweep."""
    return of_sections(sweep_page.sections(grid))


def _named(place: str, panel: Panel, drawn: Figure) -> NamedFigure:
    words = re.sub(r"[^A-Za-z0-9]+", "-", panel.title).strip("-").lower()
    return NamedFigure(f"{place}-{words}"[:_NAME_MAX].rstrip("-"), drawn, panel.across)


def write_figures(
    figures: Sequence[NamedFigure], directory: Path, formats: Sequence[str], inputs: Sequence[Path] = ()
) -> list[Path]:  # fmt: skip
    """Write them into `directory`; the paths. InputError without Kaleido, BrokenError without a browser or a disk."""
    drawn = [each for each in formats if each != "csv"]
    contents = asyncio.run(_drawn(figures, drawn)) if drawn else {}
    contents |= {f"{each.name}.csv": as_csv(each.figure).encode() for each in figures}
    for name, content in contents.items():
        with writing(directory / name, inputs=inputs) as output:
            output.write(content)
    return [directory / name for name in contents]


async def _drawn(figures: Sequence[NamedFigure], formats: Sequence[str]) -> dict[str, bytes]:
    """File name -> its content."""
    try:
        from kaleido import Kaleido
        from kaleido.errors import ChromeNotFoundError, KaleidoError
    except ImportError:
        raise InputError("--figures needs kaleido: pip install -e '.[figures]'; --format csv does not") from None
    made: dict[str, bytes] = {}
    try:
        async with Kaleido(mathjax=False) as kaleido:
            for each in figures:
                for format_ in formats:
                    made[f"{each.name}.{format_}"] = await kaleido.calc_fig(_fixed(each), opts=_options(each, format_))
    except ChromeNotFoundError:
        told = "no Chromium or Chrome is on this machine, which draws the figures: install one (Debian: apt-get install"
        raise BrokenError(f"{told} chromium), or set BROWSER_PATH; --format csv needs none") from None
    except (KaleidoError, OSError, TimeoutError) as error:
        raise BrokenError(f"the browser that draws the figures failed: {one_line(error)}") from None
    return made


def _fixed(each: NamedFigure) -> Figure:
    """Of the page's own width, without what depends on a window."""
    return {"data": each.figure["data"], "layout": {**each.figure["layout"], "autosize": False}}


def _options(each: NamedFigure, format_: str) -> dict[str, Any]:
    return {
        "format": format_, "width": _WIDTH_ACROSS if each.across else _WIDTH, "height": each.figure["layout"]["height"],
        "scale": _PNG_SCALE if format_ == "png" else 1,
    }  # fmt: skip


def as_csv(drawn: Figure) -> str:
    """The data of a figure: a row for each mark, its columns named after the axes."""
    layout = drawn["layout"]
    titles = [layout.get(axis, {}).get("title", {}).get("text", "") or axis[0] for axis in ("xaxis", "yaxis")]
    rows = [row for trace in drawn["data"] for row in _rows(trace)]
    head = ["series", *titles, "value", "low", "high", "note"]
    head = [_UNITS.get(title, title) for title in head]
    used = [n for n in range(len(head)) if n < 3 or any(row[n] != "" for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([head[n] for n in used])
    writer.writerows([row[n] for n in used] for row in rows)
    return text.getvalue()


def _rows(trace: dict[str, Any]) -> Iterator[list[Any]]:
    """Series, x, y, value, low, high, note."""
    name = trace.get("name", "")
    notes = trace.get("customdata")
    if "z" in trace:
        is_log = trace.get("meta", {}).get("is_log10", False)
        xs, ys = trace.get("x") or range(len(trace["z"][0])), trace.get("y") or range(len(trace["z"]))
        for j, (y, row) in enumerate(zip(ys, trace["z"], strict=True)):
            for i, (x, z) in enumerate(zip(xs, row, strict=True)):
                value = "" if z is None else 10**z if is_log else z
                yield [name, x, y, value, "", "", _note(notes[j][i]) if isinstance(notes, list) else ""]
        return
    for n, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True)):
        low, high = _edges(trace, n, x, y)
        yield [name, x, y, "", low, high, _note(notes[n]) if isinstance(notes, list) else ""]


def _edges(trace: dict[str, Any], n: int, x: Any, y: Any) -> tuple[Any, Any]:
    """The ends of an error bar, if it has one."""
    for bar, middle in ((trace.get("error_x"), x), (trace.get("error_y"), y)):
        if bar is not None and bar.get("visible", True):
            return middle - bar["arrayminus"][n], middle + bar["array"][n]
    return "", ""


def _note(value: Any) -> str:
    """What stands under the pointer."""
    texts = value if isinstance(value, list | tuple) else [value]
    return "; ".join(str(text) for text in texts).replace("<br>", "; ").replace("&lt;", "<")
