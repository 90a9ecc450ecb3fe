"""The report of one or several runs: everything that is drawn of them, on one page (`migemu.report.document`).

Rule: what is not there is said - a run without a result, without a trace, one that failed. It never ends the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from migemu.analysis import mapping_figures as regained
from migemu.analysis.reducer import MAPS_MAX, TraceFigures, read_trace_figures
from migemu.costs.access import Pattern
from migemu.errors import InputError
from migemu.report import document, tables
from migemu.report.directory import RunDirectory
from migemu.report.draw import fault_figures as faults
from migemu.report.draw import memory_figures as memory
from migemu.report.draw import trade
from migemu.report.draw.style import Panel, Section, ShownRun
from migemu.scenario.scenario import GeneralSettings

_ONE_SEED: Final = (
    "One seed settles nothing: differences of a few per cent may be the seed's. migemu sweep runs many, and migemu "
    "compare tells how sure a difference is."
)
_SOME_SEEDS: Final = "Each run is one seed and has no interval; migemu compare pairs runs and tells how sure they are."


def load(
    found: Sequence[RunDirectory], hugepages: Sequence[int] | None = None,
    progress: Callable[[Path, int], None] = lambda _path, _done: None,
) -> list[ShownRun]:  # fmt: skip
    """Read these directories and their traces; what is damaged or missing is noted in each run.

    InputError when a directory has the result of one run and the trace of another, or a hugetlb page was asked for that
    no run has.
    """
    names = [_called(directory) for directory in found]
    runs = []
    for place, directory in enumerate(found):
        name = names[place]
        label = name if names.count(name) == 1 else f"{name} ({directory.path})"
        runs.append(ShownRun(*_read(directory, hugepages, len(found), progress), label, place))
    _refuse_absent(runs, hugepages or ())
    return runs


def _called(directory: RunDirectory) -> str:
    """What a run is called: its name, or that of its directory where nobody gave it one."""
    unnamed = directory.name in ("", GeneralSettings().name)
    return directory.path.resolve().name or str(directory.path) if unnamed else directory.name


def _refuse_absent(runs: Sequence[ShownRun], hugepages: Sequence[int]) -> None:
    """InputError for a hugetlb page that no run has; if only some lack it, the page says so."""
    totals = [run.trace.pages // run.trace.geometry.largest_pages for run in runs if run.trace is not None]
    for each in hugepages:
        if totals and each >= max(totals):
            of = "its memory is" if len(runs) == 1 else "the largest memory of these runs is"
            raise InputError(f"--hugepage {each}: there is none; {of} hugetlb page 0 to {max(totals) - 1}")


def _read(
    directory: RunDirectory, hugepages: Sequence[int] | None, of: int, progress: Callable[[Path, int], None]
) -> tuple[RunDirectory, TraceFigures | None]:
    if directory.trace is None:
        return directory, None
    try:
        figures = read_trace_figures(
            directory.trace, pattern_of(directory.scenario), hugepages, max(1, MAPS_MAX // of),
            lambda done: progress(directory.path, done),
        )  # fmt: skip
    except InputError as error:
        return directory.lacking(f"the trace cannot be used: {error}"), None
    if not figures.problem:
        directory.check(figures.digest)
    else:
        lost = "the trace is damaged; shown is what stands before that, to about a thousand lines"
        directory = directory.lacking(f"{lost}: {figures.problem}")
    total = figures.pages // figures.geometry.largest_pages
    if absent := [str(each) for each in hugepages or () if each >= total]:
        directory = directory.lacking(f"it has no hugetlb page {', '.join(absent)}: its memory is 0 to {total - 1}")
    if directory.kind and figures.kind != directory.kind:
        return directory.lacking(
            f"the trace is of another run: it is {figures.kind}, the result {directory.kind}"
        ), None
    return directory, figures


def pattern_of(scenario: dict[str, dict[str, Any]]) -> Pattern:
    """The access pattern of a scenario's guest for the cost model; uniform for a workload that it does not know."""
    return regained.pattern_of(str(scenario.get("guest", {}).get("workload", "")))


def sections(runs: Sequence[ShownRun]) -> list[Section]:
    """All sections of the report, in their order on the page."""
    with_faults = [run for run in runs if run.trace and len(run.trace.faults)]
    where = [
        Panel(panel.title, panel.kind, panel.figure, panel.note,
              (tables.attribution(run), tables.causes(run)))
        for panel, run in zip(faults.attribution(runs), _by_kind(with_faults), strict=True)
    ]  # fmt: skip
    return [
        Section(
            "lost", "What did the guest lose?",
            "Time that vCPUs were asleep on faults and, in modelled runs, stalled by collapses.",
            [*trade.of_runs(runs), *faults.blocktime(runs)],
        ),
        Section(
            "latency", "How long did faults take?",
            "From the access to the vCPU running again. The tail is what the guest feels: read it on the right.",
            [*faults.histograms(runs), *faults.distributions(runs)],
        ),
        Section(
            "faults", "When did they happen, and why was the page not there?",
            "Each mark is a fault where it began. The cause is read off the trace: what had become of the page when "
            "the vCPU fell asleep, and what ended the wait.",
            faults.over_time(runs),
        ),
        Section(
            "attribution", "Where did their time go?",
            "Parts of the latency, which sum to it exactly for every fault. What lay before a fault began is left out.",
            where,
        ),
        Section(
            "memory", "What maps the memory?",
            "The share of memory by the size that one page-table entry maps; above it every collapse.",
            memory.levels(runs),
        ),
        Section(
            "access", "What does an access cost meanwhile?",
            "The expected time of an access to what is mapped, by the guest's pattern: smaller entries, more misses of "
            "the TLB, longer walks.",
            memory.access_cost(runs),
        ),
        Section("tables", "What do the page tables take?", "Below the 1G level, over time.", memory.tables(runs)),
        Section(
            "throughput", "How fast did it come?", "Bytes of pages that were new, by what brought them.",
            memory.throughput(runs),
        ),
    ]  # fmt: skip


def _by_kind(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """The runs in the order in which figures of one run each are drawn."""
    return [run for kind in dict.fromkeys(run.kind for run in runs) for run in runs if run.kind == kind]


def html(runs: Sequence[ShownRun]) -> str:
    """The whole page as HTML."""
    drawn = [section for section in sections(runs) if section.panels]
    maps = [(f"map-{n}", *each) for n, each in enumerate(memory.pictures(runs))]
    links = [("answer", "What did it cost the guest?")]
    links += [(section.anchor, section.title) for section in drawn if section.anchor != "lost"]
    links += [("maps", "How did each piece come?")] if maps else []
    links.append(("settings", "All of the result, and the settings"))
    seeds = {run.directory.scenario.get("scenario", {}).get("seed") for run in runs}
    return document.render(
        "run", ", ".join(run.label for run in runs), "Post-copy migration with high-granularity mapping", links,
        missing=[(run.label, run.directory.missing) for run in runs if run.directory.missing],
        answers=tables.answers(runs), settles=_ONE_SEED if len(seeds) == 1 else _SOME_SEEDS, sections=drawn, maps=maps,
        results=tables.results(runs),
    )  # fmt: skip
