"""The guest's memory at the destination: real bytes in an mmap, under a modelled HGM page table.

The bytes are mapped once and written in place as they arrive: that mapping plays the part of the alias. The primary
mapping, the guest's, is the model of `migemu.mm`: a vCPU may touch a byte only where the model has an entry for it, and
faults where it has not. So the bytes are real, what they cost to receive is real, and whether they are accessible is
decided errno by errno as the kernel would.

Backing: anonymous memory (2M THP where the kernel gives it), a memfd, or hugetlbfs (1G pages if the system has them
reserved, else 2M). All of it is populated before the migration begins, as QEMU's doublemap series does, so that every
fault is a minor one.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import struct
from collections.abc import Awaitable, Callable, Sequence

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, AddressSpace, FaultOutcome, UffdFeature, UffdPagefault
from migemu.mm.collapse import EHWPOISON
from migemu.mm.gather import GatherStep
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Continued
from migemu.units import format_size

_WORD = struct.Struct("<Q")

#: What MADV_COLLAPSE may answer to a call that is right (kernel-semantics 2.2): try again later, or live with it.
_MAY_FAIL = (errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOMEM, EHWPOISON)


class MappedMemory:
    """ports.GuestMemory over real bytes."""

    def __init__(self, geometry: Geometry, memory_bytes: int, memory: mmap.mmap | bytearray) -> None:
        """`memory` holds `memory_bytes` zero bytes, populated."""
        self.geometry = geometry
        self.memory_bytes = memory_bytes
        self._view = memoryview(memory)[:memory_bytes]
        self._page_bytes = geometry.page_bytes
        self._space = AddressSpace(geometry, on_wake=self._woken, on_gather=self._gathered)
        self._start = self._space.mmap_hugetlb(memory_bytes, Level.PUD, shared=True)
        self._space.populate(self._start, memory_bytes)
        self._space.madvise(self._start, memory_bytes, MADV_SPLIT)
        self._uffd = self._space.userfaultfd(UffdFeature.MINOR_HUGETLBFS | UffdFeature.THREAD_ID)
        self._uffd.register(self._start, memory_bytes, minor=True)
        self._steps: list[GatherStep] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._report: Callable[[int, PageIndex, bool], None] = lambda *_: None

    def landing(self, first: PageIndex, count: int) -> memoryview:
        """The bytes of `count` base pages from `first` on."""
        return self._view[first * self._page_bytes : (first + count) * self._page_bytes]

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

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Awaitable[None]:
        """The word as it was before `stamp` was written to it; or, after a fault, what to await."""
        address = self._start + page * self._page_bytes
        if not self._space.is_mapped(address):
            outcome = self._space.fault(vcpu, address, stamp is not None)
            if outcome is FaultOutcome.WAITING:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting[vcpu] = waiter
                while (event := self._uffd.read()) is not None:
                    page = (event.address - self._start) // self._page_bytes
                    self._report(event.ptid, page, bool(event.flags & UffdPagefault.WRITE))
                return waiter
            if outcome is not FaultOutcome.MAPPED:
                raise OSError(errno.EFAULT, f"a vCPU touched base page {page}: {outcome.value}")
        at = page * self._page_bytes + offset
        (before,) = _WORD.unpack_from(self._view, at)
        if stamp is not None:
            _WORD.pack_into(self._view, at, stamp)
        return int(before)

    def on_fault(self, report: Callable[[int, PageIndex, bool], None]) -> None:
        """Call `report(vcpu, page, write)` for each minor fault event."""
        self._report = report

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

    def validate(self) -> None:
        """Check the page table's invariants; an error is a bug of ours."""
        self._space.validate()

    def __repr__(self) -> str:
        leaves = ", ".join(f"{count} {level.name}" for level, count in self.leaves().items() if count)
        return f"<MappedMemory {format_size(self.memory_bytes)}: {leaves or 'nothing mapped'}>"
