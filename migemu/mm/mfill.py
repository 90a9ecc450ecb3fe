"""Filling entries on behalf of userspace: UFFDIO_CONTINUE, UFFDIO_COPY and UFFDIO_POISON.

What this models
    mfill_atomic on hugetlb: position by position, until something refuses.

Rules
    1. CONTINUE chooses for each position the largest hugetlb size, not above the VMA's, that is aligned there and fits;
       without MADV_SPLIT there is one size, the hugepage (SEMANTICS 1.2, 1.3). COPY and POISON know the hugepage only.
    2. CONTINUE and COPY install into blank entries only, and fill no holes of a slot that has a table already
       (SEMANTICS 0.4). POISON wants an empty entry, a marker is not (SEMANTICS 1.5).
    3. A marker under the piece is consumed: the entry is writable, unless the call asks for protection (SEMANTICS 1.3).
    4. The walk comes before the look-up of the page: tables allocated for a piece that then fails stay
       (SEMANTICS 1.3).
    5. A bad folio is EIO. Where some base pages of it are bad, a piece that holds one of them is (SEMANTICS 3.4).
    6. Each leaf takes a reference on the head page; when the count is full, EFAULT (SEMANTICS 1.3).
"""

from __future__ import annotations

import errno

from migemu.mm.entries import LEAF, NONE, POISON, WP, WP_MARKER
from migemu.mm.hugetlb_file import CACHED, HWPOISON, MAPPABLE, HugetlbFile
from migemu.mm.page_table import BLOCKED, PTE, PageTable
from migemu.mm.pages import PageIndex
from migemu.mm.vma import Vma


def mfill_continue(vma: Vma, start: int, end: int, wp: bool) -> tuple[int, OSError | None]:
    """Continue `[start, end)` until something refuses: (bytes done, what refused)."""
    table, file = vma.mapping.table, vma.mapping.file
    leaf = LEAF | WP if wp else LEAF
    page = first = vma.page(start)
    last = vma.page(end)
    try:
        while page < last:
            pages, level = table.largest(page, last)
            entry = table.reach(page, level)
            if entry == BLOCKED:
                raise OSError(errno.EEXIST, "a larger leaf or a poison entry covers it")
            hugepage = page >> table.hstate_shift
            _check_folio(file, hugepage, page, pages)
            if entry > WP_MARKER:
                raise OSError(errno.EEXIST, "the entry is neither empty nor a uffd-wp marker")
            room = _room(file, hugepage)
            if level == PTE:
                # All positions up to the next larger alignment take PTE entries of this one table.
                count = min((page | table.small_mask) + 1, last) - page
                pages = file.healthy(page, min(table.blank_ptes(page, count), room))
                table.install_ptes(page, pages, leaf)
            else:
                table.install(page, level, leaf)
            page += pages
    except OSError as failure:
        return (page - first) * vma.mapping.file.geometry.page_bytes, failure
    return end - start, None


def continue_ptes(vma: Vma, start: int, end: int) -> tuple[int, int]:
    """Continue `[start, end)` of an HGM VMA by PTE entries, one slice per table: (mapped, existing).

    Entries that exist are skipped and counted. OSError as of the first piece that is refused otherwise.
    """
    table, file = vma.mapping.table, vma.mapping.file
    folios, shift = file.folios, table.hstate_shift
    page, last = vma.page(start), vma.page(end)
    mapped = existing = 0
    while page < last:
        here = min((page | table.pte_mask) + 1, last) - page
        hugepage = page >> shift
        entry = table.reach(page, PTE)
        if folios[hugepage] & MAPPABLE != CACHED or file.refs[hugepage] + here > file.refs_max:
            fresh, here = _careful_pte(file, table, page), 1
        elif entry == BLOCKED and not table.ptes[page >> table.pmd_shift]:
            fresh = 0
        else:
            fresh = table.install_ptes(page, here)
        mapped += fresh
        existing += here - fresh
        page += here
    return mapped, existing


def _careful_pte(file: HugetlbFile, table: PageTable, page: PageIndex) -> int:
    """Continue one base page of a hugepage that not all pieces can be mapped of: 1 if mapped, 0 if it existed."""
    entry = table.reach(page, PTE)
    if entry == BLOCKED:
        return 0
    hugepage = page >> table.hstate_shift
    _check_folio(file, hugepage, page, 1)
    if entry > WP_MARKER:
        return 0
    _room(file, hugepage)
    return table.install_ptes(page, 1)


def mfill_copy(vma: Vma, start: int, end: int, wp: bool) -> tuple[int, OSError | None]:
    """Fill the hugepages of `[start, end)` with bytes of the caller and map them, until something refuses."""
    table, file = vma.mapping.table, vma.mapping.file
    for hugepage in range(vma.hugepage(start), vma.hugepage(end)):
        try:
            if table.hugepage_entry(hugepage) > WP_MARKER or file.folios[hugepage]:
                raise OSError(errno.EEXIST, "the hugepage is mapped or in the page cache already")
            _room(file, hugepage)
        except OSError as failure:
            return (hugepage - vma.hugepage(start)) * vma.hugepage_bytes, failure
        file.populate(hugepage, hugepage + 1)
        table.install(hugepage << table.hstate_shift, table.hstate, LEAF | WP if wp else LEAF)
    return end - start, None


def mfill_poison(vma: Vma, start: int, end: int) -> tuple[int, OSError | None]:
    """Put a poison entry in place of each empty hugepage of `[start, end)`, until something refuses."""
    table = vma.mapping.table
    for hugepage in range(vma.hugepage(start), vma.hugepage(end)):
        if table.hugepage_entry(hugepage) != NONE:
            failure = OSError(errno.EEXIST, "UFFDIO_POISON wants an empty entry")
            return (hugepage - vma.hugepage(start)) * vma.hugepage_bytes, failure
        table.put(hugepage << table.hstate_shift, table.hstate, POISON, 0)
    return end - start, None


def _check_folio(file: HugetlbFile, hugepage: int, page: PageIndex, pages: int) -> None:
    """OSError EIO or EFAULT: the piece of `pages` from `page` on cannot be mapped (SEMANTICS 1.3)."""
    folio = file.folios[hugepage]
    if folio & HWPOISON and file.healthy(page, pages) < pages:
        raise OSError(errno.EIO, f"hugepage {hugepage} is hwpoisoned")
    if not folio & CACHED:
        raise OSError(errno.EFAULT, f"hugepage {hugepage} is not in the page cache")


def _room(file: HugetlbFile, hugepage: int) -> int:
    """How many leaves more the hugepage can have. OSError EFAULT: none (SEMANTICS 1.3)."""
    room = file.refs_max - file.refs[hugepage]
    if room <= 0:
        raise OSError(errno.EFAULT, f"the reference count of hugepage {hugepage} would overflow")
    return room
