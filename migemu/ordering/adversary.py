"""Everything that may happen next to a destination: what `explore` tries all of.

What this models
    One Receiver with its policy, the page table it works on, and around them an adversary who decides the order:

        a message of the push arrives, any of them       an urgent answer arrives, before or after the push's copy
        one effect is carried out, in order              a vCPU touches a page
        a fault is read                                  the end is announced, after all of the push
        the deadline of a policy passes

Rules
    1. As in the destination's service, messages and deadlines come while no effect is pending; accesses and the
       reading of faults come at any time. What follows from an effect is carried out before what was decided earlier.
    2. Every request is answered by a copy of its own, besides the push's: what `pull.resend` does at its worst. A
       source that sends the only copy in its answer is the case in which all of the push's copy is dropped.
    3. Time stands still until the adversary lets a deadline pass.
    4. A vCPU is a row of accesses; woken, it touches the same page again, whenever the adversary likes.

Words
    landed   the bytes are in the page cache; written: and the guest has changed them since

Simplified
    A message lands and is told to the receiver in one step (`ordering.cores` lands it page by page). No collapse fails.
    Who sleeps on one page is one waiter to the model of the kernel: they are woken together anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dest_node.core.effects import Ask, Finish, Refuse
from migemu.mm.pages import Level, PageIndex, PieceRun
from migemu.ordering import rules
from migemu.ordering.halves import PAGES, Halves, bits, pages_of
from migemu.ports import Collapsed

PTE, PMD = Level.PTE, Level.PMD

#: The push by default: every way to fill a 2M range by runs of 1, 2 and 4 pages, and a 2M piece.
MESSAGES: Final = (
    PieceRun(0, 1, PTE), PieceRun(1, 1, PTE), PieceRun(2, 2, PTE), PieceRun(4, 4, PTE), PieceRun(8, 2, PTE),
    PieceRun(10, 2, PTE), PieceRun(12, 1, PMD),
)  # fmt: skip
#: What the guest touches by default: a page of a run, and two of the 2M piece.
TOUCHED: Final = (3, 13, 14)

IDLE: Final = 0
UNREAD: Final = 1  # asleep; the fault has not been read
ASLEEP: Final = 2  # asleep; the fault has been read
WOKEN: Final = 3  # about to try again


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the world is explored; everything within it is tried.

    `messages` are a partition of the 16 base pages. Each of `vcpus` makes `accesses` accesses to any of `touched`.
    `writes` says which of them can be writes; a read breaks no rule that a write in its place does not, so by default
    all are. Faults ask for an `urgent_piece`. More than `states_max` states are an error.
    """

    messages: tuple[PieceRun, ...] = MESSAGES
    touched: tuple[PageIndex, ...] = TOUCHED
    writes: tuple[bool, ...] = (True,)
    vcpus: int = 1
    accesses: int = 2
    urgent_piece: Level = PTE
    states_max: int = 1_000_000

    def __post_init__(self) -> None:
        """ValueError: the messages are no partition, or a page is none of TINY's."""
        covered = sorted(page for run in self.messages for page in pages_of(run))
        if covered != list(range(PAGES)):
            raise ValueError(f"messages of base pages {covered}: give a partition of the {PAGES} of TINY")
        if not all(0 <= page < PAGES for page in self.touched):
            raise ValueError(f"touched={self.touched}: the base pages of TINY are 0 to {PAGES - 1}")


class Vcpu(NamedTuple):
    """One vCPU: how many accesses it may still make, its status, and the page on which it sleeps or was woken."""

    accesses_remaining: int
    status: int = IDLE
    page: PageIndex = 0
    write: bool = False


class AdversaryState(NamedTuple):
    """A state of the search, hashable. Sets of pages and of messages are bit masks; effects and halves are numbers."""

    receiver: int
    memory: int
    stack: tuple[int, ...]  # effects to carry out, the next one last
    come: int  # messages of the push
    answers: tuple[int, ...]  # urgent ones that are under way, as the numbers of their Asks
    vcpus: tuple[Vcpu, ...]
    unread: tuple[int, ...]  # vCPUs whose faults have not been read, oldest first
    landed: int
    written: int
    ended: bool
    finished: bool
    now: int


#: What happens, then what it is about: ("arrive", message), ("access", vCPU, page, write) ...
Step = tuple[Any, ...]


