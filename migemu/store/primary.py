"""The guest's mapping of its memory at the destination: the model of `migemu.mm`, and the vCPUs that wait for it.

The primary mapping of hugetlb pages, split by MADV_SPLIT, registered for minor faults, its file populated before the
migration begins, as QEMU's doublemap series does: every fault is a minor one. Whether a vCPU may touch a page is
decided errno by errno as the kernel would. What the page holds is the business of the two stores built upon this one:
`mapped` (real bytes) and `model` (who wrote what, no bytes).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Sequence

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, AddressSpace, FaultOutcome, UffdFeature, UffdPagefault
from migemu.mm.collapse import EHWPOISON
from migemu.mm.gather import GatherStep
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Continued, OnFault, Stalled
from migemu.units import format_size

#: What MADV_COLLAPSE may answer to a call that is right (SEMANTICS 2.2): try again later, or live with it.
_MAY_FAIL = (errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOMEM, EHWPOISON)


def _nobody(vcpu: int, page: PageIndex, write: bool) -> None:
    """Nobody wants to know."""


class Primary:
    """What of ports.GuestMemory is about the page table. A store adds `_access`, `landing` and `digests`."""

    def __init__(self, geometry: Geometry, memory_bytes: int, hgm: bool = True) -> None:
        """Nothing is mapped; everything is in the page cache. Without `hgm` there is no MADV_SPLIT."""
        self.geometry = geometry
        self.memory_bytes = memory_bytes
        self._page_bytes = geometry.page_bytes
        self._space = AddressSpace(geometry, on_wake=self._woken, on_gather=self._gathered)
        self._start = self._space.mmap_hugetlb(memory_bytes, Level.PUD, shared=True)
        self._space.populate(self._start, memory_bytes)
        if hgm:
            self._space.madvise(self._start, memory_bytes, MADV_SPLIT)
        self._uffd = self._space.userfaultfd(UffdFeature.MINOR_HUGETLBFS | UffdFeature.THREAD_ID)
        self._uffd.register(self._start, memory_bytes, minor=True)
        self._reachable = self._space.is_mapped
        self._steps: list[GatherStep] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._slept: OnFault = _nobody
        self._read: OnFault = _nobody

    def uffdio_continue(self, run: PieceRun) -> Continued:
        """One UFFDIO_CONTINUE per piece."""
        return Continued(*self._uffd.continue_run(self._start + run.first * self._page_bytes, run.level, run.count))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE."""
        self._uffd.wake(self._start + first * self._page_bytes, count * self._page_bytes)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """MADV_COLLAPSE of one span, or process_madvise of several; the first that fails ends it."""
        ranges = [(self._start + first * self._page_bytes, self.geometry.size(level)) for first, level in spans]
        failure = done = 0
        try:
            left = self._space.process_madvise(ranges, MADV_COLLAPSE)
            while left > 0:
                left -= ranges[done][1]
                done += 1
        except OSError as error:
            if error.errno not in _MAY_FAIL:
                raise
            failure = error.errno
        steps, self._steps = tuple(self._steps), []
        return Collapsed(done, failure, steps)

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """The word as it was before `stamp` was written to it; or, after a fault, what to await."""
        if not self._reachable(address := self._start + page * self._page_bytes):
            outcome = self._space.fault(vcpu, address, stamp is not None)
            if outcome is FaultOutcome.WAITING:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting[vcpu] = waiter
                self._slept(vcpu, page, stamp is not None)
                self._raised()
                return waiter
            if outcome is not FaultOutcome.MAPPED:
                raise OSError(errno.EFAULT, f"a vCPU touched base page {page}: {outcome.value}")
        return self._access(page, offset, stamp)

    def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
        """The word of a page that is mapped, before `stamp` was written to it."""
        raise NotImplementedError

    def on_fault(self, slept: OnFault, read: OnFault) -> None:
        """Call `slept(vcpu, page, write)` when a vCPU falls asleep, `read` of the same when its event is read."""
        self._slept, self._read = slept, read

    def _raised(self) -> None:
        """An event waits to be read."""
        self._read_events()

    def _read_events(self) -> None:
        while (event := self._uffd.read()) is not None:
            page = (event.address - self._start) // self._page_bytes
            self._read(event.ptid, page, bool(event.flags & UffdPagefault.WRITE))

    def _woken(self, vcpu: int, _address: int) -> None:
        waiter = self._waiting.pop(vcpu, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _gathered(self, step: GatherStep) -> None:
        self._steps.append(step._replace(start=step.start - self._start, end=step.end - self._start))

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory now."""
        return self._space.leaves(self._start)

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self._space.page_table_bytes(self._start)

    def release(self) -> None:
        """There are no bytes to give back."""

    def validate(self) -> None:
        """Check the page table's invariants; an error is a bug of ours."""
        self._space.validate()

    def __repr__(self) -> str:
        leaves = ", ".join(f"{count} {level.name}" for level, count in self.leaves().items() if count)
        return f"<{type(self).__name__} {format_size(self.memory_bytes)}: {leaves or 'nothing mapped'}>"
