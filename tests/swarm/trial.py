"""One case, played and judged.

Safety, at every step: the rules of `migemu check`; no vCPU reads a word that is not the source's or the last one that
was written; nothing is sent again that is known to have arrived, and all that is waited for is asked for again; the
source does not say that the guest is here while it runs there. At the end: who calls it verified holds the memory,
every page of it in its place and every write of the guest.

Liveness: everything is healed after a while. From then on a migration whose switch was made has to complete, within
`BOUND_NS`, with both nodes of one mind. It may fail, with an error that says so,
    - where the switch was not made: the guest runs on at the source;
    - where the destination was killed: the guest is gone, as there is no checkpoint here;
    - at a source that was killed after its last word, by which the destination was done: nobody answers its successor;
    - where bytes were corrupted that nothing guards (`integrity.digests` off, messages other than pieces and digests).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final

from migemu.errors import InputError, MigemuError
from migemu.mm.pages import PageIndex
from migemu.outcome import Outcome
from migemu.ports import Stalled, Word
from migemu.sim.coverage import Coverage
from migemu.sim.hazards import Fault, Hazard, OnMessage
from migemu.sim.memory import TimedMemory
from migemu.sim.world import Nodes, World
from migemu.simulate import Services
from migemu.trace.events import Event, Happening
from migemu.units import SECOND
from migemu.wire.digest import first_difference
from migemu.wire.messages import Digests, Page, Zero
from tests.swarm.drawing import Case

#: Longer than any recovery may take: twice recovery.timeout of the cases, and what is healed last.
BOUND_NS: Final = 70 * SECOND


class Witness(TimedMemory):
    """The guest's memory, and what vCPUs have seen of it: the oracle that neither node knows of."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lies: list[str] = []
        self.left: dict[tuple[PageIndex, int], int] = {}

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        found = super().touch(vcpu, page, offset, stamp)
        if isinstance(found, int):
            expected = self.left.get((page, offset), self._content.word(page, offset))
            if found != expected:
                self.lies.append(f"vCPU {vcpu} found {found:#x} at byte {offset} of page {page}, not {expected:#x}")
            if stamp is not None:
                self.left[page, offset] = stamp
        return found

    def amiss(self, digests: bytes) -> str:
        """What is not as the source has it, or the guest has left it; `digests` are the source's."""
        if self.lies:
            return self.lies[0]
        words = [
            Word(page, offset, self._content.word(page, offset), current)
            for (page, offset), current in sorted(self.left.items())
        ]
        ours, found = self.digests(0, len(digests) // 8, words)
        for (page, offset, _, left), held in zip(words, found, strict=True):
            if held != left:
                return f"byte {offset} of page {page} holds {held:#x}, and the guest has left {left:#x} there"
        at = first_difference(ours, digests)
        return "" if at is None else f"page {at} is not the source's"


class Story:
    """ports.Tracer that keeps where each node has been, and what recovery has to see to.

    `needless` was sent although it was known to have arrived; `unasked` came to a vCPU that had waited for it since
    before a recovery, and nobody had asked for it since.
    """

    def __init__(self) -> None:
        self.entered: set[tuple[str, str]] = set()
        self.needless: list[PageIndex] = []
        self.unasked: list[PageIndex] = []
        self._arrived: set[PageIndex] = set()
        self._known: set[PageIndex] = set()
        self._asleep: dict[int, PageIndex] = {}
        self._due: set[PageIndex] = set()
        self._stage = ""

    def emit(self, event: Event) -> None:
        if event.event is Happening.STATE:
            self._enters(event.node, event.detail or "")
        elif event.event is Happening.RECOVERED:
            self._known = set(self._arrived)
        elif event.event is Happening.WOKEN:
            del self._asleep[event.vcpu or 0]
        elif event.event is Happening.FAULTED:
            self._asleep[event.vcpu or 0] = event.first or 0
        elif event.first is not None and event.count is not None:
            self._moves(event.event, range(event.first, event.first + event.count))

    def _moves(self, happening: Happening, pages: range) -> None:
        if happening is Happening.RECEIVED:
            self._arrived.update(pages)
            self.unasked += self._due.intersection(pages)
        elif happening is Happening.REQUESTED:
            self._due.difference_update(pages)
        elif happening is Happening.SENT:
            self.needless += self._known.intersection(pages)

    def _enters(self, node: str, stage: str) -> None:
        self.entered.add((node, stage))
        if node == "destination":
            if (self._stage, stage) == ("recover", "run"):
                self._due = {page for page in self._asleep.values() if page not in self._arrived}
            self._stage = stage


@dataclass(frozen=True)
class Verdict:
    """`complaint` is empty if all held. `ending` is how the run ended, in a word."""

    case: Case
    complaint: str
    ending: str
    coverage: Coverage
    struck: int
    recoveries: int


def try_out(case: Case, nodes: Nodes | None = None) -> Verdict:
    """Play a case with the services, or with others that are wrong on purpose."""
    story = Story()
    world = World(
        case.scenario, nodes or Services(), story, hazards=case.hazards, time_max_ns=BOUND_NS, make_memory=Witness
    )
    injection = world.injection
    if injection is not None:
        world.loop.call_at_ns(world.loop.now_ns + case.heal_ns, injection.heal)
    error: BaseException | None = None
    outcome: Outcome | None = None
    try:
        outcome = world.run()
    except Exception as caught:  # a bug of a node's is one that was found
        error = caught
    complaint = _complaint(case, world, story, outcome, error)
    coverage = injection.coverage if injection is not None else Coverage()
    struck = len(_struck(world))
    ending = "verified" if error is None else type(error).__name__
    recoveries = outcome.recovery.count if outcome is not None else 0
    return Verdict(case, complaint, ending, coverage, struck, recoveries)


def _complaint(case: Case, world: World, story: Story, outcome: Outcome | None, error: BaseException | None) -> str:
    if error is not None and not isinstance(error, MigemuError):
        return f"{type(error).__name__}: {error}"
    for violation in world.watch.violations.values():
        return f"rule {violation.rule}: {violation.reason}"
    if story.needless and not case.scenario.pull.resend:
        return f"sent again: page {story.needless[0]} was known to have arrived"
    if story.unasked:
        return f"not asked again: page {story.unasked[0]} came to who had waited for it since before a recovery"
    memory = world.memory
    assert memory is None or isinstance(memory, Witness)
    damaged = _damaged(case, world)
    if memory is not None and memory.lies and not damaged:
        return memory.lies[0]
    if error is None:
        assert memory is not None
        if outcome is None or not outcome.verified:
            return "it ended well, and was not verified"
        if amiss := memory.amiss(world.source_digests()):
            return f"verified, but {amiss}"
        return ""
    if world.killed("destination"):
        return ""
    if "destination" not in world.failed and Fault.CRASH_SOURCE in {hazard.fault for hazard in _struck(world)}:
        return ""  # it was killed as it left, and who came after it finds nobody
    if isinstance(error, InputError):
        return f"a case that cannot be: {error}"
    if ("destination", "run") not in story.entered and "source" in world.failed:
        told = str(world.failed["source"])
        here = "guest runs on at the source" in told or world.killed("source")
        if here:
            return ""
    elif "guest runs on at the source" in str(world.failed.get("source", "")):
        return f"the guest runs at the destination, and the source says: {world.failed['source']}"
    if _unguarded(case, world):
        return ""
    return f"it did not recover: {type(error).__name__}: {error}"


def _struck(world: World) -> list[Hazard]:
    return world.injection.struck if world.injection is not None else []


def _damaged(case: Case, world: World) -> bool:
    """Whether pages may have come damaged unseen: integrity is off."""
    faults = {hazard.fault for hazard in _struck(world)}
    return not case.scenario.integrity.digests and bool(faults & {Fault.CORRUPT, Fault.TRUNCATE})


def _unguarded(case: Case, world: World) -> bool:
    """Whether a bit was turned over where nothing guards it."""
    if _damaged(case, world):
        return True
    for hazard in _struck(world):
        guarded = isinstance(hazard.when, OnMessage) and hazard.when.kind in (Page, Zero, Digests)
        if hazard.fault is Fault.CORRUPT and not guarded:
            return True
    return False
