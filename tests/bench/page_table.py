"""The model of the page table alone: how many entries a second, without any bytes behind them.

    continue_1      UFFDIO_CONTINUE of 1 GiB in 4K pieces, one call each
    continue_64     the same by runs of 64 pieces (each piece still an entry of its own), and of 512
    collapse_2m     MADV_COLLAPSE of 4K entries to 2M, one call each
    collapse_1g     MADV_COLLAPSE of 2M entries to 1G, one call each
    bare_1          the baseline of continue_1: a byte a piece, a count a 2M, nothing else
    tib_at_4k       memory that a mapping of 1 TiB takes, all of it at 4K

Every figure but the last is in pieces continued, or collapses done, per second. All run on fresh tables.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any, Final

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, X86_64, AddressSpace, Level, UffdFeature, Userfaultfd
from migemu.units import GIB, MIB, SECOND, TIB
from tests.bench.nodes import Seat

_PAGE: Final = X86_64.size(Level.PTE)
_PMD: Final = X86_64.size(Level.PMD)
_PUD: Final = X86_64.size(Level.PUD)
_HUGEPAGES_1G: Final = 16


def _space(memory_bytes: int) -> tuple[AddressSpace, Userfaultfd, int]:
    """A populated HGM mapping that is watched for minor faults."""
    space = AddressSpace(X86_64)
    start = space.mmap_hugetlb(memory_bytes, Level.PUD)
    space.populate(start, memory_bytes)
    space.madvise(start, memory_bytes, MADV_SPLIT)
    uffd = space.userfaultfd(UffdFeature.MINOR_HUGETLBFS)
    uffd.register(start, memory_bytes, minor=True)
    return space, uffd, start


def _continues(pieces: int) -> tuple[float, AddressSpace, int]:
    """Pieces a second in runs of `pieces`, and what they filled."""
    space, uffd, start = _space(1 * GIB)
    begin = time.monotonic_ns()
    if pieces == 1:
        for addr in range(start, start + GIB, _PAGE):
            uffd.continue_(addr, _PAGE)
    else:
        for addr in range(start, start + GIB, pieces * _PAGE):
            uffd.continue_run(addr, Level.PTE, pieces)
    return GIB // _PAGE * SECOND / (time.monotonic_ns() - begin), space, start


def _collapses(space: AddressSpace, start: int, end: int, size: int) -> float:
    begin = time.monotonic_ns()
    for addr in range(start, end, size):
        space.madvise(addr, size, MADV_COLLAPSE)
    return (end - start) // size * SECOND / (time.monotonic_ns() - begin)


def _bare() -> float:
    """The least that counts pieces: what continue_1 is to be compared with."""
    pieces, per_pmd = GIB // _PAGE, _PMD // _PAGE
    pages, counts = bytearray(pieces), [0] * (pieces // per_pmd)
    begin = time.monotonic_ns()
    for page in range(pieces):
        if not pages[page]:
            pages[page] = 1
            counts[page // per_pmd] += 1
    return pieces * SECOND / (time.monotonic_ns() - begin)


def _tib_bytes() -> int:
    """What the interpreter allocates for 1 TiB mapped at 4K, in bytes, by runs of 1M as they would arrive."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        space, uffd, start = _space(TIB)
        for addr in range(start, start + TIB, MIB):
            uffd.continue_run(addr, Level.PTE, MIB // _PAGE)
        after, _ = tracemalloc.get_traced_memory()
        assert space.leaves(start)[Level.PTE] == TIB // _PAGE
        return after - before
    finally:
        tracemalloc.stop()


async def measure(_seat: Seat) -> dict[str, Any]:
    """One run of all of them."""
    rates: dict[str, Any] = {}
    for pieces in (1, 64, 512):
        rates[f"continue_{pieces}"], space, start = _continues(pieces)
    rates["collapse_2m"] = _collapses(space, start, start + GIB, _PMD)
    space, uffd, start = _space(_HUGEPAGES_1G * _PUD)
    uffd.continue_run(start, Level.PMD, _HUGEPAGES_1G * _PUD // _PMD)
    rates["collapse_1g"] = _collapses(space, start, start + _HUGEPAGES_1G * _PUD, _PUD)
    rates["bare_1"] = _bare()
    rates["tib_at_4k"] = _tib_bytes()
    return rates
