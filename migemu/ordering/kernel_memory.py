"""The destination's memory by page index: one hugetlb mapping of `migemu.mm`, and who sleeps in it.

What this models
    The mapping of a guest in post-copy (`mm.guest_mapping`). Bytes are not kept here. Calls are those of
    `ports.GuestStore`, without asyncio.

Words
    view   per base page the level of the entry that maps it, or UNMAPPED
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from migemu.mm import EntryKind, FaultOutcome
from migemu.mm.guest_mapping import GuestMapping
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Continued

UNMAPPED: Final = 255


class KernelMemory:
    """`pages` base pages, whole hugetlb pages, all in the page cache and none mapped."""

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self.geometry = geometry
        self.pages = pages
        #: Who was woken and has not been taken from here, as (vCPU, base page), in order.
        self.woken: list[tuple[int, PageIndex]] = []
        self._mapping = GuestMapping(geometry, pages * geometry.page_bytes, self._wakes)

    # What the destination does.

    def uffdio_continue(self, run: PieceRun) -> Continued:
        """One UFFDIO_CONTINUE per piece. OSError but for EEXIST, which is counted."""
        return Continued(*self._mapping.continue_run(run))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages."""
        self._mapping.wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """One process_madvise of all spans. OSError where the kernel says that the call itself is wrong (EINVAL)."""
        return Collapsed(*self._mapping.collapse(spans))

    def read(self) -> tuple[int, PageIndex] | None:
        """The next fault of the userfaultfd, as (vCPU, base page); None when all have been read."""
        fault = self._mapping.read()
        return None if fault is None else fault[:2]

    # What the guest does.

    def touch(self, vcpu: int, page: PageIndex, write: bool) -> bool:
        """Whether an access may go on; otherwise the vCPU sleeps from now on."""
        return self._mapping.fault(vcpu, page, write) is FaultOutcome.MAPPED

    def is_mapped(self, page: PageIndex) -> bool:
        """Whether an access to `page` needs no fault."""
        return self._mapping.is_mapped(page)

    # Looking.

    def view(self, first: PageIndex, count: int) -> bytes:
        """Per base page the level of its entry, or UNMAPPED."""
        walks = [self._mapping.walk(page) for page in range(first, first + count)]
        return bytes(entry.level if entry.kind is EntryKind.LEAF else UNMAPPED for entry in walks)

    def entries(self) -> tuple[tuple[Level, EntryKind], ...]:
        """Where each base page's walk ends: all there is to know of a page table without migration and markers."""
        return tuple(tuple(self._mapping.walk(page)) for page in range(self.pages))  # type: ignore[misc]

    def asleep(self) -> tuple[int, ...]:
        """The vCPUs that sleep, lowest first."""
        return self._mapping.asleep()

    def leaves(self) -> dict[Level, int]:
        """Entries that map memory, by level."""
        return self._mapping.leaves()

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self._mapping.table_bytes()

    def validate(self) -> None:
        """ValidationError naming the invariant of the model that does not hold."""
        self._mapping.validate()

    def _wakes(self, vcpu: int, page: PageIndex) -> None:
        self.woken.append((vcpu, page))

    def take_woken(self) -> list[tuple[int, PageIndex]]:
        """Who was woken since the last call."""
        woken, self.woken = self.woken, []
        return woken

    def __repr__(self) -> str:
        return f"<Memory of {self.pages} base pages, {self._mapping!r}>"
