"""One incoming migration at the destination: its stages, from Advise to the source's last word.

Stages, with QEMU's names: advise (memory is allocated) - listen (faults are caught) - run (the guest runs, pieces
arrive, faults are asked for) - end (everything is here; every byte is compared with the source's digests) - completed.
From Ready on (Run may be on its way) a lost main connection is a pause: paused (vCPUs run on where their pages are
here, faults wait) - recover (a source has come back; it is told what has arrived) - run.

Bytes arrive straight in their place; the receiver is told and answers with effects, which the executor carries out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from dest_node.assembly import Assembly, MemoryProvider, assemble
from dest_node.channels import DestinationChannels
from dest_node.core.advise import Announced
from dest_node.core.effects import NODE
from dest_node.incoming_status import IncomingStatus
from dest_node.landing import Arrivals
from dest_node.recovery import RECOVER, RUN, Recovery
from dest_node.resumption import RestoredMigration
from dest_node.setup import DestinationSetup
from dest_node.verdict import Verdict
from dest_node.verification.integrity import check_seal
from migemu.errors import (
    BrokenError,
    GaveUpError,
    InputError,
    MigemuError,
    OverdueError,
    PeerError,
    StoppedError,
    VerificationError,
    one_line,
)  # fmt: skip
from migemu.mm.pages import Level, PieceRun
from migemu.node.due import Due
from migemu.node.outcome import Outcome, Snapshot, Whereabouts, with_whereabouts
from migemu.node.owned_tasks import OwnedTasks
from migemu.node.patience import Patience
from migemu.ports import Channel, Landing, MinorFault
from migemu.trace.events import Event, Happening
from migemu.units import SECOND, format_time
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    MAIN_CHANNEL,
    PREEMPT_CHANNEL,
    Advise,
    Agreed,
    Alive,
    ChannelId,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    Recover,
    Request,
    Resume,
    Run,
    Running,
    Zero,
)  # fmt: skip
from migemu.wire.states import Legality, Role, Stage

#: A source that says in these states that it gives up has not said Run, or knows that it was not heard.
_NOT_SAID: Final = (Stage.NONE, Stage.SETUP, Stage.ADVISE, Stage.LISTEN)
#: What a source can owe.
ADVISE, DIGESTS, AGREED, PAGES = "Advise", "the next Digests", "Agreed", "what faults wait for"


class Incoming:
    """The destination's side of one migration; the door and its visitors are in service.py."""

    def __init__(self, setup: DestinationSetup, provider: MemoryProvider, limits: Limits, migration: str) -> None:
        """`migration` is its name. `provider` gives it its memory.

        `limits` are those of the first channel's decoder; the memory's size is filled in when it is known. Begin with
        `connect`; where there is a `setup.restored`, with `restore`.
        """
        restored, clock = setup.restored, setup.clock
        self.legality = Legality() if restored is None else Legality.resumed(restored.ran)
        self.migration = migration
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Who brought it, or its source the last time that it came.
        self.peer = "?"
        self.limits = limits
        self._setup, self._provider = setup, provider
        self._scenario, self._clock, self._tracer = setup.scenario, clock, setup.tracer
        self._checkpoint = setup.checkpoint
        self._due = Due("the source", setup.scenario.net.answer_timeout)
        self._channels = DestinationChannels(self, clock, setup.scenario.net.idle_timeout, self._due)
        patience = Patience(setup.scenario.recovery)
        self._status = IncomingStatus(clock, self._channels, patience, limits, setup.checkpoint, restored)
        self._recovery = Recovery(self, clock, self.legality, self._channels, self._status, patience)
        self._arrivals: Arrivals | None = None
        self._verdict = Verdict(limits, setup.checkpoint, restored)
        self._source_departed = asyncio.Event()
        self._progress_seen = (0, 0)  # bytes of pieces, and base pages, when faults were looked at
        self._tasks = OwnedTasks(self)
        self._received: dict[type[Message], Callable[..., None]] = {
            Hello: self._ignore, Alive: self._ignore, Advise: self._advised, Listen: self._listen,
            DeviceState: self._device_state, Run: self._run, End: self._end, Digests: self._digests,
            Failed: self._failed, Recover: self._recovery.asked, Resume: self._recovery.resume, Agreed: self._agreed,
        }  # fmt: skip

    # --- from the channels ---

    def connect(self, main: Channel) -> None:
        """A main channel has come: the first one, or one that takes the place of another, which may look alive yet."""
        announced = self._status.announced is not None
        if announced:
            self._recovery.replace()
        self._channels.put(MAIN_CHANNEL, main)
        self.peer = main.peer
        self._due.expect(RECOVER if announced else ADVISE, self._clock.now_ns())
        self._source_departed.clear()

    @property
    def never_departed(self) -> bool:
        """Whether the guest has surely not left its source.

        It was never told Ready, so it cannot have said Run; or it says itself that it has it.
        """
        return self._status.whereabouts is Whereabouts.SOURCE

    @property
    def is_paused(self) -> bool:
        """Whether its source is gone, and waited for."""
        return self._status.stage in (Stage.PAUSED, Stage.RECOVER)

    @property
    def may_recover(self) -> bool:
        """Whether a source that comes again is welcome."""
        return self._recoverable and not self.finished.done()

    @property
    def _recoverable(self) -> bool:
        return self._scenario.recovery.timeout > 0 and self._status.assembly is not None

    def attach(self, preempt: Channel) -> None:
        """A preempt channel has come. PeerError when none was announced, or there is one and no other is due."""
        announced = self._status.announced
        if announced is None or self._status.assembly is None or not announced.advise.preempt:
            raise PeerError("a preempt channel that was not announced")
        if self._channels.get(PREEMPT_CHANNEL) is not None:
            if not self._recoverable:
                raise PeerError("a second preempt channel")
            self.legality.preempt_lost()
        self._channels.put(PREEMPT_CHANNEL, preempt)

    def announced(self, channel: Channel, message: Message) -> None:
        """A message begins: may the source say it now?"""
        if type(message) is Failed:
            self._status.source_gives_up(before_run=self.legality.states[Role.SOURCE] in _NOT_SAID)
        channel_id = self._channels.identify(channel) or MAIN_CHANNEL
        self.legality.said(Role.SOURCE, message, channel_id.role)
        if (type(message) is Page or type(message) is Zero) and message.digests:
            check_seal(message)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """Where payload byte `offset` of `page` belongs."""
        assert self._arrivals is not None, "no page may be said before Run"
        return self._arrivals.landing(page, offset)

    def received(self, message: Message, payload: bytes) -> None:
        """A message of the source, judged already. PeerError: it ends the connection, not the migration."""
        if self.finished.done():
            return  # what this side says of the guest now stays true
        arguments = (message, payload) if payload else (message,)
        try:
            self._received[type(message)](*arguments)
        except PeerError as error:
            if self.may_recover:
                raise
            self.fail(error)
        except (MigemuError, OSError) as error:
            self.fail(error)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """A connection is over."""
        channel_id = self._channels.identify(channel)
        if channel_id == MAIN_CHANNEL:
            self._source_departed.set()
        if channel_id is None or self.finished.done():
            return
        if channel_id == PREEMPT_CHANNEL and self._status.verdict is not None:
            self._channels.forget(channel_id)  # the source closes, and its last word is on its way
            return
        self.channel_lost(channel_id, error or BrokenError(
            f"the source closed the {channel_id} connection before the migration was complete "
            f"(stage {self._status.stage.value}, {self._status.progress})"
        ))  # fmt: skip

    def channel_lost(self, channel_id: ChannelId, error: MigemuError) -> None:
        """A connection is over, or of no use any more, because of `error`."""
        self._emit(Happening.LOST, detail=f"{channel_id}: {error}")
        self._channels.forget(channel_id)
        if channel_id == PREEMPT_CHANNEL and self._recoverable:
            self.legality.preempt_lost()  # the source makes another one
        elif self._recoverable and self.legality.lost():
            self._recovery.pause(error)
        elif self._status.verdict is not None:
            self.complete()
        else:
            self.fail(error)

    def complete(self) -> None:
        """The migration has ended verified: there is nothing more to wait for."""
        if not self.finished.done():
            self.finished.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The migration is over, because of `error`; the first one counts."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def silent(self, channel_id: ChannelId) -> None:
        """See ChannelOwner: the connection is lost."""
        if self.finished.done():
            return
        error = BrokenError(
            f"the source has been silent for {format_time(self._scenario.net.idle_timeout)} (net.idle_timeout) in "
            f"stage {self._status.stage.value}, {self._status.progress}; is it stopped, or the network cut?"
        )
        if self._recoverable:
            self._channels.cut(channel_id)
            self.channel_lost(channel_id, error)
        else:
            self.fail(error)

    def late(self, channel_id: ChannelId, error: OverdueError) -> None:
        """See ChannelOwner: the connection is lost."""
        if self._recoverable and not self.finished.done():
            self._channels.cut(channel_id)
            self.channel_lost(channel_id, error)
        else:
            self.fail(error)

    def before_due_check(self, now: int) -> None:
        """See ChannelOwner. Faults wait for pages: as long as some come, it is not known that theirs do not."""
        assembly = self._status.assembly
        waits = assembly is not None and assembly.receiver.pages_waited_for > 0
        come = (self._status.landings, assembly.receiver.received.set_pages if assembly is not None else 0)
        if not waits or self.legality.states[Role.DESTINATION] is not Stage.RUNNING:
            self._due.settled(PAGES)
        elif come != self._progress_seen or not self._due.is_due(PAGES):
            self._due.expect(PAGES, now)
        self._progress_seen = come

    # --- what an operator orders ---

    @property
    def is_held(self) -> bool:
        """Whether an operator has paused it, and no source may come."""
        return self._status.held

    def pause(self) -> str:
        """Break the connections on purpose, and let no source in until `resume`; what stands still. InputError."""
        self._check_underway()
        if not self._status.times.run:
            raise InputError(
                f"the guest is at the source (stage {self._status.stage.value}); migemu cancel ends the attempt"
            )
        if not self._recoverable:
            raise InputError("with recovery.timeout=0 a lost connection is the end of the migration")
        if self.is_held:
            raise InputError("it is paused already; migemu resume ends that")
        self._recovery.hold(BrokenError("an operator has paused it"))
        return (
            f"paused: vCPUs run on where their pages are here ({self._status.progress}), the others wait. Until "
            "migemu resume no source is let in, and no time runs out here; the source tries for its own "
            "recovery.timeout, unless it is paused too"
        )

    def resume(self) -> str:
        """End an operator's pause: the source may come again. InputError."""
        self._check_underway()
        if not self.is_held:
            raise InputError(f"it is not paused by an operator (stage {self._status.stage.value})")
        self._recovery.release()
        timeout = format_time(self._scenario.recovery.timeout)
        return f"resumed: the source is waited for, for {timeout} (recovery.timeout)"

    def cancel(self, sure: bool) -> str:
        """End the migration. InputError when that costs something, and who asks is not `sure`."""
        self._check_underway()
        cost = "the guest has not run here, and cannot any more: it is at the source; what has arrived is dropped"
        if self._status.times.run:
            cost = self._status.at_stake
            if not sure:
                raise InputError(f"{cost}. To do it nevertheless, add --yes; migemu pause costs nothing")
        self.fail(StoppedError("cancelled by its operator"))
        return f"cancelled: {cost}"

    def _check_underway(self) -> None:
        """InputError when it is over, or there is nothing left to be done."""
        if self.finished.done():
            raise InputError("it has ended already")
        if self._status.verdict is not None:
            raise InputError("it is complete, and verified; nothing is left to be done")

    # --- stages ---

    async def restore(self, restored: RestoredMigration) -> None:
        """Go on where a destination that is gone has ended, and wait for the source. Raises as `assemble` does."""
        assembly = await self._assemble(self._announce(restored.advise))
        assembly.vcpus.restore(restored.words, restored.generation)
        for first, count in restored.rows:
            assembly.executor.arrived(PieceRun(first, count, Level.PTE), urgent=False, zero=False)
        self._recovery.pause(BrokenError("this destination was started again, from its checkpoint"))
        if restored.ran:
            assembly.memory.faults.register(self)
            self._status.began(run=self._clock.now_ns())
            assembly.vcpus.start()

    def _advised(self, advise: Advise) -> None:
        announced = self._announce(advise)
        self._due.settled(ADVISE)
        self.enter(Stage.ADVISE)
        self.spawn(self._prepare(announced))

    def _announce(self, advise: Advise) -> Announced:
        announced = Announced(advise, self._scenario.limits)
        self._status.announce(announced)
        self._emit(Happening.MEMORY, count=announced.pages, detail=announced.geometry.name)
        return announced

    async def _prepare(self, announced: Announced) -> None:
        await self._assemble(announced)
        self.say(Ready(self.migration))
        self._due.expect(RUN, self._clock.now_ns())

    async def _assemble(self, announced: Announced) -> Assembly:
        assembly = await assemble(self._setup, announced, self._provider, self)
        self.limits.geometry, self.limits.memory_pages = announced.geometry, announced.pages
        arrivals = self._arrivals = Arrivals(assembly, self._status, self._clock, self._tracer, self)
        self._received[Page], self._received[Zero] = arrivals.page, arrivals.zero
        self._status.assembled(assembly)
        return assembly

    def _listen(self, _listen: Listen) -> None:
        self._advise_taken.begin()
        self._ready().memory.faults.register(self)
        self._recovery.listens()
        self.enter(Stage.LISTEN)

    def _device_state(self, part: DeviceState, payload: bytes = b"") -> None:
        self._advise_taken.device_state(part.offset, payload)
        self._due.progressed(RUN, self._clock.now_ns())

    def _run(self, _run: Run) -> None:
        self._advise_taken.may_run()
        self._due.settled(RUN)
        self._status.began(run=self._clock.now_ns())
        self.enter(Stage.RUNNING)
        if self._checkpoint is not None:
            self._checkpoint.runs()
        self.say(Running())
        self._ready().vcpus.start()

    def _end(self, end: End) -> None:
        assembly = self._ready()
        if end.pages != assembly.receiver.received.total:
            raise PeerError(f"the source ends after {end.pages} base pages of {assembly.receiver.received.total}")
        self._emit(Happening.ENDED, count=end.pages)
        self._status.ended(end)
        self._verdict.digests_begin()
        self._expect_digests()
        self.enter(Stage.END)
        if self._status.verdict is not None:
            self.say(self._status.verdict)
        else:
            self._recovery.ended()

    def _digests(self, digests: Digests, payload: bytes) -> None:
        self._verdict.take(digests, payload)
        if self._verdict.digests_due:
            self._expect_digests()
        else:
            self._due.settled(DIGESTS)
            if self._status.verdict is not None:
                self._due.expect(AGREED, self._clock.now_ns())

    def _expect_digests(self) -> None:
        self._due.expect(DIGESTS, self._clock.now_ns(), self.limits.geometry.largest_bytes)

    def _failed(self, failed: Failed) -> None:
        if not failed.over:
            self._status.source_tries_again()
        if failed.over or not self._recoverable:
            raise GaveUpError(with_whereabouts(f"the source gave up: {failed.reason}", self._status.waiting))
        self.legality.lost()
        self._recovery.pause(PeerError(f"the source refused: {failed.reason}"))

    def _ignore(self, _message: Message) -> None: ...

    def _agreed(self, agreed: Agreed) -> None:
        """The source's last word: the verdict was heard, and its own figures are the same."""
        self._verdict.countersigned(agreed)
        self._status.signed(agreed)
        self.complete()

    # --- faults, and what the receiver wants of this side ---

    def fault_raised(self, fault: MinorFault) -> None:
        """See ports.FaultHandler."""
        self._emit(Happening.FAULTED, fault.page, vcpu=fault.vcpu, write=fault.write)

    def fault_read(self, fault: MinorFault) -> None:
        """See ports.FaultHandler."""
        assembly = self._ready()
        try:
            assembly.executor.carry(assembly.receiver.faulted(fault.page, self._clock.now_ns()))
        except (MigemuError, OSError) as error:
            self.fail(error)

    def ask_source(self, run: PieceRun, again: bool = False) -> None:
        """See ExecutorHost: ask the source for a run of pieces."""
        self.say(Request(*run, again))

    def everything_mapped(self) -> None:
        """See ExecutorHost: all that is left is to compare."""
        self._status.began(finish=self._clock.now_ns())
        self._ready().executor.look_at_tables()
        self.spawn(self._verify(self._ready()))

    async def _verify(self, assembly: Assembly) -> None:
        """Compare every byte, tell the source."""
        await self._status.settled()
        complete = await self._verdict.reach(assembly)
        if self.legality.states[Role.SOURCE] is Stage.END:
            self.say(complete)  # else the source is gone; it will be told when it has come back
            self._due.expect(AGREED, self._clock.now_ns())
        self.enter(Stage.COMPLETED)
        self._status.judged(complete)
        if not complete.verified:
            self.fail(VerificationError(complete.reason))

    # --- the end ---

    async def stop(self) -> None:
        """Stop whatever still runs; from here on a closed connection is no surprise. Safe to call twice."""
        self._status.finished()
        if not self.finished.done():
            self.finished.cancel()
        self._channels.stop_watching()
        self._tasks.cancel()
        if self._status.assembly is not None:
            await self._status.assembly.vcpus.stop()

    def tell_end(self, error: BaseException) -> None:
        """Tell the source why this side ends, if it can still be told; and whether it may come again to another one."""
        ordered = isinstance(error, asyncio.CancelledError | StoppedError)
        returns = ordered and self._checkpoint is not None and not self._checkpoint.lost
        self._channels.send_failed(one_line(error) or "the destination was interrupted", over=not returns)

    async def close(self) -> None:
        """Close the channels, sending what is queued first.

        After the verdict it is the source that closes: a close of ours could overtake the verdict on another channel.
        """
        if self._status.verdict is not None and self._channels.get(MAIN_CHANNEL) is not None:
            try:
                async with asyncio.timeout(self._scenario.net.idle_timeout / SECOND):
                    await self._source_departed.wait()
            except TimeoutError:
                pass  # it was told; whether it heard is its own to report
        await self._channels.close()

    @property
    def advise(self) -> Advise | None:
        """What the source has announced."""
        return self._status.announced.advise if self._status.announced is not None else None

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the guest is, as far as is known here."""
        return self._status.whereabouts

    @property
    def countersigned(self) -> bool:
        """Whether the source has heard the verdict, as far as is known here."""
        return self._status.is_countersigned

    @property
    def waiting(self) -> str:
        """The same in a sentence, for an end that is none of the migration's."""
        return self._status.waiting

    def snapshot(self) -> Snapshot:
        """The migration as it stands."""
        return self._status.snapshot()

    def outcome(self) -> Outcome:
        """The result so far: times, counts, latencies, and the digest once there is one."""
        return self._status.outcome()

    @property
    def is_whole_unverified(self) -> bool:
        """Whether it has ended with all of the memory here, compared with nothing, and kept by nothing else."""
        return self._status.is_whole_unverified

    def image(self) -> Iterator[bytes]:
        """The memory as it arrived, as long as the source's image was, in parts of bytes.

        Only after a verdict, or when `is_whole_unverified`: everything has arrived then.
        """
        return self._ready().verification.image(self._advise_taken.advise.image_bytes)

    # --- small things ---

    @property
    def _advise_taken(self) -> Announced:
        announced = self._status.announced
        assert announced is not None, "the states of the protocol let nothing pass before Advise"
        return announced

    def _ready(self) -> Assembly:
        if self._status.assembly is None:
            raise PeerError("the source went on before the destination was ready")
        return self._status.assembly

    def say(self, message: Message, payload: bytes | None = None) -> None:
        """Say something to the source, if it is connected."""
        self.legality.said(Role.DESTINATION, message)
        self._channels.send(message, payload)

    def enter(self, stage: Stage) -> None:
        """A stage begins; after the verdict it stays completed, whatever is lost."""
        if self._status.enter(stage):
            self._emit(Happening.STATE, detail=stage.value)

    def _emit(self, event: Happening, *values: Any, **fields: Any) -> None:
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, event, *values, **fields))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task whose failure is the migration's."""
        return self._tasks.spawn(work)

    def task_failed(self, error: Exception) -> None:
        """End the migration with what one of its tasks raised."""
        self.fail(error)

    def __repr__(self) -> str:
        return f"<Incoming {self.migration[:8]} {self._status.stage.value}, {self._status.progress}>"