class Adversary:
    """All steps that may follow a state, and the states that they lead to. `bounds` limits what is tried."""

    def __init__(self, halves: Halves, bounds: Bounds, judge: rules.Judge) -> None:
        self.halves = halves
        self.bounds = bounds
        self._judge = judge
        self._message_bits = [bits(pages_of(run)) for run in bounds.messages]
        self._all_messages = (1 << len(bounds.messages)) - 1
        self._accesses = [(page, write) for page in bounds.touched for write in bounds.writes]

    def start(self) -> AdversaryState:
        """The first state: nothing has arrived, and every vCPU has all its accesses to make."""
        vcpus = (Vcpu(self.bounds.accesses),) * self.bounds.vcpus
        return AdversaryState(0, 0, (), 0, (), vcpus, (), 0, 0, False, False, 0)

    def all_heard(self, state: AdversaryState) -> bool:
        """Whether all messages have arrived and nothing is pending: from here on only vCPUs can act."""
        return (
            state.ended and not state.stack and not state.unread and self.halves.claim(state.receiver).deadline is None
        )

    def ways_on(self, state: AdversaryState) -> Iterator[Step]:
        """Every step that may follow `state`, in a fixed order."""
        for number, vcpu in enumerate(state.vcpus):
            if vcpu.status == WOKEN:
                yield "access", number, vcpu.page, vcpu.write
            elif vcpu.status == IDLE and vcpu.accesses_remaining:
                for page, write in self._accesses:
                    yield "access", number, page, write
        if state.unread:
            yield ("read",)
        if state.stack:
            yield ("effect", state.stack[-1])
            return
        for message in range(len(self.bounds.messages)):
            if not state.come >> message & 1:
                yield "arrive", message
        for answer in state.answers:
            yield "answer", answer
        if state.come == self._all_messages and not state.ended:
            yield ("end",)
        if self.halves.claim(state.receiver).deadline is not None:
            yield ("deadline",)

    def take(self, state: AdversaryState, step: Step) -> AdversaryState:
        """The state after `step`. BrokenRuleError when the step breaks a rule about the order of events."""
        what = step[0]
        if what == "effect":
            return self._effect(state)
        if what == "access":
            return self._access(state, *step[1:])
        receiver, memory, stack, come, answers, vcpus, unread, landed, written, ended, finished, now = state
        if what == "arrive":
            come |= 1 << step[1]
            landed |= self._lands(state, self._message_bits[step[1]])
            receiver, more = self.halves.step_receiver(receiver, "arrived", self.bounds.messages[step[1]], now=now)
        elif what == "answer":
            run = self.answer(step[1])
            at = answers.index(step[1])
            answers = answers[:at] + answers[at + 1 :]
            landed |= self._lands(state, bits(pages_of(run)))
            receiver, more = self.halves.step_receiver(receiver, "arrived", run, now=now)
        elif what == "read":
            vcpus = _changed(vcpus, unread[0], vcpus[unread[0]]._replace(status=ASLEEP))
            receiver, more = self.halves.step_receiver(receiver, "faulted", vcpus[unread[0]].page, now=now)
            unread = unread[1:]
        elif what == "end":
            ended = True
            receiver, more = self.halves.step_receiver(receiver, "ended", now=now)
        else:
            now = max(now, self.halves.claim(receiver).deadline or 0)
            receiver, more = self.halves.step_receiver(receiver, "timeout", now=now)
        return AdversaryState(
            receiver, memory, stack + more, come, answers, vcpus, unread, landed, written, ended, finished, now
        )

    def answer(self, number: int) -> PieceRun:
        """The run that answers a request for an urgent piece."""
        ask = self.halves.effects[number]
        assert isinstance(ask, Ask)
        return ask.run

    def _lands(self, state: AdversaryState, pages: int) -> int:
        """The pages of `pages` (bits) whose bytes the receiver stores; the others are duplicates."""
        lands = self.halves.claim(state.receiver).fresh & pages
        rules.writes_kept(lands & state.written)
        return lands

    def _access(self, state: AdversaryState, number: int, page: PageIndex, write: bool) -> AdversaryState:
        receiver, memory, stack, come, answers, vcpus, unread, landed, written, ended, finished, now = state
        vcpu = vcpus[number]
        accesses_remaining = vcpu.accesses_remaining - (vcpu.status == IDLE)
        if self.halves.view(memory).mapped >> page & 1:
            vcpus = _changed(vcpus, number, Vcpu(accesses_remaining))
            written |= write << page
        else:
            vcpus = _changed(vcpus, number, Vcpu(accesses_remaining, UNREAD, page, write))
            unread = (*unread, number)
            memory = self.halves.fall_asleep(memory, page)
        return AdversaryState(
            receiver, memory, stack, come, answers, vcpus, unread, landed, written, ended, finished, now
        )

    def _effect(self, state: AdversaryState) -> AdversaryState:
        receiver, memory, stack, come, answers, vcpus, unread, landed, written, ended, finished, now = state
        number, stack = stack[-1], stack[:-1]
        effect = self.halves.effects[number]
        result: int | Collapsed | None = None
        if isinstance(effect, Ask):
            rules.asked_in_need(bits(pages_of(effect.run)) & ~landed)
            answers = tuple(sorted((*answers, number)))
        elif isinstance(effect, Refuse):
            self._judge.refused(effect, landed)
        elif isinstance(effect, Finish):
            self._judge.finishes(self.halves.view(memory), ended, finished)
            finished = True
        else:
            self._judge.before(effect, self.halves.view(memory))
            memory, (result, woken) = self.halves.carry_out(memory, number)
            if isinstance(result, Collapsed):
                self._judge.collapsed(effect, result)
            if woken:
                vcpus = tuple(
                    vcpu._replace(status=WOKEN) if vcpu.status in (UNREAD, ASLEEP) and woken >> vcpu.page & 1 else vcpu
                    for vcpu in vcpus
                )
                unread = tuple(each for each in unread if vcpus[each].status == UNREAD)
        receiver, more = self.halves.step_receiver(receiver, "done", number, result, now=now)
        return AdversaryState(
            receiver, memory, stack + more, come, answers, vcpus, unread, landed, written, ended, finished, now
        )

    def check(self, state: AdversaryState) -> None:
        """BrokenRuleError when a rule about states does not hold in `state`."""
        view = self.halves.view(state.memory)
        rules.mapped_within_received(view, state.landed)
        rules.table_known(view, self.halves.claim(state.receiver).levels)
        if state.stack:
            return
        for number, vcpu in enumerate(state.vcpus):
            if vcpu.status == ASLEEP:
                rules.sleepers_woken(view, number, vcpu.page)
        if self.all_heard(state):
            self._judge.ended(view, state.finished)


def _changed(vcpus: tuple[Vcpu, ...], number: int, vcpu: Vcpu) -> tuple[Vcpu, ...]:
    return (*vcpus[:number], vcpu, *vcpus[number + 1 :])
