"""The guest's mapping of its memory at the destination, and the vCPUs that wait for it.

Whether a vCPU may touch a page is decided by the model (`mm.guest_mapping`), errno by errno as the kernel would. What
the page holds is the business of the two stores built upon this one: `mapped` (real bytes) and `model` (who wrote what,
no bytes).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Sequence

from migemu.mm import FaultOutcome
from migemu.mm.guest_mapping import GuestMapping
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, FaultHandler, Installed, MinorFault, Stalled
from migemu.units import format_size


class _Unhandled:
    """ports.FaultHandler before there is one: faults wait until somebody maps their pages."""

    def fault_raised(self, fault: MinorFault) -> None: ...

    def fault_read(self, fault: MinorFault) -> None: ...


class Primary:
    """The page-table side of ports.GuestStore, modelled. A store adds `_access`, `landing` and `digests`."""

    def __init__(self, geometry: Geometry, memory_bytes: int, hgm: bool = True) -> None:
        """All pages are in the page cache, none is mapped. Without `hgm` there is no MADV_SPLIT, only 1G entries."""
        self.geometry = geometry
        self.memory_bytes = memory_bytes
        self._page_bytes = geometry.page_bytes
        self._mapping = GuestMapping(geometry, memory_bytes, self._woken, hgm=hgm)
        self._start = self._mapping.start
        self._reachable = self._mapping.space.is_mapped
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._handler: FaultHandler = _Unhandled()

    def install(self, run: PieceRun) -> Installed:
        """In place: one UFFDIO_CONTINUE per piece; pieces that are mapped already (EEXIST) are counted. OSError."""
        return Installed(*self._mapping.continue_run(run))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages from `first` on: vCPUs that sleep there try again."""
        self._mapping.wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """One process_madvise(MADV_COLLAPSE) of all spans; it stops at the first that fails, and says which."""
        return Collapsed(*self._mapping.collapse(spans))

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """Access 8 bytes at `offset` of `page`; `stamp` is written, None reads. The word that was there before.

        If the page is not mapped: an awaitable that is done when the vCPU is woken. OSError (EFAULT) where Linux sends
        a signal.
        """
        if not self._reachable(self._start + page * self._page_bytes):
            outcome = self._mapping.fault(vcpu, page, stamp is not None)
            if outcome is FaultOutcome.WAITING:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting[vcpu] = waiter
                self._handler.fault_raised(MinorFault(vcpu, page, stamp is not None))
                self._raised()
                return waiter
            if outcome is not FaultOutcome.MAPPED:
                raise OSError(errno.EFAULT, f"a vCPU touched base page {page}: {outcome.value}")
        return self._access(page, offset, stamp)

    def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
        """The word at `offset` of a mapped page, as it was before `stamp` (None: a read) is written to it."""
        raise NotImplementedError

    def register(self, handler: FaultHandler) -> None:
        """See ports.GuestFaults."""
        self._handler = handler

    def _raised(self) -> None:
        """A fault event waits in the userfaultfd: read it now. Simulated stores override this and read it later."""
        self._read_events()

    def _read_events(self) -> None:
        while (fault := self._mapping.read()) is not None:
            self._handler.fault_read(MinorFault(*fault))

    def _woken(self, vcpu: int, _page: PageIndex) -> None:
        waiter = self._waiting.pop(vcpu, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory now."""
        return self._mapping.leaves()

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self._mapping.table_bytes()

    def release(self) -> None:
        """Give the bytes back to the system. This class has none; stores with bytes override it."""

    def validate(self) -> None:
        """Check the invariants of the page table; ValidationError is a bug of this program."""
        self._mapping.validate()

    def __repr__(self) -> str:
        leaves = ", ".join(f"{count} {level.name}" for level, count in self.leaves().items() if count)
        return f"<{type(self).__name__} {format_size(self.memory_bytes)}: {leaves or 'nothing mapped'}>"
