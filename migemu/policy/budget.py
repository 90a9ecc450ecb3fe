"""A collapse policy that spends vCPU stall as if it were money: at most so much of it in any second.

What this models
    A collapse makes vCPUs wait for as long as the call takes (SEMANTICS 2.3), and with the counts of v2 a single
    step from 2M to 1G may take as long as the 4K step before it (SEMANTICS 2.4). Nobody has built a policy that bounds
    the sum; a VMM would want one: brownout after the switch is what the guest's owner sees.

Rules
    1. What is full is put into a queue instead of being proposed. Out of it comes first what saves most per ns of
       stall: spans with many faults on them (the hot ones) and spans that are cheap. A full span has no more faults, so
       its place in the queue is final.
    2. A span may go when the calls of the last second and itself come to no more than the budget.
    3. A span that costs more than a whole second's budget goes when nothing else is on the account, and stays on it
       for cost / budget seconds. So the average holds, and a budget that is too small is slow, not stuck.
    4. Steps are those of `eager`: a 1G span enters the queue when all its 2M are done.

The default
    Half of the time. A collapse of 1 GiB is 0.5 to 1.7 s of work whenever it is done, so that one that may stall the
    guest for half of the time ends within twice the time of `eager`, whatever the counts, the lock and the link
    (`tests/unit/sim/test_budget_in_time.py` holds it). With 10 ms a second it takes 68 times as long (1 GiB, THP-like
    counts, 25 Gbit/s: 128 s for 1.9 s), nearly all of it after the last piece has come: that is for who can wait.

Simplified
    Costs are estimates of the cost model, not measured by this policy; heat is the number of faults, which says nothing
    about pages that arrived before they were touched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from migemu import values
from migemu.mm.pages import Geometry, PageIndex, Span
from migemu.policy.collapse_policy import Eager, MappingView, collapse_policies
from migemu.units import MS, SECOND, format_time


@collapse_policies.register("budget", stall=values.time("1ns", "1s"))
class Budget(Eager):
    """Collapses as `eager` does, but stalls the guest for at most `stall` in any second: hot and cheap spans first.

    Setting `stall`: time per second that calls may take (in ns here), by the cost model (`migemu.costs.collapse_cost`).
    """

    __slots__ = ("_queue", "_spent", "_spent_ns", "_stall_ns")

    def __init__(self, geometry: Geometry, *, stall: int = 500 * MS) -> None:
        super().__init__(geometry)
        self._stall_ns = stall
        self._queue: list[tuple[float, Span]] = []  # a heap: minus the faults (and one) per ns, the span
        self._spent: deque[tuple[int, int]] = deque()  # (when it leaves the account, ns), in the order of spending
        self._spent_ns = 0

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """What the budget allows of all that is full."""
        return self._enqueue(super().mapped(first, count, view), view)

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """What the budget allows, the 1G span around `span` included if it was the last of its 2M."""
        return self._enqueue(super().collapsed(span, view), view)

    def ended(self, view: MappingView) -> Sequence[Span]:
        """What the budget allows; the rest is `due` later."""
        return self.due(view)

    def deadline(self, view: MappingView) -> int | None:
        """When the first in the queue may go."""
        if not self._queue:
            return None
        cost_ns = view.collapse_ns(self._queue[0][1])
        spent_ns, deadline = self._spent_ns, view.now_ns
        for leaves_ns, ns in self._spent:
            if self._fits(spent_ns, cost_ns):
                break
            spent_ns -= ns
            deadline = max(deadline, leaves_ns)
        return deadline

    def due(self, view: MappingView) -> Sequence[Span]:
        """From the front of the queue, as many as the budget allows."""
        while self._spent and self._spent[0][0] <= view.now_ns:
            self._spent_ns -= self._spent.popleft()[1]
        spans = []
        while self._queue:
            span = self._queue[0][1]
            cost_ns = view.collapse_ns(span)
            if not self._fits(self._spent_ns, cost_ns):
                break
            heappop(self._queue)
            spans.append(span)
            until_ns = view.now_ns + max(SECOND, cost_ns * SECOND // self._stall_ns)
            # In order of leaving: what costs more than a second's budget is alone on the account.
            self._spent.append((until_ns, cost_ns))
            self._spent_ns += cost_ns
        return spans

    def _enqueue(self, spans: Sequence[Span], view: MappingView) -> Sequence[Span]:
        for span in spans:
            worth = (1 + view.faults_in(span)) / max(1, view.collapse_ns(span))
            heappush(self._queue, (-worth, span))
        return self.due(view)

    def _fits(self, spent_ns: int, cost_ns: int) -> bool:
        return not spent_ns or spent_ns + cost_ns <= self._stall_ns

    def __repr__(self) -> str:
        return f"<Budget of {format_time(self._stall_ns)} a second: {len(self._queue)} spans put off>"
