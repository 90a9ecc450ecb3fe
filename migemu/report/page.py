"""The report of one or several runs: one HTML file that needs nothing else, neither files nor a network.

Rules
    1. plotly.js, styles, figures and data stand in the file; a Content-Security-Policy keeps it from asking for more.
    2. What is not there is said: a run without a result, without a trace, one that failed. It never ends the report.
    3. The same runs give the same file: no time of writing, no drawn identifiers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args

from plotly.offline import get_plotlyjs

import migemu
from migemu.errors import BrokenError, InputError
from migemu.guest.workload import workloads
from migemu.mm.access import UNIFORM, Pattern, WorkloadName
from migemu.report import tables
from migemu.report.directory import RunDirectory
from migemu.report.draw import faults, memory
from migemu.report.draw.style import Panel, Run, Section
from migemu.report.told import MAPS_MAX, Told, read_told

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def load(
    found: Sequence[RunDirectory], hugepages: Sequence[int] | None = None,
    progress: Callable[[Path, int], None] = lambda _path, _done: None,
) -> list[Run]:  # fmt: skip
    """The runs of these directories, their traces read; what is damaged or missing is told by the run."""
    names = [directory.name for directory in found]
    runs = []
    for place, directory in enumerate(found):
        label = directory.name if names.count(directory.name) == 1 else f"{directory.name} ({directory.path})"
        runs.append(Run(*_read(directory, hugepages, len(found), progress), label, place))
    return runs


def _read(
    directory: RunDirectory, hugepages: Sequence[int] | None, of: int, progress: Callable[[Path, int], None]
) -> tuple[RunDirectory, Told | None]:
    if directory.trace is None:
        return directory, None
    try:
        told = read_told(
            directory.trace, pattern_of(directory.scenario), hugepages, max(1, MAPS_MAX // of),
            lambda done: progress(directory.path, done),
        )  # fmt: skip
    except InputError as error:
        return directory.lacking(f"the trace cannot be used: {error}"), None
    if told.problem:
        lost = "the trace is damaged; shown is what stands before that, to about a thousand lines"
        directory = directory.lacking(f"{lost}: {told.problem}")
    if directory.kind and told.kind != directory.kind:
        return directory.lacking(f"the trace is of another run: it is {told.kind}, the result {directory.kind}"), None
    return directory, told


def pattern_of(scenario: dict[str, dict[str, Any]]) -> Pattern:
    """What the guest of a scenario does, for the cost model; uniform where that has no cost for its workload."""
    try:
        entry, settings = workloads.parse(str(scenario["guest"]["workload"]))
    except (KeyError, ValueError, TypeError):
        return UNIFORM
    if entry.name not in get_args(WorkloadName):
        return UNIFORM
    fields = {name: value for name, value in settings.items() if name in ("exponent", "scatter", "stride")}
    return Pattern(entry.name, **fields)  # type: ignore[arg-type]  # one of the names, as was just looked up


def sections(runs: Sequence[Run]) -> list[Section]:
    """Everything that is drawn, in the order in which it is asked."""
    told = [run for run in runs if run.told and len(run.told.faults)]
    where = [
        Panel(panel.title, panel.kind, panel.figure, panel.note,
              f'<div class="tables">{tables.attribution(run)}{tables.causes(run)}</div>')
        for panel, run in zip(faults.attribution(runs), _by_kind(told), strict=True)
    ]  # fmt: skip
    return [
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
            "blocktime", "How long did each vCPU sleep?",
            "On faults. The dashed line is the time in which all of them slept at once (QEMU: postcopy-blocktime).",
            faults.blocktime(runs),
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


def _by_kind(runs: Sequence[Run]) -> list[Run]:
    """The order in which figures of one run each are drawn."""
    return [run for kind in dict.fromkeys(run.kind for run in runs) for run in runs if run.kind == kind]


def html(runs: Sequence[Run]) -> str:
    """The page."""
    return "\n".join(_page(runs))


def write(runs: Sequence[Run], path: Path) -> None:
    """Write the page. BrokenError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html(runs), encoding="utf-8")
    except OSError as error:
        raise BrokenError(f"{path} cannot be written: {error.strerror}") from None


def _page(runs: Sequence[Run]) -> Iterator[str]:
    title = ", ".join(run.label for run in runs)
    drawn = [section for section in sections(runs) if section.panels]
    pictures = [(f"map-{n}", *each) for n, each in enumerate(each for run in runs for each in memory.pictures(run))]
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>{escape(title)} - migemu</title>"
    yield f"<style>{_ours('page.css')}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield (
        f'<p class="soft">Post-copy migration with high-granularity mapping, migemu {migemu.__version__}. '
        "<b>measured</b>: real time, real bytes, this machine. <b>modelled</b>: virtual time, or a cost model.</p>"
    )
    links = [(section.anchor, section.title) for section in drawn]
    links += [("maps", "How did each piece come?")] if pictures else []
    yield "<nav>"
    yield from (f'<a href="#{anchor}">{escape(words)}</a>' for anchor, words in links)
    yield "</nav>"
    for run in runs:
        yield from _missing(run)
    for kind, table in tables.of_runs(runs):
        yield f'<div class="wide">{_badge(kind)}{table}</div>'
    for section in drawn:
        yield f'<h2 id="{section.anchor}">{escape(section.title)}</h2><p class="soft">{escape(section.intro)}</p>'
        yield '<div class="grid">'
        for number, panel in enumerate(section.panels):
            yield from _panel(panel, f"{section.anchor}-{number}")
        yield "</div>"
    if pictures:
        yield '<h2 id="maps">How did each piece come?</h2><p class="soft">One pixel a base page, one row a 2M.</p>'
    for name, data, by_time, by_how in pictures:
        yield f'{_script(name, data)}<div class="grid">'
        yield from _panel(by_time, f"{name}-time", name)
        yield from _panel(by_how, f"{name}-how", name)
        yield "</div>"
    yield f"<script>{get_plotlyjs()}</script><script>{_ours('page.js')}</script></body></html>"


def _missing(run: Run) -> Iterator[str]:
    if run.directory.missing:
        items = "".join(f"<li>{escape(line)}</li>" for line in run.directory.missing)
        yield f'<div class="missing"><b>{escape(run.label)}</b> is not whole:<ul>{items}</ul></div>'


def _panel(panel: Panel, name: str, picture: str = "") -> Iterator[str]:
    yield f'<section class="panel"><header><h3>{escape(panel.title)}</h3>{_badge(panel.kind)}</header>'
    if panel.note:
        yield f'<p class="note">{escape(panel.note)}</p>'
    map_of = f' data-map="{picture}"' if picture else ""
    yield f'<div class="figure" id="{name}" data-figure="{name}-figure"{map_of}></div>'
    yield _script(f"{name}-figure", panel.figure)
    yield f"{panel.html}</section>"


def _script(name: str, data: Any) -> str:
    """Data beside the page. No `<` in it, so that nothing in it can end the script."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _badge(kind: str) -> str:
    return f'<span class="kind {escape(kind)}">{escape(kind)}</span>'


def _ours(name: str) -> str:
    return resources.files("migemu.report").joinpath(name).read_text(encoding="utf-8")
