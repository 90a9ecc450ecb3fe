"""The history of a sweep for people: its states, and where its figures changed. Values in, something for rich out."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from migemu.experiment.figures import show
from migemu.experiment.history import ChangePoint, FigureHistory, History
from migemu.experiment.text_tables import CELLS_MAX, percent


def history_tables(history: History) -> list[Table]:
    """The states, and every change of a figure, the newest first."""
    states = Table(title=f"{history.sweep}: {len(history.states)} states, {history.kind}", title_justify="left")
    for title in ("", "state", "first run (UTC)", "program", "changes"):
        states.add_column(title, no_wrap=True, justify="right" if title == "" else "left")
    changes = history.changes
    for place, state in enumerate(history.states):
        here = [change for _, change in changes if change.state == place]
        worse = sum(change.verdict == "worse" for change in here)
        told = f"{worse} worse, {len(here) - worse} better" if here else ""
        states.add_row(str(place + 1), state.label, state.began[:16].replace("T", " "), state.program, told)
    if not changes:
        return [states]
    title = "where figures changed, the newest first"
    shown = Table(title=title, title_justify="left", show_lines=False)
    shown.add_column("from state", no_wrap=True)
    shown.add_column("cell", overflow="fold")
    shown.add_column("figure", no_wrap=True)
    for name in ("before", "after", "change", "95 % interval"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for series, change in changes[:CELLS_MAX]:
        shown.add_row(*_change_cells(history, series, change))
    if len(changes) > CELLS_MAX:
        shown.caption = f"and {len(changes) - CELLS_MAX:,} more: --metric, --only, or --json"
    return [states, shown]


def _change_cells(history: History, series: FigureHistory, change: ChangePoint) -> list[str]:
    edges = change.interval
    between = "one seed" if edges is None else f"{percent(edges.low)} to {percent(edges.high)}"
    style = "red" if change.verdict == "worse" else "green"
    return [
        f"{change.state + 1} {history.states[change.state].label}", escape(series.cell) or "-", series.key,
        show(series.key, change.before), show(series.key, change.after), percent(change.relative), between,
        f"[{style}]{change.verdict}[/]",
    ]  # fmt: skip
