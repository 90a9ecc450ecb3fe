"""The directory of a run, opened for the picture: its trace, and the index beside it, made if it is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from migemu.costs.collapse_cost import CostModel
from migemu.errors import InputError, MigemuError, ScenarioError
from migemu.mm.pages import Geometry
from migemu.report.directory import RunDirectory
from migemu.scenario.scenario import from_mapping
from migemu.view.index_builder import build_index
from migemu.view.run_picture import RunPicture
from migemu.view.trace_index import SUFFIX, TraceIndex, open_index

#: What a scenario is called whose name nobody has set.
UNNAMED: Final = "unnamed"


def open_run(
    directory: Path, progress: Callable[[int], None] = lambda _: None, notice: Callable[[str], None] = lambda _: None
) -> RunPicture:  # fmt: skip
    """The run in `directory`. InputError in one line when there is none, or no trace of it.

    An index that cannot be written beside the trace is used all the same, and `notice` is told. `progress` is told how
    many bytes of the trace have been read, while an index is made.
    """
    found = RunDirectory.open(directory)
    if found.trace is None:
        raise InputError(f"{directory}: holds no trace, without which there is nothing to see; run it with --trace")
    path = found.trace.with_name(found.trace.name + SUFFIX)
    try:
        index = open_index(path, found.trace)
        if index is None:
            index = _made(found, found.trace, path, progress, notice)
    except OSError as error:
        raise InputError(f"{found.trace}: the trace cannot be read: {error.strerror}") from None
    if not index.problem and found.result.get("trace_digest"):
        found.check(index.digest)
    return RunPicture(shown_name(found), index, found.trace, found.missing)


def shown_name(found: RunDirectory) -> str:
    """The name of its scenario, or of its directory where nobody has given it one."""
    return found.path.resolve().name if found.name == UNNAMED else found.name


def _made(
    found: RunDirectory, trace: Path, path: Path, progress: Callable[[int], None], notice: Callable[[str], None]
) -> TraceIndex:  # fmt: skip
    index = build_index(trace, run_costs(found), progress)
    try:
        index.save(path, trace)
    except MigemuError as error:
        notice(f"{error}; it will be made again the next time")
    return index


def run_costs(found: RunDirectory) -> CostModel | None:
    """What collapses took in that run, by its [costs]; None where its scenario is not known."""
    try:
        scenario = from_mapping(found.scenario, str(found.path))
    except ScenarioError:
        return None
    geometry: Geometry = scenario.geometry
    return scenario.costs.model(geometry, scenario.guest.vcpus)
