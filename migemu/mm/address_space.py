"""An address space with hugetlb mappings: the system calls a VMM makes, with their errnos.

What this models
    mmap, madvise, process_madvise and userfaultfd on hugetlb mappings with high-granularity mapping (HGM), as posted in
    January and February 2023 and never merged; and the page faults of the vCPUs.

Rules (sections of kernel-semantics)
    1. MADV_SPLIT only permits small mappings; it splits nothing and cannot be undone (1.1).
    2. Bytes in the page cache and entries in the page table are two things (8, I3).
    3. Calls bear the kernel's names; a refusal is an OSError with the kernel's errno.

Words
    hgm       "v2" (February 2023, the default) or "v1" (January 2023)
    vCPU      a thread, named by an int; at most one fault of it waits at a time

Simplified
    One thread at a time, so locks never wait. MADV_HWPOISON asks for no privilege. Private mappings exist to be
    refused: copy-on-write is not modelled.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from migemu.mm.collapse import EHWPOISON, HgmVersion, hugetlb_collapse
from migemu.mm.errnos import WouldSleepError
from migemu.mm.faults import FaultOutcome, Handling, hugetlb_fault
from migemu.mm.hugetlb_file import HugetlbFile
from migemu.mm.invariants import check_space
from migemu.mm.page_table import LEAF, PMD, PTE, Entry, PageTable, Table
from migemu.mm.pages import Geometry, Level
from migemu.mm.userfaultfd import OnWake, Userfaultfd
from migemu.mm.vma import Mapping, Vma, VmaTree

# Linux's values; MADV_SPLIT as HGM v1 and v2 number it, except on parisc (1.1).
MADV_POPULATE_WRITE: Final = 23
MADV_COLLAPSE: Final = 25
MADV_SPLIT: Final = 26
MADV_HWPOISON: Final = 100

MMAP_BASE: Final = 0x4000_0000_0000


class AddressSpace:
    """An mm. `on_wake(vcpu, addr)` is called for every waiter that is woken, after it has left the queue.

    `tables_max` bounds the page tables of each mapping below its hugepage level; the next allocation gets ENOMEM.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        hgm: HgmVersion = "v2",
        on_wake: OnWake | None = None,
        tables_max: int | None = None,
    ) -> None:
        if hgm not in ("v1", "v2"):
            raise ValueError(f"hgm={hgm!r} is not accepted here: give 'v1' or 'v2'")
        self.geometry = geometry
        self.hgm: HgmVersion = hgm
        self.on_wake = on_wake
        self.tables_max = tables_max
        self.vmas = VmaTree()
        self.uffds: list[Userfaultfd] = []
        self._page_mask = geometry.page_bytes - 1
        self._next = MMAP_BASE
        # For is_mapped: the mapping that answered last, and the geometry as plain ints.
        self._hit_start = MMAP_BASE
        self._hit_access: list[Table] = []
        self._page_shift, self._pmd_shift = geometry.shifts[PTE], geometry.shifts[PMD]
        self._pte_mask = geometry.pages(PMD) - 1

    # ------------------------------------------------------------------------------------------------ mapping

    def mmap_hugetlb(
        self, length: int, hstate: Level = Level.PUD, *, shared: bool = True, file: HugetlbFile | None = None
    ) -> int:
        """Map `length` bytes, rounded up to hugepages of `hstate`, of `file` or of a new one; the address.

        Mapping one file twice makes a primary and an alias (1.1). OSError EINVAL: length 0, or another hugepage size
        than the file's. ENOMEM: no addresses left, or the file is too short.
        """
        size = self.geometry.size(hstate)
        if length <= 0:
            raise OSError(errno.EINVAL, "mmap of no bytes")
        hugepages = -(-length // size)
        if file is None:
            file = HugetlbFile(self.geometry, hstate, hugepages)
        if file.hstate != hstate or file.geometry is not self.geometry:
            raise OSError(errno.EINVAL, f"{file!r} has hugepages of another size")
        if hugepages > file.hugepages:
            raise OSError(errno.ENOMEM, f"{file!r} is shorter than {hugepages} hugepages")
        table = PageTable(self.geometry, hstate, hugepages, file.refs, self.tables_max)
        start, end = self._next, self._next + hugepages * size
        boundary = self.geometry.size(Level.PUD)
        self._next = -(-end // boundary) * boundary + boundary
        file.tables.append(table)
        mapping = Mapping(start, end, file, table, shared)
        self.vmas.insert(Vma(start, end, mapping))
        return start

    def file(self, addr: int) -> HugetlbFile:
        """The file mapped at `addr`."""
        return self._vma(addr).mapping.file

    def populate(self, addr: int, length: int) -> None:
        """The bytes of `[addr, addr + length)` were written through an alias: their hugepages are in the page cache.

        The page cache holds whole hugepages, so the range is widened to them (3.2). OSError EFAULT: not all mapped.
        """
        while length > 0:
            vma = self._vma(addr)
            here = min(length, vma.end - addr)
            vma.mapping.file.populate(vma.hugepage(addr), vma.hugepage(addr + here - 1) + 1)
            addr += here
            length -= here

    def userfaultfd(self, features: int = 0) -> Userfaultfd:
        """userfaultfd(2) and UFFDIO_API with `features`. OSError EINVAL: unknown feature bits."""
        uffd = Userfaultfd(self.geometry, self.vmas, features, self.on_wake)
        self.uffds.append(uffd)
        return uffd

    # ------------------------------------------------------------------------------------------------- advice

    def madvise(self, addr: int, length: int, advice: int) -> None:
        """madvise(2): SPLIT, COLLAPSE, POPULATE_WRITE, HWPOISON. `length` is rounded up to base pages (2.1).

        OSError EINVAL: unknown advice, or `addr` not page-aligned; others as the advice says (1.1, 2.2).
        """
        if advice not in (MADV_SPLIT, MADV_COLLAPSE, MADV_POPULATE_WRITE, MADV_HWPOISON):
            raise OSError(errno.EINVAL, f"advice {advice} is unknown")
        if addr & self._page_mask or length < 0:
            raise OSError(errno.EINVAL, f"madvise needs a page-aligned start and a length, not {addr:#x} and {length}")
        end = addr + (length + self._page_mask & ~self._page_mask)
        if advice == MADV_COLLAPSE and self.hgm == "v2":
            self._collapse_v2(addr, end)
        elif advice == MADV_POPULATE_WRITE:
            self._populate_write(addr, end)
        elif advice == MADV_HWPOISON:
            self._hwpoison(addr, end)
        else:
            self._walk_vmas(addr, end, advice)

    def process_madvise(self, ranges: Iterable[tuple[int, int]], advice: int) -> int:
        """process_madvise(2): the ranges in order, up to the first that fails; the bytes of those done (6.1).

        OSError: the errno of the first range when none was done; EINVAL for any advice but COLLAPSE.
        """
        if advice != MADV_COLLAPSE:
            raise OSError(errno.EINVAL, f"process_madvise does not take advice {advice} (6.1)")
        done = 0
        for addr, length in ranges:
            try:
                self.madvise(addr, length, advice)
            except OSError:
                if done:
                    return done
                raise
            done += length
        return done

    def _walk_vmas(self, start: int, end: int, advice: int) -> None:
        """madvise_walk_vmas: each VMA in the range; a hole is passed over and answered with ENOMEM at the end."""
        unmapped = False
        cursor = start
        for vma in list(self.vmas.overlapping(start, end)):
            here, until = max(cursor, vma.start), min(end, vma.end)
            unmapped |= here > cursor
            if advice == MADV_SPLIT:
                self._split(vma, here, until)
            else:
                hugetlb_collapse(vma, here, until, self.hgm)
            cursor = until
        if unmapped or cursor < end:
            raise OSError(errno.ENOMEM, f"[{start:#x}, {end:#x}) is not all mapped")

    def _split(self, vma: Vma, start: int, end: int) -> None:
        """MADV_SPLIT of `[start, end)` of one VMA (1.1)."""
        if not vma.mapping.shared:
            raise OSError(errno.EINVAL, "MADV_SPLIT needs a shared mapping (1.1)")
        if not vma.hgm:
            self.vmas.carve(vma, start, end).hgm = True

    def _collapse_v2(self, start: int, end: int) -> None:
        """v2 looks VMAs up itself, under mmap_lock for write: no VMA is EINVAL (2.2, 2.3)."""
        while start < end:
            vma = self.vmas.find(start)
            if vma is None:
                raise OSError(errno.EINVAL, f"no hugetlb VMA at {start:#x} (2.2)")
            until = min(end, vma.end)
            hugetlb_collapse(vma, start, until, self.hgm)
            start = until

    def _populate_write(self, start: int, end: int) -> None:
        """MADV_POPULATE_WRITE: fault in every page as a write would; each fault installs what it finds (3.1)."""
        while start < end:
            vma = self.vmas.find(start)
            if vma is None:
                raise OSError(errno.ENOMEM, f"{start:#x} is not mapped")
            if self._fault_in(vma, start) is Handling.HWPOISON:
                raise OSError(EHWPOISON, f"{start:#x} is hwpoisoned (3.4)")
            size = self.geometry.size(self.walk(start).level)
            start = (start & -size) + size

    def _hwpoison(self, start: int, end: int) -> None:
        """MADV_HWPOISON: poison the whole hugepage under each position, a hugepage apart (1.2, 3.4)."""
        while start < end:
            vma = self.vmas.find(start)
            if vma is None:
                raise OSError(errno.EFAULT, f"{start:#x} is not mapped")
            if self._fault_in(vma, start) is Handling.HWPOISON:
                raise OSError(errno.EFAULT, f"{start:#x} is hwpoisoned already (3.4)")
            vma.mapping.file.poison(vma.hugepage(start))
            start += vma.hugepage_bytes

    def _fault_in(self, vma: Vma, addr: int) -> Handling:
        """Fault `addr` in for the calling thread: DONE or HWPOISON.

        OSError EFAULT: the access would get SIGBUS. WouldSleepError: it would wait for userfaultfd.
        """
        handling = hugetlb_fault(vma, addr)
        if handling in (Handling.MINOR, Handling.MISSING):
            if vma.uffd is not None and vma.uffd.sigbus:
                raise OSError(errno.EFAULT, f"access to {addr:#x} would raise SIGBUS")
            raise WouldSleepError(f"a {handling.value} fault at {addr:#x} waits for userfaultfd")
        return handling

    # ------------------------------------------------------------------------------------------------- faults

    def fault(self, vcpu: int, addr: int, write: bool) -> FaultOutcome:
        """An access of `vcpu` to `addr`: it may proceed, it waits for userfaultfd, or it is killed (3.1, 3.2).

        ValueError: this vCPU is asleep already.
        """
        for uffd in self.uffds:
            if vcpu in uffd.waiters:
                raise ValueError(f"vCPU {vcpu} is asleep; wake it before it touches {addr:#x}")
        vma = self.vmas.find(addr)
        if vma is None:
            return FaultOutcome.SIGSEGV
        handling = hugetlb_fault(vma, addr)
        if handling is Handling.DONE:
            return FaultOutcome.MAPPED
        if handling is Handling.HWPOISON:
            return FaultOutcome.SIGBUS
        assert vma.uffd is not None  # only a registered VMA hands a fault to userspace
        return vma.uffd.handle_userfault(vcpu, vma, addr, write, handling)

    # ---------------------------------------------------------------------------------------------- looking at

    def is_mapped(self, addr: int) -> bool:
        """Whether an access to `addr` needs no fault. The vCPUs ask for every access."""
        offset = addr - self._hit_start
        if offset >= 0:
            try:
                return self._hit_access[offset >> self._pmd_shift][offset >> self._page_shift & self._pte_mask] >= LEAF
            except IndexError:  # beyond this mapping
                pass
        vma = self.vmas.find(addr)
        if vma is None:
            return False
        table = vma.mapping.table
        self._hit_start = vma.mapping.start
        self._hit_access = table.access
        return table.walk_end(vma.page(addr))[1] >= LEAF

    def walk(self, addr: int) -> Entry:
        """Where a walk for `addr` ends: (level, kind). OSError EFAULT outside every mapping, as below."""
        vma = self._vma(addr)
        return vma.mapping.table.walk(vma.page(addr))

    def leaves(self, addr: int) -> dict[Level, int]:
        """Leaf entries by level of the mapping at `addr`."""
        counts = self._vma(addr).mapping.table.leaves
        return {level: counts[level] for level in self.geometry.levels}

    def page_table_bytes(self, addr: int) -> int:
        """Bytes of the tables below the hugepage level, of the mapping at `addr` (3.6)."""
        return self._vma(addr).mapping.table.tables * self.geometry.page_bytes

    def smaps(self, addr: int) -> dict[str, int]:
        """The fields of /proc/pid/smaps for the VMA at `addr`, in kB (3.5)."""
        vma = self._vma(addr)
        counts = vma.mapping.table.count_leaves(vma.page(vma.start), vma.page(vma.end))
        hugepage_kb = vma.hugepage_bytes >> 10
        fields = {"Size": vma.end - vma.start >> 10, "KernelPageSize": hugepage_kb, "MMUPageSize": hugepage_kb}
        for level in reversed(self.geometry.levels):
            fields[f"Hugetlb{level.name.capitalize()}Mapped"] = counts[level] * self.geometry.size(level) >> 10
        return fields

    def validate(self) -> None:
        """ValidationError naming the invariant of section 8 that does not hold."""
        check_space(self.vmas, self.uffds)

    def _vma(self, addr: int) -> Vma:
        vma = self.vmas.find(addr)
        if vma is None:
            raise OSError(errno.EFAULT, f"{addr:#x} is not mapped")
        return vma

    def __repr__(self) -> str:
        mapped = sum(vma.end - vma.start for vma in self.vmas.vmas)
        return f"<AddressSpace {self.geometry.name}, HGM {self.hgm}, {len(self.vmas.vmas)} VMAs of {mapped} bytes>"
