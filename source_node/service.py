"""The source's shell: stages, channels, back-pressure. What to send next is decided by the sender.

    connect  Advise ---------> Ready      the destination has the memory
             Listen ---------->           it catches faults
             DeviceState, Run -> Running  the guest stands still in between: the downtime
             Page, Zero ------>           background pieces as long as there is room, urgent ones at once
             <-------- Request
             End, Digests ----> Complete  every byte is compared; then both sides close

Downtime is measured here, from before the first byte of device state until `Running` has come back; it includes one
trip of the return path, as this side cannot know the other's clock.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from random import Random

from migemu.errors import BrokenError, GaveUpError, MigemuError, PeerError, VerificationError, one_line
from migemu.keepalive import keep_alive
from migemu.mm.pages import Level, PieceRun
from migemu.policy.push import push_orders
from migemu.ports import Channel, Clock, Network, SourceMemory, Tracer
from migemu.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import MIB, MS, SECOND, format_time
from migemu.wire.codec import TEXT_BYTES_MAX, Limits
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
from source_node.sender import Sender, SenderStatistics

NODE = "source"
_CHUNK_BYTES = 1 * MIB
_DIGEST_PAGES = 512
#: What sending a run costs besides its bytes, as bytes that would take as long (some 10 us at 4 GB/s): zero runs have
#: none, and the loop has to get its turn all the same.
_RUN_COSTS_BYTES = 40_000
#: How long after a request another one is likely enough to give the loop a turn after each run (assumed).
_HOT_NS = 10 * MS


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What the source knows at the end. Times in ns."""

    verified: bool
    digest: str
    downtime_ns: int
    wire_bytes: int
    sender: SenderStatistics


def _for_the_record(scenario: Scenario) -> str:
    """The scenario as the destination's result shows it; nothing of it, if it is too long to be told."""
    text = json.dumps(scenario.resolved(), ensure_ascii=False)
    return text if len(text.encode(errors="replace")) <= TEXT_BYTES_MAX else "{}"


class _Handler:
    """ChannelHandler of one of the source's channels: judges, then passes on."""

    def __init__(self, source: Source, role: ChannelRole, limits: Limits) -> None:
        self.limits = limits
        self._source = source
        self._role = role

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        self._source.legality.said(Role.DESTINATION, message, self._role)

    def landing(self, page: Page, offset: int) -> memoryview:
        raise PeerError("a destination sends no pages")  # the states have refused it before

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        self._source.received(message)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        self._source.lost(channel, error)


