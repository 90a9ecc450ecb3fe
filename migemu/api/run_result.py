"""The result of a run as an object: its figures as attributes, its faults and events as columns, its pictures."""

from __future__ import annotations

import copy
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

from migemu.analysis.reducer import TraceFigures
from migemu.api.columns import Columns, fault_columns, trace_columns
from migemu.api.plots import Plots
from migemu.errors import InputError
from migemu.experiment.figures import figures
from migemu.report import document, page, tables
from migemu.report.directory import RunDirectory
from migemu.report.draw.style import ShownRun
from migemu.report.terminal.histogram import bucket_label
from migemu.scenario.scenario import GeneralSettings
from migemu.units import format_time
from migemu.values import unknown


class ResultSection(Mapping[str, Any]):
    """A part of a result: its keys are attributes (`result.fault.p99_ns`) and items (`result.pieces["4K"]`)."""

    def __init__(self, values: Mapping[str, Any], name: str = "result") -> None:
        self._values = values
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._values:
            raise AttributeError(f"{self._name}: {unknown('key', name, self._values)}")
        return self[name]

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        return ResultSection(value, f"{self._name}.{key}") if isinstance(value, Mapping) else copy.copy(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(key for key in self._values if key.isidentifier())]

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain dictionaries, as in result.json."""
        return copy.deepcopy(dict(self._values))

    def __repr__(self) -> str:
        values = (f"{key}={'{...}' if isinstance(value, Mapping) else repr(value)}" for key, value in self.items())
        return f"<{self._name}: {', '.join(values)}>"


class Result(ResultSection):
    """What one run came to. Every key of result.json is an attribute, with units in the names.

    `faults` and `trace` are `Columns`; `plot` has the figures of `migemu report`. Both need a trace, and raise
    InputError without one. In a notebook a result shows what the run cost its guest.
    """

    kind: str
    """ "modelled" (virtual time) or "measured" (real time and bytes)."""
    status: str
    """ "completed", "failed" or "interrupted"."""
    verified: bool
    """Whether every byte is the source's, or a known write of the guest."""
    trace_digest: str
    """The sha256 of the events: the same for the same settings, seed and code. Empty without a trace, if measured."""
    throughput_bytes_per_s: int
    scenario: ResultSection
    """Every setting, resolved."""
    pieces: ResultSection
    time_ns: ResultSection
    fault: ResultSection
    """Count and latencies of all faults, as figures; `faults` has each of them."""
    blocktime_ns: ResultSection
    stall_ns: ResultSection
    guest: ResultSection
    page_table: ResultSection
    mapping: ResultSection
    collapse: ResultSection

    def __init__(self, directory: RunDirectory, is_temporary: bool = False) -> None:
        """A temporary directory is removed with this object. InputError if the directory has no result."""
        if not directory.result:
            raise InputError(f"{directory.path}: {'; '.join(directory.missing)}")
        super().__init__(directory.result)
        self._directory = directory
        self._is_temporary = is_temporary
        if is_temporary:
            weakref.finalize(self, shutil.rmtree, directory.path, ignore_errors=True)

    @classmethod
    def read(cls, directory: str | PathLike[str]) -> Self:
        """The result of a run that has been: DIR of `--out`. InputError in one line when it is none."""
        return cls(RunDirectory.open(Path(directory)))

    @property
    def path(self) -> Path:
        """The directory of its files; without `out` a temporary one, which is removed with this object."""
        return self._directory.path

    @property
    def name(self) -> str:
        """What the run is called: `scenario.name`."""
        return self._directory.name

    @property
    def figures(self) -> dict[str, int | float]:
        """Every number under its dotted key, as in sweeps; with `lost_ns.mean` and `lost_ns.max`."""
        return figures(self._values)

    @cached_property
    def faults(self) -> Columns:
        """Each resolved fault, a row each: when it began, its latency and the parts that sum to it, cause, page, vCPU.

        `began_ns` is on the clock of `trace`.
        """
        return fault_columns(self._trace_figures.faults)

    @cached_property
    def trace(self) -> Columns:
        """Every event of the run, a row each; `migemu.trace.events` has the vocabulary. 80 bytes an event."""
        return trace_columns(self.trace_path)

    @property
    def trace_path(self) -> Path:
        """The file trace.jsonl. InputError if there is none."""
        if self._directory.trace is None:
            raise InputError(f"{self.path} has no trace: run it with trace=True")
        return self._directory.trace

    @property
    def plot(self) -> Plots:
        """The figures of `migemu report`, a method each: `result.plot.latency()`."""
        return Plots(self)

    @cached_property
    def shown(self) -> ShownRun:
        """The run as the figures of `migemu.report` take it."""
        run = page.load([self._directory])[0]
        if not self._is_temporary or self.name != GeneralSettings().name:
            return run
        return ShownRun(run.directory, run.trace, "run")  # nobody gave it a name, and its directory's says nothing

    @property
    def _trace_figures(self) -> TraceFigures:
        if self.shown.trace is None:
            raise InputError(f"{self.trace_path} cannot be read: {'; '.join(self.shown.directory.missing)}")
        return self.shown.trace

    def __repr__(self) -> str:
        fault = self.fault
        faults = f"{fault.count:,} faults"
        if fault.count:
            faults += f", p50 {format_time(fault.p50_ns)}, p99 {format_time(fault.p99_ns)}"
        verified = "verified" if self.verified else "NOT verified"
        return f"<Result of {self.name} ({self.kind}, {self.status}, {verified}): {faults}>"

    def _repr_html_(self) -> str:
        run = ShownRun(self._directory, None, self.name)
        return document.fragment("notebook", line=repr(self)[1:-1], answers=tables.answers([run]), bars=_bars(self))


def _bars(result: Result) -> Sequence[tuple[str, int, float]]:
    """(bucket of latency in us, faults, height from 0 to 1) of each bar, from the first bucket to the last."""
    counts = {int(bound): count for bound, count in result.fault["log2_us"].items()}
    if not counts:
        return []
    bounds = [min(counts)]
    while bounds[-1] < max(counts):
        bounds.append(bounds[-1] * 2 or 1)
    most = max(counts.values())
    return [(bucket_label(bound), counts.get(bound, 0), counts.get(bound, 0) / most) for bound in bounds]
