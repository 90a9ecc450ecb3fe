"""The destination's memory by page index: one hugetlb mapping of `migemu.mm`, and who sleeps in it.

What this models
    The primary mapping of a guest in post-copy, ready for it: populated, split, registered for minor faults. Bytes are
    not kept here. Calls are those of `ports.GuestMemory`, without asyncio.

Words
    view   per base page the level of the entry that maps it, or UNMAPPED
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, AddressSpace, EntryKind, FaultOutcome, UffdFeature
from migemu.mm.gather import GatherStep
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Continued

UNMAPPED: Final = 255

#: What MADV_COLLAPSE may answer to a call that is well made (SEMANTICS 2.2).
_MAY_FAIL: Final = (errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOMEM)


class Memory:
    """`pages` base pages, whole hugetlb pages, all in the page cache and none mapped."""

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self.geometry = geometry
        self.pages = pages
        #: Who was woken and has not been taken from here, as (vCPU, base page), in order.
        self.woken: list[tuple[int, PageIndex]] = []
        self._steps: list[GatherStep] = []
        self._page_bytes = geometry.page_bytes
        self._space = AddressSpace(geometry, on_wake=self._wakes, on_gather=self._gathers)
        length = pages * self._page_bytes
        self.start = self._space.mmap_hugetlb(length, Level.PUD)
        self._space.populate(self.start, length)
        self._space.madvise(self.start, length, MADV_SPLIT)
        self._uffd = self._space.userfaultfd(UffdFeature.MINOR_HUGETLBFS | UffdFeature.THREAD_ID)
        self._uffd.register(self.start, length, minor=True)

    # What the destination does.

    def uffdio_continue(self, run: PieceRun) -> Continued:
        """One UFFDIO_CONTINUE per piece. OSError but for EEXIST, which is counted."""
        return Continued(*self._uffd.continue_run(self._at(run.first), run.level, run.count))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages."""
        self._uffd.wake(self._at(first), count * self._page_bytes)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """One process_madvise of all spans. OSError where the kernel says that the call itself is wrong (EINVAL)."""
        sizes = [self.geometry.size(span.level) for span in spans]
        ranges = [(self._at(span.first), size) for span, size in zip(spans, sizes, strict=True)]
        done = failure = 0
        try:
            left = self._space.process_madvise(ranges, MADV_COLLAPSE)
            while left > 0:
                left -= sizes[done]
                done += 1
        except OSError as error:
            if error.errno not in _MAY_FAIL:
                raise
            failure = error.errno
        steps = tuple(step._replace(start=step.start - self.start, end=step.end - self.start) for step in self._steps)
        self._steps.clear()
        return Collapsed(done, failure, steps)

    def read(self) -> tuple[int, PageIndex] | None:
        """The next fault of the userfaultfd, as (vCPU, base page); None when all have been read."""
        message = self._uffd.read()
        return None if message is None else (message.ptid, (message.address - self.start) // self._page_bytes)

    # What the guest does.

    def touch(self, vcpu: int, page: PageIndex, write: bool) -> bool:
        """Whether an access may go on; otherwise the vCPU sleeps from now on."""
        return self._space.fault(vcpu, self._at(page), write) is FaultOutcome.MAPPED

    def is_mapped(self, page: PageIndex) -> bool:
        """Whether an access to `page` needs no fault."""
        return self._space.is_mapped(self._at(page))

    # Looking.

    def view(self, first: PageIndex, count: int) -> bytes:
        """Per base page the level of its entry, or UNMAPPED."""
        walks = [self._space.walk(self._at(page)) for page in range(first, first + count)]
        return bytes(entry.level if entry.kind is EntryKind.LEAF else UNMAPPED for entry in walks)

    def entries(self) -> tuple[tuple[Level, EntryKind], ...]:
        """Where each base page's walk ends: all there is to know of a page table without migration and markers."""
        return tuple(tuple(self._space.walk(self._at(page))) for page in range(self.pages))  # type: ignore[misc]

    def asleep(self) -> tuple[int, ...]:
        """The vCPUs that sleep, lowest first."""
        return tuple(sorted(waiter.vcpu for waiter in self._uffd.waiters))

    def leaves(self) -> dict[Level, int]:
        """Entries that map memory, by level."""
        return self._space.leaves(self.start)

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self._space.page_table_bytes(self.start)

    def validate(self) -> None:
        """ValidationError naming the invariant of the model that does not hold."""
        self._space.validate()

    def _wakes(self, vcpu: int, addr: int) -> None:
        self.woken.append((vcpu, (addr - self.start) // self._page_bytes))

    def _gathers(self, step: GatherStep) -> None:
        self._steps.append(step)

    def take_woken(self) -> list[tuple[int, PageIndex]]:
        """Who was woken since the last call."""
        woken, self.woken = self.woken, []
        return woken

    def _at(self, page: PageIndex) -> int:
        return self.start + page * self._page_bytes

    def __repr__(self) -> str:
        return f"<Memory of {self.pages} base pages, {self._space!r}>"
