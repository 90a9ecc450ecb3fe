"""Both cores together, without sockets, clocks or tasks: hypothesis decides what happens next.

The pump is what the two services are, reduced to what matters: the sender is pulled, messages cross two channels that
keep their order and overtake each other, bytes land page by page, effects are carried out on the model of the kernel's
memory, vCPUs touch pages whenever they like. After every step the invariants of the house are checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from dest_node.receiver import Ask, Collapse, Continue, Effect, Finish, Receiver, Wake
from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, TINY, AddressSpace, EntryKind, FaultOutcome, UffdFeature
from migemu.mm.pages import Level, PageIndex, PieceRun, Span
from migemu.policy.collapse import CollapsePolicy, MappingView, collapse_policies
from migemu.policy.push import push_orders
from migemu.wire.messages import (
    Advise,
    ChannelRole,
    End,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    Request,
    Run,
    Running,
    Zero,
)  # fmt: skip
from migemu.wire.states import Legality, Role
from source_node.sender import Sender
from tests.samples import MIGRATION

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT
PER_PUD, PER_PMD, PAGE_BYTES = TINY.pages(PUD), TINY.pages(PMD), TINY.page_bytes
VCPUS = 3

Touch = tuple[int, int, bool]  # vCPU, page (modulo the memory), whether it writes


class Impatient:
    """A policy of a third party: collapses what has been received, mapped or not, and asks again and again."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        pmds = range(first - first % PER_PMD, first + count, PER_PMD)
        puds = range(first - first % PER_PUD, first + count, PER_PUD)
        return [*(Span(pmd, PMD) for pmd in pmds), *(Span(pud, PUD) for pud in puds)]

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        return [Span(span.first - span.first % PER_PUD, PUD)]

    def ended(self, view: MappingView) -> Sequence[Span]:
        return [Span(pud, PUD) for pud in range(0, view.mapped.total, PER_PUD)]


@dataclass(frozen=True)
class Case:
    """What a run is made of."""

    hugepages: int
    order: str
    policy: str
    push_piece: Level
    pull_piece: Level
    run_pages_max: int
    preempt: bool
    resend: bool
    merge: bool  # the source puts more behind one header than the sender hands out at once
    zeros: frozenset[PageIndex]
    preempt_last: bool  # in the end: urgent pieces arrive behind everything else, the announcement of the end included
    seed: int


