"""VMAs: which addresses are mapped, by which file, with which advice, watched by which userfaultfd.

What this models
    A *mapping* is what one mmap call made: a file, a page table, a range of addresses. Its range is covered by one or
    more VMAs; advice and registration on a part of a VMA split it (SEMANTICS 1.1).

Rules
    1. A hugetlb VMA is split at hugepage boundaries only; elsewhere the split fails with EINVAL (SEMANTICS 1.1).
    2. Splitting a VMA changes no page table.
    3. Hugetlb VMAs never merge again: they carry VM_DONTEXPAND, which vma_merge refuses (SEMANTICS 1.1).

Simplified
    mmap places every mapping at a PUD boundary, with one PUD of nothing in between. PMD sharing between processes is
    not modelled, so the unsharing that MADV_SPLIT does first has no effect to be seen.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from migemu.mm.hugetlb_file import HugetlbFile
from migemu.mm.page_table import PageTable
from migemu.mm.pages import Level, PageIndex
from migemu.mm.uffd_msg import UffdContext


@dataclass(slots=True, eq=False)
class Mapping:
    """What one mmap call made: bytes `[start, end)` show `file` from its beginning, through `table`."""

    start: int
    end: int
    file: HugetlbFile
    table: PageTable
    shared: bool


@dataclass(slots=True, eq=False, repr=False)
class Vma:
    """Bytes `[start, end)` of a mapping that have the same flags. `uffd` is None where nothing is registered."""

    start: int
    end: int
    mapping: Mapping
    hgm: bool = False
    uffd: UffdContext | None = None
    missing: bool = False
    minor: bool = False
    wp: bool = False

    def watch(self, uffd: UffdContext | None, missing: bool = False, minor: bool = False, wp: bool = False) -> None:
        """Let `uffd` answer faults of these modes, in place of who did; None for nobody."""
        self.uffd, self.missing, self.minor, self.wp = uffd, missing, minor, wp

    @property
    def wp_async(self) -> bool:
        """Whether the kernel lifts protection by itself: UFFD_FEATURE_WP_ASYNC of who watches for write-protect."""
        return self.wp and self.uffd is not None and self.uffd.wp_async

    @property
    def table(self) -> PageTable:
        """The page table that this VMA looks through."""
        return self.mapping.table

    @property
    def shared(self) -> bool:
        """Whether writes reach the file."""
        return self.mapping.shared

    @property
    def hstate(self) -> Level:
        """The level of this VMA's hugepages."""
        return self.mapping.file.hstate

    @property
    def hugepage_bytes(self) -> int:
        """Size in bytes of one hugepage of this mapping."""
        return self.mapping.file.geometry.size(self.hstate)

    def page(self, addr: int) -> PageIndex:
        """The page index of `addr` in this VMA's page table."""
        return (addr - self.mapping.start) >> self.mapping.file.geometry.shifts[Level.PTE]

    def hugepage(self, addr: int) -> int:
        """The index of the hugepage that holds `addr`."""
        return (addr - self.mapping.start) >> self.mapping.file.geometry.shifts[self.hstate]

    def __repr__(self) -> str:
        flags = [name for name in ("hgm", "missing", "minor", "wp") if getattr(self, name)]
        return f"<Vma [{self.start:#x}, {self.end:#x}) {' '.join(flags) or 'plain'}>"


class VmaTree:
    """The VMAs of one mm by address, as the kernel's maple tree keeps them."""

    __slots__ = ("_hit", "_starts", "vmas")

    def __init__(self) -> None:
        self.vmas: list[Vma] = []
        self._starts: list[int] = []
        self._hit: Vma | None = None  # the VMA of the last answer: most look-ups repeat

    def insert(self, vma: Vma) -> None:
        """Add a VMA that overlaps no other."""
        at = bisect_right(self._starts, vma.start)
        self.vmas.insert(at, vma)
        self._starts.insert(at, vma.start)
        vma.mapping.file.i_mmap.append(vma)

    def remove(self, vma: Vma) -> None:
        """Remove a VMA from the tree."""
        at = self.vmas.index(vma)
        del self.vmas[at], self._starts[at]
        vma.mapping.file.i_mmap.remove(vma)
        self._hit = None

    def find(self, addr: int) -> Vma | None:
        """The VMA that holds `addr`."""
        hit = self._hit
        if hit is not None and hit.start <= addr < hit.end:
            return hit
        at = bisect_right(self._starts, addr) - 1
        if at < 0 or addr >= self.vmas[at].end:
            return None
        self._hit = self.vmas[at]
        return self._hit

    def overlapping(self, start: int, end: int) -> Iterator[Vma]:
        """The VMAs that hold any byte of `[start, end)`, by address; they may be split meanwhile."""
        at = max(bisect_right(self._starts, start) - 1, 0)
        for vma in self.vmas[at:]:
            if vma.start >= end:
                return
            if vma.end > start:
                yield vma

    def carve(self, vma: Vma, start: int, end: int) -> Vma:
        """The VMA of the part `[start, end)` of `vma`, after splitting `vma` where needed.

        OSError EINVAL where a split is not at a hugepage boundary; a split done before it stays (SEMANTICS 1.1).
        """
        if start > vma.start:
            vma = self._split(vma, start)
        if end < vma.end:
            self._split(vma, end)
        return vma

    def _split(self, vma: Vma, at: int) -> Vma:
        """Cut `vma` in two at `at`; the upper one."""
        if at % vma.hugepage_bytes:
            raise OSError(errno.EINVAL, f"a hugetlb VMA cannot be split at {at:#x}, inside a hugepage")
        upper = replace(vma, start=at)
        vma.end = at
        self.insert(upper)
        return upper

    def __repr__(self) -> str:
        return f"<VmaTree of {len(self.vmas)}>"
