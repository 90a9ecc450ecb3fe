"""The page cache of one hugetlb file: which hugepages hold bytes, and the state of their folios.

What this models
    A memfd or hugetlbfs file of hugepages of one size. Presence of bytes here and access to them in a page table are
    two things (SEMANTICS I3); a file can be mapped several times (primary and alias, SEMANTICS 1.1).

Rules
    1. The page cache holds whole hugepages; which 4K of one have arrived is userspace's own bookkeeping
       (SEMANTICS 3.2).
    2. Each leaf holds one reference on the head page; one more than the count can hold is refused (SEMANTICS 1.3).
       `refs` counts the leaves only, not the page cache's own.
    3. A poisoned hugepage stays in the page cache, so that nobody reads a fresh zero page in its place (SEMANTICS 3.4).
       Where only some of its base pages are bad, `bad` says which.
    4. Migration isolates the folio, then makes a migration entry of every leaf that maps it, in all mappings, and
       later the leaves again; write protection stays (SEMANTICS 3.8).

Simplified
    No bytes, no NUMA node, no reservation. The whole file is mapped from offset 0. The folio lock that a migration
    holds makes nobody wait who meets a hole instead of a migration entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from migemu.mm.entries import MIGRATED, MIGRATING, POISONED
from migemu.mm.hugepage_entries import rewrite_entries
from migemu.mm.page_table import PageTable
from migemu.mm.pages import Geometry, Level, PageIndex

#: Bits of `folios`: in the page cache; hwpoisoned (SEMANTICS 3.4); isolated for migration (SEMANTICS 2.1 step 3); its
#: leaves are migration entries now.
CACHED: Final = 1
HWPOISON: Final = 2
ISOLATED: Final = 4
UNMAPPED: Final = 8
#: A folio can be mapped if these bits of it are CACHED alone.
MAPPABLE: Final = CACHED | HWPOISON

#: The largest reference count of a folio, a 31-bit count (SEMANTICS 1.3).
REFS_MAX: Final = 2**31 - 1
#: HGM v1 does not look whether the count overflows (1.3 has the check of v2); here nothing wraps around.
UNCHECKED: Final = 2**63 - 1


class MapsFile(Protocol):
    """What the reverse map of a file knows of a VMA (`vma.Vma` is one)."""

    start: int
    end: int
    hgm: bool

    @property
    def table(self) -> PageTable:
        """The page table that has the entries."""

    @property
    def shared(self) -> bool:
        """Whether the mapping is shared."""

    def hugepage(self, addr: int) -> int:
        """The index of the hugepage at `addr`."""


class HugetlbFile:
    """A file of `hugepages` hugepages of `hstate` size. `folios[i]` is 0 while hugepage i is not in the page cache."""

    __slots__ = ("bad", "folios", "geometry", "hstate", "hugepages", "i_mmap", "refs", "refs_max")

    def __init__(self, geometry: Geometry, hstate: Level, hugepages: int) -> None:
        self.geometry = geometry
        self.hstate = hstate
        self.hugepages = hugepages
        self.folios = bytearray(hugepages)
        self.refs = [0] * hugepages
        self.refs_max = REFS_MAX
        self.bad: dict[int, set[PageIndex]] = {}  # by hugepage: its bad base pages, if it is not bad as a whole
        self.i_mmap: list[MapsFile] = []  # every VMA that maps this file, in every address space: the reverse map

    def populate(self, first: int, end: int) -> None:
        """Hugepages `[first, end)` are in the page cache from now on."""
        for index in range(first, end):
            self.folios[index] |= CACHED

    def isolate(self, index: int) -> None:
        """Take the folio off its list, as migration does first; collapse gets EBUSY until `putback` (SEMANTICS 2.2).

        ValueError: not in the page cache, poisoned, or isolated already.
        """
        if self.folios[index] != CACHED:
            raise ValueError(f"hugepage {index} cannot be isolated: not cached, poisoned, or isolated already")
        self.folios[index] |= ISOLATED

    def putback(self, index: int) -> None:
        """Undo `isolate`. ValueError: not isolated, or migration entries are still in place."""
        if self.folios[index] & (ISOLATED | UNMAPPED) != ISOLATED:
            raise ValueError(f"hugepage {index} is not isolated, or has migration entries")
        self.folios[index] &= ~ISOLATED

    def try_to_migrate(self, index: int) -> None:
        """Isolate the folio, if it is not yet, and turn every leaf that maps it into a migration entry of its level.

        ValueError as `isolate`, or migration entries are in place already.
        """
        if not self.folios[index] & ISOLATED:
            self.isolate(index)
        if self.folios[index] & UNMAPPED:
            raise ValueError(f"hugepage {index} has migration entries already")
        self.folios[index] |= UNMAPPED
        self._rewrite(index, MIGRATING)

    def remove_migration_ptes(self, index: int) -> None:
        """Make the migration entries leaves again and put the folio back. ValueError: there are none."""
        if not self.folios[index] & UNMAPPED:
            raise ValueError(f"hugepage {index} has no migration entries")
        self._rewrite(index, MIGRATED)
        self.folios[index] &= ~(ISOLATED | UNMAPPED)

    def poison(self, index: int) -> None:
        """The whole hugepage is bad: every leaf over it, in every mapping, becomes a poison entry (SEMANTICS 3.4).

        ValueError: it has migration entries; memory_failure would wait for the folio lock.
        """
        if self.folios[index] & UNMAPPED:
            raise ValueError(f"hugepage {index} is being migrated")
        self.folios[index] |= HWPOISON
        self.bad.pop(index, None)
        self._rewrite(index, POISONED)

    def healthy(self, page: PageIndex, count: int) -> int:
        """How many of `count` base pages of one hugepage from `page` on can be mapped, before the first that is bad."""
        hugepage = page // self.geometry.pages(self.hstate)
        if not self.folios[hugepage] & HWPOISON:
            return count
        if hugepage not in self.bad:
            return 0
        return min((bad - page for bad in self.bad[hugepage] if page <= bad < page + count), default=count)

    def mapped_by(self, index: int) -> Iterator[MapsFile]:
        """The VMAs that hold hugepage `index`."""
        for vma in self.i_mmap:
            if vma.hugepage(vma.start) <= index < vma.hugepage(vma.end):
                yield vma

    @property
    def hardware_corrupted(self) -> int:
        """Base pages that are poisoned: HardwareCorrupted of /proc/meminfo, for this file (SEMANTICS 3.4, 10.1)."""
        whole = sum(bool(folio & HWPOISON) for folio in self.folios) - len(self.bad)
        return whole * self.geometry.pages(self.hstate) + sum(map(len, self.bad.values()))

    def _rewrite(self, index: int, mapping: bytes) -> None:
        """Rewrite the entries of one hugepage in every mapping."""
        for vma in self.mapped_by(index):
            rewrite_entries(vma.table, index, mapping)

    def __repr__(self) -> str:
        cached = self.hugepages - self.folios.count(0)
        return f"<HugetlbFile {cached}/{self.hugepages} cached, {self.geometry.size(self.hstate)} bytes each>"
