"""Taking entries away: MADV_DONTNEED and munmap.

What this models
    __unmap_hugepage_range under HGM: it walks every entry of whole hugepages, whatever its size, and clears it.

Rules
    1. Hugepage granularity, also under HGM (SEMANTICS 1.2, 1.7). The page cache keeps its bytes, so a later fault is
       minor.
    2. DONTNEED keeps write protection: a protected leaf, a marker and a protected migration entry leave a marker;
       every other entry becomes empty. The tables stay: munmap and collapse alone free some (SEMANTICS 1.7).
    3. Clears come inside the notifier window, the flush after it, and table pages go after the flush (SEMANTICS 2.3).
    4. Nobody is woken (SEMANTICS 1.7).
"""

from __future__ import annotations

from migemu.mm.entries import CLEARED, TABLE, ZAPPED
from migemu.mm.gather import Gather, OnGather
from migemu.mm.hugepage_entries import rewrite_entries
from migemu.mm.vma import Vma


def zap_page_range(vma: Vma, start: int, end: int, on_gather: OnGather | None) -> None:
    """Clear the entries of the whole hugepages `[start, end)` of `vma`, as MADV_DONTNEED does."""
    gather = Gather(vma, start, end, on_gather) if on_gather is not None else None
    _unmap(vma, start, end, ZAPPED, gather)
    if gather is not None:
        gather.flush()


def unmap_region(vma: Vma, start: int, end: int, on_gather: OnGather | None) -> None:
    """Clear the whole hugepages `[start, end)` of `vma` and free their tables, as munmap does."""
    gather = Gather(vma, start, end, on_gather) if on_gather is not None else None
    _unmap(vma, start, end, CLEARED, gather)
    table = vma.mapping.table
    pages = 1 << table.hstate_shift
    for hugepage in range(vma.hugepage(start), vma.hugepage(end)):
        if table.hugepage_entry(hugepage) == TABLE:
            page = hugepage << table.hstate_shift
            freed = table.collapse(page, table.hstate, leaf=False)
            if gather is not None:
                gather.free(page, pages, freed)
    if gather is not None:
        gather.flush()


def _unmap(vma: Vma, start: int, end: int, becomes: bytes, gather: Gather | None) -> None:
    """unmap_vmas: the clears, inside the notifier window."""
    table = vma.mapping.table
    if gather is not None:
        gather.notifier_start()
        gather.clear(vma.page(start), vma.page(end) - vma.page(start))
    for hugepage in range(vma.hugepage(start), vma.hugepage(end)):
        rewrite_entries(table, hugepage, becomes)
    if gather is not None:
        gather.notifier_end()
