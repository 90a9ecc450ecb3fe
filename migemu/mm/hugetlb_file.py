"""The page cache of one hugetlb file: which hugepages hold bytes, and the state of their folios.

What this models
    A memfd or hugetlbfs file of hugepages of one size. Presence of bytes here and access to them in a page table are
    two things (section 8, I3); a file can be mapped several times (primary and alias, 1.1).

Rules
    1. The page cache holds whole hugepages; which 4K of one have arrived is userspace's own bookkeeping (3.2).
    2. Each leaf holds one reference on the head page (1.3); `refs` counts the leaves only, not the page cache's own.
    3. A poisoned hugepage stays in the page cache, so that nobody reads a fresh zero page in its place (3.4).

Simplified
    No bytes, no NUMA node, no reservation. The whole file is mapped from offset 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from migemu.mm.pages import Geometry, Level

if TYPE_CHECKING:
    from migemu.mm.page_table import PageTable

#: Bits of `folios`: in the page cache; hwpoisoned (3.4); isolated for migration (2.1 step 3).
CACHED: Final = 1
HWPOISON: Final = 2
ISOLATED: Final = 4
#: A folio can be mapped if these bits of it are CACHED alone.
MAPPABLE: Final = CACHED | HWPOISON


class HugetlbFile:
    """A file of `hugepages` hugepages of `hstate` size. `folios[i]` is 0 while hugepage i is not in the page cache."""

    __slots__ = ("folios", "geometry", "hstate", "hugepages", "refs", "tables")

    def __init__(self, geometry: Geometry, hstate: Level, hugepages: int) -> None:
        self.geometry = geometry
        self.hstate = hstate
        self.hugepages = hugepages
        self.folios = bytearray(hugepages)
        self.refs = [0] * hugepages
        self.tables: list[PageTable] = []  # every page table that maps this file: the reverse map

    def populate(self, first: int, end: int) -> None:
        """Hugepages `[first, end)` are in the page cache from now on."""
        for index in range(first, end):
            self.folios[index] |= CACHED

    def isolate(self, index: int) -> None:
        """Take the folio off its list, as migration does first; collapse gets EBUSY until `putback` (2.2)."""
        if self.folios[index] != CACHED:
            raise ValueError(f"hugepage {index} cannot be isolated: not cached, poisoned, or isolated already")
        self.folios[index] |= ISOLATED

    def putback(self, index: int) -> None:
        """Undo `isolate`."""
        if not self.folios[index] & ISOLATED:
            raise ValueError(f"hugepage {index} is not isolated")
        self.folios[index] &= ~ISOLATED

    def poison(self, index: int) -> None:
        """The whole hugepage is bad: every leaf that maps any of it, in every mapping, becomes a poison entry (3.4)."""
        self.folios[index] |= HWPOISON
        for table in self.tables:
            table.poison(index)

    def __repr__(self) -> str:
        cached = self.hugepages - self.folios.count(0)
        return f"<HugetlbFile {cached}/{self.hugepages} cached, {self.geometry.size(self.hstate)} bytes each>"
