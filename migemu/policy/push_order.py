"""Push orders: which pages the source sends next when nobody is asking.

What this models
    The background half of post-copy: the source pushes everything once, while faults pull single pages ahead of it.
    The order decides how many faults the push comes too late for, and which 2M ranges fill up early enough to be
    collapsed while the migration still runs. Urgent pages are not chosen here; the sender sends them first.

Rules
    1. A run is a row of unsent base pages within one PMD, at most `pages_max` long.
    2. An order chooses, the sender marks: `sent` may gain pages between two calls (urgent ones, or a whole 2M piece
       where a few pages were proposed). Nothing is proposed twice because nothing sent is ever proposed.
    3. `next_run` is None only when every page has been sent, whatever has been requested meanwhile.
    4. Another bitmap means another round (after a reconnect): the order starts again, and keeps what was requested.
    5. Same seed, same calls, same runs.
    6. Finding the next run costs the same in 1G and in 1T (see `unsent`).

Words
    background scan   QEMU's name for the push
    pivot, bubble     Hines, Deshpande and Gopalan's names: the page of a recent fault, and the range around it that
                      has been pushed because of it

Sources
    QEMU: `get_queued_page` in migration/ram.c lets the scan go on from a requested page, "since the guest is likely to
    want other pages near to the page it just requested"; a request for a page that is not dirty any more is dropped
    and moves nothing. Bubbling: M. Hines, U. Deshpande, K. Gopalan, "Post-Copy Live Migration of Virtual Machines",
    ACM SIGOPS Operating Systems Review 43(3), 2009. `fill_pmd` is ours.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from migemu import values
from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex
from migemu.permutation import CyclicWalk
from migemu.policy.unsent import UnsentFinder
from migemu.registry import Registry

Run = tuple[PageIndex, int]


class PushOrder(Protocol):
    """Chooses what the source pushes next. Factories take (geometry, total_pages, rng)."""

    def requested(self, page: PageIndex) -> None:
        """A fault asked for `page`, which had not been sent when the request came."""

    def next_run(self, sent: PageBitmap, pages_max: int) -> Run | None:
        """(first, count) of unsent pages of one PMD, 1 <= count <= pages_max; None only when all have been sent."""


push_orders: Registry[PushOrder] = Registry("push order", "migemu.push")


class _Order:
    """What the orders here share: the finder of the bitmap in use. A subclass says `_choose`."""

    __slots__ = ("_finder", "_total_pages", "geometry")

    def __init__(self, geometry: Geometry, total_pages: int, rng: Random) -> None:
        self.geometry = geometry
        self._total_pages = total_pages
        self._finder: UnsentFinder | None = None

    def requested(self, page: PageIndex) -> None:
        """A fault asked for `page`: makes no difference to this order."""

    def next_run(self, sent: PageBitmap, pages_max: int) -> Run | None:
        """As `PushOrder.next_run`. ValueError when `sent` is not of this memory, or `pages_max` is below 1."""
        if sent.set_pages == sent.total:
            return None
        finder = self._finder
        if finder is None or finder.sent is not sent:
            if sent.total != self._total_pages:
                raise ValueError(f"a bitmap of {sent.total} pages was given to an order of {self._total_pages}")
            if finder is not None:
                self._restart()
            self._finder = finder = UnsentFinder(sent)
        if pages_max < 1:
            raise ValueError(f"runs of at most {pages_max} pages are none: give 1 or more")
        return self._choose(finder, pages_max)

    def _choose(self, finder: UnsentFinder, pages_max: int) -> Run:
        """The next run; there is at least one unsent page."""
        raise NotImplementedError

    def _restart(self) -> None:
        """Another bitmap: forget where the last round was."""

    def __repr__(self) -> str:
        state = "not begun" if self._finder is None else repr(self._finder)
        return f"<{type(self).__name__}: {state}>"


@push_orders.register("sequential")
class SequentialPush(_Order):
    """Pushes from the first page to the last, whatever is requested."""

    __slots__ = ("_cursor",)

    def __init__(self, geometry: Geometry, total_pages: int, rng: Random) -> None:
        super().__init__(geometry, total_pages, rng)
        self._cursor = 0

    def _choose(self, finder: UnsentFinder, pages_max: int) -> Run:
        first = finder.forward(self._cursor)
        if first < 0:
            first = finder.forward(0)
        self._cursor = first
        return finder.run_from(first, pages_max)

    def _restart(self) -> None:
        self._cursor = 0


@push_orders.register("fault_follow")
class FaultFollow(SequentialPush):
    """Pushes on from the page requested last, wrapping at the end, as QEMU's background scan does."""

    __slots__ = ()

    def requested(self, page: PageIndex) -> None:
        """The scan goes on from `page`."""
        self._cursor = page

    def _restart(self) -> None:
        """The page requested last is still the best place to go on from."""


