"""What the destination does with what arrives. Pure: told what happened, answers with effects, in order.

    received(run)    bytes are in their place        -> Continue what was new
    faulted(page)    a vCPU waits for a base page    -> Request it, once; Wake if it has been mapped meanwhile
    done(effect)     an effect was carried out       -> Collapse what the policy proposes, Wake who still sleeps
    ended()          the source has sent everything  -> Collapse the rest, Finish

Rules:
1. Received is not mapped. `received` is set when all bytes of a base page are in their place; `mapped` when an entry
   gives access to it. mapped is within received, always: this file never continues or collapses anything else.
2. What was received before is never touched again: `fresh_until` tells the shell where to land and where to discard.
   A guest may have written to it.
3. A policy proposes collapses; only spans that have been received whole are collapsed, the rest is refused and
   counted. MADV_COLLAPSE fills holes without looking (kernel-semantics 0.2): nobody below would refuse. Also refused
   are spans that are leaves already (EEXIST under a larger one, 2.2), and those of which nothing is mapped, where it
   would do nothing (0.3) and count as mapped here.
4. A late CONTINUE finds the page mapped (EEXIST). That is a success (kernel-semantics I9), but the kernel then wakes
   nobody, nor does MADV_COLLAPSE (2.1): sleepers get an explicit Wake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, PieceRun, Span
from migemu.outcome import ReceiverStatistics
from migemu.policy.collapse import CollapsePolicy


class Continue(NamedTuple):
    """UFFDIO_CONTINUE each piece of the run; its waiters are woken by it."""

    run: PieceRun


class Collapse(NamedTuple):
    """MADV_COLLAPSE each span, in order."""

    spans: tuple[Span, ...]


class Wake(NamedTuple):
    """UFFDIO_WAKE `count` base pages from `first` on."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run


class Ask(NamedTuple):
    """Ask the source for a run, urgently."""

    run: PieceRun


class Finish(NamedTuple):
    """Everything has arrived and is mapped as the policy wants it."""


Effect = Continue | Collapse | Wake | Ask | Finish


