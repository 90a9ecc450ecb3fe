"""All faults of a run as columns: some 90 bytes a fault, and the tables and points that are made of them."""

from __future__ import annotations

from array import array
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from migemu.analysis.attribution import PHASES, Cause, ResolvedFault

CAUSES: Final = tuple(Cause)
_NUMBERS: Final = {cause: number for number, cause in enumerate(CAUSES)}

Column = NDArray[np.int64]


class PhaseMeans(NamedTuple):
    """Means over some faults: latency and each of `PHASES` in ns, and bytes queued ahead at the source."""

    what: str
    faults: int
    latency_ns: float
    phases_ns: tuple[float, ...]
    main_ahead: float
    preempt_ahead: float


class OfCause(NamedTuple):
    """How many faults had one cause, and their latencies in ns."""

    cause: Cause
    faults: int
    mean_ns: float
    p50_ns: int
    p99_ns: int
    max_ns: int


class FaultTable:
    """The resolved faults of one run as columns, in the order in which they were resolved."""

    def __init__(self) -> None:
        self._began = array("q")
        self._latency = array("q")
        self._cause = bytearray()
        self._page = array("q")
        self._vcpu = array("i")
        self._phases = tuple(array("q") for _ in PHASES)
        self._ahead = (array("q"), array("q"))

    def add(self, fault: ResolvedFault) -> None:
        """Append one resolved fault."""
        self._began.append(fault.began)
        self._latency.append(fault.latency_ns)
        self._cause.append(_NUMBERS[fault.cause])
        self._page.append(fault.page)
        self._vcpu.append(fault.vcpu)
        for column, phase in zip(self._phases, fault.phases, strict=True):
            column.append(phase)
        for column, ahead in zip(self._ahead, fault.ahead, strict=True):
            column.append(ahead)

    def __len__(self) -> int:
        return len(self._began)

    def columns(self) -> dict[str, NDArray[Any]]:
        """A copy of every column by name, units in the names; `cause` as its place in `CAUSES`."""
        phases = {f"{phase}_ns": column for phase, column in zip(PHASES, self._phases, strict=True)}
        numbers = {
            "began_ns": self._began, "latency_ns": self._latency, "vcpu": self._vcpu, "page": self._page, **phases,
            "main_ahead_bytes": self._ahead[0], "preempt_ahead_bytes": self._ahead[1],
        }  # fmt: skip
        causes = np.array(self._cause, dtype=np.int8)
        return {**{name: np.array(column, dtype=np.int64) for name, column in numbers.items()}, "cause": causes}

    def ascending(self) -> Column:
        """All latencies in ns, in ascending order."""
        return np.sort(np.array(self._latency, dtype=np.int64))

    def attribution(self) -> list[PhaseMeans]:
        """Means of all faults, and of the slowest 1 % (at least one fault); [] without faults."""
        if not self:
            return []
        latency = np.array(self._latency, dtype=np.int64)
        slowest = np.argsort(-latency, kind="stable")[: -(-len(latency) // 100)]
        every = np.arange(len(latency))
        return [
            self._means("all faults", every, latency),
            self._means("slowest 1 %", slowest, latency),
        ]

    def _means(self, what: str, chosen: NDArray[np.intp], latency: Column) -> PhaseMeans:
        columns = [np.array(column, dtype=np.int64)[chosen] for column in (*self._phases, *self._ahead)]
        means = [float(column.mean()) for column in columns]
        return PhaseMeans(
            what, len(chosen), float(latency[chosen].mean()), tuple(means[: len(PHASES)]), *means[len(PHASES) :]
        )

    def causes(self) -> list[OfCause]:
        """A row for each cause that a fault had, in the order of `Cause`."""
        latency, cause = np.array(self._latency, dtype=np.int64), np.frombuffer(bytes(self._cause), dtype=np.uint8)
        of_causes = []
        for number, each in enumerate(CAUSES):
            rows = np.sort(latency[cause == number])
            if len(rows):
                p50, p99 = (int(rows[-(-len(rows) * percent // 100) - 1]) for percent in (50, 99))
                of_causes.append(OfCause(each, len(rows), float(rows.mean()), p50, p99, int(rows[-1])))
        return of_causes

    def points(self, most: int) -> tuple[list[tuple[int, int, Cause, int, int]], int]:
        """At most `most` faults as (began, latency, cause, page, vCPU) by time, and n, if every n-th was taken.

        If there are more faults, a quarter of the points are the slowest ones; the others are every n-th of the rest.
        """
        count = len(self)
        chosen, step = np.arange(count), 1
        if count > most:
            order = np.argsort(-np.array(self._latency, dtype=np.int64), kind="stable")
            slowest, others = order[: most // 4], np.sort(order[most // 4 :])
            step = -(-len(others) // (most - most // 4))
            chosen = np.concatenate([slowest, others[::step]])
        chosen = chosen[np.argsort(np.array(self._began, dtype=np.int64)[chosen], kind="stable")]
        return [
            (self._began[at], self._latency[at], CAUSES[self._cause[at]], self._page[at], self._vcpu[at])
            for at in chosen.tolist()
        ], step
