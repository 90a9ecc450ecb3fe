"""The page of a sweep: which cell an objective chooses, every figure over the axes, and all cells in a table to sort.

Rule: what did not run is said. Cells of which a run was kept (`migemu sweep --keep`) lead to it: to its own page where
it has one, else to its files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from migemu.experiment.comparison import too_few
from migemu.experiment.figures import show, title
from migemu.experiment.objective import OBJECTIVES
from migemu.report import document
from migemu.report.document import DataCell, DataTable, sortable, table
from migemu.report.draw import cells
from migemu.report.draw.cells import short
from migemu.report.draw.style import Panel, Section
from migemu.report.grid import BESIDE, CellRuns, Grid

_NAMED_MAX: Final = 3
#: What stands for the cells that are not told from the best one, where there is one seed.
_UNTOLD: Final = "any: one seed"
#: Figures that are drawn unless others are asked for; the table has all headlines.
DRAWN: Final = (
    "lost_ns.mean", "guest.longest_silence_ns", "mapping.to_1G_ns", "mapping.access_mean_ns",
    "fault.p50_ns", "fault.p99_ns", "fault.p999_ns", "blocktime_ns.overlapped", "stall_ns.max", "time_ns.postcopy",
    "page_table.table_bytes_max", "bytes.duplicate", "modelled.collapse_ns", "modelled.collapse_stall_ns_max",
)  # fmt: skip


#: What is said of each objective's choice: figure, and what its column is called.
_COSTS: Final = (
    ("lost_ns.mean", "lost"), ("guest.longest_silence_ns", "longest silence"), ("fault.p99_ns", "fault p99"),
    ("mapping.to_1G_ns", "90 % at 1G"), ("mapping.access_mean_ns", "access"), ("time_ns.postcopy", "post-copy"),
)  # fmt: skip


def html(grid: Grid, path: Path) -> str:
    """The whole page as HTML; links are relative to `path`, where it will be."""
    drawn = sections(grid)
    links = [("best", "Which cell is best?"), *((each.anchor, each.title) for each in drawn)]
    links += [("each", "Best by one figure alone"), ("cells", "All cells")]
    axes = _axes(grid)
    return document.render(
        "sweep", f"{grid.name}: a sweep", "Post-copy migration with high-granularity mapping", links,
        grid=grid, extent=_extent(grid), cautions=_cautions(grid), answer=_answer(grid), settles=_settles(grid),
        objectives=_objectives(grid), axes=axes if axes.rows else None, sections=drawn, best=_best(grid),
        cells=_cells(grid, path), star=cells.BEST, close=cells.CLOSE,
        kept=any(cell.directories for cell in grid.cells),
    )  # fmt: skip


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
        made.append(Section(key.replace(".", "-"), title(key), "", [panel for panel in panels if panel is not None]))
    return made


def _drawn(grid: Grid) -> list[str]:
    """The keys to draw: what was asked for, or those of `DRAWN`, without figures that are the same in all cells."""
    return [key for key in grid.varying if grid.asked or key in DRAWN]


def _sure(grid: Grid, key: str) -> list[Panel | None]:
    return [
        cells.intervals(grid, key) if any(cell.has(key) for cell in grid.on_grid) and grid.axes else None,
        cells.beside(grid, key),
    ]


def _answer(grid: Grid) -> str:
    """The choice in a sentence, with what decided; "" where there is none."""
    if (choice := grid.choice) is None:
        return ""
    names = [_short_name(grid, name) for name in grid.even]
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    even = f" Not told from it by these seeds: {'; '.join(names[:_NAMED_MAX])}{more}." if names else ""
    note = f" ({choice.note})" if choice.note else ""
    return f"{cells.BEST} {choice.cell}: decided by {choice.decided_by}{note}.{even}"


def _settles(grid: Grid) -> str:
    return (too_few(min(len(cell.runs) for cell in grid.cells)) or "").capitalize()


def _short_name(grid: Grid, name: str) -> str:
    return next(", ".join(cell.coordinates.values()) for cell in grid.cells if cell.name == name)


def _objectives(grid: Grid) -> DataTable:
    """What each objective would choose, and what that costs; the page's own first."""
    there = [(key, words) for key, words in _COSTS if any(of == key for _, of in grid.estimates)]
    rows = []
    for objective in sorted(OBJECTIVES.values(), key=lambda each: each.name != grid.objective.name):
        choice = grid.chosen(objective)
        is_own = objective.name == grid.objective.name
        cell = "-" if choice is None else f"{cells.BEST + ' ' if is_own else ''}{_short_name(grid, choice.cell)}"
        costs = [DataCell("-") if choice is None else _cost(grid, choice.cell, key) for key, _ in there]
        rows.append([DataCell(objective.name, strong=is_own, hint=objective.meaning), DataCell(cell), *costs])
    return table("objectives", ["objective", f"cell ({', '.join(grid.axes)})", *(words for _, words in there)], rows)


