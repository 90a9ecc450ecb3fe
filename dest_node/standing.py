"""How an incoming migration stands: its stage, its times, its counts; what displays and results are made of."""

from __future__ import annotations

from typing import Any, Final

from dest_node.assembly import Parts
from dest_node.channels import DestinationChannels
from dest_node.core.advise import Announced
from dest_node.resumption import Keeping, Left
from migemu.node.outcome import DOUBT, Certificate, Outcome, RecoveryStatistics, Snapshot, Stage, Times, Whereabouts
from migemu.node.patience import Patience
from migemu.ports import Clock
from migemu.wire.limits import Limits
from migemu.wire.messages import Agreed, End

_MAP_CELLS = 512
_IN_DOUBT_KEPT: Final = (
    "the guest has not run here, and its source may have let it go; what has come is kept: start this destination "
    "again by the same command, and at the source migemu-source --recover DIR, which makes the switch again"
)
_IN_DOUBT_GONE: Final = (
    "the guest has not run here, and cannot any more; its source may have let it go, where it is whole: there "
    "migemu-source --recover DIR --take-back"
)


class Standing:
    """Of one migration. Whoever runs it writes here; times in ns of the node's clock."""

    def __init__(
        self, clock: Clock, lines: DestinationChannels, patience: Patience, limits: Limits,
        keeping: Keeping | None = None, left: Left | None = None,
    ) -> None:  # fmt: skip
        self.stage = Stage.SETUP if left is None or left.verdict is None else Stage.COMPLETED
        self.times = Times()
        self.announced: Announced | None = None
        self.parts: Parts | None = None
        self.complete = left.verdict if left else None
        self.agreed: Agreed | None = None
        self.payload_bytes = self.downtime_ns = self.bitmap_bytes = self.preempt_lost = 0
        #: How often bytes of pieces have come; who waits for some sees by it whether there is any use.
        self.landings = 0
        self.last_error = ""
        #: Whether a source has given up that had not said Run; whether this destination has ended.
        self.source_has_it = self.is_over = False
        self._first_piece_ns = self._last_piece_ns = self._ended_ns = 0
        self._clock = clock
        self._lines = lines
        self._patience = patience
        self._limits = limits
        self._keeping = keeping

    def began(self, **times: int) -> None:
        """Something began, at these times (`Times`)."""
        self.times = self.times._replace(**times)

    def arrived(self, now: int) -> None:
        """A piece has come; `now` is the time of the thread that took it in, and others may be ahead."""
        self._last_piece_ns = max(self._last_piece_ns, now)
        if not self._first_piece_ns:
            self._first_piece_ns = now

    @property
    def held(self) -> bool:
        """Whether an operator has paused it."""
        return self._patience.held

    @property
    def disturbed(self) -> bool:
        """Whether bytes may lie where nothing has been received: of a piece that was refused, or broke off."""
        corrupt = self.parts is not None and self.parts.integrity.corrupt > 0
        return corrupt or self.preempt_lost > 0 or bool(self.last_error)

    def ended(self, end: End) -> None:
        """The source has sent everything."""
        self.downtime_ns = end.downtime_ns
        self._ended_ns = self._clock.now_ns()

    async def settled(self) -> None:
        """Return when what was begun has been done: with `costs.threads` of three, one is not as far as another."""
        await self._clock.sleep_until(max(self._last_piece_ns, self._ended_ns))

    @property
    def progress(self) -> str:
        """How much is here, in words."""
        if self.parts is None:
            return "nothing received"
        received = self.parts.receiver.received
        return f"{received.set_pages} of {received.total} base pages received"

    @property
    def is_kept(self) -> bool:
        """Whether another destination could go on from here."""
        return self._keeping is not None and not self._keeping.failure

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the guest is, as far as is known here."""
        here = self.parts is not None and self.parts.receiver.received.complete
        return Whereabouts.of_destination(
            ready=self.times.ready > 0, told=self.source_has_it, ran=self.times.run > 0,
            lost=self.is_over and not self.is_kept and not here,
            verified=self.complete.verified if self.complete is not None else None,
        )  # fmt: skip

    @property
    def waiting(self) -> str:
        """Where the guest is when the source is no more, in a sentence."""
        where = self.whereabouts
        if where is Whereabouts.SOURCE:
            return "The guest has not run here: it is at the source"
        if where is Whereabouts.IN_DOUBT:
            return f"{DOUBT}{_IN_DOUBT_KEPT if self.is_kept else _IN_DOUBT_GONE}"
        assert self.parts is not None
        receiver = self.parts.receiver
        is_whole = receiver.received.complete
        waiting = (
            "all of its memory is here"
            if is_whole
            else (
                f"{receiver.statistics().faults_open} vCPUs wait for {receiver.pages_waited_for} pages "
                f"that have not arrived ({self.progress})"
            )
        )
        if self.is_kept:
            return f"The guest is in its checkpoint, to go on from with the same command: {waiting}"
        return "All of the guest's memory is here" if is_whole else f"The guest is lost: {waiting}"

    @property
    def at_stake(self) -> str:
        """What is lost when the migration ends here and now, in a sentence; of a guest that runs here."""
        assert self.parts is not None
        told = f"the guest has run here, and written {self.parts.vcpus.statistics().writes} words ({self.progress})"
        if self.is_kept:
            return f"{told}; all of it is in its checkpoint, to go on from with the same command"
        return f"{told}; all of it is lost, and the guest with it: it cannot run on at the source"

    def snapshot(self) -> Snapshot:
        """The migration as it stands."""
        parts = self.parts
        return Snapshot(
            now_ns=self._clock.now_ns(),
            stage=self.stage,
            geometry=self._limits.geometry,
            memory_bytes=self.announced.advise.memory_bytes if self.announced else 0,
            payload_bytes=self.payload_bytes,
            wire_bytes=self._lines.received_bytes,
            receiver=parts.receiver.statistics() if parts else None,
            leaves=parts.memory.mapping.leaves() if parts else {},
            table_bytes=parts.effects.look_at_tables() if parts else 0,
            table_bytes_max=parts.effects.table_bytes_max if parts else 0,
            times=self.times._replace(first_piece=self._first_piece_ns, last_piece=self._last_piece_ns),
            cells=parts.receiver.overview(_MAP_CELLS) if parts else "",
            recoveries=self._patience.count,
            last_error=self.last_error,
            pages_waited_for=parts.receiver.pages_waited_for if parts else 0,
            held=self.held,
        )

    def outcome(self) -> Outcome:
        """Everything known now."""
        parts, complete = self.parts, self.complete
        advise = self.announced.advise if self.announced else None
        seen: dict[str, Any] = {}
        if parts is not None:
            guest, effects = parts.vcpus.statistics(), parts.effects
            seen = {
                "blocktime": guest.blocktime,
                "histogram": guest.latency_histogram,
                "stalls": guest.stalls,
                "reads": guest.reads,
                "writes": guest.writes,
                "unchecked": guest.unchecked,
                "collapse_ns": effects.collapse_ns,
                "collapse_stall_ns_max": effects.collapse_stall_ns_max,
                "corrupt": parts.integrity.corrupt,
            }
        return Outcome(
            snapshot=self.snapshot(),
            verified=bool(complete and complete.verified),
            digest=complete.digest if complete else "",
            downtime_ns=self.downtime_ns,
            source_scenario=advise.scenario if advise else "{}",
            image_bytes=advise.image_bytes if advise else 0,
            recovery=self._recovery(),
            certificate=self._certificate(),
            whereabouts=self.whereabouts,
            **seen,
        )

    def _recovery(self) -> RecoveryStatistics:
        patience = self._patience
        return RecoveryStatistics(
            patience.count, patience.paused_ns(self._clock.now_ns()), patience.errors, self.bitmap_bytes,
            self.agreed.pages_lost if self.agreed else 0, self.preempt_lost,
        )  # fmt: skip

    def _certificate(self) -> Certificate | None:
        """Once every byte was compared, and found to be the source's."""
        complete, parts, agreed = self.complete, self.parts, self.agreed
        if complete is None or not complete.verified or parts is None:
            return None
        return Certificate(
            parts.receiver.received.total, complete.digest, agreed.digest if agreed else "",
            parts.vcpus.statistics().writes, agreed is not None,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Standing {self.stage.value}, {self.progress}>"
