"""The multi-level page table of one hugetlb mapping.

What this models
    The part of a page table that HGM changes: the entry of each hugepage (at the *hstate* level, PUD for 1G pages, PMD
    for 2M pages) and the tables below it. Pages are counted from the start of the mapping, which is PUD-aligned.

Rules
    1. Every address has at most one leaf (SEMANTICS I1). The PFN of a leaf is the hugepage's base plus the offset, so
       it is not stored (SEMANTICS I2).
    2. Only blank entries are ever split; splitting a marker copies it to all children (SEMANTICS 3.3).
    3. Each leaf holds one reference on the head page (SEMANTICS 1.3); a contiguous group is one leaf (SEMANTICS 3.7).

Words
    reach   walk down to an entry of a given level, allocating tables through blank entries (SEMANTICS 1.3, 2.1 step 1)
    row     the entries of one table, or a part of them
    group   the entries of one contiguous leaf, see `contiguous`

How it is stored
    One row per level: `puds` is one byte an entry; `pmds[pud]` and `ptes[pmd]` are the tables, or NO_TABLE. A PTE table
    whose entries are all alike is a shared constant, any other a bytearray; so 1 GiB at 4K costs a few KiB. With 2M
    hugepages the PMD tables belong to the mm and always exist; they are not counted. `access[pmd]` is a second look at
    the same: one byte per base page, the entry that maps it, whatever its level.

Simplified
    No accessed and dirty bits. A leaf without the wp flag is writable, as a shared writable VMA makes it.
"""

from __future__ import annotations

import errno
from array import array
from typing import Final

from migemu.mm.contiguous import CONTIGUOUS, WITH_CONT, count_groups, group_entry
from migemu.mm.entries import (
    BLANK,
    CONT,
    LEAF,
    NONE,
    TABLE,
    WP,
    WP_MARKER,
    Entry,
    Table,
    compact,
    kind_of,
    uniform_table,
)
from migemu.mm.pages import Geometry, Level, PageIndex

PTE: Final = Level.PTE
CONT_PTE: Final = Level.CONT_PTE
PMD: Final = Level.PMD
CONT_PMD: Final = Level.CONT_PMD
PUD: Final = Level.PUD

#: What `reach` answers when a larger leaf, a migration or a poison entry ends the walk above the wanted level.
BLOCKED: Final = -1

NO_TABLE: Final = bytearray()

_BLANK_TO: Final = {leaf: bytes.maketrans(BLANK, bytes((leaf, leaf))) for leaf in (LEAF, LEAF | WP)}


