"""An address space with hugetlb mappings: the system calls a VMM makes, with their errnos.

What this models
    mmap, munmap, madvise, process_madvise, fork and userfaultfd on hugetlb mappings with high-granularity mapping
    (HGM), as posted in January and February 2023 and never merged; and the page faults of the vCPUs.

Rules
    1. MADV_SPLIT only permits small mappings; it splits nothing and cannot be undone (SEMANTICS 1.1).
    2. Bytes in the page cache and entries in the page table are two things (SEMANTICS I3).
    3. Calls bear the kernel's names; a refusal is an OSError with the kernel's errno.
    4. munmap takes whole hugepages: a hugetlb VMA is split nowhere else (SEMANTICS 1.1, 1.2).

Words
    hgm       "v2" (February 2023, the default) or "v1" (January 2023)
    hwpoison  what a memory failure takes away: "hugepage" (HGM), or "page", only the bad 4K (SEMANTICS 3.4)
    vCPU      a thread, named by an int; at most one fault of it waits at a time

Simplified
    One thread at a time, so locks never wait. Private mappings exist to be refused: copy-on-write is not modelled.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final, get_args

from migemu.mm.collapse import HgmVersion
from migemu.mm.contiguous import WITH_CONT
from migemu.mm.entries import LEAF, WP, Entry, Table, is_wp
from migemu.mm.faults import USERFAULTS, FaultOutcome, Handling, handle_userfault, hugetlb_fault
from migemu.mm.fork import dup_mmap
from migemu.mm.gather import OnGather
from migemu.mm.hugetlb_file import UNCHECKED, HugetlbFile
from migemu.mm.invariants import check_space
from migemu.mm.madvise import (
    ADVICES,
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_POPULATE_WRITE,
    MADV_SPLIT,
    HwpoisonUnit,
    madvise_collapse,
    madvise_dontneed,
    madvise_hwpoison,
    madvise_populate_write,
    madvise_split,
)
from migemu.mm.mapcount import MAPCOUNT_OF, MapcountScheme, page_mapcount
from migemu.mm.page_table import PMD, PTE, PUD, PageTable
from migemu.mm.pages import Geometry, Level
from migemu.mm.uffd_msg import OnWake, UffdContext, UffdEvent, UffdFeature
from migemu.mm.userfaultfd import Userfaultfd
from migemu.mm.vma import Mapping, Vma, VmaTree
from migemu.mm.zap import unmap_region

MMAP_BASE: Final = 0x4000_0000_0000

_OUTCOMES: Final = {
    Handling.DONE: FaultOutcome.MAPPED,
    Handling.HWPOISON: FaultOutcome.SIGBUS_MCEERR,
    Handling.SIGBUS: FaultOutcome.SIGBUS,
    Handling.MIGRATION: FaultOutcome.RETRY,
}


class AddressSpace:
    """An mm. `on_wake(vcpu, addr)` is called for every waiter that is woken, after it has left the queue.

    `on_gather(step)` is told every step of a collapse or a zap, in the kernel's order (SEMANTICS 2.3). `mapcount` is a
    scheme of SEMANTICS 3.5, None for that of the version. `tables_max` bounds the page tables of each mapping below its
    hugepage level; the next allocation gets ENOMEM.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        hgm: HgmVersion = "v2",
        mapcount: MapcountScheme | None = None,
        hwpoison: HwpoisonUnit = "hugepage",
        on_wake: OnWake | None = None,
        on_gather: OnGather | None = None,
        tables_max: int | None = None,
    ) -> None:
        for name, given, known in (
            ("hgm", hgm, HgmVersion), ("mapcount", mapcount, MapcountScheme), ("hwpoison", hwpoison, HwpoisonUnit),
        ):  # fmt: skip
            if given is not None and given not in get_args(known):
                raise ValueError(f"{name}={given!r} is not accepted here: give one of {get_args(known)}")
        self.geometry = geometry
        self.hgm: HgmVersion = hgm
        self.mapcount_scheme: MapcountScheme = mapcount or MAPCOUNT_OF[hgm]
        self.hwpoison: HwpoisonUnit = hwpoison
        self.on_wake, self.on_gather = on_wake, on_gather
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

        Mapping one file twice makes a primary and an alias (SEMANTICS 1.1). OSError EINVAL: length 0, or another
        hugepage size than the file's. ENOMEM: no addresses left, or the file is too short.
        """
        size = self.geometry.size(hstate)
        if length <= 0:
            raise OSError(errno.EINVAL, "mmap of no bytes")
        hugepages = -(-length // size)
        if file is None:
            file = HugetlbFile(self.geometry, hstate, hugepages)
            if self.hgm == "v1":
                file.refs_max = UNCHECKED
        if file.hstate != hstate or file.geometry is not self.geometry:
            raise OSError(errno.EINVAL, f"{file!r} has hugepages of another size")
        if hugepages > file.hugepages:
            raise OSError(errno.ENOMEM, f"{file!r} is shorter than {hugepages} hugepages")
        table = PageTable(self.geometry, hstate, hugepages, file.refs, self.tables_max)
        start, end = self._next, self._next + hugepages * size
        boundary = self.geometry.size(Level.PUD)
        self._next = -(-end // boundary) * boundary + boundary
        mapping = Mapping(start, end, file, table, shared)
        self.vmas.insert(Vma(start, end, mapping))
        return start

    def munmap(self, addr: int, length: int) -> None:
        """munmap(2): take `[addr, addr + length)` out, with the tables; `length` is rounded up to base pages.

        OSError EINVAL: not page-aligned, nothing to do, or inside a hugepage; then nothing is unmapped.
        """
        if addr & self._page_mask or length <= 0:
            raise OSError(errno.EINVAL, f"munmap needs a page-aligned start and a length, not {addr:#x} and {length}")
        end = addr + (length + self._page_mask & ~self._page_mask)
        for edge in (addr, end):
            vma = self.vmas.find(edge)
            if vma is not None and edge % vma.hugepage_bytes:
                raise OSError(errno.EINVAL, f"a hugetlb VMA cannot be split at {edge:#x}, inside a hugepage")
        notified: list[UffdContext] = []
        for vma in list(self.vmas.overlapping(addr, end)):
            part = self.vmas.carve(vma, max(addr, vma.start), min(end, vma.end))
            unmap_region(part, part.start, part.end, self.on_gather)
            self.vmas.remove(part)
            if part.uffd is not None and part.uffd.features & UffdFeature.EVENT_UNMAP and part.uffd not in notified:
                notified.append(part.uffd)
        for uffd in notified:
            uffd.waiters.tell(UffdEvent.UNMAP, addr, end)
        self._hit_access = []

    def fork(self, *, on_wake: OnWake | None = None, on_gather: OnGather | None = None) -> AddressSpace:
        """fork(2): the child's space, with its own listeners. OSError ENOMEM: no reference left (SEMANTICS 1.8)."""
        child = AddressSpace(
            self.geometry, hgm=self.hgm, mapcount=self.mapcount_scheme, hwpoison=self.hwpoison,
            on_wake=on_wake, on_gather=on_gather, tables_max=self.tables_max,
        )  # fmt: skip
        child._next = self._next
        try:
            child.uffds.extend(dup_mmap(self.vmas.vmas, child.vmas, on_wake))
        except OSError:
            child.exit()
            raise
        return child

    def exit(self) -> None:
        """exit_mmap: unmap everything. The userfaultfds hear nothing of it."""
        for vma in list(self.vmas.vmas):
            unmap_region(vma, vma.start, vma.end, self.on_gather)
            self.vmas.remove(vma)
        self._hit_access = []

    def file(self, addr: int) -> HugetlbFile:
        """The file mapped at `addr`."""
        return self._vma(addr).mapping.file

    def populate(self, addr: int, length: int) -> None:
        """The bytes of `[addr, addr + length)` were written through an alias: their hugepages are in the page cache.

        The page cache holds whole hugepages, so the range is widened to them (SEMANTICS 3.2). OSError EFAULT: not all
        mapped.
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
        """madvise(2): SPLIT, COLLAPSE, DONTNEED, POPULATE_WRITE, HWPOISON. `length` is rounded up to base pages.

        OSError EINVAL: unknown advice, or `addr` not page-aligned; others as the advice says (SEMANTICS 1.1, 1.7, 2.2).
        """
        if advice not in ADVICES:
            raise OSError(errno.EINVAL, f"advice {advice} is unknown")
        if addr & self._page_mask or length < 0:
            raise OSError(errno.EINVAL, f"madvise needs a page-aligned start and a length, not {addr:#x} and {length}")
        end = addr + (length + self._page_mask & ~self._page_mask)
        if advice == MADV_COLLAPSE:
            madvise_collapse(self.vmas, addr, end, self.hgm, self.on_gather)
        elif advice == MADV_SPLIT:
            madvise_split(self.vmas, addr, end)
        elif advice == MADV_DONTNEED:
            madvise_dontneed(self.vmas, addr, end, self.on_gather)
        elif advice == MADV_POPULATE_WRITE:
            madvise_populate_write(self.vmas, addr, end)
        else:
            madvise_hwpoison(self.vmas, addr, end, self.hwpoison)

    def process_madvise(self, ranges: Iterable[tuple[int, int]], advice: int) -> int:
        """process_madvise(2): the ranges in order, up to the first that fails; the bytes of those done (SEMANTICS 6.1).

        OSError: the errno of the first range when none was done; EINVAL for any advice but COLLAPSE.
        """
        if advice != MADV_COLLAPSE:
            raise OSError(errno.EINVAL, f"process_madvise does not take advice {advice}")
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

    # ------------------------------------------------------------------------------------------------- faults

    def fault(self, vcpu: int, addr: int, write: bool) -> FaultOutcome:
        """An access of `vcpu` to `addr`: it may go on, it waits for userfaultfd, or it is killed (SEMANTICS 3.1, 3.2).

        ValueError: this vCPU is asleep already. OSError ENOMEM: no table to map around a bad page (VM_FAULT_OOM).
        """
        for uffd in self.uffds:
            if vcpu in uffd.waiters:
                raise ValueError(f"vCPU {vcpu} is asleep; wake it before it touches {addr:#x}")
        vma = self.vmas.find(addr)
        if vma is None:
            return FaultOutcome.SIGSEGV
        handling = hugetlb_fault(vma, addr, write)
        if handling not in USERFAULTS:
            return _OUTCOMES[handling]
        return handle_userfault(vma, vcpu, addr, write, handling)

    # ---------------------------------------------------------------------------------------------- looking at

    def is_mapped(self, addr: int) -> bool:
        """Whether a read of `addr` needs no fault. The vCPUs ask for every access."""
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

    def is_writable(self, addr: int) -> bool:
        """Whether a write to `addr` needs no fault: it is mapped, and not write-protected."""
        vma = self.vmas.find(addr)
        return vma is not None and vma.mapping.table.walk_end(vma.page(addr))[1] & (LEAF | WP) == LEAF

    def is_uffd_wp(self, addr: int) -> bool:
        """Bit 57 of /proc/pid/pagemap: a marker, a protected leaf, or a migration entry that will be one again."""
        vma = self._vma(addr)
        return is_wp(vma.mapping.table.walk_end(vma.page(addr))[1])

    def walk(self, addr: int, level: Level | None = None) -> Entry:
        """Where a walk for `addr` ends: (level, kind); with `level` it stops there, so the kind may be TABLE.

        OSError EFAULT outside every mapping, as below. ValueError: this geometry has no such level.
        """
        if level is not None and level not in self.geometry.shifts:
            raise ValueError(f"{self.geometry.name} has no {level!r}")
        vma = self._vma(addr)
        return vma.mapping.table.walk(vma.page(addr), PTE if level is None else level)

    def mapcount(self, addr: int) -> int:
        """The mapcount of the base page at `addr`, by the scheme of this address space (SEMANTICS 3.5)."""
        vma = self._vma(addr)
        return page_mapcount(vma.mapping.file, vma.page(addr), self.mapcount_scheme)

    def leaves(self, addr: int) -> dict[Level, int]:
        """Leaf entries by level of the mapping at `addr`; a contiguous group is one."""
        counts = self._vma(addr).mapping.table.leaves
        return {level: counts[level] for level in self.geometry.levels}

    def page_table_bytes(self, addr: int) -> int:
        """Bytes of the tables below the hugepage level, of the mapping at `addr` (SEMANTICS 3.6)."""
        return self._vma(addr).mapping.table.tables * self.geometry.page_bytes

    def smaps(self, addr: int) -> dict[str, int]:
        """The fields of /proc/pid/smaps for the VMA at `addr`, in kB (SEMANTICS 3.5)."""
        vma = self._vma(addr)
        counts = vma.mapping.table.count_leaves(vma.page(vma.start), vma.page(vma.end))
        hugepage_kb = vma.hugepage_bytes >> 10
        fields = {"Size": vma.end - vma.start >> 10, "KernelPageSize": hugepage_kb, "MMUPageSize": hugepage_kb}
        for level in (PUD, PMD, PTE):  # contiguous sizes count at the level whose entries they are made of
            mapped = counts[level] * self.geometry.size(level)
            group = WITH_CONT.get(level)
            if group in self.geometry.levels:
                mapped += counts[group] * self.geometry.size(group)
            fields[f"Hugetlb{level.name.capitalize()}Mapped"] = mapped >> 10
        return fields

    def validate(self) -> None:
        """ValidationError naming the invariant that does not hold (SEMANTICS 8.1)."""
        check_space(self.vmas, self.uffds)

    def _vma(self, addr: int) -> Vma:
        vma = self.vmas.find(addr)
        if vma is None:
            raise OSError(errno.EFAULT, f"{addr:#x} is not mapped")
        return vma

    def __repr__(self) -> str:
        mapped = sum(vma.end - vma.start for vma in self.vmas.vmas)
        return f"<AddressSpace {self.geometry.name}, HGM {self.hgm}, {len(self.vmas.vmas)} VMAs of {mapped} bytes>"