class Receiver:
    """The pure core of the destination."""

    def __init__(self, geometry: Geometry, pages: int, policy: CollapsePolicy, *, urgent_piece: Level) -> None:
        """`pages` base pages of memory; faults ask for pieces of `urgent_piece`."""
        self.geometry = geometry
        self.received_pages = PageBitmap(geometry, pages)
        self.mapped_pages = PageBitmap(geometry, pages)
        self._policy = policy
        self._urgent_piece = urgent_piece
        self._per_pmd = geometry.pages(Level.PMD)
        self._pmd_leaf = bytearray(pages // self._per_pmd)
        self._pud_leaf = bytearray(pages // geometry.pages(Level.PUD))
        self._asked: set[PageIndex] = set()
        self._open: dict[PageIndex, int] = {}
        self._ended = False
        self._finished = False
        self._pieces = {Level.PTE: 0, Level.PMD: 0}
        self._zero = self._duplicate = self._faults = self._requests = 0
        self._calls = self._refused = 0
        self._collapsed = {Level.PMD: 0, Level.PUD: 0}

    # What a collapse policy may look at (policy.collapse.MappingView).

    @property
    def received(self) -> PageBitmap:
        """The base pages whose bytes are here."""
        return self.received_pages

    @property
    def mapped(self) -> PageBitmap:
        """The base pages that an entry gives access to."""
        return self.mapped_pages

    def is_leaf(self, span: Span) -> bool:
        """Whether `span` is mapped by one entry of its level or a larger one."""
        if self._pud_leaf[span.first // self.geometry.pages(Level.PUD)]:
            return True
        if span.level == Level.PTE and self.mapped_pages.pages[span.first]:
            return True
        return span.level <= Level.PMD and bool(self._pmd_leaf[span.first // self._per_pmd])

    # What the shell asks before bytes land.

    def fresh_until(self, page: PageIndex, end: PageIndex) -> PageIndex:
        """Where the base pages that have not been received end, from `page` on; `page` itself if it has been."""
        return self.received_pages.clear_until(page, end)

    # What happens.

    def arrived(self, run: PieceRun, *, zero: bool = False) -> Sequence[Effect]:
        """The bytes of `run` are in their place (or it is zero, and so is the memory)."""
        pages = run.count * self.geometry.pages(run.level)
        fresh_runs = self._fresh(run, pages)
        fresh = self.received_pages.add(run.first, pages)
        self._duplicate += pages - fresh
        if zero:
            self._zero += fresh
        else:
            for fresh_run in fresh_runs:
                self._pieces[fresh_run.level] += fresh_run.count
        return [Continue(fresh_run) for fresh_run in fresh_runs]

    def _fresh(self, run: PieceRun, pages: int) -> list[PieceRun]:
        """What of `run` has not been received, in order: pieces of 2M where all of them is new, else base pages."""
        received = self.received_pages
        if pages == 1:  # a lone urgent piece, the commonest answer to a fault
            return [] if received.pages[run.first] else [run]
        if run.level == Level.PTE:
            return [PieceRun(first, count, Level.PTE) for first, count in received.clear_runs(run.first, pages)]
        if not received.count(run.first, pages):
            return [run]
        fresh: list[PieceRun] = []
        per_piece = pages // run.count
        for piece in range(run.first, run.first + pages, per_piece):
            if received.count(piece, per_piece):
                rows = received.clear_runs(piece, per_piece)
                fresh += [PieceRun(first, count, Level.PTE) for first, count in rows]
            else:
                fresh.append(PieceRun(piece, 1, run.level))
        return fresh

    def faulted(self, page: PageIndex) -> Sequence[Effect]:
        """A vCPU sleeps on `page`."""
        self._faults += 1
        if self.mapped_pages.pages[page]:
            return (Wake(page, 1),)
        self._open[page] = self._open.get(page, 0) + 1
        if self.received_pages.pages[page]:
            return ()  # its Continue is on the way
        pages = self.geometry.pages(self._urgent_piece)
        first = page - page % pages
        if first in self._asked:
            return ()
        self._asked.add(first)
        self._requests += 1
        return (Ask(PieceRun(first, 1, self._urgent_piece)),)

    def done(self, effect: Effect, existing: int = 0) -> Sequence[Effect]:
        """An effect was carried out; `existing` pieces of a Continue were mapped already (EEXIST)."""
        if type(effect) is Continue:
            return self._continued(effect.run, existing)
        if type(effect) is Collapse:
            return self._collapse_done(effect.spans)
        return ()

    def ended(self) -> Sequence[Effect]:
        """The source says that it has sent everything; pieces on the preempt channel may still be under way."""
        self._ended = True
        return self._finish_if_complete()

    # How.

    def _continued(self, run: PieceRun, existing: int) -> Sequence[Effect]:
        pages = run.count * self.geometry.pages(run.level)
        self.mapped_pages.add(run.first, pages)
        effects: list[Effect] = []
        if self._open and self._close(run.first, pages) and existing:
            effects.append(Wake(run.first, pages))
        if run.level == Level.PMD:
            for pmd in range(run.first // self._per_pmd, (run.first + pages) // self._per_pmd):
                self._pmd_leaf[pmd] = 1
        proposed = self._policy.mapped(run.first, pages, self)
        if proposed:
            effects += self._propose(proposed)
        if self._ended:
            effects += self._finish_if_complete()
        return effects

    def _collapse_done(self, spans: Sequence[Span]) -> Sequence[Effect]:
        effects: list[Effect] = []
        self._calls += 1
        for span in spans:
            pages = self.geometry.pages(span.level)
            self._collapsed[span.level] += 1
            self.mapped_pages.add(span.first, pages)
            if span.level == Level.PUD:
                self._pud_leaf[span.first // pages] = 1
            else:
                self._pmd_leaf[span.first // pages] = 1
            if self._open and self._close(span.first, pages):
                effects.append(Wake(span.first, pages))
        for span in spans:
            effects += self._propose(self._policy.collapsed(span, self))
        if self._ended:
            effects += self._finish_if_complete()
        return effects

    def _propose(self, spans: Sequence[Span]) -> Sequence[Effect]:
        """One Collapse of what may be collapsed; the rest is refused."""
        received, mapped = self.received_pages, self.mapped_pages
        accepted = tuple(
            span for span in spans if received.full(span) and not mapped.empty(span) and not self.is_leaf(span)
        )
        self._refused += len(spans) - len(accepted)
        return (Collapse(accepted),) if accepted else ()

    def _close(self, first: PageIndex, pages: int) -> bool:
        """Forget the open faults of `pages` base pages; whether there were any."""
        if len(self._open) < pages:
            inside = [page for page in self._open if first <= page < first + pages]
        else:
            inside = [page for page in range(first, first + pages) if page in self._open]
        for page in inside:
            del self._open[page]
        return bool(inside)

    def _finish_if_complete(self) -> Sequence[Effect]:
        if self._finished or not self.mapped_pages.complete:
            return ()
        self._finished = True
        return (*self._propose(self._policy.ended(self)), Finish())

    @property
    def pages_duplicate(self) -> int:
        """Base pages that came again."""
        return self._duplicate

    def overview(self, cells_max: int) -> str:
        """The memory as at most `cells_max` letters: `g` and `m` where entries of 1G and 2M map all of a cell.

        Elsewhere a digit from 0 to 8, by the share of it that is mapped.
        """
        pmds = len(self._pmd_leaf)
        width = -(-pmds // cells_max)
        per_pud = self.geometry.pages(Level.PUD) // self._per_pmd
        cells = []
        for first in range(0, pmds, width):
            last = min(first + width, pmds)
            if all(self._pud_leaf[pmd // per_pud] for pmd in range(first, last)):
                cells.append("g")
            elif all(self._pmd_leaf[first:last]):
                cells.append("m")
            else:
                pages = (last - first) * self._per_pmd
                cells.append(str(self.mapped.count(first * self._per_pmd, pages) * 8 // pages))
        return "".join(cells)

    def statistics(self) -> ReceiverStatistics:
        """A snapshot."""
        return ReceiverStatistics(
            self._pieces[Level.PTE], self._pieces[Level.PMD], self._zero, self._duplicate,
            self.received_pages.set_pages, self.mapped_pages.set_pages,
            self._faults, sum(self._open.values()), self._requests,
            self._calls, self._collapsed[Level.PMD], self._collapsed[Level.PUD], self._refused,
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Receiver {self.received_pages.set_pages}/{self.received_pages.total} received, "
            f"{self.mapped_pages.set_pages} mapped, {len(self._open)} pages waited for>"
        )
