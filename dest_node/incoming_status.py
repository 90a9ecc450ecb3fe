"""How far an incoming migration is: its stage, its times, its counts; what displays, texts and results are made of.

The one owner of that state: who runs the migration says what has happened, and reads what follows from it.
"""

from __future__ import annotations

from typing import Final

from dest_node.assembly import Assembly
from dest_node.channels import DestinationChannels
from dest_node.core.advise import Announced
from dest_node.resumption import CheckpointSink, RestoredMigration
from migemu.errors import MigemuError, one_line
from migemu.node.outcome import DOUBT, Certificate, Outcome, RecoveryStatistics, Snapshot, Times, Whereabouts
from migemu.node.patience import Patience
from migemu.ports import Clock
from migemu.wire.limits import Limits
from migemu.wire.messages import Advise, Agreed, Complete, End
from migemu.wire.states import Stage

_NOTHING_ANNOUNCED: Final = Advise("", 0, 0, 0, False, "{}")
_IN_DOUBT_CHECKPOINTED: Final = (
    "the guest has not run here, and its source may have let it go; what has come is kept: start this destination "
    "again by the same command, and at the source migemu-source --recover DIR, which makes the switch again"
)
_IN_DOUBT_GONE: Final = (
    "the guest has not run here, and cannot any more; its source may have let it go, where it is whole: there "
    "migemu-source --recover DIR --take-back"
)


