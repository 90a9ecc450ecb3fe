"""A userfaultfd: registration, messages, UFFDIO_CONTINUE, UFFDIO_WAKE.

What this models
    The ioctls of one userfaultfd on hugetlb VMAs of its mm, minor and missing mode.

Rules (sections of kernel-semantics)
    1. CONTINUE chooses for each position the largest hugetlb size, not above the VMA's, that is aligned there and fits;
       without MADV_SPLIT there is one size, the hugepage (1.2, 1.3).
    2. It installs into blank entries only and fills no holes of a slot that has a table already (0.4).
    3. It is not transactional: pieces before a failure stay mapped. Failure on the first piece shows its own errno,
       later ones EAGAIN and the bytes done (1.3).
    4. The walk comes before the look-up of the page: tables allocated for a piece that then fails stay.
    5. Waiters are woken for the mapped range only (1.3); on EEXIST nobody is.

Simplified
    Modes other than DONTWAKE do not exist, so "bad mode" cannot happen; no signals (EINTR), no exit (ESRCH).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import IntFlag
from typing import Final, NoReturn

from migemu.mm.errnos import PartialError
from migemu.mm.faults import FaultOutcome, Handling, UffdMsg, Waiter, WaitQueue, pagefault
from migemu.mm.hugetlb_file import CACHED, HWPOISON, MAPPABLE
from migemu.mm.page_table import BLOCKED, LEAF, NONE, PTE, WP_MARKER
from migemu.mm.pages import Geometry, Level
from migemu.mm.vma import Vma, VmaTree

#: Called for every waiter woken: (vcpu, the exact address it faulted at). It may fault again at once.
OnWake = Callable[[int, int], None]

#: End of user addresses on x86_64 and on arm64 with 48 bits, 4-level tables.
TASK_SIZE: Final = 1 << 47


class UffdFeature(IntFlag):
    """UFFD_FEATURE_* of `<linux/userfaultfd.h>`. Those not named in this package are accepted and change nothing."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11