class Source:
    """One outgoing migration."""

    def __init__(
        self, scenario: Scenario, network: Network, clock: Clock, memory: SourceMemory, migration: str,
        tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        """`migration` names the migration: 32 hexadecimal digits, unlike any other."""
        self.legality = Legality()
        self.stage = "setup"
        self._scenario = scenario
        self._network = network
        self._clock = clock
        self._memory = memory
        self._migration = migration
        self._tracer = tracer
        self._geometry = memory.geometry
        self._pages = memory.memory_bytes // self._geometry.page_bytes
        order = push_orders.create(
            scenario.push.order, self._geometry, self._pages, Random(f"{scenario.scenario.seed} push")
        )
        self._sender = Sender(
            self._geometry, self._pages, order,
            piece=scenario.push.piece, run_pages_max=max(1, scenario.push.run // self._geometry.page_bytes),
            preempt=scenario.pull.preempt, resend=scenario.pull.resend,
        )  # fmt: skip
        self._limits = Limits(scenario.limits.frame_bytes_max, geometry=self._geometry, memory_pages=self._pages)
        self._main: Channel | None = None
        self._preempt: Channel | None = None
        self._awaited: dict[type[Message], asyncio.Future[Message]] = {}
        self._work: asyncio.Task[Complete] | None = None
        self._error: MigemuError | None = None
        self._requested_ns = -_HOT_NS
        self._answers_itself = scenario.pull.sender == "push"
        self._later: asyncio.Task[None] | None = None
        self._done = False
        self._downtime_ns = 0
        self._wire_bytes = 0

    async def run(self, host: str, port: int) -> SourceOutcome:
        """Migrate to the destination at `host:port`. Any MigemuError; VerificationError when memory differs."""
        watch: asyncio.Task[None] | None = None
        try:
            self._main = await self._network.connect(host, port, _Handler(self, ChannelRole.MAIN, self._limits))
            alive = keep_alive(
                self._clock,
                self._main,
                self._scenario.net.idle_timeout,
                lambda: self._say(self._channel(), Alive()),
                self._silent,
            )
            watch = asyncio.get_running_loop().create_task(alive)
            self._work = asyncio.get_running_loop().create_task(self._migrate(host, port))
            complete = await self._work
        except (MigemuError, asyncio.CancelledError) as error:
            self._tell(one_line(error) or "the source was interrupted")
            raise self._error or error from None
        finally:
            if watch is not None:
                watch.cancel()
            self._done = True
            await self._close()
        if not complete.verified:
            raise VerificationError(f"the destination does not hold the source's memory: {complete.reason}")
        return SourceOutcome(True, complete.digest, self._downtime_ns, self._sent_bytes(), self._sender.statistics())

    async def _migrate(self, host: str, port: int) -> Complete:
        scenario = self._scenario
        main = self._channel()
        self._say(main, Hello(ChannelRole.MAIN, self._migration))
        if self._tracer is not None:
            self._tracer.emit(
                Event(self._clock.now_ns(), NODE, Happening.MEMORY, count=self._pages, detail=self._geometry.name)
            )
        self._stage("advise")
        self._say(main, Advise(
            self._geometry.name, self._memory.memory_bytes, self._memory.image_bytes, scenario.device.state,
            scenario.pull.preempt, _for_the_record(scenario),
        ))  # fmt: skip
        await self._until(Ready)
        if scenario.pull.preempt:
            handler = _Handler(self, ChannelRole.PREEMPT, self._limits)
            self._preempt = await self._network.connect(host, port, handler)
            self._say(self._preempt, Hello(ChannelRole.PREEMPT, self._migration), ChannelRole.PREEMPT)
        self._stage("listen")
        self._say(main, Listen())
        stopped_ns = self._clock.now_ns()  # the guest stands still from here on
        await self._send_device_state(main)
        self._say(main, Run())
        self._stage("run")
        push = asyncio.get_running_loop().create_task(self._push(main))
        try:
            await self._until(Running)
            self._downtime_ns = self._clock.now_ns() - stopped_ns
            await push
        finally:
            push.cancel()
            if self._later is not None:
                self._later.cancel()
        self._stage("end")
        self._say(main, End(self._pages, self._sent_bytes(), self._downtime_ns))
        for first in range(0, self._pages, self._geometry.pages(Level.PUD)):
            self._say(main, Digests(first), payload=await self._digests(first))
            await main.drain()
        complete = await self._until(Complete)
        assert isinstance(complete, Complete)
        return complete

    async def _send_device_state(self, main: Channel) -> None:
        blob = memoryview(bytes(min(_CHUNK_BYTES, self._scenario.device.state)))
        for offset in range(0, self._scenario.device.state, _CHUNK_BYTES):
            chunk = blob[: min(_CHUNK_BYTES, self._scenario.device.state - offset)]
            self._say(main, DeviceState(offset), payload=chunk)
            await main.drain()

    async def _push(self, main: Channel) -> None:
        """Background pieces (and urgent ones where there is no preempt channel) while there is room for them."""
        push, sender, clock = self._scenario.push, self._sender, self._clock
        next_ns = clock.now_ns() + push.hold
        turn_bytes = 0
        while not sender.finished:
            if (push.hold or push.rate) and next_ns > clock.now_ns():
                await clock.sleep_until(next_ns)
            if self._answers_itself:
                self._send_urgent()
            answer = sender.next_urgent(ChannelRole.MAIN)
            run = answer or sender.next_run(ChannelRole.MAIN)
            if run is None and self._later is not None:
                await self._later
                continue
            if run is None:
                break
            sent_bytes = self._send_run(main, run, ChannelRole.MAIN, urgent=answer is not None)
            if push.rate:
                next_ns = max(next_ns, clock.now_ns() - SECOND // 100) + sent_bytes * 8 * SECOND // push.rate
            turn_bytes += sent_bytes + _RUN_COSTS_BYTES
            if not main.writable:
                await main.drain()
                turn_bytes = 0
            elif turn_bytes >= self._scenario.net.read or clock.now_ns() - self._requested_ns < _HOT_NS:
                await asyncio.sleep(0)  # a request may have come
                turn_bytes = 0

    def _send_urgent(self) -> None:
        """Answer requests at once, unless whoever does it waits for room on the main channel: then it is done first.

        The push loop does it where there is one channel, or `pull.sender` says so. What the preempt channel has no room
        for goes when it has.
        """
        role = ChannelRole.MAIN if self._preempt is None else ChannelRole.PREEMPT
        channel = self._channel() if self._preempt is None else self._preempt
        if (role is ChannelRole.MAIN or self._answers_itself) and not self._channel().writable:
            return
        while self._later is None and (run := self._sender.next_urgent(role)) is not None:
            self._send_run(channel, run, role, urgent=True)
            if role is ChannelRole.PREEMPT and not channel.writable:
                self._later = asyncio.get_running_loop().create_task(self._send_later(channel))

    async def _send_later(self, channel: Channel) -> None:
        try:
            await channel.drain()
            self._later = None
            self._send_urgent()
        except MigemuError as error:
            self._fail(error)

    def _send_run(self, channel: Channel, run: PieceRun, role: ChannelRole, urgent: bool = False) -> int:
        """Send the pieces of a run, zero pieces without their bytes; the payload bytes sent."""
        sent_bytes = 0
        for part, payload in self._memory.read(run):
            if self._tracer is not None:  # before it goes, or in a merged trace it could follow its own arrival
                pages = part.count * self._geometry.pages(part.level)
                detail = "zero" if payload is None else None
                self._tracer.emit(Event(
                    self._clock.now_ns(), NODE, Happening.SENT, part.first, pages, part.level, urgent=urgent,
                    detail=detail,
                ))  # fmt: skip
            if payload is None:
                self._say(channel, Zero(*part, urgent), role)
            else:
                self._say(channel, Page(*part, urgent), role, payload)
                sent_bytes += len(payload)
        return sent_bytes

    async def _digests(self, first: int) -> bytes:
        """The digests of one hugetlb page, in slices, so that the loop is never held for long."""
        digests = bytearray()
        end = first + self._geometry.pages(Level.PUD)
        for start in range(first, end, _DIGEST_PAGES):
            digests += self._memory.digests(start, min(_DIGEST_PAGES, end - start))
            await asyncio.sleep(0)
        return bytes(digests)

    # --- what comes back ---

    def received(self, message: Message) -> None:
        """A message of the destination, judged already."""
        if self._done:
            return  # this side has given up, or been told the verdict
        if isinstance(message, Request):
            self._requested_ns = self._clock.now_ns()
            if self._tracer is not None:
                pages = message.count * self._geometry.pages(message.level)
                self._tracer.emit(Event(self._requested_ns, NODE, Happening.ASKED, message.first, pages, message.level))
            self._sender.receive(message)
            try:
                self._send_urgent()
            except MigemuError as error:
                self._fail(error)
        elif isinstance(message, Failed):
            self._fail(GaveUpError(f"the destination gave up: {message.reason}"))
        elif isinstance(message, Complete | Ready | Running):
            self._done = isinstance(message, Complete)
            waiter = self._awaited.setdefault(type(message), asyncio.get_running_loop().create_future())
            if not waiter.done():
                waiter.set_result(message)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """A connection is over."""
        if self._done:
            return
        which = "preempt" if channel is self._preempt else "main"
        self._trace_lost(which, error)
        self._fail(error or BrokenError(
            f"the destination closed the {which} connection before the migration was complete "
            f"(stage {self.stage}); the source's image is unchanged"
        ))  # fmt: skip

    def _trace_lost(self, which: str, error: MigemuError | None) -> None:
        if self._tracer is not None:
            detail = f"{which}: {error or 'closed by the peer'}"
            self._tracer.emit(Event(self._clock.now_ns(), NODE, Happening.LOST, detail=detail))

    def _fail(self, error: MigemuError) -> None:
        """The migration is over; the first error counts."""
        if self._error is None:
            self._error = error
        if self._work is not None:
            self._work.cancel()
        for channel in (self._main, self._preempt):
            if channel is not None:
                channel.abort()

    async def _until(self, kind: type[Message]) -> Message:
        """Wait for a message of the destination."""
        if self._error is not None:
            raise self._error
        waiter = self._awaited.setdefault(kind, asyncio.get_running_loop().create_future())
        return await waiter

    def _silent(self) -> None:
        idle = format_time(self._scenario.net.idle_timeout)
        self._fail(
            BrokenError(
                f"the destination has been silent for {idle} (net.idle_timeout) in stage {self.stage}; "
                "is it stopped, or the network cut?"
            )
        )

    # --- small things ---

    def _channel(self) -> Channel:
        assert self._main is not None
        return self._main

    def _say(
        self, channel: Channel, message: Message, role: ChannelRole = ChannelRole.MAIN, payload: object = None
    ) -> None:
        if self._error is not None:
            raise self._error
        self.legality.said(Role.SOURCE, message, role)
        channel.send(message, payload)  # type: ignore[arg-type]

    def _stage(self, stage: str) -> None:
        self.stage = stage
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, Happening.STATE, detail=stage))

    def _sent_bytes(self) -> int:
        return sum(channel.statistics().sent_bytes for channel in (self._main, self._preempt) if channel is not None)

    def _tell(self, reason: str) -> None:
        """Tell the destination why, if it can still be told."""
        if self._main is not None and self._error is None:
            try:
                self._main.send(Failed(reason))
            except MigemuError:
                pass

    async def _close(self) -> None:
        for channel in (self._preempt, self._main):
            if channel is not None:
                await channel.close()

    def __repr__(self) -> str:
        return f"<Source {self.stage}, {self._sender!r}>"
