"""The page of a history: what changed when, each figure over the states, and what the states are."""

from __future__ import annotations

from migemu.experiment.figures import show, title
from migemu.experiment.history import History
from migemu.experiment.text_tables import percent
from migemu.report import document
from migemu.report.document import DataTable, table
from migemu.report.draw.history_figures import over_states
from migemu.report.draw.style import Section

#: More changes than this are for --json.
_CHANGES_MAX = 500


def sections(history: History) -> list[Section]:
    """A section for each figure; those that changed come first."""
    keys = list(dict.fromkeys([*(series.key for series, _ in history.changes), *(each.key for each in history.series)]))
    return [Section(key.replace(".", "-"), title(key), "", [over_states(history, key)]) for key in keys]


def html(history: History) -> str:
    """The whole page as HTML."""
    drawn = sections(history)
    links = [("changes", "Where did figures change?"), *((each.anchor, each.title) for each in drawn)]
    what = "states of the code" if history.by == "commit" else "days"
    return document.render(
        "history", f"{history.sweep}: history of a sweep", f"One sweep over {len(history.states)} {what}",
        [*links, ("states", "The states")], history=history, changes=_changes(history), sections=drawn,
        states=_states(history),
    )  # fmt: skip


def _changes(history: History) -> DataTable:
    rows = []
    for series, change in history.changes[:_CHANGES_MAX]:
        edges = change.interval
        between = "one seed" if edges is None else f"{percent(edges.low)} to {percent(edges.high)}"
        rows.append([
            f"{change.state + 1}: {history.states[change.state].label}", series.cell or "-", series.key,
            show(series.key, change.before), show(series.key, change.after), percent(change.relative), between,
            change.verdict,
        ])  # fmt: skip
    head = ["from state", "cell", "figure", "before", "after", "change", "95 % interval", ""]
    return table("changes", head, rows)


def _states(history: History) -> DataTable:
    rows = [
        [str(place + 1), state.label, state.began[:16].replace("T", " "), state.program, str(state.file)]
        for place, state in enumerate(history.states)
    ]
    return table("changes", ["", "state", "first run (UTC)", "program", "file"], rows)
