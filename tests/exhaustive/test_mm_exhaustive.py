"""Every order of calls on hugepages small enough for it, against the naive model.

The walk is over states, not sequences: a sequence that leads to a state already seen is not continued, so the whole
space of states of a small geometry is covered, not the first few steps of it.
"""

from __future__ import annotations

from itertools import product

import pytest

from migemu.mm import TINY, Geometry, Level
from tests.exhaustive.naive_mm import NaiveMapping
from tests.exhaustive.twin_mm import Twins

Call = tuple[str, int] | tuple[str, int, int]

#: 2 PMDs of 4 PTEs, and 2 of 2.
SMALL = Geometry("small", {Level.PTE: 12, Level.PMD: 14, Level.PUD: 15})
SMALLEST = Geometry("smallest", {Level.PTE: 12, Level.PMD: 13, Level.PUD: 14})


def ranges(pages: int, aligned: bool = False) -> list[tuple[int, int]]:
    """Every (first, count) within `pages`; if `aligned`, the naturally aligned powers of two only."""
    everything = [(first, end - first) for first, end in product(range(pages), range(1, pages + 1)) if first < end]
    return [(f, n) for f, n in everything if not aligned or (n & (n - 1) == 0 and f % n == 0)]


def calls_on(pages: int, aligned: bool = False) -> list[Call]:
    both = [(name, *each) for name in ("continue_", "collapse") for each in ranges(pages, aligned)]
    return both + [("touch", page) for page in range(pages)]


class Explorer:
    """Breadth first over the states that `calls` lead to, from the one that `prefix` leads to."""

    def __init__(self, geometry: Geometry, hstate: Level, hugepages: int, tables_max: int | None = None) -> None:
        self.make = lambda: Twins(geometry, hstate, hugepages, tables_max)
        self.seen: dict[object, list[Call]] = {}
        self.tried = 0

    def twins_after(self, path: list[Call]) -> Twins:
        twins = self.make()
        for name, *arguments in path:
            twins.do(name, *arguments)
        return twins

    def start(self, prefix: list[Call]) -> list[list[Call]]:
        self.seen[self.twins_after(prefix).naive.key()] = prefix
        return [prefix]

    def step(self, frontier: list[list[Call]], calls: list[Call]) -> list[list[Call]]:
        """Every call from every state of `frontier`; the paths to the states not seen before."""
        fresh = []
        for path, call in product(frontier, calls):
            twins = self.twins_after(path)
            if not makes_sense(twins.naive, call):
                continue
            twins.do(call[0], *call[1:])
            twins.compare()
            self.tried += 1
            key = twins.naive.key()
            if key not in self.seen:
                self.seen[key] = [*path, call]
                fresh.append([*path, call])
        return fresh


def makes_sense(naive: NaiveMapping, call: Call) -> bool:
    """Only a cached, healthy folio is isolated, once; only an isolated one is put back; only a cached one goes bad."""
    if call[0] == "isolate":
        return 0 in naive.cached - naive.poisoned - naive.isolated
    return {"putback": 0 in naive.isolated, "memory_failure": 0 in naive.cached}.get(call[0], True)


def explore_all(explorer: Explorer, prefix: list[Call], calls: list[Call]) -> None:
    frontier = explorer.start(prefix)
    while frontier:
        frontier = explorer.step(frontier, calls)


def test_every_state_of_a_hugepage_of_two_pmds_of_four() -> None:
    """All 326 states that continues, collapses and faults reach, and every call from each."""
    explorer = Explorer(SMALL, Level.PUD, 1)
    explore_all(explorer, [("populate", 0, 1)], calls_on(8))
    slot_states = 2 + 2**4  # a PMD slot: empty, leaf, or a table with any set of its 4 pages
    assert len(explorer.seen) == 2 + slot_states**2


def test_every_state_with_page_cache_poison_and_isolation() -> None:
    """The same on 2 PMDs of 2: bytes missing at first, the hugepage going bad or being isolated at any time."""
    explorer = Explorer(SMALLEST, Level.PUD, 1)
    extra: list[Call] = [("populate", 0, 1), ("memory_failure", 0), ("isolate", 0), ("putback", 0)]
    explore_all(explorer, [], [*calls_on(4), *extra])
    assert len(explorer.seen) > 150


def test_every_state_of_two_small_hugepages() -> None:
    """Hugepages of PMD size, ranges across their border included."""
    explorer = Explorer(SMALLEST, Level.PMD, 2)
    explore_all(explorer, [("populate", 0, 3)], calls_on(4))
    assert len(explorer.seen) == (2 + 2**2) ** 2


@pytest.mark.parametrize("tables_max", [0, 1, 2])
def test_every_state_with_too_few_page_tables(tables_max: int) -> None:
    """ENOMEM at any table of a walk: what was allocated before it stays."""
    explorer = Explorer(SMALLEST, Level.PUD, 1, tables_max)
    explore_all(explorer, [("populate", 0, 1)], calls_on(4))
    assert explorer.tried > 0


def test_two_calls_deep_on_tiny() -> None:
    """TINY, 16 pages: every call, then every naturally aligned call."""
    explorer = Explorer(TINY, Level.PUD, 1)
    frontier = explorer.start([("populate", 0, 1)])
    frontier = explorer.step(frontier, calls_on(16))
    explorer.step(frontier, calls_on(16, aligned=True))
    assert explorer.tried > 10_000
