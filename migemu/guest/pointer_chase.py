"""Pointer chase: the workload that prefetching cannot help.

What this models
    Memory as one linked list in random order, each page holding the address of the next one, as memory latency
    benchmarks lay it out. Every access depends on the one before, so faults come one after the other and each costs
    its whole latency.

Rules
    1. The walk is one cycle through every page: a page comes again only after all others have.
    2. Each vCPU has a cycle and a place to begin of its own, drawn from its generator.
"""

from __future__ import annotations

from migemu.guest.workload import Access, WorkloadContext, workloads
from migemu.permutation import CyclicWalk


@workloads.register("pointer_chase")
class PointerChase:
    """Each vCPU follows a chain through the whole memory in pseudo-random order, each page once per round."""

    __slots__ = ("_random", "_step", "_walk", "_write_share")

    def __init__(self, context: WorkloadContext) -> None:
        self._walk = CyclicWalk(context.total_pages, context.rng)
        self._step = self._walk.step
        self._random = context.rng.random
        self._write_share = context.write_share

    def next_access(self) -> Access:
        """The next page of the chain."""
        return Access(self._step(), self._random() < self._write_share)

    def __repr__(self) -> str:
        return f"<PointerChase through {self._walk.size} pages>"
