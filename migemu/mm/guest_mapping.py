"""The guest's memory in post-copy: a file mapped twice, the primary ready to be filled piece by piece, by page index.

What this models
    What a VMM sets up before the migration begins (SEMANTICS 1.1, 3.2): a hugetlb file whose hugepages are all in the
    page cache, so that every fault is a minor one; the primary mapping, registered for minor faults, and split unless
    there is no HGM. The alias is whoever writes the bytes; it has no page table here.

Rules
    1. Base pages count from the beginning of the memory, and so do the bytes of what a collapse tells of its steps.
    2. A collapse of several spans is one process_madvise: in order, up to the first that fails; its errno shows when
       none was done (SEMANTICS 6.1).
    3. A collapse that is well made may fail (`MAY_FAIL`, SEMANTICS 2.2); any other errno is a mistake of the caller.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

from migemu.mm.address_space import AddressSpace
from migemu.mm.collapse import EHWPOISON
from migemu.mm.entries import Entry
from migemu.mm.faults import FaultOutcome
from migemu.mm.gather import GatherStep
from migemu.mm.madvise import MADV_COLLAPSE, MADV_SPLIT
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.mm.uffd_msg import UffdFeature, UffdPagefault

#: What MADV_COLLAPSE may answer to a call that is well made: try again later, or live with it (SEMANTICS 2.2).
MAY_FAIL: Final = (errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOMEM, EHWPOISON)

#: Called for every vCPU that is woken, with the base page on which it slept.
OnWoken = Callable[[int, PageIndex], None]


class GuestMapping:
    """`memory_bytes` of memory: hugetlb pages of the geometry's largest leaf, in the page cache, none mapped."""

    __slots__ = ("_on_woken", "_page_bytes", "_steps", "_uffd", "geometry", "memory_bytes", "space", "start")

    def __init__(self, geometry: Geometry, memory_bytes: int, on_woken: OnWoken, *, hgm: bool = True) -> None:
        """Without `hgm` there is no MADV_SPLIT: hugetlb pages are continued whole."""
        self.geometry = geometry
        self.memory_bytes = memory_bytes
        self._page_bytes = geometry.page_bytes
        self._steps: list[GatherStep] = []
        self._on_woken = on_woken
        self.space = AddressSpace(geometry, on_wake=self._wakes, on_gather=self._gathers)
        self.start = start = self.space.mmap_hugetlb(memory_bytes, geometry.largest, shared=True)
        self.space.populate(start, memory_bytes)
        if hgm:
            self.space.madvise(start, memory_bytes, MADV_SPLIT)
        self._uffd = self.space.userfaultfd(UffdFeature.MINOR_HUGETLBFS | UffdFeature.THREAD_ID)
        self._uffd.register(start, memory_bytes, minor=True)

    def at(self, page: PageIndex) -> int:
        """The address of a base page in the primary mapping."""
        return self.start + page * self._page_bytes

    # What the destination does.

    def continue_run(self, run: PieceRun) -> tuple[int, int]:
        """One UFFDIO_CONTINUE per piece: (mapped, existing) pieces. OSError but for EEXIST, which is counted."""
        first, count, level = run
        return self._uffd.continue_run(self.start + first * self._page_bytes, level, count)

    def continue_one(self, first: PageIndex, level: Level) -> int:
        """One UFFDIO_CONTINUE of one piece; its bytes. OSError as the kernel's."""
        return self._uffd.continue_(self.at(first), self.geometry.size(level))

    def wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages."""
        self._uffd.wake(self.at(first), count * self._page_bytes)

    def collapse(self, spans: Sequence[Span]) -> tuple[int, int, tuple[GatherStep, ...]]:
        """MADV_COLLAPSE of `spans`: how many were done, the errno if none was, and what it did to entries and tables.

        OSError for an errno that says that the call itself is wrong.
        """
        sizes = [self.geometry.size(span.level) for span in spans]
        ranges = [(self.at(span.first), size) for span, size in zip(spans, sizes, strict=True)]
        done = failure = 0
        try:
            left = self.space.process_madvise(ranges, MADV_COLLAPSE)
            while left > 0:
                left -= sizes[done]
                done += 1
        except OSError as error:
            if error.errno not in MAY_FAIL:
                raise
            failure = error.errno
        steps, self._steps = tuple(self._steps), []
        return done, failure, steps

    def read(self) -> tuple[int, PageIndex, bool] | None:
        """The next fault of the userfaultfd, as (vCPU, base page, write); None when all have been read."""
        message = self._uffd.read()
        if message is None:
            return None
        page = (message.address - self.start) // self._page_bytes
        return message.ptid, page, bool(message.flags & UffdPagefault.WRITE)

    # What the guest does.

    def fault(self, vcpu: int, page: PageIndex, write: bool) -> FaultOutcome:
        """An access of `vcpu` to `page`."""
        return self.space.fault(vcpu, self.at(page), write)

    # Looking.

    def is_mapped(self, page: PageIndex) -> bool:
        """Whether an access to `page` needs no fault."""
        return self.space.is_mapped(self.at(page))

    def walk(self, page: PageIndex) -> Entry:
        """Where a walk for `page` ends."""
        return self.space.walk(self.at(page))

    def asleep(self) -> tuple[int, ...]:
        """The vCPUs that sleep, lowest first."""
        return tuple(sorted(waiter.vcpu for waiter in self._uffd.waiters))

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory now."""
        return self.space.leaves(self.start)

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self.space.page_table_bytes(self.start)

    def validate(self) -> None:
        """ValidationError naming the invariant of the model that does not hold."""
        self.space.validate()

    def _wakes(self, vcpu: int, addr: int) -> None:
        self._on_woken(vcpu, (addr - self.start) // self._page_bytes)

    def _gathers(self, step: GatherStep) -> None:
        self._steps.append(step._replace(start=step.start - self.start, end=step.end - self.start))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {level.name}" for level, count in self.leaves().items() if count)
        return f"<GuestMapping of {self.memory_bytes} bytes: {counts or 'nothing mapped'}>"
