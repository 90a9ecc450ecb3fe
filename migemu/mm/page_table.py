"""The multi-level page table of one hugetlb mapping.

What this models
    The part of a page table that HGM changes: the entry of each hugepage (at the *hstate* level, PUD for 1G pages, PMD
    for 2M pages) and the tables below it. Pages are counted from the start of the mapping, which is PUD-aligned.

Rules (sections of kernel-semantics)
    1. Every address has at most one leaf; a slot is empty, marker, leaf, table, migration or poison (8, I1).
    2. The PFN of a leaf is the hugepage's base plus the offset, so it is not stored (8, I2).
    3. Only blank entries (empty or uffd-wp marker) are ever split; splitting a marker copies it to all children (3.3).
    4. Each leaf holds one reference on the head page (1.3).

Words
    entry   one slot of a table, one byte here: an `EntryKind`
    leaf    an entry that maps memory; *table*: an entry that points to a lower table; *blank*: empty or marker
    reach   walk down to an entry of a given level, allocating tables through blank entries (1.3, 2.1 step 1)

How it is stored
    One row per level: `puds` is one byte an entry; `pmds[pud]` and `ptes[pmd]` are the tables, or NO_TABLE. A PTE table
    whose entries are all alike is a shared constant, any other a bytearray; so 1 GiB at 4K costs a few KiB. With 2M
    hugepages the PMD tables belong to the mm and always exist; they are not counted. `access[pmd]` is a second look at
    the same: one byte per base page, LEAF or more where an access needs no fault, whatever the level of the leaf.

Simplified
    Permission bits are not kept: a leaf is writable if the VMA is. No accessed and dirty bits. Contiguous (CONT) levels
    are not mapped yet.
"""

from __future__ import annotations

import errno
from array import array
from enum import IntEnum
from functools import cache
from typing import Final, NamedTuple

from migemu.mm.pages import Geometry, Level, PageIndex


class EntryKind(IntEnum):
    """What an entry is. Values up to WP_MARKER are blank, values from LEAF on map memory."""

    NONE = 0
    WP_MARKER = 1
    TABLE = 2
    MIGRATION = 3
    POISON = 4
    LEAF = 8


class Entry(NamedTuple):
    """Where a walk ends: the first entry that is not a table."""

    level: Level
    kind: EntryKind


# The hot paths compare plain ints; an attribute of an Enum class costs as much as the comparison.
NONE: Final = int(EntryKind.NONE)
WP_MARKER: Final = int(EntryKind.WP_MARKER)
TABLE: Final = int(EntryKind.TABLE)
POISON: Final = int(EntryKind.POISON)
LEAF: Final = int(EntryKind.LEAF)
PTE: Final = Level.PTE
PMD: Final = Level.PMD
PUD: Final = Level.PUD

#: What `reach` answers when a larger leaf, a migration or a poison entry ends the walk above the wanted level.
BLOCKED: Final = -1

Table = bytes | bytearray
NO_TABLE: Final = bytearray()

_BLANK: Final = bytes((NONE, WP_MARKER))
_BLANK_TO_LEAF: Final = bytes.maketrans(_BLANK, bytes((LEAF, LEAF)))
_LEAF_TO_POISON: Final = bytes.maketrans(bytes((LEAF,)), bytes((POISON,)))


@cache
def uniform_table(kind: int, width: int) -> bytes:
    """The shared table of `width` entries that are all of `kind`."""
    return bytes((kind,)) * width


@cache
def _runs(kind: int, width: int) -> tuple[bytes, ...]:
    """Rows of 0, 1, ... `width` entries of `kind`: to compare and to copy slices without building them each time."""
    return tuple(bytes((kind,)) * count for count in range(width + 1))