def _cost(grid: Grid, cell: str, key: str) -> DataCell:
    """A mean, with its interval where there is one."""
    estimate = grid.estimates.get((cell, key))
    if estimate is None:
        return DataCell("never" if key == "mapping.to_1G_ns" and grid.kind == "modelled" else "-")
    edges = "" if estimate.interval is None else " to ".join(short(show(key, edge)) for edge in estimate.interval)
    return DataCell(short(show(key, estimate.mean)), share=edges)


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


def _axes(grid: Grid) -> DataTable:
    rows = [[axis, ", ".join(values), grid.meanings.get(axis, "")] for axis, values in grid.axes.items()]
    head = ["axis", "values", "what it is"][: 3 if any(row[2] for row in rows) else 2]
    return table("axes", head, [row[: len(head)] for row in rows])


def _best(grid: Grid) -> DataTable:
    rows = []
    names = {cell.name: ", ".join(cell.coordinates.values()) for cell in grid.cells}
    for key in grid.varying:
        if (name := grid.best(key)) is None:
            continue
        close = [names[each] for each in grid.close(key)]
        more = f" and {len(close) - _NAMED_MAX} more" if len(close) > _NAMED_MAX else ""
        best = grid.estimates[name, key]
        untold = _UNTOLD if best.seeds == 1 else "; ".join(close[:_NAMED_MAX]) + more or "-"
        edges = "" if best.interval is None else " to ".join(short(show(key, edge)) for edge in best.interval)
        means = [grid.estimates[cell.name, key].mean for cell in grid.on_grid if cell.has(key)]
        worst = max(means, key=lambda mean: abs(mean - best.mean))
        rows.append([
            key, names[name], short(show(key, best.mean)), edges,
            short(show(key, worst)), untold,
        ])  # fmt: skip
    head = [
        "figure",
        f"best cell ({', '.join(grid.axes)})",
        "mean",
        "95 % interval",
        "of the worst",
        "not told apart",
    ]
    return table("best", head, rows)


def _cells(grid: Grid, path: Path) -> DataTable:
    """All means, to be sorted; the chosen cell and those that are even with it are marked at their names."""
    axes, keys = list(grid.axes), list(grid.keys)
    even = set(grid.even)
    rows = []
    for cell in grid.cells:
        is_chosen = grid.choice is not None and grid.choice.cell == cell.name
        mark = cells.BEST if is_chosen else cells.CLOSE if cell.name in even else ""
        row = [DataCell(cell.coordinates.get(axis, "-"), by=_rank(grid, axis, cell), strong=is_chosen) for axis in axes]
        if grid.beside:
            row.append(DataCell(cell.coordinates.get(BESIDE, ""), by=cell.coordinates.get(BESIDE, "")))
        if mark and row:
            row[0] = row[0]._replace(text=f"{row[0].text} {mark}")
        row += [_mean(grid, cell, key, is_chosen) for key in keys]
        links = tuple(_seed(cell, seed, path) for seed in sorted(cell.runs))
        rows.append([*row, DataCell(by=str(len(cell.runs)), links=links)])
    return sortable([*axes, *(["cell"] if grid.beside else []), *keys, "seeds"], rows)


def _mean(grid: Grid, cell: CellRuns, key: str, is_chosen: bool) -> DataCell:
    if (estimate := grid.estimates.get((cell.name, key))) is None:
        return DataCell("-")
    edges = ""
    if estimate.interval is not None:
        edges = f"95 % interval {' to '.join(show(key, edge) for edge in estimate.interval)}"
    return DataCell(short(show(key, estimate.mean)), by=repr(estimate.mean), strong=is_chosen, hint=edges)


def _rank(grid: Grid, axis: str, cell: CellRuns) -> str:
    value = cell.coordinates.get(axis)
    return "" if value is None else str(grid.axes[axis].index(value))


def _seed(cell: CellRuns, seed: int, path: Path) -> tuple[str, str]:
    """A link to the run if it was kept, relative to the page, so that both may be moved together."""
    if (run_directory := cell.directories.get(seed)) is None:
        return str(seed), ""
    page = run_directory / "report.html"
    there = Path(os.path.relpath(page if page.is_file() else run_directory, path.parent)).as_posix()
    return str(seed), there if page.is_file() else f"{there}/"
