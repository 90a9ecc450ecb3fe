"""MADV_COLLAPSE on a hugetlb VMA with HGM: map a range by the largest entries that fit it.

What this models
    hugetlb_collapse as posted in v1 and v2 (SEMANTICS 2.1), without the quirks that SEMANTICS 2.2 says not to copy.

Rules
    1. The requested range decides the levels, not the hugepage: [0, 2M) of a 1G page becomes one 2M leaf
       (SEMANTICS 2.1).
    2. Holes under a *table* are filled, whether or not their bytes have arrived; others are not (SEMANTICS 0.2, 0.3).
    3. Markers and protection under a table are lost: the new leaf is writable (SEMANTICS 2.1).
    4. Nobody is woken: a thread asleep on a hole that collapse fills needs UFFDIO_WAKE (SEMANTICS 2.1).
    5. No rollback and no count: earlier steps stay on error (SEMANTICS 2.1).
    6. Its own walk allocates: a 2M step over an empty 1G slot leaves an empty PMD table behind (SEMANTICS 2.1).
    7. A poisoned hugepage is left as it is, also when only some of its base pages are bad (SEMANTICS 2.1 step 3, 3.4).

Simplified
    Locks wait for nobody. The order of clears, flush and frees is told by `gather` (SEMANTICS 2.3).
"""

from __future__ import annotations

import errno
from typing import Final, Literal

from migemu.mm.entries import TABLE
from migemu.mm.gather import Gather, OnGather
from migemu.mm.hugetlb_file import CACHED, HWPOISON, ISOLATED
from migemu.mm.page_table import BLOCKED, PTE
from migemu.mm.vma import Vma

HgmVersion = Literal["v1", "v2"]

#: Linux's number on x86 and arm64; the errno module lacks the name on some systems.
EHWPOISON: Final = 133


def hugetlb_collapse(vma: Vma, start: int, end: int, hgm: HgmVersion, on_gather: OnGather | None = None) -> None:
    """Collapse bytes `[start, end)`, which lie in `vma` (SEMANTICS 2.1).

    OSError EINVAL: VMA not shared. EEXIST: a larger leaf or a poison entry covers the position. EBUSY: folio isolated
    for migration. ENOMEM: no table. EHWPOISON: v1 only, when the range ends in a poisoned hugepage.
    """
    if not vma.mapping.shared:
        raise OSError(errno.EINVAL, "MADV_COLLAPSE needs a shared hugetlb VMA")
    if not vma.hgm:
        return  # nothing can be small here (SEMANTICS 2.2)
    if on_gather is None:
        _collapse_steps(vma, start, end, hgm, None)
        return
    gather = Gather(vma, start, end, on_gather)
    gather.notifier_start()
    try:
        _collapse_steps(vma, start, end, hgm, gather)
    finally:
        if hgm == "v1":  # v1 frees inside the notifier window, v2 after it (SEMANTICS 2.3)
            gather.flush()
            gather.notifier_end()
        else:
            gather.notifier_end()
            gather.flush()


def _collapse_steps(vma: Vma, start: int, end: int, hgm: HgmVersion, gather: Gather | None) -> None:
    """The loop of SEMANTICS 2.1."""
    table, folios = vma.mapping.table, vma.mapping.file.folios
    page, last = vma.page(start), vma.page(end)
    poisoned_last = False
    while page < last:
        pages, level = table.largest(page, last)
        entry = table.reach(page, level)
        if entry == BLOCKED:
            raise OSError(errno.EEXIST, "a larger leaf or a poison entry covers it")
        poisoned_last = False  # in v1 every later walk overwrites the result (SEMANTICS 2.1 step 3)
        if level == PTE:
            # Entries of a PTE table are never tables: all of them are skipped, up to where a larger size fits again.
            page = min((page | table.small_mask) + 1, last)
            continue
        if entry == TABLE:
            hugepage = page >> table.hstate_shift
            folio = folios[hugepage]
            if folio & HWPOISON:  # before EBUSY: poison implies not migratable (SEMANTICS 2.1 step 3)
                poisoned_last = True
                page = (hugepage + 1) << table.hstate_shift
                continue
            if folio & ISOLATED:
                raise OSError(errno.EBUSY, "the folio is isolated for migration")
            if gather is not None:
                gather.clear(page, pages)
            freed = table.collapse(page, level, leaf=bool(folio & CACHED))
            if gather is not None:
                gather.free(page, pages, freed)
                if folio & CACHED:
                    gather.install(page, pages, level)
        page += pages
    if poisoned_last and hgm == "v1":
        raise OSError(EHWPOISON, "the last hugepage collapsed is poisoned")
