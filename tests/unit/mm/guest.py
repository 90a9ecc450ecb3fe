"""A guest mapping ready for post-copy, on TINY: 16 pages of 4K in a hugepage, 4 PMDs of 4 pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migemu.mm import MADV_SPLIT, TINY, AddressSpace, Geometry, Level

KIB4 = 4096


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
        populated: bool = True,
        features: int = 0,
        hgm: str = "v2",
        tables_max: int | None = None,
    ) -> None:
        self.woken: list[tuple[int, int]] = []
        self.space = AddressSpace(
            geometry,
            hgm=hgm,  # type: ignore[arg-type]
            on_wake=lambda vcpu, addr: self.woken.append((vcpu, (addr - self.base) // KIB4)),
            tables_max=tables_max,
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
        if minor or missing:
            self.uffd.register(self.base, self.length, minor=minor, missing=missing)

    def at(self, page: int) -> int:
        return self.base + page * KIB4

    def continue_(self, first: int, count: int, dontwake: bool = False) -> int:
        """Pages, not bytes."""
        return self.uffd.continue_(self.at(first), count * KIB4, dontwake) // KIB4

    def advise(self, first: int, count: int, advice: int) -> None:
        self.space.madvise(self.at(first), count * KIB4, advice)

    def map(self) -> str:
        """The first hugepage, a letter a page: U, M, t for a PUD, PMD, PTE leaf, P poison, '.' none."""
        letters = []
        for page in range(self.space.geometry.pages(Level.PUD)):
            level, kind = self.space.walk(self.at(page))
            letter = {Level.PTE: "t", Level.PMD: "M", Level.PUD: "U"}[level]
            letters.append({"NONE": ".", "LEAF": letter, "POISON": "P"}[kind.name])
        return "".join(letters)

    @property
    def tables(self) -> int:
        return self.space.page_table_bytes(self.base) // KIB4


MakeGuest = Callable[..., Guest]


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block must end in an OSError with the errno `number`."""
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"):
        yield
