"""What the source sends next. Pure: told what was asked for, pulled for the next run of pieces.

The shell calls `next_run` when it has room for more; that pull is the back-pressure, and nothing is decided earlier
than it must be, so an urgent page never waits behind a decision. Rules:

1. A base page is sent once. `sent` says which have been. (With `resend` and a preempt channel, a request for a page
   that is already under way is answered with one more copy there, which may overtake the first.)
2. Urgent comes before background. Urgent pieces go to the preempt channel where there is one, else to the main one.
3. A piece of 2M goes out as 2M only if none of it has been sent; else its unsent base pages go as 4K pieces: bytes are
   never repeated just to keep a piece whole.
4. A run never crosses a PMD border at 4K pieces, and never exceeds `run_pages_max` (one 2M piece may).
5. What was sent may be lost with its connection. The destination's bitmap says what has arrived; nothing of it is sent
   again, all else is (`recover`). When the preempt channel is lost alone, urgent pieces go to the main one, and what is
   handed out meanwhile is on its way in any case (`preempt_lost`, `preempt_recovered`, `preempt_back`).
6. A piece that came corrupt is sent again, to whoever asks for it so.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, PieceRun, Span
from migemu.policy.push_order import PushOrder
from migemu.wire.messages import MAIN_CHANNEL, PREEMPT_CHANNEL, ChannelId, Request


class SenderStatistics(NamedTuple):
    """What has been asked and decided so far, in requests and base pages."""

    requests: int
    requests_already_sent: int
    pages_sent: int
    pages_resent: int
    pages_urgent: int
    pages_lost: int = 0


class Sender:
    """The pure core of the source."""

    def __init__(
        self, geometry: Geometry, pages: int, order: PushOrder, *,
        piece: Level, run_pages_max: int, preempt: bool, resend: bool = False,
    ) -> None:  # fmt: skip
        """`pages` base pages of memory, pushed in `order` as pieces of `piece`, in runs of `run_pages_max` at most."""
        self.geometry = geometry
        self.sent = PageBitmap(geometry, pages)
        self._order = order
        self._piece = piece
        self._run_pages_max = run_pages_max
        self._preempt = preempt
        self.urgent_channel = PREEMPT_CHANNEL if preempt else MAIN_CHANNEL
        self._resend = resend
        self._urgent: deque[PieceRun] = deque()
        self._resent: set[PageIndex] = set()
        self._again: set[PageIndex] = set()  # came corrupt, and waits to be sent again
        self._since: PageBitmap | None = None  # handed out since the preempt channel was lost
        self._pages_lost = 0
        self._requests = 0
        self._requests_already_sent = 0
        self._pages_resent = 0
        self._pages_urgent = 0

    def receive(self, request: Request) -> None:
        """A fault at the destination asks for pieces. The request has been judged: it lies within the memory."""
        self._requests += 1
        pages = request.count * self.geometry.pages(request.level)
        if request.again:
            self._send_again(request.first, pages)
            return
        before = len(self._urgent)
        per_pmd = self.geometry.pages(Level.PMD)
        first, end = request.first, request.first + pages
        while first < end:
            until = min(end, first - first % per_pmd + per_pmd)
            self._want(first, until - first, request.level)
            first = until
        if len(self._urgent) == before:
            self._requests_already_sent += 1
            if self._resend and self.urgent_channel == PREEMPT_CHANNEL:  # on one channel a copy cannot overtake
                self._want_again(request.first, pages)
        else:
            self._order.requested(request.first)  # as in QEMU, a request for what is under way moves no scan

    def _want(self, first: PageIndex, pages: int, level: Level) -> None:
        """Queue what has not been sent of `pages` base pages of one PMD, and count it as sent from now on."""
        if level == Level.PMD and self.sent.empty(Span(first, Level.PMD)):
            self._urgent.append(PieceRun(first, 1, Level.PMD))
        else:
            self._urgent.extend(
                PieceRun(start, count, Level.PTE) for start, count in self.sent.clear_runs(first, pages)
            )
        self._pages_urgent += self.sent.add(first, pages)

    def _want_again(self, first: PageIndex, pages: int) -> None:
        for page in range(first, first + pages):
            if page not in self._resent:
                self._resent.add(page)
                self._pages_resent += 1
                self._urgent.append(PieceRun(page, 1, Level.PTE))

    def _send_again(self, first: PageIndex, pages: int) -> None:
        for page in range(first, first + pages):
            if page not in self._again:
                self._again.add(page)
                self._urgent.append(PieceRun(page, 1, Level.PTE))
                self._pages_urgent += 1
                self._pages_resent += 1 - self.sent.add(page, 1)

    def recover(self, received: PageBitmap) -> int:
        """All connections were lost; `received` (the sender's from now on) has arrived. How many pages had not.

        The push begins anew. There is no preempt channel until `preempt_back`.
        """
        self._urgent.clear()
        self._resent.clear()
        self._again.clear()
        self._since = None
        self.urgent_channel = MAIN_CHANNEL
        return self._lost(received)

    def preempt_lost(self) -> None:
        """The preempt channel was lost alone, and with it some of what was sent on it."""
        self.urgent_channel = MAIN_CHANNEL
        self._since = PageBitmap(self.geometry, self.sent.total)

    def preempt_recovered(self, received: PageBitmap) -> int:
        """`received` had arrived some time after `preempt_lost`. How many pages will be sent again."""
        assert self._since is not None
        since, self._since = self._since, None
        pages = since.pages
        first = pages.find(1)
        while first >= 0:
            end = pages.find(0, first)
            end = end if end >= 0 else since.total
            received.add(first, end - first)
            first = pages.find(1, end)
        for run in self._urgent:
            received.add(run.first, run.count * self.geometry.pages(run.level))
        self._resent.clear()
        return self._lost(received)

    def preempt_back(self) -> None:
        """There is a preempt channel again, if there was to be one at all."""
        if self._preempt:
            self.urgent_channel = PREEMPT_CHANNEL

    def _lost(self, received: PageBitmap) -> int:
        lost = max(0, self.sent.set_pages - received.set_pages)
        self.sent = received
        self._pages_lost += lost
        return lost

    def next_urgent(self, channel_id: ChannelId) -> PieceRun | None:
        """The next urgent run for this channel, or None."""
        if channel_id != self.urgent_channel or not self._urgent:
            return None
        run = self._urgent.popleft()
        if self._again:
            self._again.discard(run.first)
        if run.level == Level.PTE and run.count > self._run_pages_max:
            rest = PieceRun(run.first + self._run_pages_max, run.count - self._run_pages_max, Level.PTE)
            self._urgent.appendleft(rest)
            run = PieceRun(run.first, self._run_pages_max, Level.PTE)
        return run if self._since is None else self._noted(run, self._since)

    def _noted(self, run: PieceRun, since: PageBitmap) -> PieceRun:
        since.add(run.first, run.count * self.geometry.pages(run.level))
        return run

    def next_run(self, channel_id: ChannelId) -> PieceRun | None:
        """The next run for this channel: urgent first, then background (main only). None: nothing to send."""
        urgent = self.next_urgent(channel_id)
        if urgent is not None or channel_id != MAIN_CHANNEL:
            return urgent
        found = self._order.next_run(self.sent, self._run_pages_max)
        if found is None:
            return None
        first, count = found
        run = self._background(first, count)
        return run if self._since is None else self._noted(run, self._since)

    def _background(self, first: PageIndex, count: int) -> PieceRun:
        """`count` pages that were proposed, or the 2M piece around them; sent from now on."""
        if self._piece == Level.PMD:
            per_piece = self.geometry.pages(Level.PMD)
            span = Span(first - first % per_piece, Level.PMD)
            if self.sent.empty(span):
                self.sent.add(span.first, per_piece)
                return PieceRun(span.first, 1, Level.PMD)
        self.sent.add(first, count)
        return PieceRun(first, count, Level.PTE)

    @property
    def finished(self) -> bool:
        """Whether every base page has been handed out."""
        return self.sent.complete and not self._urgent

    def statistics(self) -> SenderStatistics:
        """Counters of the sender, as a frozen copy."""
        return SenderStatistics(
            self._requests, self._requests_already_sent, self.sent.set_pages, self._pages_resent, self._pages_urgent,
            self._pages_lost,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Sender {self.sent.set_pages}/{self.sent.total} sent, {len(self._urgent)} urgent runs waiting>"
