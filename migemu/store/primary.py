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
    """What of ports.GuestStore is about the page table. A store adds `_access`, `landing` and `digests`."""

    def __init__(self, geometry: Geometry, memory_bytes: int, hgm: bool = True) -> None:
        """Nothing is mapped; everything is in the page cache. Without `hgm` there is no MADV_SPLIT."""
        self.geometry = geometry
        self.memory_bytes = memory_bytes
        self._page_bytes = geometry.page_bytes
        self._mapping = GuestMapping(geometry, memory_bytes, self._woken, hgm=hgm)
        self._start = self._mapping.start
        self._reachable = self._mapping.space.is_mapped
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._handler: FaultHandler = _Unhandled()

    def install(self, run: PieceRun) -> Installed:
        """In place: one UFFDIO_CONTINUE per piece."""
        return Installed(*self._mapping.continue_run(run))

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE."""
        self._mapping.wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """One process_madvise; the first span that fails ends it."""
        return Collapsed(*self._mapping.collapse(spans))

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """The word as it was before `stamp` was written to it; or, after a fault, what to await."""
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
        """The word of a page that is mapped, before `stamp` was written to it."""
        raise NotImplementedError

    def register(self, handler: FaultHandler) -> None:
        """See ports.GuestFaults."""
        self._handler = handler

    def _raised(self) -> None:
        """An event waits to be read."""
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
        """There are no bytes to give back."""

    def validate(self) -> None:
        """Check the page table's invariants; an error is a bug of ours."""
        self._mapping.validate()

    def __repr__(self) -> str:
        leaves = ", ".join(f"{count} {level.name}" for level, count in self.leaves().items() if count)
        return f"<{type(self).__name__} {format_size(self.memory_bytes)}: {leaves or 'nothing mapped'}>"
