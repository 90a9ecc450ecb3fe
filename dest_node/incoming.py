"""One incoming migration at the destination: its stages, from Advise to the verdict.

Stages, with QEMU's names: advise (memory is allocated) - listen (faults are caught) - run (the guest runs, pieces
arrive, faults are asked for) - end (everything is here; every byte is compared with the source's digests).

Bytes arrive straight in their place; the receiver is told and answers with effects, which `Effects` carries out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from dest_node.announced import Announced
from dest_node.effects import NODE, Effects
from dest_node.guest import Guest
from dest_node.receiver import Receiver
from dest_node.verify import Verification
from migemu.errors import BrokenError, GaveUpError, InputError, MigemuError, PeerError, VerificationError
from migemu.keepalive import keep_alive
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun
from migemu.outcome import Outcome, Snapshot, Stage, Times
from migemu.policy.collapse import collapse_policies, promises
from migemu.ports import Channel, Clock, GuestMemory, Landing, Tracer
from migemu.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import KIB, SECOND, format_time
from migemu.wire.codec import Limits
from migemu.wire.messages import (
    Advise,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
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

Allocate = Callable[[Geometry, int], Awaitable[GuestMemory]]
_SCRAP_BYTES = 64 * KIB
_MAP_CELLS = 512


class Parts(NamedTuple):
    """What exists once the memory does."""

    memory: GuestMemory
    receiver: Receiver
    effects: Effects
    guest: Guest
    verification: Verification


class Incoming:
    """The destination's side of one migration; the door and its visitors are in service.py."""

    def __init__(
        self, scenario: Scenario, clock: Clock, allocate: Allocate, read_text: Callable[[str], str], limits: Limits,
        main: Channel, migration: str, tracer: Tracer | None = None, make_receiver: Callable[..., Receiver] = Receiver,
    ) -> None:  # fmt: skip
        """`limits` are those of the decoders of all channels; the memory's size is filled in when it is known."""
        self.legality, self.migration = Legality(), migration
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._scenario = scenario
        self._clock, self._allocate = clock, allocate
        self._make_receiver, self._read_text = make_receiver, read_text
        self._limits, self._main = limits, main
        self._preempt: Channel | None = None
        self._tracer = tracer
        self._stage = Stage.SETUP
        self._times = Times()
        self._announced: Announced | None = None
        self._parts: Parts | None = None
        self._page_bytes = limits.geometry.page_bytes
        self._payload_bytes = self._downtime_ns = 0
        self._first_piece_ns = self._last_piece_ns = 0
        self._complete: Complete | None = None
        self._scrap = memoryview(bytearray(_SCRAP_BYTES))
        self._digests: asyncio.Queue[tuple[PageIndex, bytes]] = asyncio.Queue()
        self._source_left = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}  # a set would have no order
        self._received: dict[type[Message], Callable[..., None]] = {
            Page: self._page, Zero: self._zero, Hello: self._ignore, Alive: self._ignore, Advise: self._advised,
            Listen: self._listen, DeviceState: self._device_state, Run: self._run, End: self._end,
            Digests: self._digest, Failed: self._failed,
        }  # fmt: skip

    # --- from the channels ---

    def attach(self, preempt: Channel) -> None:
        """The preempt channel has come. PeerError when none was announced, or a second one comes."""
        if self._announced is None or not self._announced.advise.preempt or self._preempt is not None:
            raise PeerError("a preempt channel that was not announced, or a second one")
        self._preempt = preempt

    def announced(self, channel: Channel, message: Message) -> None:
        """A message begins: may the source say it now?"""
        role = ChannelRole.PREEMPT if channel is self._preempt else ChannelRole.MAIN
        self.legality.said(Role.SOURCE, message, role)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """Where payload byte `offset` of `page` belongs: in its place, or in scrap if its base page came before."""
        parts = self._ready()
        page_bytes = self._page_bytes
        at = page.first + offset // page_bytes
        within = offset % page_bytes
        until = parts.receiver.fresh_until(at, page.first + page.count * self._limits.geometry.pages(page.level))
        if until > at:
            return parts.memory.landing(at, until - at)[within:]
        return self._scrap[: page_bytes - within]

    def received(self, message: Message, payload: bytes) -> None:
        """A message of the source, judged already."""
        arguments = (message, payload) if payload else (message,)
        try:
            self._received[type(message)](*arguments)
        except (MigemuError, OSError) as error:
            self.fail(error)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """A connection is over."""
        if channel is self._main:
            self._source_left.set()
        if self.finished.done():
            return
        which = "preempt" if channel is self._preempt else "main"
        self._emit(Happening.LOST, detail=f"{which}: {error or 'closed by the peer'}")
        ended = f"(stage {self._stage.value}, {self._progress()})"
        self.fail(
            error or BrokenError(f"the source closed the {which} connection before the migration was complete {ended}")
        )

    def fail(self, error: BaseException) -> None:
        """The migration is over; the first error counts."""
        if not self.finished.done():
            self.finished.set_exception(error)

    # --- stages ---

    def _advised(self, advise: Advise) -> None:
        self._announced = Announced(advise, self._scenario.limits)
        self._times = self._times._replace(advise=self._clock.now_ns())
        self._emit(Happening.MEMORY, count=self._announced.pages, detail=self._announced.geometry.name)
        self._enter(Stage.ADVISE)
        self._spawn(self._prepare(self._announced))

    async def _prepare(self, announced: Announced) -> None:
        geometry = announced.geometry
        memory = await self._allocate(geometry, announced.advise.memory_bytes)
        try:
            guest = Guest(self._scenario, memory, self._clock, self._read_text, self._tracer)
        except (ValueError, OSError) as error:
            raise InputError(f"guest.workload={self._scenario.guest.workload}: {error}") from None
        policy = collapse_policies.create(self._scenario.collapse.policy, geometry)
        self._emit(Happening.POLICY, detail=" ".join((self._scenario.collapse.policy, *promises(policy))))
        costs = self._scenario.costs.model(geometry, self._scenario.guest.vcpus)
        receiver = self._make_receiver(
            geometry, announced.pages, policy, urgent_piece=self._scenario.pull.piece, hgm=self._scenario.memory.hgm,
            collapse_ns=costs.collapse_ns, call_ns_max=self._scenario.net.idle_timeout // 4)  # fmt: skip
        effects = Effects(receiver, memory, costs, self._clock, self._tracer, self._ask, self._finish, self._spawn)
        self._parts = Parts(memory, receiver, effects, guest, Verification(memory, guest.ledger))
        self._page_bytes = geometry.page_bytes
        self._limits.geometry, self._limits.memory_pages = geometry, announced.pages
        self._times = self._times._replace(ready=self._clock.now_ns())
        self._say(Ready())

    def _listen(self, _listen: Listen) -> None:
        self._ready().memory.on_fault(self._slept, self._faulted)
        self._enter(Stage.LISTEN)

    def _device_state(self, part: DeviceState, payload: bytes = b"") -> None:
        assert self._announced is not None
        self._announced.device_state(part.offset, payload)

    def _run(self, _run: Run) -> None:
        assert self._announced is not None
        self._announced.may_run()
        self._times = self._times._replace(run=self._clock.now_ns())
        self._enter(Stage.RUN)
        self._say(Running())
        self._ready().guest.start()

    def _page(self, page: Page) -> None:
        self._payload_bytes += page.count * self._limits.geometry.size(page.level)
        self._arrived(PieceRun(page.first, page.count, page.level), page.urgent, zero=False)

    def _zero(self, zero: Zero) -> None:
        self._arrived(PieceRun(zero.first, zero.count, zero.level), zero.urgent, zero=True)

    def _arrived(self, run: PieceRun, urgent: bool, zero: bool) -> None:
        self._ready().effects.arrived(run, urgent, zero)
        self._last_piece_ns = self._clock.now_ns()
        if not self._first_piece_ns:
            self._first_piece_ns = self._last_piece_ns

    def _end(self, end: End) -> None:
        parts = self._ready()
        self._emit(Happening.ENDED, count=end.pages)
        if end.pages != parts.receiver.received.total:
            raise PeerError(f"the source ends after {end.pages} base pages of {parts.receiver.received.total}")
        self._downtime_ns = end.downtime_ns
        self._enter(Stage.END)
        parts.effects.carry(parts.receiver.ended(self._clock.now_ns()))

    def _digest(self, digests: Digests, payload: bytes) -> None:
        self._digests.put_nowait((digests.first, payload))

    def _failed(self, failed: Failed) -> None:
        raise GaveUpError(f"the source gave up: {failed.reason}")

    def _ignore(self, _message: Message) -> None:
        pass

    # --- faults, and what the receiver wants of this side ---

    def _slept(self, vcpu: int, page: PageIndex, write: bool) -> None:
        self._emit(Happening.FAULTED, page, vcpu=vcpu, write=write)

    def _faulted(self, _vcpu: int, page: PageIndex, _write: bool) -> None:
        """A minor fault event."""
        parts = self._ready()
        try:
            parts.effects.carry(parts.receiver.faulted(page, self._clock.now_ns()))
        except (MigemuError, OSError) as error:
            self.fail(error)

    def _ask(self, run: PieceRun) -> None:
        self._say(Request(*run))

    def _finish(self) -> None:
        self._times = self._times._replace(finish=self._clock.now_ns())
        self._ready().effects.look_at_tables()
        self._spawn(self._verify(self._ready()))

    async def _verify(self, parts: Parts) -> None:
        """Stop the guest, compare every byte, tell the source, be done."""
        await parts.guest.stop()
        if (error := parts.guest.error) is not None:
            raise error
        for expected in range(0, parts.receiver.received.total, self._limits.geometry.pages(Level.PUD)):
            first, digests = await self._digests.get()
            if first != expected:
                raise PeerError(f"digests of page {first} came where those of page {expected} were due")
            await parts.verification.compare(first, digests)
        reason = parts.verification.problem
        self._complete = Complete(reason is None, parts.verification.digest, reason or "")
        self._say(self._complete)
        self._enter(Stage.COMPLETED)
        if reason is not None:
            self.fail(VerificationError(reason))
        elif not self.finished.done():
            self.finished.set_result(None)

    # --- the end ---

    async def stop(self) -> None:
        """Stop whatever still runs; from here on a closed connection is no surprise. Safe to call twice."""
        if not self.finished.done():
            self.finished.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._parts is not None:
            await self._parts.guest.stop()

    def tell(self, reason: str) -> None:
        """Tell the source why, if it can still be told."""
        try:
            self._main.send(Failed(reason))
        except MigemuError:
            pass

    async def close(self) -> None:
        """Close the channels, sending what is queued first.

        After the verdict it is the source that closes: a close of ours could overtake the verdict on another channel.
        """
        if self._complete is not None:
            try:
                async with asyncio.timeout(self._scenario.net.idle_timeout / SECOND):
                    await self._source_left.wait()
            except TimeoutError:
                pass  # it was told; whether it heard is its own to report
        for channel in (self._preempt, self._main):
            if channel is not None:
                await channel.close()

    def silent(self) -> None:
        """Nothing has come from the source for too long."""
        self.fail(
            BrokenError(
                f"the source has been silent for {format_time(self._scenario.net.idle_timeout)} (net.idle_timeout) in "
                f"stage {self._stage.value}, {self._progress()}; is it stopped, or the network cut?"
            )
        )

    async def watch(self) -> None:
        """Keep the connection from looking dead, and fail when the source's does."""
        idle_ns = self._scenario.net.idle_timeout
        await keep_alive(self._clock, self._main, idle_ns, lambda: self._say(Alive()), self.silent)

    def snapshot(self) -> Snapshot:
        """The migration as it stands."""
        channels = [channel.statistics() for channel in (self._main, self._preempt) if channel is not None]
        parts = self._parts
        return Snapshot(
            now_ns=self._clock.now_ns(),
            stage=self._stage,
            geometry=self._limits.geometry,
            memory_bytes=self._announced.advise.memory_bytes if self._announced else 0,
            payload_bytes=self._payload_bytes,
            wire_bytes=sum(channel.received_bytes for channel in channels),
            receiver=parts.receiver.statistics() if parts else None,
            leaves=parts.memory.leaves() if parts else {},
            table_bytes=parts.effects.look_at_tables() if parts else 0,
            table_bytes_max=parts.effects.table_bytes_max if parts else 0,
            times=self._times._replace(first_piece=self._first_piece_ns, last_piece=self._last_piece_ns),
            cells=parts.receiver.overview(_MAP_CELLS) if parts else "",
        )

    def outcome(self) -> Outcome:
        """Everything known now."""
        parts, complete = self._parts, self._complete
        advise = self._announced.advise if self._announced else None
        blocktime = parts.guest.blocktime if parts else None
        return Outcome(
            snapshot=self.snapshot(),
            verified=bool(complete and complete.verified),
            digest=complete.digest if complete else "",
            downtime_ns=self._downtime_ns,
            source_scenario=advise.scenario if advise else "{}",
            image_bytes=advise.image_bytes if advise else 0,
            blocktime=blocktime.statistics() if blocktime else None,
            histogram=blocktime.latency.histogram() if blocktime else {},
            reads=parts.guest.ledger.reads if parts else 0,
            writes=parts.guest.ledger.writes if parts else 0,
            unchecked=parts.guest.ledger.unrecorded if parts else 0,
            collapse_ns=parts.effects.collapse_ns if parts else 0,
            collapse_stall_ns_max=parts.effects.collapse_stall_ns_max if parts else 0,
            stalls=parts.guest.stalls.statistics() if parts and parts.guest.stalls else None,
        )

    def image(self) -> Iterator[bytes]:
        """The memory as it arrived, as long as the source's image was, in parts. Only after a verdict."""
        image_bytes = self._announced.advise.image_bytes if self._announced else 0
        return self._ready().verification.image(image_bytes)

    # --- small things ---

    def _ready(self) -> Parts:
        if self._parts is None:
            raise PeerError("the source went on before the destination was ready")
        return self._parts

    def _say(self, message: Message) -> None:
        self.legality.said(Role.DESTINATION, message)
        self._main.send(message)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._emit(Happening.STATE, detail=stage.value)

    def _progress(self) -> str:
        if self._parts is None:
            return "nothing received"
        received = self._parts.receiver.received
        return f"{received.set_pages} of {received.total} base pages received"

    def _emit(self, event: Happening, *values: Any, **fields: Any) -> None:
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, event, *values, **fields))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task whose failure is the migration's."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self.fail(error)  # MemoryError among them

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def __repr__(self) -> str:
        return f"<Incoming {self.migration[:8]} {self._stage.value}, {self._progress()}>"
