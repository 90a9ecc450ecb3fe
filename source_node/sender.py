"""What the source sends next. Pure: told what was asked for, pulled for the next run of pieces.

The shell calls `next_run` when it has room for more; that pull is the back-pressure, and nothing is decided earlier
than it must be, so an urgent page never waits behind a decision. Rules:

1. A base page is sent once. `sent` says which have been. (With `resend` and a preempt channel, a request for a page
   that is already under way is answered with one more copy there, which may overtake the first.)
2. Urgent comes before background. Urgent pieces go to the PREEMPT role where there is one, else to MAIN.
3. A piece of 2M goes out as 2M only if none of it has been sent; else its unsent base pages go as 4K pieces: bytes are
   never repeated just to keep a piece whole.
4. A run never crosses a PMD border at 4K pieces, and never exceeds `run_pages_max` (one 2M piece may).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, PieceRun, Span
from migemu.policy.push import PushOrder
from migemu.wire.messages import ChannelRole, Request


class SenderStatistics(NamedTuple):
    """What has been asked and decided so far, in requests and base pages."""

    requests: int
    requests_already_sent: int
    pages_sent: int
    pages_resent: int
    pages_urgent: int


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
        self._urgent_role = ChannelRole.PREEMPT if preempt else ChannelRole.MAIN
        self._resend = resend and preempt  # on one channel a second copy cannot overtake, and may come after the end
        self._urgent: deque[PieceRun] = deque()
        self._resent: set[PageIndex] = set()
        self._requests = 0
        self._requests_already_sent = 0
        self._pages_resent = 0
        self._pages_urgent = 0

    def receive(self, request: Request) -> None:
        """A fault at the destination asks for pieces. The request has been judged: it lies within the memory."""
        self._requests += 1
        pages = request.count * self.geometry.pages(request.level)
        before = len(self._urgent)
        per_pmd = self.geometry.pages(Level.PMD)
        first, end = request.first, request.first + pages
        while first < end:
            until = min(end, first - first % per_pmd + per_pmd)
            self._want(first, until - first, request.level)
            first = until
        if len(self._urgent) == before:
            self._requests_already_sent += 1
            if self._resend:
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

    def next_urgent(self, role: ChannelRole) -> PieceRun | None:
        """The next urgent run for the channel of `role`, or None."""
        if role is not self._urgent_role or not self._urgent:
            return None
        run = self._urgent.popleft()
        if run.level == Level.PTE and run.count > self._run_pages_max:
            rest = PieceRun(run.first + self._run_pages_max, run.count - self._run_pages_max, Level.PTE)
            self._urgent.appendleft(rest)
            return PieceRun(run.first, self._run_pages_max, Level.PTE)
        return run

    def next_run(self, role: ChannelRole) -> PieceRun | None:
        """The next run for the channel of `role`: urgent first, then background (MAIN only). None: nothing to send."""
        urgent = self.next_urgent(role)
        if urgent is not None or role is not ChannelRole.MAIN:
            return urgent
        found = self._order.next_run(self.sent, self._run_pages_max)
        if found is None:
            return None
        first, count = found
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
        """A snapshot."""
        return SenderStatistics(
            self._requests, self._requests_already_sent, self.sent.set_pages, self._pages_resent, self._pages_urgent
        )

    def __repr__(self) -> str:
        return f"<Sender {self.sent.set_pages}/{self.sent.total} sent, {len(self._urgent)} urgent runs waiting>"