@push_orders.register("random", block=values.whole(0, unit="base pages"))
class Shuffled(_Order):
    """Pushes aligned blocks of pages in a random order drawn from the seed, whatever is requested.

    Setting `block`: pages a block; 0 makes a block of the longest run the first call allows. A block is pushed whole,
    from its first page on. Constant memory: the order is a full-period walk, so the last blocks cost no more to find
    than the first ones.
    """

    __slots__ = ("_block", "_block_setting", "_cursor", "_end", "_rng", "_walk")

    def __init__(self, geometry: Geometry, total_pages: int, rng: Random, *, block: int = 0) -> None:
        super().__init__(geometry, total_pages, rng)
        self._block_setting = self._block = block
        self._rng = rng
        self._walk: CyclicWalk | None = None
        self._cursor = self._end = 0

    def _choose(self, finder: UnsentFinder, pages_max: int) -> Run:
        if (walk := self._walk) is None:
            self._block = self._block_setting or pages_max
            walk = self._walk = CyclicWalk(-(-self._total_pages // self._block), self._rng)
        pages = finder.sent.pages
        while (first := pages.find(0, self._cursor, self._end)) < 0:
            self._cursor = walk.step() * self._block
            self._end = min(self._cursor + self._block, self._total_pages)
        run = finder.run_from(first, min(pages_max, self._end - first))
        self._cursor = first
        return run

    def _restart(self) -> None:
        self._walk = None
        self._cursor = self._end = 0


class _Bubble:
    """The range around a pivot: `[low, high)` has been pushed. An edge that may grow no further is closed."""

    __slots__ = ("backward", "forward", "high", "low", "pivot", "turn")

    def __init__(self, pivot: PageIndex, dual: bool) -> None:
        self.pivot = self.low = self.high = pivot
        self.forward = True
        self.backward = dual
        self.turn = 0


@push_orders.register("bubbling", pivots=values.whole(1, 1024, "requested pages"))
class Bubbling(_Order):
    """Pushes around the last few requested pages, in both directions at once (Hines et al. 2009).

    Settings: `pivots`, how many recent faults count (the oldest gives way; 1 is single-pivot bubbling), and `dual`, off
    for the forward direction only. Bubbles take turns, the latest fault first; each turn grows one edge by one run,
    the forward one first. A request within a bubble moves nothing; an edge that meets another bubble stops there and
    leaves that direction to it. Until the oldest pivot gives way, page 0 is one. From the paper are single and multiple
    pivots, forward and dual direction; growing by runs, the turns, the default of 7 and going on sequentially when no
    bubble can grow are ours.
    """

    __slots__ = ("_bubbles", "_dual", "_pivots", "_turn")

    def __init__(
        self, geometry: Geometry, total_pages: int, rng: Random, *, pivots: int = 7, dual: bool = True
    ) -> None:
        super().__init__(geometry, total_pages, rng)
        self._pivots = pivots
        self._dual = dual
        self._bubbles = [_Bubble(0, dual)]
        self._turn = 0

    def requested(self, page: PageIndex) -> None:
        """`page` becomes a pivot, unless a bubble has gone over it."""
        if any(bubble.low <= page < bubble.high for bubble in self._bubbles):
            return
        self._bubbles.append(_Bubble(page, self._dual))
        if len(self._bubbles) > self._pivots:
            del self._bubbles[0]
        self._turn = len(self._bubbles) - 1

    def _choose(self, finder: UnsentFinder, pages_max: int) -> Run:
        bubbles = self._bubbles
        while bubbles:
            if self._turn < 0:
                self._turn = len(bubbles) - 1
            bubble = bubbles[self._turn]
            run = self._grow(bubble, finder, pages_max)
            if run is None:
                del bubbles[self._turn]
            self._turn -= 1
            if run is not None:
                return run
        return finder.run_from(finder.forward(0), pages_max)

    def _grow(self, bubble: _Bubble, finder: UnsentFinder, pages_max: int) -> Run | None:
        """One run at the edge whose turn it is; None when neither edge can grow."""
        while bubble.forward or bubble.backward:
            bubble.turn ^= 1
            if bubble.turn and bubble.forward:
                first = finder.forward(bubble.high)
                if first < 0 or self._meets(bubble, bubble.high, first):
                    bubble.forward = False
                    continue
                run = finder.run_from(first, pages_max)
                bubble.high = first + run[1]
                return run
            if not bubble.turn and bubble.backward:
                last = finder.backward(bubble.low)
                if last < 0 or self._meets(bubble, last + 1, bubble.low):
                    bubble.backward = False
                    continue
                run = finder.run_to(last, pages_max)
                bubble.low = run[0]
                return run
        return None

    def _meets(self, bubble: _Bubble, start: PageIndex, end: PageIndex) -> bool:
        """Whether the sent pages `[start, end)`, which an edge would have to jump, touch another bubble."""
        return start < end and any(
            other.low < end and start < max(other.high, other.low + 1) for other in self._bubbles if other is not bubble
        )

    def _restart(self) -> None:
        self._bubbles = [_Bubble(bubble.pivot, self._dual) for bubble in self._bubbles]
        self._turn = len(self._bubbles) - 1


@push_orders.register("fill_pmd", pending=values.whole(1, 65_536, "2M ranges"))
class FillPmd(_Order):
    """Pushes the rest of the 2M around the latest fault first, so that it can be collapsed early; then on from there.

    The 2M is pushed from the requested page to its end, then from its start. Earlier faults' 2M follow, the latest
    first; setting `pending` bounds how many wait (the oldest is forgotten; the scan will come by). Then the scan goes
    on sequentially behind the latest fault's 2M, wrapping at the end.
    """

    __slots__ = ("_cursor", "_pages_per_pmd", "_pending", "_waiting")

    def __init__(self, geometry: Geometry, total_pages: int, rng: Random, *, pending: int = 64) -> None:
        super().__init__(geometry, total_pages, rng)
        self._pages_per_pmd = geometry.pages(Level.PMD)
        self._pending = pending
        self._waiting: dict[PageIndex, PageIndex] = {}  # first page of a 2M -> its latest request; latest 2M last
        self._cursor = 0

    def requested(self, page: PageIndex) -> None:
        """The 2M around `page` comes next."""
        start = page - page % self._pages_per_pmd
        self._waiting.pop(start, None)
        self._waiting[start] = page
        if len(self._waiting) > self._pending:
            del self._waiting[next(iter(self._waiting))]
        self._cursor = start

    def _choose(self, finder: UnsentFinder, pages_max: int) -> Run:
        pages, waiting = finder.sent.pages, self._waiting
        while waiting:
            start, page = waiting.popitem()
            first = pages.find(0, page, start + self._pages_per_pmd)
            if first < 0:
                first = pages.find(0, start, page)
            if first >= 0:
                waiting[start] = page
                return finder.run_from(first, pages_max)
        first = finder.forward(self._cursor)
        if first < 0:
            first = finder.forward(0)
        self._cursor = first
        return finder.run_from(first, pages_max)
