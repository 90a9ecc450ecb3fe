"""Pieces as they come: where their bytes land, whether they are what was sent, and who is told.

Bytes land before anybody has judged them, in the place of pages that have not been received: nobody can see them there
until the receiver maps them. What was received before lands in scrap, so that it never touches what the guest wrote.
A piece that was refused, or broke off, leaves its bytes behind; where one comes again without bytes, they are cleared.
"""

from __future__ import annotations

from typing import Final

from dest_node.assembly import Assembly
from dest_node.core.effects import NODE
from dest_node.executor import ExecutorHost
from dest_node.incoming_status import IncomingStatus
from migemu.mm.pages import PageIndex, PieceRun
from migemu.ports import Clock, Landing, Tracer
from migemu.trace.events import Event, Happening
from migemu.units import KIB
from migemu.wire.messages import Page, Zero

_SCRAP_BYTES: Final = 64 * KIB


class Arrivals:
    """Takes in the pieces of one migration; what comes corrupt is asked for again, of `host`."""

    def __init__(
        self, assembly: Assembly, status: IncomingStatus, clock: Clock, tracer: Tracer | None, host: ExecutorHost
    ) -> None:  # fmt: skip
        self._assembly, self._status = assembly, status
        self._clock, self._tracer = clock, tracer
        self._host = host
        self._geometry = assembly.memory.bytes.geometry
        self._page_bytes = self._geometry.page_bytes
        self._scrap = memoryview(bytearray(_SCRAP_BYTES))

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """Where payload byte `offset` of `page` belongs: in its place, or in scrap if its base page came before."""
        self._status.landed()
        page_bytes = self._page_bytes
        at = page.first + offset // page_bytes
        within = offset % page_bytes
        until = self._assembly.receiver.fresh_until(at, page.first + page.count * self._geometry.pages(page.level))
        if until > at:
            return self._assembly.memory.bytes.landing(at, until - at)[within:]
        return self._scrap[: page_bytes - within]

    def page(self, page: Page) -> None:
        """A run of pieces whose bytes have landed. PeerError when they come corrupt too often."""
        run = PieceRun(page.first, page.count, page.level)
        self._status.received_payload(page.count * self._geometry.size(page.level))
        if not page.digests:
            self._arrived(run, page.urgent, zero=False)
            return
        good, bad = self._assembly.integrity.judge(run, page.digests)
        for each in good:
            self._arrived(each, page.urgent, zero=False)
        for each in bad:
            if self._tracer is not None:
                now = self._clock.now_ns()
                self._tracer.emit(Event(now, NODE, Happening.DROPPED, each.first, each.count, detail="corrupt"))
            self._host.ask_source(each, again=True)

    def zero(self, zero: Zero) -> None:
        """A run of pieces without bytes: as the memory is from the start, unless something else landed there."""
        if self._status.disturbed:
            self._clear(zero.first, zero.first + zero.count * self._geometry.pages(zero.level))
        self._arrived(PieceRun(zero.first, zero.count, zero.level), zero.urgent, zero=True)

    def _clear(self, page: PageIndex, end: PageIndex) -> None:
        """What of the base pages `[page, end)` has not been received."""
        while page < end:
            until = self._assembly.receiver.fresh_until(page, end)
            if until > page:
                self._assembly.memory.bytes.clear(page, until - page)
            page = max(until, page + 1)

    def _arrived(self, run: PieceRun, urgent: bool, zero: bool) -> None:
        self._assembly.executor.arrived(run, urgent, zero)
        self._status.arrived(self._clock.now_ns())

    def __repr__(self) -> str:
        return f"<Arrivals: {self._status.progress}>"