class IncomingStatus:
    """How far one incoming migration is; times in ns of the node's clock."""

    def __init__(
        self, clock: Clock, channels: DestinationChannels, patience: Patience, limits: Limits,
        checkpoint: CheckpointSink | None = None, restored: RestoredMigration | None = None,
    ) -> None:  # fmt: skip
        """`limits` know the memory's geometry as soon as somebody does; `restored` is what it goes on with."""
        self._verdict = restored.verdict if restored is not None else None
        self._stage = Stage.SETUP if self._verdict is None else Stage.COMPLETED
        self._times = Times()
        self._announced: Announced | None = None
        self._assembly: Assembly | None = None
        self._agreed: Agreed | None = None
        self._payload_bytes = self._downtime_ns = self._bitmap_bytes = self._preempt_lost = 0
        self._landings = 0
        self._last_error = ""
        self._source_has_it = self._is_over = False
        self._first_piece_ns = self._last_piece_ns = self._ended_ns = 0
        self._clock = clock
        self._channels = channels
        self._patience = patience
        self._limits = limits
        self._checkpoint = checkpoint

    # --- what has happened ---

    def enter(self, stage: Stage) -> bool:
        """A stage begins. False, and nothing changes, after the verdict: whatever is lost then, it stays completed."""
        if self._verdict is None:
            self._stage = stage
        return self._verdict is None

    def began(self, **times: int) -> None:
        """Something began, at these times (fields of `Times`)."""
        self._times = self._times._replace(**times)

    def announce(self, announced: Announced) -> None:
        """The source has announced its memory."""
        self._announced = announced
        self.began(advise=self._clock.now_ns())

    def assembled(self, assembly: Assembly) -> None:
        """The memory is there, and all that works on it."""
        self._assembly = assembly
        self.began(ready=self._clock.now_ns())

    def landed(self) -> None:
        """Some bytes of a piece have come, or are about to be received in their place."""
        self._landings += 1

    def received_payload(self, payload_bytes: int) -> None:
        """The bytes of a run of pieces are all here."""
        self._payload_bytes += payload_bytes

    def arrived(self, now: int) -> None:
        """A piece has come; `now` is the time of the thread that took it in, and others may be ahead."""
        self._last_piece_ns = max(self._last_piece_ns, now)
        if not self._first_piece_ns:
            self._first_piece_ns = now

    def lost(self, error: MigemuError) -> None:
        """The source is gone, because of `error`."""
        self._last_error = one_line(error)

    def lost_preempt(self) -> None:
        """The preempt channel was lost alone, and the source has asked what had arrived."""
        self._preempt_lost += 1

    def sent_bitmap(self, bitmap_bytes: int) -> None:
        """A part of the received bitmap has gone to the source."""
        self._bitmap_bytes += bitmap_bytes

    def source_gives_up(self, before_run: bool) -> None:
        """The source says that it gives up; `before_run`: without having said Run, or knowing that it was not heard."""
        self._source_has_it = before_run

    def source_tries_again(self) -> None:
        """It gave up the connection, not the migration: it may still let the guest go."""
        self._source_has_it = False

    def ended(self, end: End) -> None:
        """The source has sent everything."""
        self._downtime_ns = end.downtime_ns
        self._ended_ns = self._clock.now_ns()

    def judged(self, verdict: Complete) -> None:
        """Every byte was compared."""
        self._verdict = verdict

    def signed(self, agreed: Agreed) -> None:
        """The source has heard the verdict, and its own figures are the same."""
        self._agreed = agreed

    def finished(self) -> None:
        """The migration is over at this destination, whatever its end; the guest stands still."""
        self._is_over = True

    # --- what is known ---

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        return self._stage

    @property
    def times(self) -> Times:
        """When stages began; 0 where they have not."""
        return self._times

    @property
    def announced(self) -> Announced | None:
        """What the source has announced, if it has."""
        return self._announced

    @property
    def assembly(self) -> Assembly | None:
        """The memory and what works on it; None until it has been allocated."""
        return self._assembly

    @property
    def verdict(self) -> Complete | None:
        """What comparing every byte has shown; None before that."""
        return self._verdict

    @property
    def is_countersigned(self) -> bool:
        """Whether the source has heard the verdict, as far as is known here."""
        return self._agreed is not None

    @property
    def landings(self) -> int:
        """How often bytes of pieces have come; who waits for some sees by it whether there is any use."""
        return self._landings

    @property
    def _advise(self) -> Advise:
        return self._announced.advise if self._announced is not None else _NOTHING_ANNOUNCED

    @property
    def held(self) -> bool:
        """Whether an operator has paused it."""
        return self._patience.held

    @property
    def disturbed(self) -> bool:
        """Whether bytes may lie where nothing has been received: of a piece that was refused, or broke off."""
        corrupt = self._assembly is not None and self._assembly.integrity.corrupt > 0
        return corrupt or self._preempt_lost > 0 or bool(self._last_error)

    async def settled(self) -> None:
        """Return when what was begun has been done: with `costs.threads` of three, one is not as far as another."""
        await self._clock.sleep_until(max(self._last_piece_ns, self._ended_ns))

    @property
    def progress(self) -> str:
        """How much is here, in words."""
        if self._assembly is None:
            return "nothing received"
        received = self._assembly.receiver.received
        return f"{received.set_pages} of {received.total} base pages received"

    @property
    def is_checkpointed(self) -> bool:
        """Whether another destination could go on from here."""
        return self._checkpoint is not None and not self._checkpoint.lost

    @property
    def is_whole(self) -> bool:
        """Whether all of the guest's memory has arrived."""
        return self._assembly is not None and self._assembly.receiver.received.complete

    @property
    def is_whole_unverified(self) -> bool:
        """Whether it has ended with all of the memory here, compared with nothing, and kept by nothing else."""
        return self.is_whole and self.whereabouts is Whereabouts.LOST

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the guest is, as far as is known here."""
        return Whereabouts.of_destination(
            ready=self._times.ready > 0, told=self._source_has_it, ran=self._times.run > 0,
            lost=self._is_over and not self.is_checkpointed,
            verified=self._verdict.verified if self._verdict is not None else None,
        )  # fmt: skip

    @property
    def waiting(self) -> str:
        """Where the guest is when this destination ends now, in a sentence, and what to do."""
        where = self.whereabouts
        if where is Whereabouts.SOURCE:
            return "The guest has not run here: it is at the source"
        if where is Whereabouts.IN_DOUBT:
            return f"{DOUBT}{_IN_DOUBT_CHECKPOINTED if self.is_checkpointed else _IN_DOUBT_GONE}"
        assert self._assembly is not None
        receiver = self._assembly.receiver
        if self.is_whole:
            if self.is_checkpointed:
                return "The guest is in its checkpoint, to go on from with the same command: all of its memory is here"
            return (
                "The guest is lost: all of its memory had come here, and was not compared with the source's; nothing "
                "keeps it beyond this destination (--checkpoint DIR would have)"
            )
        waiting = (
            f"{receiver.statistics().faults_open} vCPUs wait for {receiver.pages_waited_for} pages that have not "
            f"arrived ({self.progress})"
        )
        if self.is_checkpointed:
            return f"The guest is in its checkpoint, to go on from with the same command: {waiting}"
        return f"The guest is lost: {waiting}"

    @property
    def at_stake(self) -> str:
        """What is lost when the migration ends here and now, in a sentence; of a guest that runs here."""
        assert self._assembly is not None
        has_run = (
            f"the guest has run here, and written {self._assembly.vcpus.statistics().writes} words ({self.progress})"
        )
        if self.is_checkpointed:
            return f"{has_run}; all of it is in its checkpoint, to go on from with the same command"
        return f"{has_run}; all of it is lost, and the guest with it: it cannot run on at the source"

    def snapshot(self) -> Snapshot:
        """How far it is now, for displays."""
        snapshot = Snapshot(
            now_ns=self._clock.now_ns(),
            stage=self._stage,
            geometry=self._limits.geometry,
            memory_bytes=self._advise.memory_bytes,
            payload_bytes=self._payload_bytes,
            wire_bytes=self._channels.received_bytes,
            times=self._times._replace(first_piece=self._first_piece_ns, last_piece=self._last_piece_ns),
            recoveries=self._patience.count,
            last_error=self._last_error,
            held=self.held,
        )
        return snapshot if self._assembly is None else self._assembly.completed_snapshot(snapshot)

    def outcome(self) -> Outcome:
        """Everything known now, for the result."""
        verdict = self._verdict or Complete(False, "", "")
        outcome = Outcome(
            snapshot=self.snapshot(),
            verified=verdict.verified,
            digest=verdict.digest,
            downtime_ns=self._downtime_ns,
            source_scenario=self._advise.scenario,
            image_bytes=self._advise.image_bytes,
            recovery=self._recovery(),
            certificate=self._certificate(),
            whereabouts=self.whereabouts,
        )
        return outcome if self._assembly is None else self._assembly.completed_outcome(outcome)

    def _recovery(self) -> RecoveryStatistics:
        patience, agreed = self._patience, self._agreed or Agreed(0, "", 0)
        return RecoveryStatistics(
            patience.count, patience.paused_ns(self._clock.now_ns()), patience.errors, self._bitmap_bytes,
            agreed.pages_lost, self._preempt_lost,
        )  # fmt: skip

    def _certificate(self) -> Certificate | None:
        """Once every byte was compared, and found to be the source's."""
        verdict, assembly, agreed = self._verdict, self._assembly, self._agreed or Agreed(0, "", 0)
        if verdict is None or not verdict.verified or assembly is None:
            return None
        return Certificate(
            assembly.receiver.received.total, verdict.digest, agreed.digest, assembly.vcpus.statistics().writes,
            self.is_countersigned,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<IncomingStatus {self._stage.value}, {self.progress}>"