class PageTable:
    """The page table of `hugepages` hugepages of `hstate` size; `refs[i]` counts the leaves of hugepage i.

    `tables_max` bounds the tables below the hstate level; one more is ENOMEM (SEMANTICS 1.3, 2.2). None is no bound.
    """

    __slots__ = (
        "_all_leaf", "_cont_pmd_width", "_cont_pte_width", "_cont_ptes", "access", "geometry", "hstate",
        "hstate_shift", "hugepages", "leaves", "pages", "pmd_fill", "pmd_mask", "pmd_shift", "pmd_width", "pmds",
        "pte_fill", "pte_mask", "pte_width", "ptes", "pud_shift", "puds", "refs", "sizes", "small_mask", "tables",
        "tables_max", "unsplit",
    )  # fmt: skip

    def __init__(
        self, geometry: Geometry, hstate: Level, hugepages: int, refs: list[int], tables_max: int | None = None
    ) -> None:
        if not {PTE, PMD, PUD} <= set(geometry.shifts) or hstate not in (PMD, PUD):
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
        self._cont_pte_width = geometry.pages(CONT_PTE)  # entries in a group; 0 where the level does not exist
        self._cont_pmd_width = geometry.pages(CONT_PMD) // self.pte_width
        self._cont_ptes = self.pte_width // (self._cont_pte_width or 1)  # groups in a PTE table
        #: Sizes one leaf can have, largest first, and the mask of the smallest above PTE (SEMANTICS 1.3).
        self.sizes = tuple((geometry.pages(level), level) for level in reversed(geometry.levels) if level <= hstate)
        self.small_mask = self.sizes[-2][0] - 1
        self._all_leaf = uniform_table(LEAF, self.pte_width)
        puds = -(-self.pages // geometry.pages(PUD))
        self.ptes: list[Table] = [NO_TABLE] * (puds * self.pmd_width)
        self.access: list[Table] = [uniform_table(NONE, self.pte_width)] * len(self.ptes)
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
        self.unsplit: set[PageIndex] = set()  # bad pages whose leaf could not be split (SEMANTICS 3.4)

    # ------------------------------------------------------------------------------------------------ looking

    def walk(self, page: PageIndex, level: Level = PTE) -> Entry:
        """The first entry over `page` that is not a table, or is of `level`."""
        found, entry = self.walk_end(page)
        if found < level:  # the walk went through a table there: stop at it
            pud, pmd = page >> self.pud_shift, page >> self.pmd_shift
            if level == CONT_PTE and self._cont_pte_width:
                entry = group_entry(self.ptes[pmd], page & self.pte_mask, self._cont_pte_width)
            elif level == CONT_PMD and self._cont_pmd_width:
                entry = group_entry(self.pmds[pud], pmd & self.pmd_mask, self._cont_pmd_width)
            else:
                entry = TABLE
            found = level
        return Entry(found, kind_of(entry))

    def walk_end(self, page: PageIndex) -> tuple[Level, int]:
        """The walk as plain values: (level, entry with its flags)."""
        pmd = page >> self.pmd_shift
        level = PTE
        if table := self.ptes[pmd]:
            entry = table[page & self.pte_mask]
        elif table := self.pmds[page >> self.pud_shift]:
            level, entry = PMD, table[pmd & self.pmd_mask]
        else:
            return PUD, self.puds[page >> self.pud_shift]
        return (WITH_CONT[level] if entry & CONT else level), entry

    def hugepage_entry(self, hugepage: int) -> int:
        """The entry at the hstate level."""
        if self.hstate == PUD:
            return self.puds[hugepage]
        return self.pmds[hugepage // self.pmd_width][hugepage & self.pmd_mask]

    def leaves_of(self, hugepage: int) -> int:
        """Leaf entries that map any of `hugepage`: the references it has from here (SEMANTICS 1.3)."""
        first = hugepage << self.hstate_shift
        return sum(self.count_leaves(first, first + (1 << self.hstate_shift)))

    def count_leaves(self, first: PageIndex, end: PageIndex) -> list[int]:
        """Leaf entries by level in pages `[first, end)`, which are whole PMDs, and whole PUDs where a PUD is a leaf."""
        pmd, pmd_end = first >> self.pmd_shift, end >> self.pmd_shift
        counts = self._count_ptes(pmd, pmd_end)
        while pmd < pmd_end:
            pud = pmd // self.pmd_width
            until = min((pud + 1) * self.pmd_width, pmd_end)
            if self.pmd_fill[pud]:
                at = pmd & self.pmd_mask
                self._tally(counts, PMD, self.pmds[pud][at : at + until - pmd])
            counts[PUD] += self.puds[pud] >= LEAF
            pmd = until
        return counts

    def _count_ptes(self, pmd: int, end: int) -> list[int]:
        """The leaves by level of the PTE tables of the PMD slots `[pmd, end)`."""
        counts = [0] * (PUD + 1)
        if not self._cont_pte_width:
            counts[PTE] = sum(self.pte_fill[pmd:end])
        else:
            for at in range(pmd, end):
                if self.pte_fill[at]:
                    self._tally(counts, PTE, self.ptes[at])
        return counts

    def _tally(self, counts: list[int], level: Level, row: Table) -> None:
        """Add the leaves of a row of `level` to `counts`."""
        counts[level] += row.count(LEAF) + row.count(LEAF | WP)
        if width := (self._cont_pte_width if level == PTE else self._cont_pmd_width):
            counts[WITH_CONT[level]] += count_groups(row, width)

    def leaves_in(self, level: Level, row: Table) -> int:
        """Leaves in a row of `level`."""
        counts = [0] * (PUD + 1)
        self._tally(counts, level, row)
        return sum(counts)

    def largest(self, page: PageIndex, end: PageIndex) -> tuple[int, Level]:
        """The largest leaf that is aligned at `page` and fits before `end`: its pages, its level (SEMANTICS 1.3)."""
        if end - page <= self.small_mask:
            return 1, PTE
        for pages, level in self.sizes:
            if not page & (pages - 1) and page + pages <= end:
                return pages, level
        raise AssertionError(f"no leaf fits in the empty range [{page}, {end})")

    # ----------------------------------------------------------------------------------------------- changing

    def reach(self, page: PageIndex, level: Level) -> int:
        """The entry of `level` over `page`, allocating tables through blank entries (SEMANTICS 1.3, 2.1 step 1).

        BLOCKED when the walk ends above `level`. OSError ENOMEM when a table cannot be allocated; the tables
        allocated before it stay.
        """
        pmd, pud = page >> self.pmd_shift, page >> self.pud_shift
        if level > CONT_PTE or not self.ptes[pmd]:
            entry = self.puds[pud]
            if level == PUD:
                return entry
            if entry != TABLE:
                if entry > WP_MARKER:
                    return BLOCKED
                self._allocate_table()
                self.pmds[pud] = bytearray((entry,)) * self.pmd_width
                self.puds[pud] = TABLE
            entry = self.pmds[pud][pmd & self.pmd_mask]
            if level == PMD:
                return BLOCKED if entry & CONT else entry
            if level == CONT_PMD:
                return group_entry(self.pmds[pud], pmd & self.pmd_mask, self._cont_pmd_width)
            if entry > WP_MARKER:
                return BLOCKED
            self._allocate_table()
            self.ptes[pmd] = self.access[pmd] = uniform_table(entry, self.pte_width)
            self.pmds[pud][pmd & self.pmd_mask] = TABLE
        if level == CONT_PTE:
            return group_entry(self.ptes[pmd], page & self.pte_mask, self._cont_pte_width)
        entry = self.ptes[pmd][page & self.pte_mask]
        return BLOCKED if entry & CONT else entry

    def install(self, page: PageIndex, level: Level, leaf: int = LEAF) -> None:
        """Make the blank entry of `level` over `page` a leaf; it must exist (see `reach`)."""
        self.put(page, level, leaf | CONT if level in CONTIGUOUS else leaf, 1)

    def put(self, page: PageIndex, level: Level, entry: int, fresh: int) -> None:
        """Write `entry` at `level` over `page`, the first of the entry; `fresh` leaves of `level` more than before."""
        pages = self.geometry.pages(level)
        if level <= CONT_PTE:
            self._set_ptes(page, uniform_table(entry, pages), fresh)
        else:
            pud, pmd, count = page >> self.pud_shift, page >> self.pmd_shift, pages >> self.pmd_shift
            if level == PUD:
                pmd = pud * self.pmd_width
                self.puds[pud] = entry
            else:
                at = pmd & self.pmd_mask
                self.pmds[pud][at : at + count] = uniform_table(entry, count)
                self.pmd_fill[pud] += fresh
            self.access[pmd : pmd + count] = [uniform_table(entry, self.pte_width)] * count
        self.leaves[level] += fresh
        self.refs[page >> self.hstate_shift] += fresh

    def unprotect(self, page: PageIndex) -> None:
        """Take the uffd-wp bit off the leaf that maps `page`."""
        level, entry = self.walk_end(page)
        self.put(page & -self.geometry.pages(level), level, entry & ~WP, 0)

    def install_pte(self, page: PageIndex) -> None:
        """`install` of a PTE entry, writable."""
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

    def install_ptes(self, page: PageIndex, count: int, leaf: int = LEAF) -> int:
        """Make leaves of the blank ones of `count` PTE entries from `page` on, all in one table that exists.

        How many were blank. The others are left alone.
        """
        table, first = self.ptes[page >> self.pmd_shift], page & self.pte_mask
        fresh = count
        row = self._all_leaf[:count] if leaf == LEAF else uniform_table(leaf, count)
        if table.count(NONE, first, first + count) != count:
            old = table[first : first + count]
            fresh -= len(old.translate(None, BLANK))
            if not fresh:
                return 0
            row = bytes(old.translate(_BLANK_TO[leaf]))
        self._set_ptes(page, row, fresh)
        self.leaves[0] += fresh
        self.refs[page >> self.hstate_shift] += fresh
        return fresh

    def _set_ptes(self, page: PageIndex, row: bytes, fresh: int) -> None:
        """Put `row` into the PTE table from `page` on; `fresh` leaves more than before are in the table then."""
        pmd, first = page >> self.pmd_shift, page & self.pte_mask
        fill = self.pte_fill[pmd] = self.pte_fill[pmd] + fresh
        if fresh == self.pte_width:
            self.ptes[pmd] = self.access[pmd] = uniform_table(row[0], fresh)
            return
        table = self.ptes[pmd]
        if isinstance(table, bytes):
            table = self.ptes[pmd] = self.access[pmd] = bytearray(table)
        table[first : first + len(row)] = row
        if fill == self.pte_width or fill == self._cont_ptes:
            self.ptes[pmd] = self.access[pmd] = compact(table)

    def blank_ptes(self, page: PageIndex, count: int) -> int:
        """How many of `count` PTE entries from `page` on, all in one table, are blank before the first that is not."""
        table, first = self.ptes[page >> self.pmd_shift], page & self.pte_mask
        if table.count(NONE, first, first + count) == count:
            return count
        return count - len(table[first : first + count].lstrip(BLANK))

    def collapse(self, page: PageIndex, level: Level, leaf: bool) -> int:
        """Put one leaf, or without `leaf` nothing, in place of the table at `level` over `page` (SEMANTICS 2.1 step 3).

        Every entry below is dropped. The table pages freed.
        """
        pud, pmd, before = page >> self.pud_shift, page >> self.pmd_shift, self.tables
        if level == CONT_PTE:
            at = page & self.pte_mask
            counts = [0] * (PUD + 1)
            self._tally(counts, PTE, self.ptes[pmd][at : at + self._cont_pte_width])
            self.pte_fill[pmd] -= counts[PTE]
        elif level == PMD:
            counts = self._count_ptes(pmd, pmd + 1)
            self.ptes[pmd], self.pte_fill[pmd] = NO_TABLE, 0
            self.tables -= 1
        else:
            count, at = self.geometry.pages(level) >> self.pmd_shift, pmd & self.pmd_mask
            counts = self._count_ptes(pmd, pmd + count)
            self._tally(counts, PMD, self.pmds[pud][at : at + count])
            self.tables -= count - self.ptes[pmd : pmd + count].count(NO_TABLE)
            self.ptes[pmd : pmd + count] = [NO_TABLE] * count
            self.pte_fill[pmd : pmd + count] = array("H", bytes(2 * count))
            self.pmd_fill[pud] -= counts[PMD] + counts[CONT_PMD]
            if level == PUD:
                self.pmds[pud] = NO_TABLE
                self.tables -= 1
        self.account(counts, page >> self.hstate_shift, -1)
        if leaf:
            self.install(page, level)
        else:
            self.put(page, level, NONE, 0)
        return before - self.tables

    def account(self, counts: list[int], hugepage: int, sign: int) -> None:
        """Add leaves by level to, or take them from, the running counts and the references of `hugepage`."""
        for level, count in enumerate(counts):
            if count:
                self.leaves[level] += sign * count
                self.refs[hugepage] += sign * count

    def _allocate_table(self) -> None:
        if self.tables == self.tables_max:
            raise OSError(errno.ENOMEM, "a page table cannot be allocated")
        self.tables += 1
