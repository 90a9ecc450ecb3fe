"""Both pure cores together, without sockets, clocks or tasks: somebody else decides what happens next.

What this models
    What the two services are, reduced to what matters for order: the sender is pulled, messages cross two channels that
    keep their order and overtake each other, bytes land page by page, effects are carried out by the destination's
    own hands (`dest_node.executor`) on the model of the kernel's memory, vCPUs touch pages whenever they like.
    Everything is told in a trace, and every event is judged by every checker as it happens.

Rules
    1. Each method is one step. Between two steps no effect is pending; within `deliver`, accesses and the reading of
       faults can be put between two effects.
    2. Time is a number of ns: a step takes one, and `pass_deadline` jumps to the deadline of a policy that has one.
    3. A page's bytes are one number: 0 to begin with, the source's, or what the guest wrote.
    4. A vCPU that was woken touches its page again before the next effect.

Simplified
    Device state, digests and the preparations before the guest runs are left out; the conversation is judged all the
    same (`wire.states`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from dest_node.core.effects import NODE
from dest_node.core.receiver import Receiver
from dest_node.executor import EffectExecutor
from migemu.mm.pages import Level, PageIndex, PieceRun, Span
from migemu.ordering.broken import BrokenRuleError
from migemu.ordering.kernel_memory import UNMAPPED, KernelMemory
from migemu.ordering.policies import make_policy, policy_name
from migemu.ordering.source_side import Plan, SourceSide, begin
from migemu.policy.collapse_policy import promises
from migemu.ports import Collapsed, Installed
from migemu.trace.checkers import Checks
from migemu.trace.events import Event, Happening
from migemu.wire.messages import MAIN_CHANNEL, PREEMPT_CHANNEL, ChannelId, End, Page, Request, Zero
from migemu.wire.states import Legality, Role, Stage

#: Of memories up to this many base pages, all is compared before every effect.
SMALL_PAGES: Final = 1024

Touch = tuple[int, int, bool]  # vCPU, page (modulo the memory), whether it writes


class _Until:
    """An awaitable for a time in ns; the caller of the coroutine resumes it by hand."""

    def __init__(self, when_ns: int) -> None:
        self._when_ns = when_ns

    def __await__(self) -> Generator[int, None, None]:
        yield self._when_ns


class Cores:
    """One migration, from when the guest runs at the destination. Any method may raise BrokenRuleError."""

    def __init__(self, plan: Plan, make_receiver: Callable[..., Receiver] = Receiver) -> None:
        self.plan, self.geometry, self.total = plan, plan.geometry, plan.pages
        self.now = 0
        self.events: list[Event] = []
        self.checks = Checks(plan.geometry, plan.pages)
        self.source = SourceSide(plan, self)
        policy = make_policy(plan.policy, plan.geometry)
        self.promised = promises(policy)
        self.receiver = make_receiver(
            plan.geometry, plan.pages, policy, urgent_piece=plan.pull_piece, collapse_ns=plan.costs.collapse_ns
        )  # fmt: skip
        self.memory = KernelMemory(plan.geometry, plan.pages)
        # The clock, the mapping calls, the tracer and the host that the executor is given are all here.
        self.executor = EffectExecutor(self.receiver, self, plan.costs, self, self, self)
        self._between: Iterator[Touch | None] = iter(())
        self._timer: Coroutine[Any, Any, None] | None = None
        #: Base pages of the first message of each channel that have landed.
        self._landed = {MAIN_CHANNEL: 0, PREEMPT_CHANNEL: 0}
        self._legality = Legality()
        begin(self._legality, plan)
        self.return_path: deque[Request] = deque()
        self.asked: set[Request] = set()
        self.bytes = [0] * self.total
        self.expected = list(self.source.bytes)
        self.guest_wrote: set[PageIndex] = set()
        self.asleep: dict[int, Touch] = {}
        self.unread: set[int] = set()
        self.finishes = 0
        self._stamps = self.total + 1000
        for node in ("source", NODE):
            self.record(node, Happening.MEMORY, count=self.total, detail=self.geometry.name)
        self.record(NODE, Happening.POLICY, detail=" ".join((policy_name(plan.policy), *self.promised)))
        for node in ("source", NODE):
            self.record(node, Happening.STATE, detail=Stage.RUNNING.value)

    # --- the trace, the clock and the memory that the hands are given ---

    def record(self, node: str, happening: Happening, *values: Any, **fields: Any) -> None:
        """Emit an event of `node`, now; `values` and `fields` are those of `migemu.trace.events.Event`."""
        self.emit(Event(self.now, node, happening, *values, **fields))

    def emit(self, event: Event) -> None:
        """Append an event to the trace and judge it by every checker. BrokenRuleError."""
        self.events.append(event)
        for violation in self.checks.see(event):
            raise BrokenRuleError(violation.rule, violation.reason)

    def now_ns(self) -> int:
        """ports.Clock: the time in ns; each step takes 1 ns."""
        return self.now

    async def sleep_until(self, when_ns: int) -> None:
        """ports.Clock: wait until `pass_deadline` has reached that time."""
        await _Until(when_ns)

    def install(self, run: PieceRun) -> Installed:
        """One UFFDIO_CONTINUE per piece, after the accesses that were scheduled before this effect."""
        self._meanwhile()
        return self.memory.install(run)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """MADV_COLLAPSE of the spans, after the accesses that were scheduled before this effect."""
        self._meanwhile()
        return self.memory.madvise_collapse(spans)

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE of `count` base pages, after the accesses that were scheduled before this effect."""
        self.memory.uffdio_wake(first, count)

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory now."""
        return self.memory.leaves()

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""
        return self.memory.table_bytes()

    # --- the source, and the way between ---

    def push(self, runs: int = 1) -> None:
        """Let the source push its next `runs` runs."""
        self.source.push(runs)

    def urgent(self) -> None:
        """Let the source send the urgent answers that it has ready."""
        self.source.urgent()

    def request(self) -> None:
        """Deliver the next page request to the source."""
        if self.return_path:
            self.source.request(self.return_path.popleft())

    def copy(self, which: int) -> None:
        """Let the source send page `under_way(which)`, if there is one, a second time."""
        if (page := self.under_way(which)) is not None:
            self.source.copy(page)

    def under_way(self, which: int) -> PageIndex | None:
        """Of the base pages sent and not received, number `which` (modulo their count); None if there are none."""
        sent, received = self.source.sender.sent.pages, self.receiver.received.pages
        pages = [page for page in range(self.total) if sent[page] > received[page]]
        return pages[which % len(pages)] if pages else None

    # --- the destination ---

    def deliver(self, channel_id: ChannelId, pages: int, touches: Iterable[Touch | None] = ()) -> None:
        """Deliver the next `pages` base pages of a channel, or as many messages without pages.

        Before each effect one of `touches` happens: an access, or None for reading the userfaultfd.
        """
        self._between = iter(touches)
        while pages > 0 and self.source.channels[channel_id]:
            pages -= self._land(channel_id, pages)
        self._between = iter(())
        self._go_on()

    def _land(self, channel_id: ChannelId, pages: int) -> int:
        """Store up to `pages` base pages of the first message of a channel; with its last page the receiver gets it."""
        message = self.source.channels[channel_id][0]
        if not self._landed[channel_id]:
            self._legality.said(Role.SOURCE, message, channel_id.role)
        size = message.count * self.geometry.pages(message.level) if isinstance(message, Page) else 0
        here = min(pages, size - self._landed[channel_id])
        if isinstance(message, Page):
            begin = message.first + self._landed[channel_id]
            for page in range(begin, begin + here):
                if self.receiver.fresh_until(page, page + 1) > page:
                    if page in self.guest_wrote:
                        raise BrokenRuleError(
                            "writes_kept", f"a late piece lands on page {page}, which was written", first=page
                        )
                    self.bytes[page] = self.source.bytes[page]
            self._landed[channel_id] += here
            if self._landed[channel_id] < size:
                return here
        self.source.channels[channel_id].popleft()
        self._landed[channel_id] = 0
        if isinstance(message, Page | Zero):
            run = PieceRun(message.first, message.count, message.level)
            self.executor.arrived(run, message.urgent, isinstance(message, Zero))
        elif isinstance(message, End):
            self.record(NODE, Happening.ENDED, count=message.pages)
            self.record(NODE, Happening.STATE, detail=Stage.END.value)
            self.executor.carry(self.receiver.ended(self.now))
        return max(here, 1)

    def ask_source(self, run: PieceRun, again: bool = False) -> None:
        """See ExecutorHost: what is asked for, which has to be in need, goes to the source over the return path."""
        request = Request(*run, again)
        pages = self.receiver.received.count(run.first, run.count * self.geometry.pages(run.level))
        if request in self.asked or pages == run.count * self.geometry.pages(run.level):
            raise BrokenRuleError(
                "asked_in_need", f"{request} for the second time, or for what is here", first=run.first,
                count=run.count * self.geometry.pages(run.level),
            )  # fmt: skip
        self.asked.add(request)
        self._legality.said(Role.DESTINATION, request)
        self.return_path.append(request)

    def everything_mapped(self) -> None:
        """See `dest_node.executor.ExecutorHost`: all base pages are mapped."""
        self.finishes += 1
        self.record(NODE, Happening.STATE, detail=Stage.COMPLETED.value)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """See ExecutorHost: time passes by `pass_deadline`."""
        self._timer = work
        self._resume()

    def _resume(self) -> None:
        assert self._timer is not None
        try:
            self._timer.send(None)
        except StopIteration:
            self._timer = None

    def pass_deadline(self) -> None:
        """Advance the time to the deadline of the policy, if it has one."""
        deadline = self.receiver.deadline()
        if deadline is not None and self._timer is not None:
            self.now = max(self.now, deadline)
            self._resume()
            self._go_on()

    def close(self) -> None:
        """Close the coroutine that waits for the deadline; no step may follow."""
        if self._timer is not None:
            self._timer.close()

    # --- the guest ---

    def pull(self, vcpu: int, which: int) -> None:
        """A vCPU faults on page `under_way(which)`; its event is read, and the source answers the request."""
        if (page := self.under_way(which)) is not None:
            self.touch(vcpu, page, True)
            self.read()
            for _ in range(len(self.return_path)):
                self.request()
            self.urgent()

    def touch(self, vcpu: int, page: PageIndex, write: bool) -> None:
        """An access by `vcpu`. BrokenRuleError unless the page holds what the source or the guest wrote last."""
        page %= self.total
        if vcpu in self.asleep:
            return
        mapped = self.memory.is_mapped(page)
        if self.memory.touch(vcpu, page, write) != mapped:
            raise BrokenRuleError("mapped_within_received", f"an access to page {page} maps it", first=page, vcpu=vcpu)
        if not mapped:
            self.asleep[vcpu] = (vcpu, page, write)
            self.unread.add(vcpu)
            self.record(NODE, Happening.FAULTED, page, vcpu=vcpu, write=write)
            return
        if self.bytes[page] != self.expected[page]:
            found, due = self.bytes[page], self.expected[page]
            reason = f"vCPU {vcpu} finds {found} in page {page} instead of {due}"
            raise BrokenRuleError("contents_right", reason, first=page)
        if write:
            self._stamps += 1
            self.bytes[page] = self.expected[page] = self._stamps
            self.guest_wrote.add(page)
        self.record(NODE, Happening.WRITTEN if write else Happening.READ, page, vcpu=vcpu)

    def _meanwhile(self) -> None:
        """Before an effect: woken vCPUs go on, then the scheduled access happens."""
        self._go_on()
        if self.total <= SMALL_PAGES:
            self.check_page_table()
        for touch in islice(self._between, 1):
            if touch is None:
                self.read()
            else:
                self.touch(*touch)

    def _go_on(self) -> None:
        for vcpu, page in self.memory.take_woken():
            touch = self.asleep.pop(vcpu)
            self.unread.discard(vcpu)
            self.record(NODE, Happening.WOKEN, page, vcpu=vcpu)
            self.touch(*touch)

    def read(self) -> None:
        """Read all events of the userfaultfd; vCPUs that were woken meanwhile have none any more."""
        while (fault := self.memory.read()) is not None:
            self.unread.discard(fault[0])
            self.executor.carry(self.receiver.faulted(fault[1], self.now))
            self._go_on()

    def check_page_table(self) -> None:
        """BrokenRuleError unless the receiver's copy of the page table equals the page table."""
        view = self.memory.view(0, self.total)
        is_leaf = self.receiver.is_leaf
        for level in self.geometry.levels:
            pages = self.geometry.pages(level)
            for first in range(0, self.total, pages):
                mapped = level <= view[first] < UNMAPPED
                if is_leaf(Span(first, level)) != mapped:
                    raise BrokenRuleError(
                        "table_known", f"{level.name} at page {first}: mapped is {mapped}", first=first, count=pages
                    )

    def __repr__(self) -> str:
        return f"<Cores after {len(self.events)} events: {self.source!r}, {self.receiver!r}>"