class Pump:
    """One migration. A page's bytes are one number: 0 to begin with, the source's, or what the guest wrote."""

    def __init__(self, case: Case) -> None:
        self.case, self.total = case, case.hugepages * PER_PUD
        order = push_orders.create(case.order, TINY, self.total, Random(case.seed))
        self.sender = Sender(
            TINY, self.total, order, piece=case.push_piece, run_pages_max=case.run_pages_max,
            preempt=case.preempt, resend=case.resend,
        )  # fmt: skip
        policy: CollapsePolicy = (
            Impatient() if case.policy == "impatient" else collapse_policies.create(case.policy, TINY)
        )
        self.receiver = Receiver(TINY, self.total, policy, urgent_piece=case.pull_piece)
        self.space = AddressSpace(TINY, on_wake=self.woken)
        self.base = self.space.mmap_hugetlb(self.total * PAGE_BYTES, PUD)
        self.space.populate(self.base, self.total * PAGE_BYTES)
        self.space.madvise(self.base, self.total * PAGE_BYTES, MADV_SPLIT)
        self.uffd = self.space.userfaultfd(UffdFeature.THREAD_ID)
        self.uffd.register(self.base, self.total * PAGE_BYTES, minor=True)

        self.channels: dict[ChannelRole, deque[Message]] = {MAIN: deque(), PREEMPT: deque()}
        self.landed = {MAIN: 0, PREEMPT: 0}  # base pages of the first message of each channel
        self.return_path: deque[Request] = deque()
        self.at_source, self.at_destination = Legality(), Legality()
        self.bytes = [0] * self.total
        self.source = [0 if page in case.zeros else page + 1 for page in range(self.total)]
        self.expected = list(self.source)
        self.guest_wrote: set[PageIndex] = set()
        self.asleep: dict[int, Touch] = {}
        self.unread: set[int] = set()
        self.retry: list[Touch] = []
        self.stamps = 1000
        self.end_sent = False
        self.copies = 0
        self.asked: set[Request] = set()
        self.finishes = 0
        self.begin()

    def begin(self) -> None:
        """Everything up to the running guest."""
        for legality in (self.at_source, self.at_destination):
            legality.said(Role.SOURCE, Hello(MAIN, MIGRATION))
            legality.said(Role.SOURCE, Advise("tiny", self.total * PAGE_BYTES, 0, 0, self.case.preempt, ""))
            legality.said(Role.DESTINATION, Ready())
            if self.case.preempt:
                legality.said(Role.SOURCE, Hello(PREEMPT, MIGRATION), PREEMPT)
            legality.said(Role.SOURCE, Listen())
            legality.said(Role.SOURCE, Run())
            legality.said(Role.DESTINATION, Running())

    def at(self, page: PageIndex) -> int:
        return self.base + page * PAGE_BYTES

    # --- the source ---

    def say(self, role: ChannelRole, message: Message) -> None:
        self.at_source.said(Role.SOURCE, message, role)
        self.channels[role].append(message)

    def send(self, role: ChannelRole, run: PieceRun) -> None:
        """A run as messages: pieces of zeros without bytes, as the source's memory would divide it."""
        per_piece = TINY.pages(run.level)
        parts: list[Page | Zero] = []
        for first in range(run.first, run.first + run.count * per_piece, per_piece):
            kind = Page if any(self.source[first : first + per_piece]) else Zero
            if parts and type(parts[-1]) is kind:
                parts[-1] = parts[-1]._replace(count=parts[-1].count + 1)
            else:
                parts.append(kind(first, 1, run.level, role is PREEMPT))
        for part in parts:
            self.say(role, part)

    def push(self, runs: int) -> None:
        """The next runs of the main channel; neighbours of one size may go as one."""
        waiting: PieceRun | None = None
        for _ in range(runs):
            run = self.sender.next_run(MAIN)
            if waiting is not None:
                end = waiting.first + waiting.count * TINY.pages(waiting.level)
                if self.case.merge and run is not None and (run.first, run.level) == (end, waiting.level):
                    run = waiting._replace(count=waiting.count + run.count)
                else:
                    self.send(MAIN, waiting)
            waiting = run
        if waiting is not None:
            self.send(MAIN, waiting)
        elif not self.end_sent:
            self.end_sent = True
            self.say(MAIN, End(self.total, 0, 0))

    def urgent(self) -> None:
        role = PREEMPT if self.case.preempt else MAIN
        while (run := self.sender.next_urgent(role)) is not None:
            self.send(role, run)

    def request(self) -> None:
        if self.return_path:
            request = self.return_path.popleft()
            self.at_source.said(Role.DESTINATION, request)
            self.sender.receive(request)

    def copy(self, which: int) -> None:
        """A page that is under way is sent once more, for no reason, and may overtake the first."""
        if self.case.preempt and (page := self.under_way(which)) is not None:
            self.copies += 1
            self.send(PREEMPT, PieceRun(page, 1, PTE))

    def under_way(self, which: int) -> PageIndex | None:
        """One of the base pages that have been sent and not received."""
        sent, received = self.sender.sent.pages, self.receiver.received.pages
        pages = [page for page in range(self.total) if sent[page] > received[page]]
        return pages[which % len(pages)] if pages else None

    # --- the destination ---

    def deliver(self, role: ChannelRole, pages: int, touches: Iterable[Touch | None] = ()) -> None:
        """The next `pages` base pages of a channel, or as many messages without any."""
        between = iter(touches)
        while pages > 0 and self.channels[role]:
            pages -= self.land(role, pages, between)

    def land(self, role: ChannelRole, pages: int, touches: Iterator[Touch | None]) -> int:
        """Up to `pages` base pages of a channel's first message; with the last one, the message."""
        message = self.channels[role][0]
        if not self.landed[role]:
            self.at_destination.said(Role.SOURCE, message, role)
        size = message.count * TINY.pages(message.level) if isinstance(message, Page) else 0
        here = min(pages, size - self.landed[role])
        if isinstance(message, Page):
            begin = message.first + self.landed[role]
            for page in range(begin, begin + here):
                if self.receiver.fresh_until(page, page + 1) > page:
                    assert page not in self.guest_wrote, f"late bytes land on page {page}, which the guest has written"
                    self.bytes[page] = self.source[page]
            self.landed[role] += here
            if self.landed[role] < size:
                return here
        self.channels[role].popleft()
        self.landed[role] = 0
        if isinstance(message, Page | Zero):
            run = PieceRun(message.first, message.count, message.level)
            self.carry_out(self.receiver.arrived(run, zero=isinstance(message, Zero)), touches)
        else:
            self.carry_out(self.receiver.ended(), touches)
        return max(here, 1)

    def carry_out(self, effects: Sequence[Effect], touches: Iterable[Touch | None] = ()) -> None:
        """Effects in order, each one's consequences before the next; in between a touch, or the faults are read."""
        stack, between = list(reversed(effects)), iter(touches)
        while stack:
            for touch in islice(between, 1):
                if touch is None:
                    self.read()
                else:
                    self.touch(*touch)
            effect = stack.pop()
            existing = self.do(effect)
            for again in self.take_retries():
                self.touch(*again)
            stack += reversed(self.receiver.done(effect, existing))
            self.check_page_table()

    def do(self, effect: Effect) -> int:
        if isinstance(effect, Continue):
            run = effect.run
            return self.uffd.continue_run(self.at(run.first), run.level, run.count)[1]
        if isinstance(effect, Collapse):
            for span in effect.spans:
                self.space.madvise(self.at(span.first), TINY.size(span.level), MADV_COLLAPSE)
        elif isinstance(effect, Wake):
            self.uffd.wake(self.at(effect.first), effect.count * PAGE_BYTES)
        elif isinstance(effect, Ask):
            request = Request(*effect.run)
            assert request not in self.asked, f"{request} for the second time"
            self.asked.add(request)
            pages = self.receiver.received.pages[request.first : request.first + TINY.pages(request.level)]
            assert not all(pages), f"{request} for what is here"
            self.at_destination.said(Role.DESTINATION, request)
            self.return_path.append(request)
        elif isinstance(effect, Finish):
            self.finishes += 1
            assert self.receiver.mapped.complete
            assert self.end_sent
            assert not self.channels[MAIN]
            self.check_leaves()
        return 0

    # --- the guest ---

    def pull(self, vcpu: int, which: int) -> None:
        """A vCPU touches a page that is under way; the event is read, the source hears of it and answers."""
        if (page := self.under_way(which)) is not None:
            self.touch(vcpu, page, True)
            self.read()
            for _ in range(len(self.return_path)):
                self.request()
            self.urgent()

    def touch(self, vcpu: int, page: PageIndex, write: bool) -> None:
        """An access; the page's bytes must be what the source or the guest itself left there."""
        page %= self.total
        if vcpu in self.asleep:
            return
        mapped = self.space.is_mapped(self.at(page))
        outcome = self.space.fault(vcpu, self.at(page), write)
        assert outcome is (FaultOutcome.MAPPED if mapped else FaultOutcome.WAITING)
        if not mapped:
            self.asleep[vcpu] = (vcpu, page, write)
            self.unread.add(vcpu)
            return
        assert self.bytes[page] == self.expected[page], f"vCPU {vcpu} sees {self.bytes[page]} in page {page}"
        if write:
            self.stamps += 1
            self.bytes[page] = self.expected[page] = self.stamps
            self.guest_wrote.add(page)

    def woken(self, vcpu: int, addr: int) -> None:
        touch = self.asleep.pop(vcpu)
        assert self.at(touch[1]) == addr
        self.unread.discard(vcpu)
        self.retry.append(touch)

    def take_retries(self) -> list[Touch]:
        retries, self.retry = self.retry, []
        return retries

    def read(self) -> None:
        """Read the userfaultfd; who was woken meanwhile has no message any more."""
        while (message := self.uffd.read()) is not None:
            self.unread.discard(message.ptid)
            self.carry_out(self.receiver.faulted((message.address - self.base) // PAGE_BYTES))

    # --- what must hold ---

    def check(self) -> None:
        """After every step, effects carried out."""
        mapped, received, sent = (
            bits.pages for bits in (self.receiver.mapped, self.receiver.received, self.sender.sent)
        )
        assert all(m <= r <= s for m, r, s in zip(mapped, received, sent, strict=True)), "mapped, received, sent"
        self.check_page_table()
        self.space.validate()
        for vcpu, page, _ in self.asleep.values():
            assert vcpu in self.unread or not mapped[page], f"vCPU {vcpu} sleeps on page {page}, which is mapped"
        counts = self.receiver.statistics()
        assert counts.pieces_4k + PER_PMD * counts.pieces_2m + counts.pages_zero == counts.pages_received
        assert counts.pages_received == received.count(1)
        assert counts.pages_mapped == mapped.count(1) == counts.pages_received, "no effect was left undone"

    def check_page_table(self) -> None:
        """The receiver's idea of the page table is the page table."""
        for page in range(self.total):
            level, kind = self.space.walk(self.at(page))
            assert (kind is EntryKind.LEAF) == bool(self.receiver.mapped.pages[page]), f"page {page}"
            for wanted in (PTE, PMD, PUD):
                span = Span(page - page % TINY.pages(wanted), wanted)
                assert self.receiver.is_leaf(span) == (kind is EntryKind.LEAF and level >= wanted), f"{span}"

    def check_leaves(self) -> None:
        leaves = self.space.leaves(self.base)
        if self.case.policy != "never":
            assert leaves == {PTE: 0, PMD: 0, PUD: self.case.hugepages}
            assert self.space.page_table_bytes(self.base) == 0
        else:
            counts = self.receiver.statistics()
            assert leaves[PUD] == counts.collapse_calls == 0
            assert leaves[PTE] + PER_PMD * leaves[PMD] == self.total

    def check_end(self) -> None:
        assert self.sender.finished
        assert self.receiver.received.complete
        assert self.finishes == 1
        assert not self.asleep, "a vCPU sleeps for ever"
        self.check_leaves()
        assert self.bytes == self.expected
        sender, receiver = self.sender.statistics(), self.receiver.statistics()
        assert receiver.pages_duplicate == sender.pages_resent + self.copies
        assert receiver.faults_open == 0
        assert sender.requests == receiver.requests

    def drain(self) -> None:
        """Let everything that is under way arrive."""
        for _ in range(20 * self.total):
            self.request()
            self.urgent()
            self.push(1)
            self.read()
            self.deliver(MAIN, self.total)
            if not self.case.preempt_last or self.end_sent:
                self.deliver(PREEMPT, self.total)
            self.check()
            waiting = (*self.channels.values(), self.return_path, self.asleep, self.unread)
            if self.end_sent and self.sender.finished and not any(waiting):
                return
        raise AssertionError(f"the migration does not end: {self.sender!r} {self.receiver!r} {self.asleep}")
