"""A userfaultfd: registration, messages, and the ioctls that answer them.

What this models
    The ioctls of one userfaultfd on hugetlb VMAs of its mm, in missing, minor and write-protect mode.

Rules
    1. What CONTINUE, COPY and POISON fill is in `mfill`, what WRITEPROTECT changes in `protection`.
    2. They are not transactional: pieces before a failure stay. Failure on the first piece shows its own errno, later
       ones EAGAIN and the bytes done (SEMANTICS 1.3).
    3. Waiters are woken for the range done only (SEMANTICS 1.3); on EEXIST nobody is. DONTWAKE suppresses it.
    4. While an event of this userfaultfd is not read, the mappings count as changing: CONTINUE, COPY, POISON and
       WRITEPROTECT answer EAGAIN and do nothing (SEMANTICS 1.4).

Simplified
    Modes that are not arguments here do not exist, so "bad mode" cannot happen but for WRITEPROTECT; no signals
    (EINTR), no exit (ESRCH). Feature bits that need a privilege are given to everybody.
"""

from __future__ import annotations

import errno
from typing import Final

from migemu.mm.entries import LEAF, NONE, WP_MARKER
from migemu.mm.errnos import PartialError
from migemu.mm.hugetlb_file import CACHED, MAPPABLE
from migemu.mm.mfill import continue_ptes, mfill_continue, mfill_copy, mfill_poison
from migemu.mm.page_table import PTE
from migemu.mm.pages import Geometry, Level
from migemu.mm.protection import change_protection, mwriteprotect_range
from migemu.mm.uffd_msg import OnWake, UffdContext, UffdFeature, UffdMsg
from migemu.mm.vma import Vma, VmaTree

#: End of user addresses on x86_64 and on arm64 with 48 bits, 4-level tables.
TASK_SIZE: Final = 1 << 47


