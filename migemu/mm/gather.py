"""What a collapse or a zap does to entries and tables, step by step: the mmu_gather and the MMU notifier around it.

What this models
    The order in which leaves are cleared, the new leaf is set, the TLB is flushed and table pages are freed. Nothing
    here takes time; whoever listens (`AddressSpace(on_gather=...)`) may count, charge or check.

Rules
    1. A table page is freed after a flush that follows its clears, never before (SEMANTICS 2.3, I6).
    2. The notifier window covers the whole requested range (SEMANTICS 2.3, I7).
    3. v1: notifier start, gather, lock, loop, unlock, flush and free, notifier end. v2: gather, notifier start, loop,
       notifier end, flush and free (SEMANTICS 2.3). A zap has the order of v2 in both.
    4. The gather flushes early when its batch is full, roughly every 10,000 removed entries (SEMANTICS 2.3).

Simplified
    A batch is looked at after each row of a table, so it holds up to 511 entries more. One step tells of all leaves of
    one level that were cleared one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from migemu.mm.contiguous import count_groups
from migemu.mm.entries import LEAF, WP
from migemu.mm.page_table import CONT_PTE, PTE, PageTable
from migemu.mm.pages import Level, PageIndex
from migemu.mm.vma import Vma

#: Removed entries after which the gather flushes (SEMANTICS 2.3).
GATHER_BATCH: Final = 10_000


class GatherKind(Enum):
    """What happened. The comment names what `level` and `count` say."""

    NOTIFIER_START = "notifier_start"  # nothing more: from here on vCPUs that fault in the range retry (SEMANTICS I7)
    CLEARED = "cleared"  # leaves of `level` cleared, `count` of them
    INSTALLED = "installed"  # leaves of `level` set, `count` of them
    NOTIFIER_END = "notifier_end"
    FLUSHED = "flushed"  # the TLB holds nothing of the range that was cleared before
    FREED = "freed"  # `count` table pages given back


class GatherStep(NamedTuple):
    """One step over bytes `[start, end)`."""

    kind: GatherKind
    start: int
    end: int
    level: Level | None = None
    count: int = 0  # type: ignore[assignment]  # hides tuple.count


OnGather = Callable[[GatherStep], None]


class Gather:
    """The mmu_gather and the notifier of one call over bytes `[start, end)` of `vma`; it tells `listener` each step."""

    __slots__ = (
        "_cleared", "_freed", "_listener", "_mapping", "_page_bytes", "_removed", "_table", "_touched", "end", "start",
    )  # fmt: skip

    def __init__(self, vma: Vma, start: int, end: int, listener: OnGather) -> None:
        self.start, self.end = start, end
        self._listener = listener
        self._mapping, self._table = vma.mapping, vma.mapping.table
        self._page_bytes = vma.mapping.file.geometry.page_bytes
        self._cleared: GatherStep | None = None  # not told yet: more of the same may follow
        self._removed = 0  # entries since the last flush
        self._touched: list[int] = []  # [start, end) that the next flush is about
        self._freed: list[int] = []  # [start, end, table pages] that the next flush lets go

    def notifier_start(self) -> None:
        """mmu_notifier_invalidate_range_start of the whole range."""
        self._listener(GatherStep(GatherKind.NOTIFIER_START, self.start, self.end))

    def notifier_end(self) -> None:
        """Call mmu_notifier_invalidate_range_end for the range."""
        self._tell_cleared()
        self._listener(GatherStep(GatherKind.NOTIFIER_END, self.start, self.end))

    def clear(self, page: PageIndex, pages: int) -> None:
        """The leaves of `pages` pages from `page` on are about to be cleared."""
        for first, end, level, count in leaf_rows(self._table, page, page + pages):
            start, stop = self._address(first), self._address(end)
            told = self._cleared
            if told is not None and told.level == level and told.end <= start:
                self._cleared = told._replace(end=stop, count=told.count + count)
            else:
                self._tell_cleared()
                self._cleared = GatherStep(GatherKind.CLEARED, start, stop, level, count)
            self._touch(start, stop)
            self._removed += count
            if self._removed >= GATHER_BATCH:
                self.flush()

    def free(self, page: PageIndex, pages: int, tables: int) -> None:
        """`tables` table pages of `pages` pages from `page` on are off the page table and wait for the next flush."""
        if not tables:
            return
        start, end = self._address(page), self._address(page + pages)
        self._touch(start, end)
        first = self._freed[0] if self._freed else start
        before = self._freed[2] if self._freed else 0
        self._freed = [first, end, before + tables]

    def install(self, page: PageIndex, pages: int, level: Level) -> None:
        """A leaf of `level` is in place."""
        self._tell_cleared()
        step = GatherStep(GatherKind.INSTALLED, self._address(page), self._address(page + pages), level, 1)
        self._listener(step)

    def flush(self) -> None:
        """tlb_flush_mmu: flush what was cleared, then free the tables whose clears came before."""
        self._tell_cleared()
        if self._touched:
            start, end = self._touched
            self._listener(GatherStep(GatherKind.FLUSHED, start, end))
        if self._freed:
            start, end, tables = self._freed
            self._listener(GatherStep(GatherKind.FREED, start, end, None, tables))
        self._touched, self._freed, self._removed = [], [], 0

    def _touch(self, start: int, end: int) -> None:
        self._touched = [min(start, self._touched[0]) if self._touched else start, end]

    def _tell_cleared(self) -> None:
        if self._cleared is not None:
            self._listener(self._cleared)
            self._cleared = None

    def _address(self, page: PageIndex) -> int:
        return self._mapping.start + page * self._page_bytes


def leaf_rows(table: PageTable, page: PageIndex, end: PageIndex) -> Iterator[tuple[PageIndex, PageIndex, Level, int]]:
    """The leaves of pages `[page, end)` by address, a row of a table at a time: (first, end, level, count)."""
    group = table.geometry.pages(CONT_PTE)
    while page < end:
        level, entry = table.walk_end(page)
        pages = table.geometry.pages(level)
        if level <= CONT_PTE:
            until = min((page | table.pte_mask) + 1, end)
            row = table.ptes[page >> table.pmd_shift][page & table.pte_mask : (until - 1 & table.pte_mask) + 1]
            if count := row.count(LEAF) + row.count(LEAF | WP):
                yield page, until, PTE, count
            if group and (count := count_groups(row, group)):
                yield page, until, CONT_PTE, count
        else:
            until = page + pages
            if entry >= LEAF:
                yield page, until, level, 1
        page = until
