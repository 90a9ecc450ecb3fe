"""The figures of `migemu report` as plotly figures, to be shown in a notebook, changed, or written to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from migemu.errors import InputError
from migemu.report.draw import fault_figures, memory_figures
from migemu.report.draw.style import Panel, ShownRun

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class HasRun(Protocol):
    """A result with what is drawn of it."""

    @property
    def shown(self) -> ShownRun:
        """The run as figures take it."""


class Plots:
    """`result.plot`: one method a figure, each with a plotly.graph_objects.Figure.

    `latency` and `histogram` take other results, to be drawn into the same figure; they must be of the same kind,
    measured or modelled (InputError). The other figures need a trace (InputError without one).
    """

    def __init__(self, run: HasRun) -> None:
        self._run = run

    def latency(self, *others: HasRun) -> Figure:
        """Fault latency by percentile up to p99.99, each nine as wide as the one before."""
        return self._shared(fault_figures.distributions, others, "this run has no fault")

    def histogram(self, *others: HasRun) -> Figure:
        """Fault latency by powers of two of microseconds."""
        return self._shared(fault_figures.histograms, others, "this run has no fault")

    def faults(self) -> Figure:
        """Each fault at the time when it began, by latency and cause."""
        return self._of_trace(fault_figures.over_time)

    def attribution(self) -> Figure:
        """Where the time of faults went, part by part: of all of them, and of the slowest 1 %."""
        return self._of_trace(fault_figures.attribution)

    def blocktime(self) -> Figure:
        """How long each vCPU slept on faults and, in a modelled run, was stalled by collapses."""
        return self._shared(fault_figures.blocktime, (), "this run has no guest")

    def mapping(self) -> Figure:
        """The share of memory mapped by each size of entry over time, and every collapse."""
        return self._of_trace(memory_figures.levels)

    def access_cost(self) -> Figure:
        """What the model of TLB and page walks says that an access costs, over time."""
        return self._of_trace(memory_figures.access_cost)

    def page_tables(self) -> Figure:
        """Bytes of page tables below the largest level, over time."""
        return self._of_trace(memory_figures.tables)

    def throughput(self) -> Figure:
        """Bytes of pages received a second: pushed, urgent, and what came twice."""
        return self._of_trace(memory_figures.throughput)

    def _of_trace(self, draw: Callable[[Sequence[ShownRun]], list[Panel]]) -> Figure:
        absent = "nothing of this run can be drawn over time; it has no trace (give trace=True), or ended too early"
        return self._shared(draw, (), absent)

    def _shared(
        self, draw: Callable[[Sequence[ShownRun]], list[Panel]], others: Sequence[HasRun], absent: str
    ) -> Figure:  # fmt: skip
        runs = _side_by_side([self._run.shown, *(other.shown for other in others)])
        panels = draw(runs)
        if not panels:
            raise InputError(f"{absent}: there is nothing to draw")
        if len(panels) > 1:
            raise InputError("measured and modelled runs share no figure; draw each kind by itself")
        from plotly.graph_objects import Figure  # it takes half a second

        return Figure(panels[0].figure)


def _side_by_side(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """The runs with a colour and a name each: a name that comes twice gets a number behind it."""
    labels = [run.label for run in runs]
    named = [
        f"{label} {labels[: place + 1].count(label)}" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]
    return [ShownRun(run.directory, run.trace, named[place], place) for place, run in enumerate(runs)]