class PageTable:
    """The page table of `hugepages` hugepages of `hstate` size; `refs[i]` counts the leaves of hugepage i.

    `tables_max` bounds the tables below the hstate level; one more is ENOMEM (1.3, 2.2). None is no bound.
    """

    __slots__ = (
        "_all_leaf", "_leaf_runs", "_no_leaf", "_none_runs", "access", "geometry", "hstate", "hstate_shift",
        "hugepages", "leaves", "pages", "pmd_fill", "pmd_mask", "pmd_shift", "pmd_width", "pmds", "pte_fill",
        "pte_mask", "pte_width", "ptes", "pud_shift", "puds", "refs", "sizes", "small_mask", "tables", "tables_max",
    )  # fmt: skip

    def __init__(
        self, geometry: Geometry, hstate: Level, hugepages: int, refs: list[int], tables_max: int | None = None
    ) -> None:
        if geometry.levels != (PTE, PMD, PUD) or hstate not in (PMD, PUD):
            raise ValueError(f"{geometry.name} with hugepages of {hstate!r} is not modelled; use PMD or PUD hugepages")
        self.geometry, self.hstate, self.hugepages, self.refs = geometry, hstate, hugepages, refs
        self.tables_max = tables_max
        self.pages = hugepages * geometry.pages(hstate)
        self.pte_width = geometry.pages(PMD)
        self.pmd_width = geometry.pages(PUD) // self.pte_width
        self.pte_mask, self.pmd_mask = self.pte_width - 1, self.pmd_width - 1
        self.pmd_shift = self.pte_width.bit_length() - 1
        self.pud_shift = self.pmd_shift + self.pmd_width.bit_length() - 1
        self.hstate_shift = self.pud_shift if hstate == PUD else self.pmd_shift
        #: Sizes one leaf can have, largest first, and the mask of the smallest above PTE (1.3).
        self.sizes = tuple((geometry.pages(level), level) for level in reversed(geometry.levels) if level <= hstate)
        self.small_mask = self.sizes[-2][0] - 1
        self._none_runs = _runs(NONE, self.pte_width)
        self._leaf_runs = _runs(LEAF, self.pte_width)
        self._all_leaf = uniform_table(LEAF, self.pte_width)
        self._no_leaf = uniform_table(NONE, self.pte_width)
        puds = -(-self.pages // geometry.pages(PUD))
        self.ptes: list[Table] = [NO_TABLE] * (puds * self.pmd_width)
        self.access: list[Table] = [self._no_leaf] * len(self.ptes)
        self.pte_fill = array("H", bytes(2 * len(self.ptes)))  # leaves in each PTE table
        if hstate == PUD:
            self.puds = bytearray(puds)
            self.pmds = [NO_TABLE] * puds
        else:
            self.puds = bytearray((TABLE,)) * puds
            self.pmds = [bytearray(self.pmd_width) for _ in range(puds)]
        self.pmd_fill = [0] * puds  # leaves in each PMD table
        self.leaves = [0] * (PUD + 1)  # by level
        self.tables = 0

    # ------------------------------------------------------------------------------------------------ looking

    def walk(self, page: PageIndex) -> Entry:
        """The first entry over `page` that is not a table."""
        level, kind = self.walk_end(page)
        return Entry(level, EntryKind(kind))

    def walk_end(self, page: PageIndex) -> tuple[Level, int]:
        """The walk as plain values: (level, kind)."""
        pmd = page >> self.pmd_shift
        if table := self.ptes[pmd]:
            return PTE, table[page & self.pte_mask]
        pud = page >> self.pud_shift
        if table := self.pmds[pud]:
            return PMD, table[pmd & self.pmd_mask]
        return PUD, self.puds[pud]

    def leaves_of(self, hugepage: int) -> int:
        """Leaf entries that map any of `hugepage`: the references it has from here (1.3)."""
        first = hugepage << self.hstate_shift
        return sum(self.count_leaves(first, first + (1 << self.hstate_shift)))

    def count_leaves(self, first: PageIndex, end: PageIndex) -> list[int]:
        """Leaf entries by level in pages `[first, end)`, which are whole hugepages."""
        if (first, end) == (0, self.pages):
            return list(self.leaves)
        counts = [0] * (PUD + 1)
        pmd, pmd_end = first >> self.pmd_shift, end >> self.pmd_shift
        counts[PTE] = sum(self.pte_fill[pmd:pmd_end])
        if self.hstate == PUD:
            pud, pud_end = first >> self.pud_shift, end >> self.pud_shift
            counts[PMD] = sum(self.pmd_fill[pud:pud_end])
            counts[PUD] = self.puds.count(LEAF, pud, pud_end)
        else:
            entries = (self.pmds[at // self.pmd_width][at & self.pmd_mask] for at in range(pmd, pmd_end))
            counts[PMD] = sum(kind == LEAF for kind in entries)
        return counts

    def largest(self, page: PageIndex, end: PageIndex) -> tuple[int, Level]:
        """The largest leaf size, in pages, that is aligned at `page` and fits before `end`, and its level (1.3)."""
        if end - page <= self.small_mask:
            return 1, PTE
        for pages, level in self.sizes:
            if not page & (pages - 1) and page + pages <= end:
                return pages, level
        raise AssertionError(f"no leaf fits in the empty range [{page}, {end})")

    # ----------------------------------------------------------------------------------------------- changing

    def reach(self, page: PageIndex, level: Level) -> int:
        """The kind of the entry of `level` over `page`, allocating tables through blank entries (1.3, 2.1 step 1).

        BLOCKED when the walk ends above `level`. OSError ENOMEM when a table cannot be allocated; the tables
        allocated before it stay.
        """
        pmd, pud = page >> self.pmd_shift, page >> self.pud_shift
        if level == PTE and (table := self.ptes[pmd]):
            return table[page & self.pte_mask]
        kind = self.puds[pud]
        if level == PUD:
            return kind
        if kind != TABLE:
            if kind > WP_MARKER:
                return BLOCKED
            self._allocate_table()
            self.pmds[pud] = bytearray((kind,)) * self.pmd_width
            self.puds[pud] = TABLE
        kind = self.pmds[pud][pmd & self.pmd_mask]
        if level == PMD:
            return kind
        if kind != TABLE:
            if kind > WP_MARKER:
                return BLOCKED
            self._allocate_table()
            self.ptes[pmd] = self.access[pmd] = uniform_table(kind, self.pte_width)
            self.pmds[pud][pmd & self.pmd_mask] = TABLE
        return self.ptes[pmd][page & self.pte_mask]

    def install(self, page: PageIndex, level: Level) -> None:
        """Make the blank entry of `level` over `page` a leaf; it must exist (see `reach`)."""
        if level == PTE:
            self.install_pte(page)
            return
        pud = page >> self.pud_shift
        pmd = page >> self.pmd_shift
        if level == PMD:
            self.pmds[pud][pmd & self.pmd_mask] = LEAF
            self.pmd_fill[pud] += 1
            self.access[pmd] = self._all_leaf
        else:
            self.puds[pud] = LEAF
            first = pud * self.pmd_width
            self.access[first : first + self.pmd_width] = [self._all_leaf] * self.pmd_width
        self.leaves[level] += 1
        self.refs[page >> self.hstate_shift] += 1

    def install_pte(self, page: PageIndex) -> None:
        """`install` of a PTE entry."""
        pmd = page >> self.pmd_shift
        table = self.ptes[pmd]
        if isinstance(table, bytes):
            table = self.ptes[pmd] = self.access[pmd] = bytearray(table)
        table[page & self.pte_mask] = LEAF
        fill = self.pte_fill[pmd] = self.pte_fill[pmd] + 1
        if fill == self.pte_width and table == self._all_leaf:
            self.ptes[pmd] = self.access[pmd] = self._all_leaf
        self.leaves[0] += 1
        self.refs[page >> self.hstate_shift] += 1

    def install_ptes(self, page: PageIndex, count: int) -> int:
        """Make leaves of the blank ones of `count` PTE entries from `page` on, all in one table that exists.

        How many were blank. The others are left alone.
        """
        pmd, first = page >> self.pmd_shift, page & self.pte_mask
        table = self.ptes[pmd]
        fresh = count
        run = self._leaf_runs[count]
        if not table.startswith(self._none_runs[count], first):
            old = table[first : first + count]
            fresh -= len(old.translate(None, _BLANK))
            if not fresh:
                return 0
            run = bytes(old.translate(_BLANK_TO_LEAF))
        fill = self.pte_fill[pmd] + fresh
        if fresh == self.pte_width:
            self.ptes[pmd] = self.access[pmd] = self._all_leaf
        else:
            if isinstance(table, bytes):
                table = self.ptes[pmd] = self.access[pmd] = bytearray(table)
            table[first : first + count] = run
            if fill == self.pte_width and table == self._all_leaf:
                self.ptes[pmd] = self.access[pmd] = self._all_leaf
        self.pte_fill[pmd] = fill
        self.leaves[0] += fresh
        self.refs[page >> self.hstate_shift] += fresh
        return fresh

    def blank_ptes(self, page: PageIndex, count: int) -> int:
        """How many of `count` PTE entries from `page` on, all in one table, are blank before the first that is not."""
        table, first = self.ptes[page >> self.pmd_shift], page & self.pte_mask
        if table.startswith(self._none_runs[count], first):
            return count
        return count - len(table[first : first + count].lstrip(_BLANK))

    def collapse(self, page: PageIndex, level: Level, cached: bool) -> None:
        """Put one leaf in place of the table under the entry of `level` over `page` (2.1 step 3).

        All leaves below are cleared and their tables freed, markers are dropped. With the folio not `cached` the entry
        is left empty.
        """
        pmd, pud = page >> self.pmd_shift, page >> self.pud_shift
        if level == PMD:
            self._drop_pte_tables(pmd, pmd + 1, page >> self.hstate_shift)
            self.pmds[pud][pmd & self.pmd_mask] = NONE
        else:
            first = pud * self.pmd_width
            self._drop_pte_tables(first, first + self.pmd_width, pud)
            self.leaves[PMD] -= self.pmd_fill[pud]
            self.refs[pud] -= self.pmd_fill[pud]
            self.pmd_fill[pud] = 0
            self.pmds[pud] = NO_TABLE
            self.tables -= 1
            self.puds[pud] = NONE
        if cached:
            self.install(page, level)

    def poison(self, hugepage: int) -> None:
        """Every leaf of `hugepage` becomes a poison entry of the same level; tables and holes stay (3.4)."""
        first, end = (hugepage << self.hstate_shift, (hugepage + 1) << self.hstate_shift)
        pmd, count = first >> self.pmd_shift, (end - first) >> self.pmd_shift
        dropped = sum(self.pte_fill[pmd : pmd + count])
        self.leaves[PTE] -= dropped
        for each in range(pmd, pmd + count):
            if self.pte_fill[each]:
                self.pte_fill[each] = 0
                self.ptes[each] = self.ptes[each].translate(_LEAF_TO_POISON)
            self.access[each] = self.ptes[each] or self._no_leaf
        pud, slot = first >> self.pud_shift, pmd & self.pmd_mask
        if table := self.pmds[pud]:
            old = table[slot : slot + count]
            table[slot : slot + count] = old.translate(_LEAF_TO_POISON)
            self.pmd_fill[pud] -= old.count(LEAF)
            self.leaves[PMD] -= old.count(LEAF)
            dropped += old.count(LEAF)
        elif self.puds[pud] == LEAF:
            self.puds[pud] = POISON
            self.leaves[PUD] -= 1
            dropped += 1
        self.refs[hugepage] -= dropped

    def _allocate_table(self) -> None:
        if self.tables == self.tables_max:
            raise OSError(errno.ENOMEM, "a page table cannot be allocated (1.3)")
        self.tables += 1

    def _drop_pte_tables(self, first: int, end: int, hugepage: int) -> None:
        """Clear the PTE tables of the PMD slots `[first, end)` and free them."""
        leaves = sum(self.pte_fill[first:end])
        count = end - first
        self.leaves[PTE] -= leaves
        self.refs[hugepage] -= leaves
        self.tables -= count - self.ptes[first:end].count(NO_TABLE)
        self.pte_fill[first:end] = array("H", bytes(2 * count))
        self.ptes[first:end] = [NO_TABLE] * count
        self.access[first:end] = [self._no_leaf] * count
