"""What the destination does with what arrives. Pure: told what happened, answers with effects, in order.

    arrived(run)     bytes are in their place        -> Continue what was new
    faulted(page)    a vCPU waits for a base page    -> Ask for it, once; Wake if it has been mapped meanwhile
    done(effect)     an effect was carried out       -> Collapse what the policy proposes, Wake who still sleeps
    ended()          the source has sent everything  -> Collapse the rest, Finish
    timeout()        `deadline` has come             -> Collapse what a policy with a sense of time, or rule 6, put off
    paused()         the connections were lost       -> nothing is asked for until
    recovered()      there are others                -> Ask for all that faults wait for, again

Each is told the time, in ns of one clock that does not go back.

Rules:
1. Received is not mapped. `received` is set when all bytes of a base page are in their place; `mapped` when an entry
   gives access to it. mapped is within received, always: this file never continues or collapses anything else.
2. What was received before is never touched again: `fresh_until` tells the shell where to land and where to discard.
   A guest may have written to it.
3. A policy proposes collapses; only spans that have been received whole are collapsed, the rest is refused and
   counted. MADV_COLLAPSE fills holes without looking (SEMANTICS 0.2): nobody below would refuse. Also refused
   are spans that are leaves already (EEXIST under a larger one, SEMANTICS 2.2), and those of which nothing is mapped,
   where it would do nothing (SEMANTICS 0.3) and count as mapped here.
4. A collapse of several spans is one process_madvise, which stops at the first that fails (SEMANTICS 6.1). That one is
   tried again when everything has arrived, the others go on at once. A page table that stays small is slow, not wrong.
5. A late CONTINUE finds the page mapped (EEXIST). That is a success (SEMANTICS I9), but the kernel then wakes
   nobody, nor does MADV_COLLAPSE (SEMANTICS 2.1): sleepers get an explicit Wake.
6. Without HGM there is one size, the hugetlb page: it is continued when all of it has been received (Keep until then),
   a fault asks for all of it, and no policy is asked.
7. A process_madvise holds the thread that makes it. One that would take longer than `call_ns_max` is made in parts, and
   in between the shell gets its turn: it has to say that it is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dest_node.core.effects import Ask, Collapse, Continue, Effect, Finish, Keep, Refuse, Wake
from dest_node.core.leaves import Leaves
from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, PieceRun, Span
from migemu.node.outcome import ReceiverStatistics
from migemu.policy.collapse_policy import CollapsePolicy, Never, TimedCollapsePolicy
from migemu.ports import Collapsed


class Receiver:
    """The pure core of the destination."""

    def __init__(
        self,
        geometry: Geometry,
        pages: int,
        policy: CollapsePolicy,
        *,
        urgent_piece: Level,
        hgm: bool = True,
        collapse_ns: Callable[[dict[Level, int], Level], int] | None = None,
        call_ns_max: int = 0,
    ) -> None:
        """`pages` base pages; faults ask for a piece of `urgent_piece`, without `hgm` for a hugetlb page in these.

        `collapse_ns(leaves, level)` is what a policy may reckon with: ns of a MADV_COLLAPSE that puts one entry of
        `level` in the place of `leaves` by level. Without it, every collapse is thought to be free. `call_ns_max` of 0
        is no limit; a single span is never cut.
        """
        self.geometry = geometry
        self.now_ns = 0
        self.received_pages = PageBitmap(geometry, pages)
        self.mapped_pages = PageBitmap(geometry, pages)
        self._hgm = hgm
        self._policy = policy = policy if hgm else Never(geometry)
        self._timed = policy if isinstance(policy, TimedCollapsePolicy) else None
        self._collapse_ns = collapse_ns
        self._urgent_piece = urgent_piece
        self._per_pmd = geometry.pages(Level.PMD)
        self._leaves = Leaves(geometry, pages)
        self._asked: set[PageIndex] = set()
        self._open: dict[PageIndex, int] = {}
        self._pmd_faults = [0] * (pages // self._per_pmd)
        self._collapsing = 0  # collapses decided on and not reported yet
        self._call_ns_max = call_ns_max
        self._put_off: list[Span] = []  # what was too long for the last call
        self._failed: list[Span] = []
        self._ended = self._winding_up = self._finished = self._paused = False
        self._pieces = {Level.PTE: 0, Level.PMD: 0}
        self._zero = self._duplicate = self._faults = self._requests = 0
        self._calls = self._refused = self._failures = 0
        self._collapsed = dict.fromkeys(Level, 0)

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
        if span.level == Level.PTE and self.mapped_pages.pages[span.first]:
            return True
        return self._leaves.holds(span)

    def faults_in(self, span: Span) -> int:
        """How many faults there have been on the base pages of `span`, counted by 2M."""
        first = span.first // self._per_pmd
        return sum(self._pmd_faults[first : first + max(1, self.geometry.pages(span.level) // self._per_pmd)])

    def collapse_ns(self, span: Span) -> int:
        """What a collapse of `span`, which is mapped, would take, as the cost model has it."""
        if self._collapse_ns is None:
            return 0
        pages = self.geometry.pages(span.level)
        pmds = self._leaves.pmds(span.first, pages)
        return self._collapse_ns({Level.PMD: pmds, Level.PTE: pages - pmds * self._per_pmd}, span.level)

    # What the shell asks before bytes land.

    def fresh_until(self, page: PageIndex, end: PageIndex) -> PageIndex:
        """Where the base pages that have not been received end, from `page` on; `page` itself if it has been."""
        return self.received_pages.clear_until(page, end)

    # What happens.

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        """The bytes of `run` are in their place (or it is zero, and so is the memory)."""
        self.now_ns = now
        pages = run.count * self.geometry.pages(run.level)
        fresh_runs = self._fresh(run, pages)
        fresh = self.received_pages.add(run.first, pages)
        self._duplicate += pages - fresh
        if zero:
            self._zero += fresh
        else:
            for fresh_run in fresh_runs:
                self._pieces[fresh_run.level] += fresh_run.count
        if self._hgm:
            return [Continue(fresh_run) for fresh_run in fresh_runs]
        return [*map(Keep, fresh_runs), *map(Continue, self._whole(fresh_runs))]

    def _whole(self, fresh_runs: Sequence[PieceRun]) -> list[PieceRun]:
        """The hugetlb pages that these runs, which had been missing, have made whole."""
        each, largest = self.geometry.largest_pages, self.geometry.largest
        touched = dict.fromkeys(
            at
            for run in fresh_runs
            for at in range(run.first - run.first % each, run.first + run.count * self.geometry.pages(run.level), each)
        )
        return [PieceRun(at, 1, largest) for at in touched if self.received_pages.full(Span(at, largest))]

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

    def faulted(self, page: PageIndex, now: int) -> Sequence[Effect]:
        """A vCPU sleeps on `page`."""
        self.now_ns = now
        self._faults += 1
        self._pmd_faults[page // self._per_pmd] += 1
        if self.mapped_pages.pages[page]:
            return (Wake(page, 1) if self._hgm else Wake(*self._unit(page)),)  # without HGM events name hugetlb pages
        self._open[page] = self._open.get(page, 0) + 1
        if self._is_here(page) or self._paused:
            return ()  # its Continue is on the way, or will be asked for
        return self._ask(page)

    def _is_here(self, page: PageIndex) -> bool:
        """Whether all is here of what will be continued for the sake of `page`."""
        if self._hgm:
            return bool(self.received_pages.pages[page])
        return self.received_pages.full(Span(self._unit(page)[0], self.geometry.largest))

    def _unit(self, page: PageIndex) -> tuple[PageIndex, int]:
        """What a fault on `page` asks for, as its first base page and how many."""
        pages = self.geometry.pages(self._urgent_piece if self._hgm else self.geometry.largest)
        return page - page % pages, pages

    def _ask(self, page: PageIndex) -> Sequence[Effect]:
        """Ask for what `page` needs, once."""
        first, pages = self._unit(page)
        if first in self._asked:
            return ()
        self._asked.add(first)
        self._requests += 1
        count = pages // self.geometry.pages(self._urgent_piece)
        return (Ask(PieceRun(first, count, self._urgent_piece)),)

    def done(self, effect: Effect, now: int, result: int | Collapsed | None = None) -> Sequence[Effect]:
        """An effect was carried out. `result` of a Continue: how many of its pieces were mapped already (EEXIST)."""
        self.now_ns = now
        if type(effect) is Continue:
            assert isinstance(result, int)
            return self._continued(effect.run, result)
        if type(effect) is Collapse:
            assert isinstance(result, Collapsed)
            return self._collapse_done(effect.spans, result)
        return ()

    def ended(self, now: int) -> Sequence[Effect]:
        """The source says that it has sent everything; pieces on the preempt channel may still be under way."""
        self.now_ns = now
        self._ended = True
        return self._finish_if_complete()

    def paused(self, now: int) -> None:
        """All connections were lost: nobody can be asked, and the source has to say again that it has sent all."""
        self.now_ns = now
        self._paused = True
        self._ended = False

    def recovered(self, now: int) -> Sequence[Effect]:
        """What was asked for may have been lost; the source knows what is here and can be asked again."""
        self.now_ns = now
        self._paused = False
        self._asked.clear()
        return [ask for page in self._open if not self._is_here(page) for ask in self._ask(page)]

    @property
    def pages_waited_for(self) -> int:
        """Base pages that vCPUs sleep on."""
        return len(self._open)

    def deadline(self) -> int | None:
        """When to call `timeout`; None while there is nothing to wait for. It may change with every other call."""
        if self._put_off:
            return self.now_ns
        return self._timed.deadline(self) if self._timed is not None else None

    def timeout(self, now: int) -> Sequence[Effect]:
        """The deadline has come."""
        self.now_ns = now
        if self._put_off:
            put_off, self._put_off = self._put_off, []
            effects = self._collapse([span for span in put_off if not self._objection(span)])
        elif self._timed is not None:
            effects = self._propose(self._timed.due(self))
        else:
            return ()
        return [*effects, *self._finish_if_complete()]

    # How.

    def _continued(self, run: PieceRun, existing: int) -> Sequence[Effect]:
        pages = run.count * self.geometry.pages(run.level)
        self.mapped_pages.add(run.first, pages)
        effects: list[Effect] = []
        if self._open and self._close(run.first, pages) and existing:
            effects.append(Wake(run.first, pages))
        if run.level > Level.PTE:
            self._leaves.put(run.first, pages, run.level)
        proposed = self._policy.mapped(run.first, pages, self)
        if proposed:
            effects += self._propose(proposed)
        if self._ended:
            effects += self._finish_if_complete()
        return effects

    def _collapse_done(self, spans: Sequence[Span], result: Collapsed) -> Sequence[Effect]:
        effects: list[Effect] = []
        self._calls += 1
        self._collapsing -= 1
        done, rest = spans[: result.done], spans[result.done :]
        for span in done:
            pages = self.geometry.pages(span.level)
            self._collapsed[span.level] += 1
            self.mapped_pages.add(span.first, pages)
            self._leaves.put(span.first, pages, span.level)
            if self._open and self._close(span.first, pages):
                effects.append(Wake(span.first, pages))
        if rest and result.errno:  # why a range failed is told when it is the first of its call (SEMANTICS 6.1)
            self._failures += 1
            self._failed.append(rest[0])
            rest = rest[1:]
        effects += self._collapse([span for span in rest if not self._objection(span)])
        for span in done:
            effects += self._propose(self._policy.collapsed(span, self))
        if self._ended:
            effects += self._finish_if_complete()
        return effects

    def _propose(self, spans: Sequence[Span]) -> Sequence[Effect]:
        """One Collapse of what may be collapsed; the rest is refused, and counted."""
        effects: list[Effect] = []
        accepted = []
        for span in spans:
            if (reason := self._objection(span)) is not None:
                self._refused += 1
                effects.append(Refuse(span, reason))
            else:
                accepted.append(span)
        return [*effects, *self._collapse(accepted)]

    def _objection(self, span: Span) -> str | None:
        """Why `span` must not be collapsed; None if it may be."""
        if not self.received_pages.full(span):
            return "not received"
        if self.mapped_pages.empty(span):
            return "nothing mapped"
        return "a leaf already" if self.is_leaf(span) else None

    def _collapse(self, spans: Sequence[Span]) -> Sequence[Effect]:
        """One call for `spans`, if there are any, or for the first of them (rule 6)."""
        if not spans:
            return ()
        count = len(spans)
        if self._call_ns_max and count > 1:
            count, took_ns = 1, self.collapse_ns(spans[0])
            while count < len(spans) and (took_ns := took_ns + self.collapse_ns(spans[count])) <= self._call_ns_max:
                count += 1
            self._put_off += spans[count:]
        self._collapsing += 1
        return (Collapse(tuple(spans[:count])),)

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
        """The last collapses, once; the end, when they are done and the policy has put nothing off."""
        if self._finished or not self._ended or not self.mapped_pages.complete:
            return ()
        effects: list[Effect] = []
        if not self._winding_up:
            self._winding_up = True
            failed, self._failed = self._failed, []
            effects += self._collapse([span for span in failed if not self._objection(span)])
            effects += self._propose(self._policy.ended(self))
        if not self._collapsing and self.deadline() is None:
            self._finished = True
            effects.append(Finish())
        return effects

    @property
    def pages_duplicate(self) -> int:
        """Base pages that came again."""
        return self._duplicate

    def overview(self, cells_max: int) -> str:
        """The memory as at most `cells_max` letters (`Leaves.overview`)."""
        return self._leaves.overview(self.mapped_pages, cells_max)

    def statistics(self) -> ReceiverStatistics:
        """Counters of the receiver, as a frozen copy."""
        return ReceiverStatistics(
            self._pieces[Level.PTE], self._pieces[Level.PMD], self._zero, self._duplicate,
            self.received_pages.set_pages, self.mapped_pages.set_pages,
            self._faults, sum(self._open.values()), self._requests,
            self._calls, self._collapsed[Level.PMD], self._collapsed[Level.PUD], self._refused, self._failures,
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Receiver {self.received_pages.set_pages}/{self.received_pages.total} received, "
            f"{self.mapped_pages.set_pages} mapped, {len(self._open)} pages waited for>"
        )
