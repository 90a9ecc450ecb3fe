"""A bad base page inside a hugepage: take its own 4K away and leave the neighbours mapped.

What this models
    PAGE_SIZE unmapping in memory failure recovery, J. Yan's RFC of April 2023 on top of HGM v2. The recovery of HGM
    itself, the whole hugepage, is `HugetlbFile.poison`.

Rules
    1. Each present leaf over the bad page is split: the bad 4K gets an entry of its own, which becomes a poison entry,
       and the rest is mapped as large as possible, with the protection that the leaf had (SEMANTICS 3.4).
    2. If the split fails, the old leaf stays and the error is ignored (SEMANTICS 3.4).
    3. Blank entries are left alone until a fault: on the bad page it is SIGBUS, on a healthy neighbour it installs the
       largest entry that avoids every bad page (SEMANTICS 3.4).
    4. Every shared VMA is eligible, and gets HGM switched on by this; from any other VMA the whole
       hugepage is unmapped as before (SEMANTICS 3.4).
"""

from __future__ import annotations

from typing import Final

from migemu.mm.contiguous import CONTIGUOUS
from migemu.mm.entries import CONT, LEAF, NONE, POISON, POISONED
from migemu.mm.hugepage_entries import rewrite_entries
from migemu.mm.hugetlb_file import HWPOISON, UNMAPPED, HugetlbFile
from migemu.mm.page_table import CONT_PTE, PMD, PTE, PUD, PageTable
from migemu.mm.pages import Level, PageIndex
from migemu.mm.vma import Vma

#: Table pages that a split of a leaf of each level needs (SEMANTICS 3.6).
_TABLES: Final = {CONT_PTE: 0, PMD: 1, Level.CONT_PMD: 1, PUD: 2}


def memory_failure(file: HugetlbFile, page: PageIndex) -> None:
    """Base page `page` of `file` is bad: unmap it everywhere.

    ValueError: its hugepage has migration entries; memory_failure would wait for the folio lock.
    """
    hugepage = page // file.geometry.pages(file.hstate)
    if file.folios[hugepage] & UNMAPPED:
        raise ValueError(f"hugepage {hugepage} is being migrated")
    if file.folios[hugepage] & HWPOISON and hugepage not in file.bad:
        return  # all of it is bad
    file.folios[hugepage] |= HWPOISON
    file.bad.setdefault(hugepage, set()).add(page)
    for vma in file.mapped_by(hugepage):
        if vma.shared:
            vma.hgm = True
            _unmap_page(vma.table, file, page)
        else:
            rewrite_entries(vma.table, hugepage, POISONED)


def _unmap_page(table: PageTable, file: HugetlbFile, page: PageIndex) -> None:
    """Put a poison entry in place of the leaf over `page`, after splitting the leaf where it is larger."""
    level, entry = table.walk_end(page)
    if entry < LEAF:
        return
    if level == PTE:
        table.put(page, PTE, POISON, -1)
        return
    pages = table.geometry.pages(level)
    first = page & -pages
    pieces = [*_pieces(table, first, page), *_pieces(table, page + 1, first + pages)]
    no_table = table.tables_max is not None and table.tables + _TABLES[level] > table.tables_max
    if no_table or file.refs[page >> table.hstate_shift] + len(pieces) - 1 > file.refs_max:
        table.unsplit.add(page)
        return
    table.put(first, level, NONE, -1)
    for at, size in pieces:
        table.reach(at, size)
        table.install(at, size, entry & ~CONT)
    table.reach(page, PTE)
    table.put(page, PTE, POISON, 0)


def _pieces(table: PageTable, page: PageIndex, end: PageIndex) -> list[tuple[PageIndex, Level]]:
    """Pages `[page, end)` as entries as large as possible."""
    pieces = []
    while page < end:
        pages, level = table.largest(page, end)
        pieces.append((page, level))
        page += pages
    return pieces


def largest_healthy(vma: Vma, page: PageIndex, level: Level) -> Level:
    """The largest plain level, up to `level`, whose entry over `page` covers no bad page; the entry exists then.

    Plain, because a fault has no contiguous bit to go by (SEMANTICS 3.7). The entry of `level` over `page` is blank,
    and so are those below. OSError ENOMEM: no table.
    """
    table, file = vma.mapping.table, vma.mapping.file
    for pages, size in table.sizes:
        first = page & -pages
        if size <= level and size not in CONTIGUOUS and file.healthy(first, pages) == pages:
            table.reach(first, size)
            return size
    raise AssertionError(f"base page {page} is bad itself")
