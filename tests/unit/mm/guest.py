"""A guest mapping ready for post-copy, on TINY: 16 pages of 4K in a hugepage, 4 PMDs of 4 pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from migemu.mm import MADV_SPLIT, TINY, AddressSpace, EntryKind, GatherStep, Geometry, Level

KIB4 = 4096

#: TINY with contiguous levels: CONT_PTE of 2 pages, CONT_PMD of 2 PMDs.
TINY_CONT = Geometry("tiny_cont", {Level.PTE: 12, Level.CONT_PTE: 13, Level.PMD: 14, Level.CONT_PMD: 15, Level.PUD: 16})

_LEAVES = {Level.PTE: "t", Level.CONT_PTE: "c", Level.PMD: "M", Level.CONT_PMD: "C", Level.PUD: "U"}
_OTHERS = {EntryKind.NONE: ".", EntryKind.WP_MARKER: "w", EntryKind.POISON: "P", EntryKind.MIGRATION: "m"}


class Guest:
    """An address space with one mapping; addresses are given in pages from its start."""

    def __init__(
        self,
        geometry: Geometry = TINY,
        hstate: Level = Level.PUD,
        hugepages: int = 2,
        *,
        split: bool = True,
        minor: bool = True,
        missing: bool = False,
        wp: bool = False,
        populated: bool = True,
        features: int = 0,
        **options: Any,
    ) -> None:
        self.woken: list[tuple[int, int]] = []
        self.steps: list[GatherStep] = []
        self.space = AddressSpace(
            geometry,
            on_wake=lambda vcpu, addr: self.woken.append((vcpu, (addr - self.base) // KIB4)),
            on_gather=self.steps.append,
            **options,
        )
        self.length = hugepages * geometry.size(hstate)
        self.pages = self.length // KIB4
        self.base = self.space.mmap_hugetlb(self.length, hstate)
        self.file = self.space.file(self.base)
        if populated:
            self.space.populate(self.base, self.length)
        if split:
            self.space.madvise(self.base, self.length, MADV_SPLIT)
        self.uffd = self.space.userfaultfd(features)
        if minor or missing or wp:
            self.uffd.register(self.base, self.length, minor=minor, missing=missing, wp=wp)

    def at(self, page: int) -> int:
        return self.base + page * KIB4

    def continue_(self, first: int, count: int, dontwake: bool = False, wp: bool = False) -> int:
        """Pages, not bytes."""
        return self.uffd.continue_(self.at(first), count * KIB4, dontwake, wp) // KIB4

    def protect(self, first: int, count: int, on: bool = True) -> None:
        self.uffd.writeprotect(self.at(first), count * KIB4, on)

    def advise(self, first: int, count: int, advice: int) -> None:
        self.space.madvise(self.at(first), count * KIB4, advice)

    def map(self, space: AddressSpace | None = None) -> str:
        """The first hugepage, a letter a page.

        U, M, t for a PUD, PMD, PTE leaf, C and c for contiguous ones; P poison, m migration, w marker, '.' none.
        """
        space = space or self.space
        letters = []
        for page in range(space.geometry.pages(Level.PUD)):
            level, kind = space.walk(self.at(page))
            letters.append(_LEAVES[level] if kind == EntryKind.LEAF else _OTHERS[kind])
        return "".join(letters)

    def protected(self, space: AddressSpace | None = None) -> str:
        """The first hugepage, a letter a page: 'w' where pagemap would show the uffd-wp bit."""
        space = space or self.space
        pages = range(space.geometry.pages(Level.PUD))
        return "".join("w" if space.is_uffd_wp(self.at(page)) else "." for page in pages)

    @property
    def tables(self) -> int:
        return self.space.page_table_bytes(self.base) // KIB4


MakeGuest = Callable[..., Guest]


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block must end in an OSError with the errno `number`."""
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"):
        yield
