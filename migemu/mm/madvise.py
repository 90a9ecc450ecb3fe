"""madvise(2) on hugetlb mappings: which VMAs a range touches, and what each advice does to them.

What this models
    madvise_walk_vmas and the advices of HGM, of memory failure injection, of populating and of dropping.

Rules
    1. SPLIT only permits small mappings; it splits nothing and cannot be undone. On part of a VMA it splits the VMA,
       and a range that is not hugepage-aligned fails at that late point (SEMANTICS 1.1).
    2. COLLAPSE walks VMAs as every advice in v1; v2 looks them up itself, and a hole is EINVAL there (SEMANTICS 10.1).
    3. DONTNEED: the start on a hugepage boundary, else EINVAL; the end is rounded down to one
       (SEMANTICS 1.7). The remove event comes with it.
    4. HWPOISON poisons whole hugepages, or base pages with the switch of SEMANTICS 3.4.

Simplified
    The remove event is queued and the entries are dropped in one go; in the kernel the caller sleeps in between until
    the event is read. No privilege is asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final, Literal

from migemu.mm.collapse import EHWPOISON, HgmVersion, hugetlb_collapse
from migemu.mm.errnos import WouldSleepError
from migemu.mm.faults import USERFAULTS, Handling, hugetlb_fault
from migemu.mm.gather import OnGather
from migemu.mm.hugetlb_file import UNMAPPED
from migemu.mm.memory_failure import memory_failure
from migemu.mm.uffd_msg import UffdEvent, UffdFeature
from migemu.mm.vma import Vma, VmaTree
from migemu.mm.zap import zap_page_range

# Linux's values; MADV_SPLIT as HGM v1 and v2 number it, except on parisc (SEMANTICS 1.1).
MADV_DONTNEED: Final = 4
MADV_POPULATE_WRITE: Final = 23
MADV_COLLAPSE: Final = 25
MADV_SPLIT: Final = 26
MADV_HWPOISON: Final = 100
ADVICES: Final = (MADV_DONTNEED, MADV_POPULATE_WRITE, MADV_COLLAPSE, MADV_SPLIT, MADV_HWPOISON)

#: What one memory failure takes away: the whole hugepage (HGM v1 and v2), or the bad 4K (SEMANTICS 3.4).
HwpoisonUnit = Literal["hugepage", "page"]


def _parts(vmas: VmaTree, start: int, end: int) -> Iterator[tuple[Vma, int, int]]:
    """madvise_walk_vmas: each VMA with its part of the range. OSError ENOMEM at the end if there was a hole."""
    unmapped = False
    cursor = start
    for vma in list(vmas.overlapping(start, end)):
        here, until = max(cursor, vma.start), min(end, vma.end)
        unmapped |= here > cursor
        yield vma, here, until
        cursor = until
    if unmapped or cursor < end:
        raise OSError(errno.ENOMEM, f"[{start:#x}, {end:#x}) is not all mapped")


def madvise_split(vmas: VmaTree, start: int, end: int) -> None:
    """MADV_SPLIT (SEMANTICS 1.1). OSError EINVAL: a private mapping, or a VMA would be split inside a hugepage."""
    for vma, here, until in _parts(vmas, start, end):
        if not vma.mapping.shared:
            raise OSError(errno.EINVAL, "MADV_SPLIT needs a shared mapping")
        if not vma.hgm:
            vmas.carve(vma, here, until).hgm = True


def madvise_collapse(vmas: VmaTree, start: int, end: int, hgm: HgmVersion, on_gather: OnGather | None) -> None:
    """MADV_COLLAPSE (SEMANTICS 2.2, 10.1). OSError as `hugetlb_collapse`; a hole: ENOMEM in v1, EINVAL in v2."""
    if hgm == "v1":
        for vma, here, until in _parts(vmas, start, end):
            hugetlb_collapse(vma, here, until, hgm, on_gather)
        return
    while start < end:
        found = vmas.find(start)
        if found is None:
            raise OSError(errno.EINVAL, f"no hugetlb VMA at {start:#x}")
        until = min(end, found.end)
        hugetlb_collapse(found, start, until, hgm, on_gather)
        start = until


def madvise_dontneed(vmas: VmaTree, start: int, end: int, on_gather: OnGather | None) -> None:
    """MADV_DONTNEED of whole hugepages. OSError EINVAL: `start` is not a hugepage boundary."""
    for vma, here, until in _parts(vmas, start, end):
        if here % vma.hugepage_bytes:
            raise OSError(errno.EINVAL, "MADV_DONTNEED starts on a hugepage boundary")
        until &= -vma.hugepage_bytes
        if until > here:
            if vma.uffd is not None and vma.uffd.features & UffdFeature.EVENT_REMOVE:
                vma.uffd.waiters.tell(UffdEvent.REMOVE, here, until)
            zap_page_range(vma, here, until, on_gather)


def madvise_populate_write(vmas: VmaTree, start: int, end: int) -> None:
    """MADV_POPULATE_WRITE: fault in every page as a write would; each fault installs what it finds (SEMANTICS 3.1).

    OSError ENOMEM: not mapped. EHWPOISON: a poisoned page. EFAULT, WouldSleepError: see `_fault_in`.
    """
    while start < end:
        vma = vmas.find(start)
        if vma is None:
            raise OSError(errno.ENOMEM, f"{start:#x} is not mapped")
        if _fault_in(vma, start, write=True) is Handling.HWPOISON:
            raise OSError(EHWPOISON, f"{start:#x} is hwpoisoned")
        size = vma.mapping.file.geometry.size(vma.mapping.table.walk_end(vma.page(start))[0])
        start = (start & -size) + size


def madvise_hwpoison(vmas: VmaTree, start: int, end: int, unit: HwpoisonUnit) -> None:
    """MADV_HWPOISON: fault in and poison hugepages, or base pages, one after the other (SEMANTICS 1.7, 3.4).

    OSError EFAULT: not mapped, or poisoned already. WouldSleepError: the hugepage is being migrated.
    """
    while start < end:
        vma = vmas.find(start)
        if vma is None:
            raise OSError(errno.EFAULT, f"{start:#x} is not mapped")
        if _fault_in(vma, start, write=False) is Handling.HWPOISON:
            raise OSError(errno.EFAULT, f"{start:#x} is hwpoisoned already")
        file, hugepage = vma.mapping.file, vma.hugepage(start)
        if file.folios[hugepage] & UNMAPPED:
            raise WouldSleepError(f"memory_failure at {start:#x} waits until the hugepage is migrated")
        if unit == "page" and vma.mapping.shared:
            memory_failure(file, vma.page(start))
            start += file.geometry.page_bytes
        else:
            file.poison(hugepage)
            start += vma.hugepage_bytes


def _fault_in(vma: Vma, addr: int, write: bool) -> Handling:
    """Fault `addr` in for the calling thread: DONE or HWPOISON.

    OSError EFAULT: the access would get SIGBUS. WouldSleepError: it would wait, for userfaultfd or for a migration.
    """
    handling = hugetlb_fault(vma, addr, write)
    sigbus = handling in USERFAULTS and vma.uffd is not None and vma.uffd.sigbus
    if sigbus or handling is Handling.SIGBUS:
        raise OSError(errno.EFAULT, f"access to {addr:#x} would raise SIGBUS")
    if handling in USERFAULTS:
        raise WouldSleepError(f"a {handling.value} fault at {addr:#x} waits for userfaultfd")
    if handling is Handling.MIGRATION:
        raise WouldSleepError(f"the access to {addr:#x} waits until its page is migrated")
    return handling
