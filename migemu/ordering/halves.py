"""The two halves of a destination, each by its state: the receiver with its policy, and the memory it works on.

Rules
    1. What a half does is determined by its state and by what it is told; so everything is done once, and looked up
       from then on (`Numbered`).
    2. Effects are numbers too: two effects that are equal are one.

Words
    view    what the page table says: per base page the level of the entry that maps it, or UNMAPPED
    claim   what the receiver says of the same, and which pages it would let land
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from traceback import extract_tb
from typing import Any, Final, NamedTuple

from dest_node.core.effects import Collapse, Continue, Effect, Wake
from dest_node.core.receiver import Receiver
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun, Span
from migemu.ordering.broken import BrokenRuleError
from migemu.ordering.frozen import freeze
from migemu.ordering.kernel_memory import UNMAPPED, KernelMemory
from migemu.ordering.numbered import Numbered
from migemu.ports import Collapsed

PAGES: Final = TINY.largest_pages
ALL: Final = (1 << PAGES) - 1

#: Attributes of the receiver that count what has happened and decide nothing.
COUNTERS: Final = frozenset(
    {"_pieces", "_zero", "_duplicate", "_faults", "_requests", "_calls", "_refused", "_failures", "_collapsed"}
)


class View(NamedTuple):
    """A page table: the level of each base page; as bit masks the pages mapped at all, and by more than 4K."""

    levels: bytes
    mapped: int
    large: int
    asleep: int


class Claim(NamedTuple):
    """What a receiver believes: the level of each page, pages that it would still store (bits), its deadline in ns."""

    levels: bytes
    fresh: int
    deadline: int | None


def pages_of(run: PieceRun) -> range:
    """The base pages of a run, as a range."""
    return range(run.first, run.first + run.count * TINY.pages(run.level))


def bits(pages: range) -> int:
    """A range of pages as a bit mask."""
    return (1 << pages.stop) - (1 << pages.start)


class Halves:
    """Receiver and memory by the numbers of their states; both begin as 0. `ignore`: attributes that decide nothing."""

    def __init__(self, receiver: Receiver, ignore: frozenset[str]) -> None:
        ignored = COUNTERS | ignore
        self._receivers: Numbered[Receiver] = Numbered(receiver, lambda each: freeze(each, ignored))
        self._memories: Numbered[KernelMemory] = Numbered(
            KernelMemory(TINY, PAGES), lambda each: (each.entries(), each.asleep())
        )  # fmt: skip
        self.effects: list[Effect] = []
        self._numbers: dict[tuple[type, Effect], int] = {}
        self._views: dict[int, View] = {}
        self._claims: dict[int, Claim] = {}

    @property
    def receiver_states(self) -> int:
        """How many different states of the receiver and its policy were reached."""
        return len(self._receivers)

    def view(self, memory: int) -> View:
        """What the page table says in state `memory`."""
        found = self._views.get(memory)
        if found is None:
            it = self._memories[memory]
            levels = it.view(0, PAGES)
            mapped = sum(1 << page for page, level in enumerate(levels) if level != UNMAPPED)
            large = sum(1 << page for page, level in enumerate(levels) if level not in (UNMAPPED, Level.PTE))
            found = self._views[memory] = View(levels, mapped, large, sum(1 << page for page in it.asleep()))
        return found

    def claim(self, receiver: int) -> Claim:
        """What the receiver believes in state `receiver`."""
        found = self._claims.get(receiver)
        if found is None:
            it = self._receivers[receiver]
            levels = bytearray((UNMAPPED,)) * PAGES
            for level in TINY.levels:
                pages = TINY.pages(level)
                for first in range(0, PAGES, pages):
                    if it.is_leaf(Span(first, level)):
                        levels[first : first + pages] = bytes((level,)) * pages
            fresh = sum(1 << page for page in range(PAGES) if it.fresh_until(page, page + 1) > page)
            found = self._claims[receiver] = Claim(bytes(levels), fresh, it.deadline())
        return found

    def number(self, effect: Effect) -> int:
        """The number of an effect; equal effects have the same number."""
        number = self._numbers.setdefault((type(effect), effect), len(self.effects))
        if number == len(self.effects):
            self.effects.append(effect)
        return number

    def step_receiver(self, receiver: int, what: str, *about: Any, now: int) -> tuple[int, tuple[int, ...]]:
        """Call method `what` of the receiver: its next state, and the numbers of its effects, the first one last.

        `done` takes the number of an effect and its result. BrokenRuleError for an exception in the receiver or its
        policy.
        """

        def say(it: Receiver) -> tuple[int, ...]:
            try:
                if what == "done":
                    effects = it.done(self.effects[about[0]], now, about[1])
                else:
                    effects = getattr(it, what)(*about, now)
                return tuple(self.number(effect) for effect in reversed(effects))
            except Exception as error:
                where = extract_tb(error.__traceback__)[-1]
                raise BrokenRuleError(
                    "no_exception",
                    f"{type(error).__name__}: {error} in {where.name}, {where.filename}:{where.lineno}: {where.line}",
                ) from error

        operation: Hashable = (what, about, now)
        return self._receivers.do(receiver, operation, say)

    def carry_out(self, memory: int, number: int) -> tuple[int, tuple[int | Collapsed | None, int]]:
        """Carry out an effect on a memory: the next state, and (the result, the pages whose sleepers it woke, as bits).

        BrokenRuleError when the kernel refuses the call.
        """
        effect = self.effects[number]
        assert isinstance(effect, Continue | Collapse | Wake)
        return self._memories.do(memory, number, lambda it: _carry_out(it, effect))

    def fall_asleep(self, memory: int, page: PageIndex) -> int:
        """A vCPU faults on `page`; the next state of the memory."""
        return self._memories.do(memory, ("asleep", page), lambda it: _fall_asleep(it, page))[0]

    def __repr__(self) -> str:
        return f"<Halves: {len(self._receivers)} states of the receiver, {len(self._memories)} of the memory>"


def _carry_out(memory: KernelMemory, effect: Continue | Collapse | Wake) -> tuple[int | Collapsed | None, int]:
    result: int | Collapsed | None = None
    try:
        if isinstance(effect, Continue):
            result = memory.install(effect.run).existing
        elif isinstance(effect, Collapse):
            result = memory.madvise_collapse(effect.spans)
        else:
            memory.uffdio_wake(effect.first, effect.count)
    except OSError as error:
        raise BrokenRuleError("calls_accepted", f"the kernel answers {error!r} to {effect}") from error
    memory.validate()
    return result, sum(1 << page for _, page in memory.take_woken())


def _fall_asleep(memory: KernelMemory, page: PageIndex) -> Callable[[], None] | None:
    """One waiter represents all vCPUs that sleep on `page`; its event is read at once."""
    if page not in memory.asleep():
        memory.touch(page, page, False)
        memory.read()
    return None
