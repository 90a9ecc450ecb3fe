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
from migemu.ports import Collapsed, Installed

UNMAPPED: Final = 255


class KernelMemory:
    """A post-copy mapping of `pages` base pages (whole hugetlb pages): all in the page cache, none mapped."""

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self.geometry = geometry
        self.pages = pages
        #: Who was woken and has not been taken from here, as (vCPU, base page), in order.
        self.woken: list[tuple[int, PageIndex]] = []
        self._mapping = GuestMapping(geometry, pages * geometry.page_bytes, self._wakes)

    # What the destination does.

    def install(self, run: PieceRun) -> Installed:
        """One UFFDIO_CONTINUE per piece; EEXIST is counted, any other errno is an OSError."""
        return Installed(*self._mapping.continue_run(run))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages."""
        self._mapping.wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """One process_madvise(MADV_COLLAPSE) of all spans. OSError (EINVAL) when the call itself is wrong."""
        return Collapsed(*self._mapping.collapse(spans))

    def read(self) -> tuple[int, PageIndex] | None:
        """The next fault of the userfaultfd, as (vCPU, base page); None when all have been read."""
        fault = self._mapping.read()
        return None if fault is None else fault[:2]

    # What the guest does.

    def touch(self, vcpu: int, page: PageIndex, write: bool) -> bool:
        """Whether the access succeeds; if not, the vCPU sleeps from now on."""
        return self._mapping.fault(vcpu, page, write) is FaultOutcome.MAPPED

    def is_mapped(self, page: PageIndex) -> bool:
        """Whether an access to `page` succeeds without a fault."""
        return self._mapping.is_mapped(page)

    # Looking.

    def view(self, first: PageIndex, count: int) -> bytes:
        """A byte for each of `count` base pages from `first` on: the level of its entry, or UNMAPPED."""
        walks = [self._mapping.walk(page) for page in range(first, first + count)]
        return bytes(entry.level if entry.kind is EntryKind.LEAF else UNMAPPED for entry in walks)

    def entries(self) -> tuple[tuple[Level, EntryKind], ...]:
        """The entry of each base page: the whole state of a page table without migration entries and markers."""
        return tuple(tuple(self._mapping.walk(page)) for page in range(self.pages))  # type: ignore[misc]

    def asleep(self) -> tuple[int, ...]:
        """The vCPUs that sleep, in ascending order."""
        return self._mapping.asleep()

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory."""
        return self._mapping.leaves()

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self._mapping.table_bytes()

    def validate(self) -> None:
        """ValidationError names the invariant of the model that does not hold."""
        self._mapping.validate()

    def _wakes(self, vcpu: int, page: PageIndex) -> None:
        self.woken.append((vcpu, page))

    def take_woken(self) -> list[tuple[int, PageIndex]]:
        """The (vCPU, page) pairs that were woken since the last call."""
        woken, self.woken = self.woken, []
        return woken

    def __repr__(self) -> str:
        return f"<Memory of {self.pages} base pages, {self._mapping!r}>"
