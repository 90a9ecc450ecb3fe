"""The page of a sweep: which cells come out best, every figure over the axes, and all cells in a table to sort.

Rule: what did not run is said. Cells of which a run was kept (`migemu sweep --keep`) lead to it: to its own page where
it has one, else to its files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Final

from migemu.experiment.comparison import too_few
from migemu.experiment.figures import show
from migemu.report import document, tables
from migemu.report.draw import cells
from migemu.report.draw.cells import short
from migemu.report.draw.style import Panel, Section
from migemu.report.grid import BESIDE, CellRuns, Grid

_NAMED_MAX: Final = 3
#: What stands for the cells that are not told from the best one, where there is one seed.
_UNTOLD: Final = "any: one seed"
#: Figures that are drawn unless others are asked for; the table has all headlines.
DRAWN: Final = (
    "fault.p50_ns", "fault.p99_ns", "fault.p999_ns", "blocktime_ns.overlapped", "stall_ns.max", "time_ns.postcopy",
    "mapping.to_1G_ns", "mapping.access_mean_ns",
    "page_table.table_bytes_max", "bytes.duplicate", "modelled.collapse_ns", "modelled.collapse_stall_ns_max",
)  # fmt: skip


def html(grid: Grid, path: Path) -> str:
    """The whole page as HTML; links are relative to `path`, where it will be."""
    return "\n".join(_page(grid, path))


def sections(grid: Grid) -> list[Section]:
    """The sections with figures: one for each figure that differs between cells, and what one costs the other."""
    made = []
    if trades := cells.trades(grid):
        intro = "Each mark is a cell. Left and low is better; cells off the dotted line are beaten in both."
        made.append(Section("trades", "What does one buy with the other?", intro, trades))
    if cells.facets(grid) > cells.FACETS_MAX:
        return made
    for key in _drawn(grid):
        panels = [cells.heat_maps(grid, key), *_sure(grid, key)]
        made.append(Section(key.replace(".", "-"), key, "", [panel for panel in panels if panel is not None]))
    return made


def _drawn(grid: Grid) -> list[str]:
    """The keys to draw: what was asked for, or those of `DRAWN`, without figures that are the same in all cells."""
    return [key for key in grid.varying if grid.asked or key in DRAWN]


def _sure(grid: Grid, key: str) -> list[Panel | None]:
    return [
        cells.intervals(grid, key) if any(cell.has(key) for cell in grid.on_grid) and grid.axes else None,
        cells.beside(grid, key),
    ]


def _page(grid: Grid, path: Path) -> Iterator[str]:
    drawn = sections(grid)
    links = [("best", "Best cells"), *((each.anchor, each.title) for each in drawn), ("cells", "All cells")]
    yield from document.begin(f"{grid.name}: a sweep", "Post-copy migration with high-granularity mapping", links)
    yield f'<p><b>{escape(grid.description)}</b></p><p class="soft">{escape(_extent(grid))}</p>'
    yield document.notice("<b>Not all of it is here:</b>", grid.absent)
    yield document.notice("<b>To be minded:</b>", _cautions(grid))
    yield _axes(grid)
    yield '<h2 id="best">Which cells come out best?</h2>'
    yield (
        '<p class="soft">By the mean over seeds, for each figure that differs between cells. Not told apart: the '
        "interval of the paired difference from the best holds zero; with one seed there is none, and none is told.</p>"
    )
    yield f'<div class="wide">{document.badge(grid.kind)}{_best(grid)}</div>'
    for section in drawn:
        yield from document.section(section)
    yield '<h2 id="cells">All cells</h2>'
    seeds_lead = " Seeds lead to the runs that were kept." if any(cell.directories for cell in grid.cells) else ""
    yield (
        f'<p class="soft">Means over seeds, {cells.BEST} the best of the grid, {cells.CLOSE} not told from it. Choose '
        f"a heading to sort by it.{seeds_lead}</p>"
    )
    yield f'<div class="wide">{document.badge(grid.kind)}{_cells(grid, path)}</div>'
    yield document.end()


def _extent(grid: Grid) -> str:
    seeds = sorted({seed for cell in grid.cells for seed in cell.runs})
    runs = sum(len(cell.runs) for cell in grid.cells)
    shown = ", ".join(map(str, seeds[:10])) + (" ..." if len(seeds) > 10 else "")
    return f"{len(grid.cells):,} cells, {runs:,} runs, seeds {shown}. Results: {grid.path.name}."


def _cautions(grid: Grid) -> list[str]:
    said = [caution] if (caution := too_few(min(len(cell.runs) for cell in grid.cells))) else []
    if len(grid.programs) > 1:
        said.append(f"its runs were made by {len(grid.programs)} states of the code")
    if alike := [key for key in grid.keys if key not in grid.varying]:
        said.append(f"the same in all cells, and not drawn: {', '.join(alike)}")
    if cells.facets(grid) > cells.FACETS_MAX:
        said.append("too many axes to be drawn; all cells are in the table")
    return said


def _axes(grid: Grid) -> str:
    rows = [[escape(axis), escape(", ".join(values)), escape(meaning)]
            for axis, values in grid.axes.items() for meaning in [grid.meanings.get(axis, "")]]  # fmt: skip
    if not rows:
        return ""
    head = ["axis", "values", "what it is"][: 3 if any(row[2] for row in rows) else 2]
    return f'<div class="wide">{tables.table(head, [row[: len(head)] for row in rows], "axes")}</div>'


def _best(grid: Grid) -> str:
    rows = []
    names = {cell.name: ", ".join(cell.coordinates.values()) for cell in grid.cells}
    for key in grid.varying:
        if (name := grid.best(key)) is None:
            continue
        close = [names[each] for each in grid.close(key)]
        more = f" and {len(close) - _NAMED_MAX} more" if len(close) > _NAMED_MAX else ""
        best = grid.estimates[name, key]
        untold = _UNTOLD if best.seeds == 1 else escape("; ".join(close[:_NAMED_MAX]) + more) or "-"
        edges = "" if best.interval is None else " to ".join(short(show(key, edge)) for edge in best.interval)
        means = [grid.estimates[cell.name, key].mean for cell in grid.on_grid if cell.has(key)]
        worst = max(means, key=lambda mean: abs(mean - best.mean))
        rows.append([
            escape(key), f"{cells.BEST} {escape(names[name])}", short(show(key, best.mean)), edges,
            short(show(key, worst)), untold,
        ])  # fmt: skip
    head = [
        "figure",
        f"best cell ({escape(', '.join(grid.axes))})",
        "mean",
        "95 % interval",
        "of the worst",
        "not told apart",
    ]
    return tables.table(head, rows, "best")


def _cells(grid: Grid, path: Path) -> str:
    """The table of all cells; page.js sorts it by the numbers in `data-by`."""
    axes, keys = list(grid.axes), list(grid.keys)
    best = {key: grid.best(key) for key in keys}
    close = {key: set(grid.close(key)) for key in keys}
    head = [*axes, *(["cell"] if grid.beside else []), *keys, "seeds"]
    lines = [tables.sortable_head(head)]
    for cell in grid.cells:
        said = [tables.sortable_cell(_rank(grid, axis, cell), escape(cell.coordinates.get(axis, "-"))) for axis in axes]
        if grid.beside:
            said.append(
                tables.sortable_cell(cell.coordinates.get(BESIDE, ""), escape(cell.coordinates.get(BESIDE, "")))
            )
        for key in keys:
            if (estimate := grid.estimates.get((cell.name, key))) is None:
                said.append(tables.sortable_cell("", "-"))
                continue
            mark = cells.BEST if best[key] == cell.name else cells.CLOSE if cell.name in close[key] else ""
            words = f"{short(show(key, estimate.mean))} {mark}".strip()
            edges = ""
            if estimate.interval is not None:
                edges = f"95 % interval {' to '.join(show(key, edge) for edge in estimate.interval)}"
            said.append(
                tables.sortable_cell(repr(estimate.mean), f"<b>{words}</b>" if mark == cells.BEST else words, edges)
            )
        said.append(
            tables.sortable_cell(str(len(cell.runs)), " ".join(_seed(cell, seed, path) for seed in sorted(cell.runs)))
        )
        lines.append(f"<tr>{''.join(said)}</tr>")
    return "".join([*lines, "</tbody></table>"])


def _rank(grid: Grid, axis: str, cell: CellRuns) -> str:
    value = cell.coordinates.get(axis)
    return "" if value is None else str(grid.axes[axis].index(value))


def _seed(cell: CellRuns, seed: int, path: Path) -> str:
    """A seed, with a link to its run if that was saved; the link is relative, so that both can be moved together."""
    if (run_directory := cell.directories.get(seed)) is None:
        return str(seed)
    page = run_directory / "report.html"
    there = Path(os.path.relpath(page if page.is_file() else run_directory, path.parent)).as_posix()
    return f'<a href="{escape(there)}{"" if page.is_file() else "/"}">{seed}</a>'
