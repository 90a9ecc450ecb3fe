"""The page cache of one file in the naive model: three sets of numbers, and every table that maps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from migemu.mm import Geometry, Level
from tests.exhaustive.naive_table import NaiveTable, Slot

if TYPE_CHECKING:
    from tests.exhaustive.naive_mm import NaiveMm

MAPCOUNTS = ("hstate", "head_only", "thp_like")


@dataclass
class NaiveFile:
    """`hugepages` hugepages of `hstate` size. Pages of a file are counted from its beginning."""

    geometry: Geometry
    hstate: Level
    hugepages: int
    by_page: bool = False  # hwpoison="page"
    refs_max: int = 2**31 - 1
    cached: set[int] = field(default_factory=set)  # hugepages
    isolated: set[int] = field(default_factory=set)  # hugepages
    unmapped: set[int] = field(default_factory=set)  # hugepages between try_to_migrate and remove_migration_ptes
    bad: set[int] = field(default_factory=set)  # base pages
    maps: list[NaiveTable] = field(default_factory=list)
    mms: list[NaiveMm] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.geometry.pages(self.hstate)

    def hugepage(self, page: int) -> int:
        return page // self.size

    def poisoned(self, hugepage: int) -> bool:
        return any(self.hugepage(page) == hugepage for page in self.bad)

    def clean(self, first: int, count: int) -> bool:
        """Whether none of `count` pages from `first` on is poisoned."""
        return not any(first <= page < first + count for page in self.bad)

    def leaves(self, hugepage: int, kind: str = "leaf") -> list[tuple[NaiveTable, Slot]]:
        """All that map any of the hugepage, anywhere."""
        return [
            (table, slot)
            for table in self.maps
            for slot in table.leaves(kind)
            if self.hugepage(slot.first - table.first) == hugepage
        ]

    def refs(self, hugepage: int) -> int:
        """SEMANTICS 1.3: each leaf holds one reference on the head page."""
        return len(self.leaves(hugepage))

    def mapcount(self, page: int, scheme: str) -> int:
        """3.5, of one base page."""
        hugepage = self.hugepage(page)
        if scheme == "hstate":
            first = hugepage * self.size
            return sum(table.kind(Slot(self.hstate, table.first + first)) in ("leaf", "table") for table in self.maps)
        if scheme == "head_only":
            return self.refs(hugepage)
        return sum(table.kind(table.walk(table.first + page)) == "leaf" for table in self.maps)

    def memory_failure(self, page: int) -> None:
        """SEMANTICS 3.4: the 4K way gives every shared VMA that maps the hugepage what MADV_SPLIT does."""
        hugepage = self.hugepage(page)
        whole = range(hugepage * self.size, (hugepage + 1) * self.size)
        self.bad |= {page} if self.by_page else set(whole)
        for vma in (vma for mm in self.mms for vma in mm.vmas if self.by_page and vma.file is self):
            if vma.first <= vma.table.first + page < vma.end:
                vma.table.hgm |= set(range(vma.first, vma.end, self.size))
        for table, slot in self.leaves(hugepage):
            if not self.by_page:
                table.remove(slot)
                table.install(slot, kind="poison")
            elif page + table.first in table.pages_of(slot):
                table.split_around(page + table.first)

    def isolate(self, hugepage: int) -> None:
        self.isolated.add(hugepage)

    def putback(self, hugepage: int) -> None:
        self.isolated.discard(hugepage)

    def try_to_migrate(self, hugepage: int) -> None:
        """Every leaf becomes a migration entry of its level; its write-protection stays."""
        self.isolated.add(hugepage)
        self.unmapped.add(hugepage)
        for table, slot in self.leaves(hugepage):
            table.entries[slot] = "migration"

    def remove_migration_ptes(self, hugepage: int) -> None:
        """The folio is put back, too."""
        self.isolated.discard(hugepage)
        self.unmapped.discard(hugepage)
        for table, slot in self.leaves(hugepage, "migration"):
            table.entries[slot] = "leaf"
