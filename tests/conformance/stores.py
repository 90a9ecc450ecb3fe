"""The guest memories that the suite runs over; another store is one more in `STORES`."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass

from migemu.mm.pages import TINY, X86_64, Geometry, Level
from migemu.ports import GuestMemory
from migemu.store.allocate import allocate
from migemu.store.mapped import MappedMemory


@dataclass(frozen=True, slots=True)
class Store:
    """How a memory of so many hugetlb pages is made. It must be made in a running loop."""

    name: str
    geometry: Geometry
    hugepages: int
    make: Callable[[Geometry, int], GuestMemory]

    def __call__(self) -> GuestMemory:
        return self.make(self.geometry, self.hugepages * self.geometry.size(Level.PUD))


def backed_by(backing: str) -> Callable[[Geometry, int], GuestMemory]:
    return lambda geometry, size: MappedMemory(geometry, size, allocate(size, backing))


def over_nothing_yet(geometry: Geometry, size: int) -> GuestMemory:
    """Address space alone: what a test does not touch costs no memory, so that a real 1G page can be had."""
    return MappedMemory(geometry, size, mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


STORES = (
    Store("anonymous", TINY, 2, backed_by("anonymous")),
    Store("memfd", TINY, 2, backed_by("memfd")),
    Store("real 1G page", X86_64, 1, over_nothing_yet),
)
