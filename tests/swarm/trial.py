"""One case, played and judged.

Safety, at every step: the rules of `migemu check`; no vCPU reads a word that is not the source's or the last one that
was written; nothing is sent again that is known to have arrived, nothing is forgotten, and all that is waited for is
asked for again; the source does not say that the guest is here while it runs there. At the end: who calls it verified
holds the memory, every page of it in its place and every write of the guest.

Liveness: everything is healed after a while. From then on a migration whose switch was made has to complete, within
`BOUND_NS`, with both nodes of one mind. It may end otherwise only so (`Ending`), with an error that says it:

    at the source   the switch was not made: the guest runs on there, unless it was killed with it
    guest lost      the destination was killed; the checkpoints that it could come back from are not simulated
    left behind     the source was killed as it left: the destination is done, and its successor finds nobody
    in doubt        the network went dark for good (such worlds are never healed): nobody knows all, each says so, and
                    what both have kept can be gone on with
    parted          the same, but the guest, or the verdict, is known to be at the destination
    damage found    bits were turned over with `integrity.digests` off: found in the end, by comparing every byte, or
                    sooner, as a page has arrived that was never sent
"""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from dest_node import resumption
from dest_node.service import Destination
from migemu.errors import InputError, MigemuError, VerificationError
from migemu.node.outcome import DOUBT, Outcome, Whereabouts
from migemu.sim.coverage import Coverage
from migemu.sim.hazards import Fault
from migemu.sim.world import Nodes, World
from migemu.units import SECOND
from migemu.wire.messages import Message, Page, ReceivedBitmap, Recover, Request, Zero
from migemu.worlds.modelled import Services
from source_node.service import Source
from tests.swarm.drawing import Case
from tests.swarm.witness import Story, Witness

#: Longer than any recovery may take: twice recovery.timeout of the cases, what is healed last, and the time that a
#: memory of 1 GiB may take, two times.
BOUND_NS: Final = 150 * SECOND
#: The rule that a page does not keep whose number was damaged.
_OF_NUMBERS: Final = "received_within_sent"
#: What may make a piece go missing that nobody has forgotten.
_FORGETS: Final = (
    (Fault.LOSE, Page), (Fault.LOSE, Zero), (Fault.LOSE, Request), (Fault.CORRUPT, Request), (Fault.LOSE, Recover),
    (Fault.LOSE, ReceivedBitmap), (Fault.CORRUPT, ReceivedBitmap),
)  # fmt: skip


class Ending(Enum):
    """How a case may end."""

    VERIFIED = "verified"
    AT_SOURCE = "at the source"
    LOST = "guest lost"
    LEFT = "left behind"
    DAMAGE_FOUND = "damage found"
    IN_DOUBT = "in doubt"
    PARTED = "parted"


@dataclass(frozen=True)
class Verdict:
    """`complaint` is empty if all held; else there is no `ending`."""

    case: Case
    complaint: str
    ending: Ending | None
    coverage: Coverage
    struck: int
    recoveries: int
    replaced: int
    #: Where the guest is, as the source and the destination have said in the end.
    told: tuple[str | None, str | None]


class Complaint(Exception):
    """What did not hold."""


