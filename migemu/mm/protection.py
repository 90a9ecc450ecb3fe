"""UFFDIO_WRITEPROTECT on hugetlb: write protection of whole hugepages, with markers where nothing is mapped.

What this models
    mwriteprotect_range and hugetlb_change_protection.

Rules
    1. Hugepage granularity, also under HGM (SEMANTICS 1.2); every entry below is changed at its own level, none is
       split.
    2. Protecting: an empty entry becomes a marker, a leaf and a migration entry get the uffd-wp bit; poison stays as it
       is. Unprotecting undoes that. Markers need no table but the hugepage's own, which always exists (SEMANTICS 1.6).
    3. Several VMAs may be in the range, holes are passed over; each must be registered for write-protect
       (SEMANTICS 1.6).
"""

from __future__ import annotations

import errno

from migemu.mm.entries import PROTECTED, UNPROTECTED
from migemu.mm.hugepage_entries import rewrite_entries
from migemu.mm.vma import Vma, VmaTree


def mwriteprotect_range(vmas: VmaTree, start: int, end: int, on: bool) -> None:
    """Protect bytes `[start, end)`, or take their protection away.

    OSError ENOENT: no VMA, or one not registered for write-protect. EINVAL: not whole hugepages. The VMAs before the
    one that fails stay changed.
    """
    found = False
    for vma in vmas.overlapping(start, end):
        if not vma.wp:
            raise OSError(errno.ENOENT, f"{vma.start:#x} is not registered for write-protect")
        if (start | end) & (vma.hugepage_bytes - 1):
            raise OSError(errno.EINVAL, "UFFDIO_WRITEPROTECT takes whole hugepages")
        change_protection(vma, max(start, vma.start), min(end, vma.end), on)
        found = True
    if not found:
        raise OSError(errno.ENOENT, f"no VMA in [{start:#x}, {end:#x})")


def change_protection(vma: Vma, start: int, end: int, on: bool) -> None:
    """hugetlb_change_protection of the whole hugepages `[start, end)` of `vma`."""
    for hugepage in range(vma.hugepage(start), vma.hugepage(end)):
        rewrite_entries(vma.mapping.table, hugepage, PROTECTED if on else UNPROTECTED)