class Userfaultfd:
    """One userfaultfd of an address space; made by `AddressSpace.userfaultfd`."""

    __slots__ = (
        "_page_bytes", "_page_mask", "_page_shift", "exact_address", "features", "geometry", "on_wake", "sigbus",
        "thread_id", "vmas", "waiters",
    )  # fmt: skip

    def __init__(self, geometry: Geometry, vmas: VmaTree, features: int, on_wake: OnWake | None) -> None:
        if features & ~sum(UffdFeature):
            raise OSError(errno.EINVAL, f"UFFDIO_API: unknown feature bits in {features:#x}")
        self.features = UffdFeature(features)
        self.geometry, self.vmas, self.on_wake = geometry, vmas, on_wake
        self.waiters = WaitQueue()
        self.exact_address = bool(features & UffdFeature.EXACT_ADDRESS)
        self.sigbus = bool(features & UffdFeature.SIGBUS)
        self.thread_id = bool(features & UffdFeature.THREAD_ID)
        self._page_bytes = geometry.page_bytes
        self._page_mask = geometry.page_bytes - 1
        self._page_shift = geometry.shifts[PTE]

    # -------------------------------------------------------------------------------------------- registration

    def register(self, addr: int, length: int, *, missing: bool = False, minor: bool = False) -> None:
        """UFFDIO_REGISTER: watch bytes `[addr, addr + length)`, whole hugepages, also under HGM (1.1).

        The modes given replace those of an earlier registration unless they are a part of it. OSError EINVAL: no mode,
        no VMA, not whole hugepages. EBUSY: watched by another userfaultfd.
        """
        if not (missing or minor):
            raise OSError(errno.EINVAL, "UFFDIO_REGISTER needs a mode")
        self._validate_range(addr, length)
        for vma in self._whole_hugepages(addr, addr + length):
            if vma.uffd is not None and vma.uffd is not self:
                raise OSError(errno.EBUSY, f"{vma.start:#x} is watched by another userfaultfd")
        for vma in list(self.vmas.overlapping(addr, addr + length)):
            if vma.uffd is self and vma.missing >= missing and vma.minor >= minor:
                continue
            part = self.vmas.carve(vma, max(addr, vma.start), min(addr + length, vma.end))
            part.uffd, part.missing, part.minor = self, missing, minor

    def unregister(self, addr: int, length: int) -> None:
        """UFFDIO_UNREGISTER: stop watching whole hugepages and wake who waits there. OSError EINVAL as `register`."""
        self._validate_range(addr, length)
        self._whole_hugepages(addr, addr + length)
        for vma in list(self.vmas.overlapping(addr, addr + length)):
            if vma.uffd is not None:
                part = self.vmas.carve(vma, max(addr, vma.start), min(addr + length, vma.end))
                watcher, part.uffd, part.missing, part.minor = vma.uffd, None, False, False
                watcher._wake_range(part.start, part.end)

    def _whole_hugepages(self, start: int, end: int) -> list[Vma]:
        """The VMAs of a range whose ends are hugepage boundaries. OSError EINVAL otherwise, or when there are none."""
        vmas = list(self.vmas.overlapping(start, end))
        if not vmas:
            raise OSError(errno.EINVAL, f"no VMA in [{start:#x}, {end:#x})")
        if start % vmas[0].hugepage_bytes or (end <= vmas[-1].end and end % vmas[-1].hugepage_bytes):
            raise OSError(errno.EINVAL, "registration takes whole hugepages (1.1)")
        return vmas

    # ------------------------------------------------------------------------------------------------ messages

    def read(self) -> UffdMsg | None:
        """The oldest message not read yet, or None (EAGAIN of a non-blocking descriptor)."""
        return self.waiters.read()

    def handle_userfault(self, vcpu: int, vma: Vma, addr: int, write: bool, handling: Handling) -> FaultOutcome:
        """Put `vcpu` asleep with a message queued, or SIGBUS if the feature of that name was asked for."""
        if self.sigbus:
            return FaultOutcome.SIGBUS
        msg = pagefault(handling, vma, addr, write, self.exact_address, vcpu if self.thread_id else 0)
        self.waiters.sleep(vcpu, addr, msg)
        return FaultOutcome.WAITING

    # ------------------------------------------------------------------------------------------------ CONTINUE

    def continue_(self, addr: int, length: int, dontwake: bool = False) -> int:
        """UFFDIO_CONTINUE: map bytes `[addr, addr + length)` from the page cache; `length` (1.3).

        OSError EINVAL: not 4K-aligned (HGM), not hugepage-aligned (no HGM), length 0. ENOENT: not inside one registered
        VMA. EEXIST: something is mapped there. EFAULT: not in the page cache. EIO: hwpoisoned. ENOMEM: no table.
        PartialError (EAGAIN, `.mapped` bytes) when some pieces came before the failure.
        """
        if length == self._page_bytes and (vma := self.vmas.find(addr)) is not None and self._continue_page(vma, addr):
            if self.waiters and not dontwake:
                self._wake_range(addr, addr + length)
            return length
        end = addr + length
        vma = self._dst_vma(addr, end)
        done, failure = self._mfill_continue(vma, addr, end)
        if done and self.waiters and not dontwake:
            self._wake_range(addr, addr + done)
        if failure is None:
            return done
        raise PartialError(done, failure) if done else failure

    def continue_run(self, addr: int, level: Level, count: int) -> tuple[int, int]:
        """`count` single `continue_` calls of one `level` entry each, from `addr` on: (mapped, existing) pieces.

        EEXIST pieces are skipped and counted; any other errno is raised, and the pieces before it stay mapped and their
        waiters are woken. Waiters are woken after the whole run, not between its pieces.
        """
        size = self.geometry.size(level)
        end = addr + count * size
        vma = self.vmas.find(addr)
        if level != PTE or vma is None or vma.uffd is None or not vma.hgm or end > vma.end or addr & self._page_mask:
            return self._continue_each(addr, size, count)
        if not self.waiters:
            return self._continue_ptes(vma, addr, end)
        table = vma.mapping.table
        waited = self.waiters.addresses(addr, end)
        holes = [address for address in waited if table.walk_end(vma.page(address))[1] < LEAF]
        try:
            return self._continue_ptes(vma, addr, end)
        finally:
            self._wake([address for address in holes if table.walk_end(vma.page(address))[1] >= LEAF])

    def _dst_vma(self, start: int, end: int) -> Vma:
        """The registered VMA that holds all of `[start, end)`, after the checks on range and alignment (1.3)."""
        vma = self.vmas.find(start)
        if vma is None or end > vma.end or (start | end) & self._page_mask or end <= start:
            self._validate_range(start, end - start)
            raise OSError(errno.ENOENT, f"[{start:#x}, {end:#x}) is not inside one VMA (1.3)")
        if vma.uffd is None:
            raise OSError(errno.ENOENT, f"{start:#x} is not registered with userfaultfd (1.3)")
        if not vma.hgm and (start | end) & (vma.hugepage_bytes - 1):
            raise OSError(errno.EINVAL, "without MADV_SPLIT only whole hugepages can be continued (1.2, 1.3)")
        return vma

    def _continue_page(self, vma: Vma, addr: int) -> bool:
        """The hot case, a base page that can be continued; False leaves every other case to the general path."""
        if vma.uffd is None or not vma.hgm or addr & self._page_mask:
            return False
        mapping = vma.mapping
        table = mapping.table
        page = (addr - mapping.start) >> self._page_shift
        if mapping.file.folios[page >> table.hstate_shift] & MAPPABLE != CACHED:
            return False
        if not NONE <= table.reach(page, PTE) <= WP_MARKER:
            return False
        table.install_pte(page)
        return True

    def _mfill_continue(self, vma: Vma, start: int, end: int) -> tuple[int, OSError | None]:
        """Continue `[start, end)` until something refuses: (bytes done, what refused)."""
        table, folios = vma.mapping.table, vma.mapping.file.folios
        page = first = vma.page(start)
        last = vma.page(end)
        try:
            while page < last:
                pages, level = table.largest(page, last)
                kind = table.reach(page, level)
                if kind == BLOCKED:
                    raise OSError(errno.EEXIST, "a larger leaf or a poison entry covers it (1.3)")
                if folios[page >> table.hstate_shift] & MAPPABLE != CACHED:
                    self._refuse_folio(vma, page >> table.hstate_shift)
                if kind > WP_MARKER:
                    raise OSError(errno.EEXIST, "the entry is neither empty nor a uffd-wp marker (1.3)")
                if level == PTE:
                    # All positions up to the next larger alignment take PTE entries of this one table.
                    count = min((page | table.small_mask) + 1, last) - page
                    pages = table.blank_ptes(page, count)
                    table.install_ptes(page, pages)
                else:
                    table.install(page, level)
                page += pages
        except OSError as failure:
            return (page - first) * self.geometry.page_bytes, failure
        return end - start, None

    def _continue_ptes(self, vma: Vma, start: int, end: int) -> tuple[int, int]:
        """Continue `[start, end)` of an HGM VMA by PTE entries, one slice per table: (mapped, existing)."""
        table, folios = vma.mapping.table, vma.mapping.file.folios
        page, last = vma.page(start), vma.page(end)
        mapped = existing = 0
        while page < last:
            here = min((page | table.small_mask) + 1, last) - page
            fresh = 0
            if table.reach(page, PTE) != BLOCKED:
                if folios[page >> table.hstate_shift] & MAPPABLE != CACHED:
                    self._refuse_folio(vma, page >> table.hstate_shift)
                fresh = table.install_ptes(page, here)
            mapped += fresh
            existing += here - fresh
            page += here
        return mapped, existing

    def _continue_each(self, addr: int, size: int, count: int) -> tuple[int, int]:
        """The definition of `continue_run`, call by call."""
        existing = 0
        for piece in range(addr, addr + count * size, size):
            try:
                self.continue_(piece, size)
            except FileExistsError:
                existing += 1
        return count - existing, existing

    def _refuse_folio(self, vma: Vma, hugepage: int) -> NoReturn:
        """OSError EIO or EFAULT: why the hugepage cannot be mapped (1.3)."""
        if vma.mapping.file.folios[hugepage] & HWPOISON:
            raise OSError(errno.EIO, f"hugepage {hugepage} is hwpoisoned (1.3)")
        raise OSError(errno.EFAULT, f"hugepage {hugepage} is not in the page cache (1.3)")

    # ------------------------------------------------------------------------------------------------- waking

    def wake(self, addr: int, length: int) -> None:
        """UFFDIO_WAKE: wake all whose message reports an address in the range; they fault again. OSError EINVAL."""
        self._validate_range(addr, length)
        self._wake_range(addr, addr + length)

    def _wake_range(self, start: int, end: int) -> None:
        self._wake(self.waiters.addresses(start, end))

    def _wake(self, addresses: list[int]) -> None:
        woken: list[Waiter] = self.waiters.take(addresses)  # all off the queue first: on_wake may fault again
        if self.on_wake is not None:
            for waiter in woken:
                self.on_wake(waiter.vcpu, waiter.addr)

    def _validate_range(self, start: int, length: int) -> None:
        """validate_range of fs/userfaultfd.c: OSError EINVAL."""
        if (start | length) & self._page_mask or length <= 0 or start < 0 or start + length > TASK_SIZE:
            raise OSError(errno.EINVAL, f"[{start:#x}, +{length:#x}) is not a range of whole pages (1.3)")

    def __repr__(self) -> str:
        return f"<Userfaultfd {self.features!r}, {len(self.waiters)} asleep>"
