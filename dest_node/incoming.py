"""One incoming migration at the destination: its stages, from Advise to the source's last word.

Stages, with QEMU's names: advise (memory is allocated) - listen (faults are caught) - run (the guest runs, pieces
arrive, faults are asked for) - end (everything is here; every byte is compared with the source's digests) - completed.
From Ready on (Run may be on its way) a lost main connection is a pause: paused (vCPUs run on where their pages are
here, faults wait) - recover (a source has come back; it is told what has arrived) - run.

Bytes arrive straight in their place; the receiver is told and answers with effects, which `Effects` carries out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from dest_node.assembly import Allocate, Parts, assemble
from dest_node.channels import DestinationChannels
from dest_node.core.advise import Announced
from dest_node.core.effects import NODE
from dest_node.core.receiver import Receiver
from dest_node.landing import Arrivals
from dest_node.recovery import RECOVER, RUN, Recovery
from dest_node.resumption import Keeping, Left, give_back
from dest_node.standing import Standing
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
from migemu.node.due import Due
from migemu.node.outcome import Outcome, Snapshot, Stage, Whereabouts, with_whereabouts
from migemu.node.patience import Patience
from migemu.ports import Accelerator, Channel, Clock, Landing, MinorFault, Tracer
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import SECOND, format_time
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    Advise,
    Agreed,
    Alive,
    ChannelRole,
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
from migemu.wire.states import Legality, Role, State

MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT
#: A source that says in these states that it gives up has not said Run, or knows that it was not heard.
_NOT_SAID: Final = (State.NONE, State.SETUP, State.ADVISE, State.LISTEN)
#: What a source can owe.
ADVISE, DIGESTS, AGREED, PAGES = "Advise", "the next Digests", "Agreed", "what faults wait for"


class Incoming:
    """The destination's side of one migration; the door and its visitors are in service.py."""

    def __init__(
        self, scenario: Scenario, clock: Clock, allocate: Allocate, accelerator: Accelerator, limits: Limits,
        migration: str, tracer: Tracer | None = None,
        make_receiver: Callable[..., Receiver] = Receiver, keeping: Keeping | None = None, left: Left | None = None,
    ) -> None:  # fmt: skip
        """`limits` are those of the first channel's decoder; the memory's size is filled in when it is known.

        Begin with `connect`; where another destination has
        `left` something, with `come_back`.
        """
        self.legality, self.migration = Legality.resumed(left.ran) if left else Legality(), migration
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Who brought it, or its source the last time that it came.
        self.peer = "?"
        self._scenario, self._clock, self._allocate = scenario, clock, allocate
        self._make_receiver, self._accelerator = make_receiver, accelerator
        self.limits, self._tracer, self._keeping = limits, tracer, keeping
        self._due = Due("the source", scenario.net.answer_timeout)
        self._lines = DestinationChannels(
            clock, scenario.net.idle_timeout, self._due, self._silent, self._late, self._look_at_faults
        )
        patience = Patience(scenario.recovery)
        self._standing = Standing(clock, self._lines, patience, limits, keeping, left)
        self._recovery = Recovery(
            migration, clock, self.legality, self._lines, self._standing, patience, self._due,
            enter=self._enter, say=self._say, spawn=self._spawn, lost=self._lost, done=self._done,
        )  # fmt: skip
        self._announced: Announced | None = None
        self._parts: Parts | None = None
        self._arrivals: Arrivals | None = None
        self._verdict = Verdict(limits, keeping, left)
        self._source_left = asyncio.Event()
        self._come = (0, 0)  # bytes of pieces, and base pages, when faults were looked at
        self._tasks: dict[asyncio.Task[None], None] = {}  # a set would have no order
        self._received: dict[type[Message], Callable[..., None]] = {
            Hello: self._ignore, Alive: self._ignore, Advise: self._advised, Listen: self._listen,
            DeviceState: self._device_state, Run: self._run, End: self._end, Digests: self._digests,
            Failed: self._failed, Recover: self._recovery.asked, Resume: self._recovery.resume, Agreed: self._agreed,
        }  # fmt: skip

    # --- from the channels ---

    def connect(self, main: Channel) -> None:
        """A main channel has come: the first one, or one that takes the place of another, which may look alive yet."""
        if self._announced is not None:
            self._recovery.replace()
        self._lines.put(MAIN, main)
        self.peer = main.peer
        self._due.expect(ADVISE if self._announced is None else RECOVER, self._clock.now_ns())
        self._source_left.clear()

    @property
    def never_left(self) -> bool:
        """Whether the guest has surely not left its source.

        It was never told Ready, so it cannot have said Run; or it says itself that it has it.
        """
        return self._standing.whereabouts is Whereabouts.SOURCE

    @property
    def is_paused(self) -> bool:
        """Whether its source is gone, and waited for."""
        return self._standing.stage in (Stage.PAUSED, Stage.RECOVER)

    @property
    def may_recover(self) -> bool:
        """Whether a source that comes again is welcome."""
        return self._recoverable and not self.finished.done()

    @property
    def _recoverable(self) -> bool:
        return self._scenario.recovery.timeout > 0 and self._parts is not None

    def attach(self, preempt: Channel) -> None:
        """A preempt channel has come. PeerError when none was announced, or there is one and no other is due."""
        if self._announced is None or self._parts is None or not self._announced.advise.preempt:
            raise PeerError("a preempt channel that was not announced")
        if self._lines.get(PREEMPT) is not None:
            if not self._recoverable:
                raise PeerError("a second preempt channel")
            self.legality.preempt_lost()
        self._lines.put(PREEMPT, preempt)

    def announced(self, channel: Channel, message: Message) -> None:
        """A message begins: may the source say it now?"""
        if type(message) is Failed:
            self._standing.source_has_it = self.legality.states[Role.SOURCE] in _NOT_SAID
        self.legality.said(Role.SOURCE, message, PREEMPT if channel is self._lines.preempt else MAIN)
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
        role = self._lines.role(channel)
        if role is MAIN:
            self._source_left.set()
        if role is None or self.finished.done():
            return
        if role is PREEMPT and self._standing.complete is not None:
            self._lines.forget(role)  # the source closes, and its last word is on its way
            return
        self._lost(role, error or BrokenError(
            f"the source closed the {role.value} connection before the migration was complete "
            f"(stage {self._standing.stage.value}, {self._standing.progress})"
        ))  # fmt: skip

    def _lost(self, role: ChannelRole, error: MigemuError) -> None:
        self._emit(Happening.LOST, detail=f"{role.value}: {error}")
        self._lines.forget(role)
        if role is PREEMPT and self._recoverable:
            self.legality.preempt_lost()  # the source makes another one
        elif self._recoverable and self.legality.lost():
            self._recovery.pause(error)
        elif self._standing.complete is not None:
            self._done()
        else:
            self.fail(error)

    def _done(self) -> None:
        """Complete, verified, and there is nothing more to wait for."""
        if not self.finished.done():
            self.finished.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The migration is over; the first error counts."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def _silent(self, role: ChannelRole) -> None:
        """Nothing has come on a channel for too long."""
        if self.finished.done():
            return
        error = BrokenError(
            f"the source has been silent for {format_time(self._scenario.net.idle_timeout)} (net.idle_timeout) in "
            f"stage {self._standing.stage.value}, {self._standing.progress}; is it stopped, or the network cut?"
        )
        if self._recoverable:
            self._lines.cut(role)
            self._lost(role, error)
        else:
            self.fail(error)

    def _late(self, error: OverdueError) -> None:
        """The source is there, and does not do what it has to."""
        if self._recoverable and not self.finished.done():
            self._lines.cut(MAIN)
            self._lost(MAIN, error)
        else:
            self.fail(error)

    def _look_at_faults(self, now: int) -> None:
        """Faults wait for pages: as long as some come, it is not known that theirs do not."""
        parts = self._parts
        waits = parts is not None and parts.receiver.pages_waited_for > 0
        come = (self._standing.landings, parts.receiver.received.set_pages if parts is not None else 0)
        if not waits or self.legality.states[Role.DESTINATION] is not State.RUNNING:
            self._due.settled(PAGES)
        elif come != self._come or not self._due.is_due(PAGES):
            self._due.expect(PAGES, now)
        self._come = come

    # --- what an operator orders ---

    @property
    def is_held(self) -> bool:
        """Whether an operator has paused it, and no source may come."""
        return self._standing.held

    def pause(self) -> str:
        """Break the connections on purpose, and let no source in until `resume`; what stands still. InputError."""
        self._check_underway()
        if not self._standing.times.run:
            raise InputError(
                f"the guest is at the source (stage {self._standing.stage.value}); migemu cancel ends the attempt"
            )
        if not self._recoverable:
            raise InputError("with recovery.timeout=0 a lost connection is the end of the migration")
        if self.is_held:
            raise InputError("it is paused already; migemu resume ends that")
        self._recovery.hold(BrokenError("an operator has paused it"))
        return (
            f"paused: vCPUs run on where their pages are here ({self._standing.progress}), the others wait. Until "
            "migemu resume no source is let in, and no time runs out here; the source tries for its own "
            "recovery.timeout, unless it is paused too"
        )

    def resume(self) -> str:
        """End an operator's pause: the source may come again. InputError."""
        self._check_underway()
        if not self.is_held:
            raise InputError(f"it is not paused by an operator (stage {self._standing.stage.value})")
        self._recovery.release()
        timeout = format_time(self._scenario.recovery.timeout)
        return f"resumed: the source is waited for, for {timeout} (recovery.timeout)"

    def cancel(self, sure: bool) -> str:
        """End the migration. InputError when that costs something, and who asks is not `sure`."""
        self._check_underway()
        cost = "the guest has not run here, and cannot any more: it is at the source; what has arrived is dropped"
        if self._standing.times.run:
            cost = self._standing.at_stake
            if not sure:
                raise InputError(f"{cost}. To do it all the same say --yes; migemu pause costs nothing")
        self.fail(StoppedError("cancelled by its operator"))
        return f"cancelled: {cost}"

    def _check_underway(self) -> None:
        """InputError when it is over, or there is nothing left to be done."""
        if self.finished.done():
            raise InputError("it has ended already")
        if self._standing.complete is not None:
            raise InputError("it is complete, and verified; nothing is left to be done")

    # --- stages ---

    async def come_back(self, left: Left) -> None:
        """Go on where a destination that is gone has left off, and wait for the source. What `assemble` raises."""
        self._announced = self._standing.announced = Announced(left.advise, self._scenario.limits)
        self._standing.began(advise=self._clock.now_ns())
        self._emit(Happening.MEMORY, count=self._announced.pages, detail=self._announced.geometry.name)
        parts = await self._assemble(self._announced)
        give_back(left, parts)
        self._recovery.pause(BrokenError("this destination was started again, from its checkpoint"))
        if left.ran:
            parts.memory.faults.register(self)
            self._standing.began(run=self._clock.now_ns())
            parts.vcpus.start()

    def _advised(self, advise: Advise) -> None:
        self._announced = self._standing.announced = Announced(advise, self._scenario.limits)
        self._standing.began(advise=self._clock.now_ns())
        self._due.settled(ADVISE)
        self._emit(Happening.MEMORY, count=self._announced.pages, detail=self._announced.geometry.name)
        self._enter(Stage.ADVISE)
        self._spawn(self._prepare(self._announced))

    async def _prepare(self, announced: Announced) -> None:
        await self._assemble(announced)
        self._say(Ready(self.migration))
        self._due.expect(RUN, self._clock.now_ns())

    async def _assemble(self, announced: Announced) -> Parts:
        parts = self._parts = self._standing.parts = await assemble(
            self._scenario, announced, self._clock, self._tracer, allocate=self._allocate,
            accelerator=self._accelerator, make_receiver=self._make_receiver, finish=self._finish, spawn=self._spawn,
            ask=lambda run: self._say(Request(*run)),
        )  # fmt: skip
        self.limits.geometry, self.limits.memory_pages = announced.geometry, announced.pages
        arrivals = self._arrivals = Arrivals(parts, self._standing, self._clock, self._tracer, self._say)
        self._received[Page], self._received[Zero] = arrivals.page, arrivals.zero
        self._standing.began(ready=self._clock.now_ns())
        return parts

    def _listen(self, _listen: Listen) -> None:
        assert self._announced is not None
        self._announced.begin()
        self._ready().memory.faults.register(self)
        self._recovery.listens()
        self._enter(Stage.LISTEN)

    def _device_state(self, part: DeviceState, payload: bytes = b"") -> None:
        assert self._announced is not None
        self._announced.device_state(part.offset, payload)
        self._due.progressed(RUN, self._clock.now_ns())

    def _run(self, _run: Run) -> None:
        assert self._announced is not None
        self._announced.may_run()
        self._due.settled(RUN)
        self._standing.began(run=self._clock.now_ns())
        self._enter(Stage.RUN)
        if self._keeping is not None:
            self._keeping.runs()
        self._say(Running())
        self._ready().vcpus.start()

    def _end(self, end: End) -> None:
        parts = self._ready()
        if end.pages != parts.receiver.received.total:
            raise PeerError(f"the source ends after {end.pages} base pages of {parts.receiver.received.total}")
        self._emit(Happening.ENDED, count=end.pages)
        self._standing.ended(end)
        self._verdict.digests_come()
        self._expect_digests()
        self._enter(Stage.END)
        if self._standing.complete is not None:
            self._say(self._standing.complete)
        else:
            self._recovery.ended()

    def _digests(self, digests: Digests, payload: bytes) -> None:
        self._verdict.take(digests, payload)
        if self._verdict.digests_due:
            self._expect_digests()
        else:
            self._due.settled(DIGESTS)
            if self._standing.complete is not None:
                self._due.expect(AGREED, self._clock.now_ns())

    def _expect_digests(self) -> None:
        self._due.expect(DIGESTS, self._clock.now_ns(), self.limits.geometry.largest_bytes)

    def _failed(self, failed: Failed) -> None:
        self._standing.source_has_it &= failed.over
        if failed.over or not self._recoverable:
            raise GaveUpError(with_whereabouts(f"the source gave up: {failed.reason}", self._standing.waiting))
        self.legality.lost()
        self._recovery.pause(PeerError(f"the source refused: {failed.reason}"))

    def _ignore(self, _message: Message) -> None: ...

    def _agreed(self, agreed: Agreed) -> None:
        """The source's last word: the verdict was heard, and its own figures are the same."""
        self._verdict.countersigned(agreed)
        self._standing.agreed = agreed
        self._done()

    # --- faults, and what the receiver wants of this side ---

    def fault_raised(self, fault: MinorFault) -> None:
        """See ports.FaultHandler."""
        self._emit(Happening.FAULTED, fault.page, vcpu=fault.vcpu, write=fault.write)

    def fault_read(self, fault: MinorFault) -> None:
        """See ports.FaultHandler."""
        parts = self._ready()
        try:
            parts.effects.carry(parts.receiver.faulted(fault.page, self._clock.now_ns()))
        except (MigemuError, OSError) as error:
            self.fail(error)

    def _finish(self) -> None:
        self._standing.began(finish=self._clock.now_ns())
        self._ready().effects.look_at_tables()
        self._spawn(self._verify(self._ready()))

    async def _verify(self, parts: Parts) -> None:
        """Compare every byte, tell the source."""
        await self._standing.settled()
        complete = await self._verdict.reach(parts)
        if self.legality.states[Role.SOURCE] is State.END:
            self._say(complete)  # else the source is gone; it will be told when it has come back
            self._due.expect(AGREED, self._clock.now_ns())
        self._enter(Stage.COMPLETED)
        self._standing.complete = complete
        if not complete.verified:
            self.fail(VerificationError(complete.reason))

    # --- the end ---

    async def stop(self) -> None:
        """Stop whatever still runs; from here on a closed connection is no surprise. Safe to call twice."""
        self._standing.is_over = True
        if not self.finished.done():
            self.finished.cancel()
        self._lines.stop_watching()
        for task in list(self._tasks):
            task.cancel()
        if self._parts is not None:
            await self._parts.vcpus.stop()

    def tell_end(self, error: BaseException) -> None:
        """Tell the source why this side ends, if it can still be told; and whether it may come again to another one."""
        ordered = isinstance(error, asyncio.CancelledError | StoppedError)
        returns = ordered and self._keeping is not None and not self._keeping.lost
        self._lines.tell(one_line(error) or "the destination was interrupted", over=not returns)

    async def close(self) -> None:
        """Close the channels, sending what is queued first.

        After the verdict it is the source that closes: a close of ours could overtake the verdict on another channel.
        """
        if self._standing.complete is not None and self._lines.get(MAIN) is not None:
            try:
                async with asyncio.timeout(self._scenario.net.idle_timeout / SECOND):
                    await self._source_left.wait()
            except TimeoutError:
                pass  # it was told; whether it heard is its own to report
        await self._lines.close()

    @property
    def advise(self) -> Advise | None:
        """What the source has announced."""
        return self._announced.advise if self._announced else None

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the guest is, as far as is known here."""
        return self._standing.whereabouts

    @property
    def countersigned(self) -> bool:
        """Whether the source has heard the verdict, as far as is known here."""
        return self._standing.agreed is not None

    @property
    def waiting(self) -> str:
        """The same in a sentence, for an end that is none of the migration's."""
        return self._standing.waiting

    def snapshot(self) -> Snapshot:
        """The migration as it stands."""
        return self._standing.snapshot()

    def outcome(self) -> Outcome:
        """Everything known now."""
        return self._standing.outcome()

    def image(self) -> Iterator[bytes]:
        """The memory as it arrived, as long as the source's image was, in parts. Only after a verdict."""
        return self._ready().verification.image(self._announced.advise.image_bytes if self._announced else 0)

    # --- small things ---

    def _ready(self) -> Parts:
        if self._parts is None:
            raise PeerError("the source went on before the destination was ready")
        return self._parts

    def _say(self, message: Message, payload: bytes | None = None) -> None:
        self.legality.said(Role.DESTINATION, message)
        self._lines.say(message, payload)

    def _enter(self, stage: Stage) -> None:
        """Whatever is lost after the verdict, it stays completed."""
        if self._standing.complete is None:
            self._standing.stage = stage
            self._emit(Happening.STATE, detail=stage.value)

    def _emit(self, event: Happening, *values: Any, **fields: Any) -> None:
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, event, *values, **fields))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task whose failure is the migration's."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self.fail(error)  # MemoryError among them

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(lambda _: work.close())  # it may never have begun
        return task

    def __repr__(self) -> str:
        return f"<Incoming {self.migration[:8]} {self._standing.stage.value}, {self._standing.progress}>"