class Userfaultfd(UffdContext):
    """One userfaultfd of an address space; made by `AddressSpace.userfaultfd`, or by its fork."""

    __slots__ = ("_page_bytes", "_page_mask", "_page_shift", "geometry", "vmas")

    def __init__(self, geometry: Geometry, vmas: VmaTree, features: int, on_wake: OnWake | None) -> None:
        if features & ~sum(UffdFeature):
            raise OSError(errno.EINVAL, f"UFFDIO_API: unknown feature bits in {features:#x}")
        super().__init__(UffdFeature(features), on_wake)
        self.geometry, self.vmas = geometry, vmas
        self._page_bytes = geometry.page_bytes
        self._page_mask = geometry.page_bytes - 1
        self._page_shift = geometry.shifts[PTE]

    # -------------------------------------------------------------------------------------------- registration

    def register(self, addr: int, length: int, *, missing: bool = False, minor: bool = False, wp: bool = False) -> None:
        """UFFDIO_REGISTER: watch bytes `[addr, addr + length)`, whole hugepages, also under HGM (SEMANTICS 1.1).

        The modes given replace those of an earlier registration unless they are a part of it. OSError EINVAL: no mode,
        no VMA, not whole hugepages. EBUSY: watched by another userfaultfd.
        """
        if not (missing or minor or wp):
            raise OSError(errno.EINVAL, "UFFDIO_REGISTER needs a mode")
        self._validate_range(addr, length)
        for vma in self._whole_hugepages(addr, addr + length):
            if vma.uffd is not None and vma.uffd is not self:
                raise OSError(errno.EBUSY, f"{vma.start:#x} is watched by another userfaultfd")
        for vma in list(self.vmas.overlapping(addr, addr + length)):
            if vma.uffd is self and vma.missing >= missing and vma.minor >= minor and vma.wp >= wp:
                continue
            part = self.vmas.carve(vma, max(addr, vma.start), min(addr + length, vma.end))
            part.watch(self, missing, minor, wp)

    def unregister(self, addr: int, length: int) -> None:
        """UFFDIO_UNREGISTER: stop watching whole hugepages and wake who waits there; write protection goes as well.

        OSError EINVAL as `register`.
        """
        self._validate_range(addr, length)
        self._whole_hugepages(addr, addr + length)
        for vma in list(self.vmas.overlapping(addr, addr + length)):
            if vma.uffd is not None:
                part = self.vmas.carve(vma, max(addr, vma.start), min(addr + length, vma.end))
                watcher = vma.uffd
                change_protection(part, part.start, part.end, on=False)
                part.watch(None)
                watcher.wake_range(part.start, part.end)

    def _whole_hugepages(self, start: int, end: int) -> list[Vma]:
        """The VMAs of a range whose ends are hugepage boundaries. OSError EINVAL otherwise, or when there are none."""
        vmas = list(self.vmas.overlapping(start, end))
        if not vmas:
            raise OSError(errno.EINVAL, f"no VMA in [{start:#x}, {end:#x})")
        if start % vmas[0].hugepage_bytes or (end <= vmas[-1].end and end % vmas[-1].hugepage_bytes):
            raise OSError(errno.EINVAL, "registration takes whole hugepages")
        return vmas

    # ------------------------------------------------------------------------------------------------ messages

    def read(self) -> UffdMsg | None:
        """The next message, or None (EAGAIN of a non-blocking descriptor): page faults first, then events."""
        return self.waiters.read()

    # ----------------------------------------------------------------------------------------------- filling

    def continue_(self, addr: int, length: int, dontwake: bool = False, wp: bool = False) -> int:
        """UFFDIO_CONTINUE: map bytes `[addr, addr + length)` from the page cache, with `wp` protected; `length`.

        SEMANTICS 1.3. OSError EAGAIN: an event is not read. EINVAL: not 4K-aligned (HGM), not hugepage-aligned (no
        HGM), length 0, or `wp` without registration for it. ENOENT: not inside one registered VMA. EEXIST: something is
        mapped there. EFAULT: not in the page cache, or no reference left. EIO: hwpoisoned. ENOMEM: no table.
        PartialError (EAGAIN, `.mapped` bytes) when some pieces came before the failure.
        """
        if length == self._page_bytes and not wp and self._continue_page(addr):
            if self.waiters and not dontwake:
                self.wake_range(addr, addr + length)
            return length
        vma = self._dst_vma(addr, addr + length, wp)
        if not vma.hgm:
            self._only_hugepages(vma, addr | length)
        return self._done(addr, dontwake, *mfill_continue(vma, addr, addr + length, wp))

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
        if self.waiters.events:
            return self._continue_each(addr, size, count)
        if not self.waiters:
            return continue_ptes(vma, addr, end)
        table = vma.mapping.table
        waited = self.waiters.addresses(addr, end)
        holes = [address for address in waited if table.walk_end(vma.page(address))[1] < LEAF]
        try:
            return continue_ptes(vma, addr, end)
        finally:
            self.wake_at([address for address in holes if table.walk_end(vma.page(address))[1] >= LEAF])

    def copy(self, dst: int, length: int, dontwake: bool = False, wp: bool = False) -> int:
        """UFFDIO_COPY: put bytes into the page cache and map them, whole hugepages, with `wp` protected; `length`.

        OSError EAGAIN, ENOENT, EINVAL as `continue_` without HGM. EEXIST: mapped, or in the page cache already.
        EFAULT: no reference left. PartialError when some hugepages came before the failure.
        """
        vma = self._dst_vma(dst, dst + length, wp)
        self._only_hugepages(vma, dst | length)
        return self._done(dst, dontwake, *mfill_copy(vma, dst, dst + length, wp))

    def poison(self, addr: int, length: int, dontwake: bool = False) -> int:
        """UFFDIO_POISON of Linux 6.6: an access to these whole hugepages will be SIGBUS_MCEERR; `length`.

        OSError EAGAIN, ENOENT, EINVAL as `copy`. EEXIST: the entry is not empty. PartialError as ever.
        """
        vma = self._dst_vma(addr, addr + length)
        self._only_hugepages(vma, addr | length)
        return self._done(addr, dontwake, *mfill_poison(vma, addr, addr + length))

    def writeprotect(self, addr: int, length: int, on: bool, dontwake: bool = False) -> None:
        """UFFDIO_WRITEPROTECT of whole hugepages: protect, or with `on` False unprotect and wake who waits there.

        OSError EAGAIN: an event is not read. EINVAL: not whole hugepages, or `on` together with `dontwake`. ENOENT: no
        VMA, or one not registered for write-protect.
        """
        self._mappings_are_steady()
        self._validate_range(addr, length)
        if on and dontwake:
            raise OSError(errno.EINVAL, "UFFDIO_WRITEPROTECT wakes nobody when it protects")
        mwriteprotect_range(self.vmas, addr, addr + length, on)
        if not on and not dontwake:
            self.wake_range(addr, addr + length)

    def _continue_page(self, addr: int) -> bool:
        """The hot case, a base page that can be continued; False leaves every other case to the general path."""
        vma = self.vmas.find(addr)
        if vma is None or vma.uffd is None or not vma.hgm or addr & self._page_mask or self.waiters.events:
            return False
        mapping = vma.mapping
        table, file = mapping.table, mapping.file
        page = (addr - mapping.start) >> self._page_shift
        hugepage = page >> table.hstate_shift
        if file.folios[hugepage] & MAPPABLE != CACHED or file.refs[hugepage] >= file.refs_max:
            return False
        row = table.ptes[page >> table.pmd_shift]
        if not NONE <= (row[page & table.pte_mask] if row else table.reach(page, PTE)) <= WP_MARKER:
            return False
        table.install_pte(page)
        return True

    def _continue_each(self, addr: int, size: int, count: int) -> tuple[int, int]:
        """The definition of `continue_run`, call by call."""
        existing = 0
        for piece in range(addr, addr + count * size, size):
            try:
                self.continue_(piece, size)
            except FileExistsError:
                existing += 1
        return count - existing, existing

    def _dst_vma(self, start: int, end: int, wp: bool = False) -> Vma:
        """The registered VMA that holds `[start, end)`, after the checks of all filling ioctls (SEMANTICS 1.3)."""
        self._mappings_are_steady()
        self._validate_range(start, end - start)
        vma = self.vmas.find(start)
        if vma is None or end > vma.end:
            raise OSError(errno.ENOENT, f"[{start:#x}, {end:#x}) is not inside one VMA")
        if vma.uffd is None:
            raise OSError(errno.ENOENT, f"{start:#x} is not registered with userfaultfd")
        if wp and not vma.wp:
            raise OSError(errno.EINVAL, f"{start:#x} is not registered for write-protect")
        return vma

    def _only_hugepages(self, vma: Vma, ends: int) -> None:
        if ends & (vma.hugepage_bytes - 1):
            raise OSError(errno.EINVAL, "only whole hugepages can be filled here")

    def _done(self, addr: int, dontwake: bool, done: int, failure: OSError | None) -> int:
        """Wake for what was done and answer: the bytes done, or the errno (SEMANTICS 1.3)."""
        if done and self.waiters and not dontwake:
            self.wake_range(addr, addr + done)
        if failure is None:
            return done
        raise PartialError(done, failure) if done else failure

    # ------------------------------------------------------------------------------------------------- waking

    def wake(self, addr: int, length: int) -> None:
        """UFFDIO_WAKE: wake all whose message reports an address in the range; they fault again. OSError EINVAL."""
        self._validate_range(addr, length)
        self.wake_range(addr, addr + length)

    def _mappings_are_steady(self) -> None:
        """OSError EAGAIN while an event is not read (mmap_changing)."""
        if self.waiters.events:
            raise OSError(errno.EAGAIN, "the mappings are changing: an event is not read yet")

    def _validate_range(self, start: int, length: int) -> None:
        """validate_range of fs/userfaultfd.c: OSError EINVAL."""
        if (start | length) & self._page_mask or length <= 0 or start < 0 or start + length > TASK_SIZE:
            raise OSError(errno.EINVAL, f"[{start:#x}, +{length:#x}) is not a range of whole pages")

    def __repr__(self) -> str:
        return f"<Userfaultfd {self.features!r}, {len(self.waiters)} asleep>"
