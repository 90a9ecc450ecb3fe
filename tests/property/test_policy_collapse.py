"""Collapse policies against a naive view of memory that carries out collapses at once, or late, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm.pages import TINY, X86_64, Geometry, Level, PageBitmap, PageIndex, Span
from migemu.policy.collapse_policy import collapse_policies

SPECS = ("never", "at_end", "eager", "direct", "batched", "batched:spans=1", "batched:spans=3", "budget:stall=10ms")
COLLAPSING = tuple(spec for spec in SPECS if spec != "never")


class NaiveDestination:
    """Which size maps each page, page by page; a queue of proposed collapses, carried out in order."""

    def __init__(self, spec: str, geometry: Geometry, total: int) -> None:
        self.geometry = geometry
        self.received = PageBitmap(geometry, total)
        self.mapped = PageBitmap(geometry, total)
        self.entry: list[Level | None] = [None] * total
        self.policy = collapse_policies.create(spec, geometry)
        self.queue: deque[Span] = deque()
        self.ever_proposed: set[Span] = set()
        self.now_ns = 0

    def faults_in(self, span: Span) -> int:
        return 0

    def collapse_ns(self, span: Span) -> int:
        return 0

    def is_leaf(self, span: Span) -> bool:
        level = self.entry[span.first]
        return level is not None and level >= span.level

    def arrive(self, first: PageIndex, count: int, level: Level) -> None:
        """Pieces of `level` were received and continued; what had been mapped before is left alone."""
        count = min(count, self.mapped.total - first)
        if level == Level.PMD and self.mapped.count(first, count):
            level = Level.PTE
        self.received.add(first, count)
        for page in range(first, first + count):
            if self.entry[page] is None:
                self.entry[page] = level
        self.mapped.add(first, count)
        self.propose(self.policy.mapped(first, count, self))

    def propose(self, spans: Sequence[Span]) -> None:
        for span in spans:
            assert span.level in (Level.PMD, Level.PUD)
            assert span.first % self.geometry.pages(span.level) == 0
            assert self.received.full(span), f"{span} was proposed before it had been received"
            assert self.mapped.full(span), f"{span} was proposed before it had been mapped"
            assert not self.is_leaf(span), f"{span} was proposed although it is a leaf"
            assert span not in self.ever_proposed, f"{span} was proposed twice"
            self.ever_proposed.add(span)
            self.queue.append(span)

    def carry_out_one(self) -> None:
        if self.queue:
            span = self.queue.popleft()
            pages = self.geometry.pages(span.level)
            self.entry[span.first : span.first + pages] = [span.level] * pages
            self.propose(self.policy.collapsed(span, self))

    def end(self) -> None:
        self.propose(self.policy.ended(self))
        while self.queue:
            self.carry_out_one()


@pytest.mark.parametrize("spec", SPECS)
@settings(derandomize=True, deadline=None, max_examples=150)
@given(hugepages=st.integers(1, 3), seed=st.integers(0, 2**32), late=st.integers(0, 3))
def test_any_order_of_arrival(spec: str, hugepages: int, seed: int, late: int) -> None:
    """4K and 2M pieces in any order, runs and duplicates among them; `late` of 4 collapses are left for later."""
    order, total = Random(seed), hugepages * 16
    destination = NaiveDestination(spec, TINY, total)
    while not destination.mapped.complete:
        if order.random() < 0.2:
            destination.arrive(order.randrange(0, total, 4), 4, Level.PMD)
        else:
            destination.arrive(order.randrange(total), order.randint(1, 6), Level.PTE)
        while destination.queue and order.randrange(4) >= late:
            destination.carry_out_one()
    destination.end()
    if spec == "never":
        assert destination.ever_proposed == set()
    else:
        assert destination.entry == [Level.PUD] * total


@pytest.mark.parametrize("spec", COLLAPSING)
def test_the_end_may_come_before_any_collapse(spec: str) -> None:
    destination = NaiveDestination(spec, TINY, 32)
    for page in range(32):
        destination.arrive(page, 1, Level.PTE)
    destination.end()
    assert destination.entry == [Level.PUD] * 32


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_collapsed_that_has_a_hole(spec: str) -> None:
    """One page of each 2M is missing: no policy proposes anything, not even when told that it is the end."""
    destination = NaiveDestination(spec, TINY, 32)
    for page in range(32):
        if page % 4 != 2:
            destination.arrive(page, 1, Level.PTE)
    destination.end()
    assert destination.ever_proposed == set()


@pytest.mark.parametrize("spec", COLLAPSING)
def test_1g(spec: str) -> None:
    total = X86_64.pages(Level.PUD)
    destination = NaiveDestination(spec, X86_64, total)
    runs = list(range(0, total, 64))
    Random(1).shuffle(runs)
    for first in runs:
        destination.arrive(first, 64, Level.PTE)
        while destination.queue:
            destination.carry_out_one()
    destination.end()
    assert destination.entry == [Level.PUD] * total
    steps = [span.level for span in destination.ever_proposed]
    assert steps.count(Level.PUD) == 1
    assert steps.count(Level.PMD) == (0 if spec in ("at_end", "direct") else 512)