def try_out(case: Case, nodes: Nodes | None = None) -> Verdict:
    """Play a case with the services, or with others that are wrong on purpose."""
    story = Story()
    world = World(
        case.scenario,
        nodes or Holding(case.keeps),
        story,
        hazards=case.hazards,
        time_max_ns=BOUND_NS,
        make_memory=Witness,
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
    coverage = injection.coverage if injection is not None else Coverage()
    struck = {hazard.fault: True for hazard in injection.struck} if injection is not None else {}
    complaint, ending = "", None
    try:
        _safe(case, world, story, struck, error)
        if injection is not None and injection.is_dark:
            ending = _parted(world, story)
        else:
            ending = _whole(world, outcome) if error is None else _excused(case, world, story, struck, error)
    except Complaint as found:
        complaint = str(found)
    recovery = outcome.recovery if outcome is not None else None
    return Verdict(
        case, complaint, ending, coverage, len(injection.struck) if injection is not None else 0,
        recovery.count if recovery is not None else 0, recovery.preempt_lost if recovery is not None else 0,
        (_value(whereabouts(world, "source")), _value(whereabouts(world, "destination"))),
    )  # fmt: skip


Struck = dict[Fault, bool]


def _safe(case: Case, world: World, story: Story, struck: Struck, error: BaseException | None) -> None:
    """What has to hold, however it ends."""
    for each in filter(None, [error, *world.failed.values()]):
        if isinstance(each, InputError) or not isinstance(each, MigemuError | CancelledError):
            raise Complaint(f"{type(each).__name__}: {each}")
    for violation in world.watch.violations.values():
        if violation.rule == _OF_NUMBERS and _damaged(case, struck):
            continue
        raise Complaint(f"rule {violation.rule}: {violation.reason}")
    if story.needless and not case.scenario.pull.resend:
        raise Complaint(f"sent again: page {story.needless[0]} was known to have arrived")
    if story.unasked:
        raise Complaint(f"not asked again: page {story.unasked[0]}, which was waited for since before a recovery")
    if story.forgotten and not _damaged(case, struck) and not any(_hit(world, *each) for each in _FORGETS):
        raise Complaint(f"forgotten: {story.forgotten[0]}")
    memory = world.memory
    if isinstance(memory, Witness) and memory.lies and not _damaged(case, struck):
        raise Complaint(memory.lies[0])


def _whole(world: World, outcome: Outcome | None) -> Ending:
    """It ended well: the memory has to be right."""
    memory = world.memory
    if not isinstance(memory, Witness) or outcome is None or not outcome.verified:
        raise Complaint("it ended well, and was not verified")
    if not outcome.snapshot.times.run:
        raise Complaint("verified, but the guest was never started")
    if amiss := memory.amiss(world.source_digests()):
        raise Complaint(f"verified, but {amiss}")
    return Ending.VERIFIED


def _parted(world: World, story: Story) -> Ending:
    """The network is dark for good: what each side says of the guest in the end, and whether both can be true."""
    ran = ("destination", "run") in story.entered
    for node in ("source", "destination"):
        if isinstance(world.failed.get(node), CancelledError) and whereabouts(world, node) is not None:
            raise Complaint(f"hung: the {node} has not come to an end by itself")
    here, there = whereabouts(world, "source"), whereabouts(world, "destination")
    pair = f"the source says {_value(here)!r}, the destination {_value(there)!r}"
    told = str(world.failed.get("source", ""))
    if here is Whereabouts.IN_DOUBT and not world.killed("source") and DOUBT not in told:
        raise Complaint(f"no word of doubt: {pair}: {told}")
    if here is Whereabouts.SOURCE and ran:
        raise Complaint(f"runs twice: {pair}, where the guest has run")
    if here in _THERE and not ran:
        raise Complaint(f"lost by both: {pair}, where the guest has never run")
    if there is Whereabouts.SOURCE and here in (Whereabouts.IN_DOUBT, *_THERE):
        raise Complaint(f"lost by both: {pair}")
    if here is Whereabouts.VERIFIED and there is not Whereabouts.VERIFIED and not world.killed("destination"):
        raise Complaint(f"a verdict that nobody has pronounced: {pair}")
    destination = world.services.get("destination")
    if isinstance(destination, Destination) and destination.incoming is not None and there is not None:
        needed = here in (Whereabouts.IN_DOUBT, Whereabouts.DESTINATION, Whereabouts.UNHEARD)
        if needed and resumption.may_go(there, destination.incoming.countersigned):
            raise Complaint(f"emptied: {pair}, and throws away what the source would come back for")
    return _ENDINGS.get(here, Ending.AT_SOURCE) if here is not None else Ending.AT_SOURCE


#: What says that the guest has run at the destination.
_THERE: Final = (Whereabouts.DESTINATION, Whereabouts.UNHEARD, Whereabouts.VERIFIED, Whereabouts.DAMAGED)
_ENDINGS: Final = {
    Whereabouts.IN_DOUBT: Ending.IN_DOUBT, Whereabouts.DESTINATION: Ending.PARTED, Whereabouts.UNHEARD: Ending.PARTED,
    Whereabouts.VERIFIED: Ending.VERIFIED, Whereabouts.DAMAGED: Ending.DAMAGE_FOUND,
}  # fmt: skip


def whereabouts(world: World, node: str) -> Whereabouts | None:
    """Where the guest is, by what a node knew in the end; None: it has known of no migration."""
    service = world.services.get(node)
    if isinstance(service, Source):
        return service.whereabouts
    if isinstance(service, Destination) and service.incoming is not None:
        return service.incoming.whereabouts
    return None


def _value(where: Whereabouts | None) -> str | None:
    return None if where is None else where.value


class Held:
    """CheckpointSink that keeps everything: there are no disks in virtual time, nor any that fail."""

    lost = None

    def runs(self) -> None:
        """See CheckpointSink."""

    async def verified(self, digest: str) -> None:
        """See CheckpointSink."""


class Holding(Services):
    """The services, with a checkpoint at the destination."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self._keeps = keeps

    def destination(self, *arguments: Any, **more: Any) -> Destination:
        """See sim.world.Nodes."""
        return super().destination(*arguments, keeping=Held() if self._keeps else None)


def _excused(case: Case, world: World, story: Story, struck: Struck, error: BaseException) -> Ending:
    """It did not end well: whether it may have."""
    told = str(world.failed.get("source", ""))
    at_source = "guest runs on at the source" in told
    switched = ("destination", "run") in story.entered
    if switched and at_source:
        raise Complaint(f"the guest runs at the destination, and the source says: {told}")
    if at_source or (world.killed("source") and not switched):
        return Ending.AT_SOURCE
    if "source" in world.failed and world.killed("destination") and "guest" not in told:
        raise Complaint(f"the guest is lost, and the source says: {told}")
    if _found(world, told) and _damaged(case, struck):
        return Ending.DAMAGE_FOUND
    if world.killed("destination"):
        return Ending.LOST
    if "destination" not in world.failed and Fault.CRASH_SOURCE in struck:
        _whole(world, world.outcome)
        return Ending.LEFT
    raise Complaint(f"it did not recover: {type(error).__name__}: {error}")


def _found(world: World, told: str) -> bool:
    """Whether either node has ended because of damage; the destination may have been killed with the verdict said."""
    return any(isinstance(each, VerificationError) for each in world.failed.values()) or "never sent" in told


def _damaged(case: Case, struck: Struck) -> bool:
    """Whether pages may have come damaged unseen: integrity is off."""
    return not case.scenario.integrity.digests and (Fault.CORRUPT in struck or Fault.TRUNCATE in struck)


def _hit(world: World, fault: Fault, message: type[Message]) -> bool:
    """Whether `fault` has hit such a message."""
    hits = world.injection.coverage.counts if world.injection is not None else {}
    return any((said.kind, kind.fault) == (message, fault) for said, kind in hits)
