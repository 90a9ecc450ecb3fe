"""Carries out what the sender decides: pieces with their bytes onto the channels, as fast as there is room.

Two who send: the push loop, for background pieces and for urgent ones where there is one channel; and whoever has read
a request, at once (`urgent`), unless `pull.sender` leaves it to the loop.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from migemu.errors import BrokenError, MigemuError, UnreadableError
from migemu.mm.pages import PieceRun
from migemu.ports import Channel, Clock, SourceMemory, Tracer
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import MS, SECOND
from migemu.wire.codec import Sized
from migemu.wire.messages import MAIN_CHANNEL, PREEMPT_CHANNEL, ChannelId, Page, Zero
from migemu.wire.seal import sealed
from source_node.conversation import Conversation
from source_node.core.sender import Sender

NODE: Final = "source"
#: What sending a run costs besides its bytes, as bytes that would take as long (some 10 us at 4 GB/s): zero runs have
#: none, and the loop has to get its turn all the same.
_RUN_COSTS_BYTES: Final = 40_000
#: How long after a request another one is likely enough to give the loop a turn after each run (assumed).
_HOT_NS: Final = 10 * MS


class PushOwner(Protocol):
    """The migration that is pushed."""

    def fail(self, error: Exception) -> None:
        """What nobody here can mend has happened where nobody waits for an answer: the migration is over."""


class Pusher:
    """Carries out what one sender decides; says it in `talk`."""

    def __init__(
        self, owner: PushOwner, scenario: Scenario, sender: Sender, memory: SourceMemory, clock: Clock,
        tracer: Tracer | None, talk: Conversation,
    ) -> None:  # fmt: skip
        self.pushing = False
        self._scenario = scenario
        self._sender = sender
        self._memory = memory
        self._clock = clock
        self._tracer = tracer
        self._talk = talk
        self._say, self._channel = talk.say, talk.channels.get
        self._owner = owner
        self._answers_itself = scenario.pull.sender == "push"
        self._digests = scenario.integrity.digests
        self._requested_ns = -_HOT_NS
        self._later: asyncio.Task[None] | None = None

    def requested(self) -> None:
        """A request has come: answer it, unless the push loop does."""
        self._requested_ns = self._clock.now_ns()
        self.urgent()

    def urgent(self) -> None:
        """Answer requests at once, unless whoever does it waits for room on the main channel: then it is done first.

        The push loop does it where there is one channel, or `pull.sender` says so. What the preempt channel has no room
        for goes when it has.
        """
        channel, channel_id = self._channel(PREEMPT_CHANNEL), PREEMPT_CHANNEL
        if channel is None or self._sender.urgent_channel == MAIN_CHANNEL:
            channel, channel_id = self._channel(MAIN_CHANNEL), MAIN_CHANNEL
        if channel is None:
            return
        is_main = channel_id == MAIN_CHANNEL
        if (is_main or self._answers_itself) and self.pushing:
            main = self._channel(MAIN_CHANNEL)
            if main is None or not main.writable:
                return
        while self._later is None and (run := self._sender.next_urgent(channel_id)) is not None:
            self._send(run, channel_id, urgent=True)
            if not is_main and not channel.writable:
                self._later = asyncio.get_running_loop().create_task(self._when_there_is_room(channel))

    async def _when_there_is_room(self, preempt: Channel) -> None:
        try:
            await preempt.drain()
        except BrokenError:
            pass  # who tends the channel knows of its end
        self._later = None
        try:
            self.urgent()
        except UnreadableError as error:
            self._owner.fail(error)
        except MigemuError:
            pass  # as above

    async def push(self, main: Channel) -> None:
        """Background pieces (and urgent ones where there is no preempt channel) while there is room for them."""
        push, sender, clock = self._scenario.push, self._sender, self._clock
        next_ns = clock.now_ns() + push.hold
        turn_bytes = 0
        self.pushing = True
        try:
            while not sender.finished:
                if (push.hold or push.rate) and next_ns > clock.now_ns():
                    await clock.sleep_until(next_ns)
                if self._answers_itself:
                    self.urgent()
                answer = sender.next_urgent(MAIN_CHANNEL)
                run = answer or sender.next_run(MAIN_CHANNEL)
                if run is None and self._later is not None:
                    await self._later
                    continue
                if run is None:
                    break
                sent_bytes = self._send(run, MAIN_CHANNEL, urgent=answer is not None)
                if push.rate:
                    next_ns = max(next_ns, clock.now_ns() - SECOND // 100) + sent_bytes * 8 * SECOND // push.rate
                turn_bytes += sent_bytes + _RUN_COSTS_BYTES
                if not main.writable:
                    await self._talk.drain(main)
                    turn_bytes = 0
                elif turn_bytes >= self._scenario.net.read or clock.now_ns() - self._requested_ns < _HOT_NS:
                    await asyncio.sleep(0)  # a request may have come
                    turn_bytes = 0
        finally:
            self.pushing = False
            if self._later is not None:
                self._later.cancel()
                self._later = None
        self.urgent()  # what was left to the loop

    def _send(self, run: PieceRun, channel_id: ChannelId, *, urgent: bool) -> int:
        """Send the pieces of a run, zero pieces without their bytes; the payload bytes sent."""
        sent_bytes = 0
        for part, payload in self._memory.read(run):
            if self._tracer is not None:  # before it goes, or in a merged trace it could follow its own arrival
                pages = part.count * self._memory.geometry.pages(part.level)
                detail = "zero" if payload is None else None
                self._tracer.emit(Event(
                    self._clock.now_ns(), NODE, Happening.SENT, part.first, pages, part.level, urgent=urgent,
                    detail=detail,
                ))  # fmt: skip
            digests = self._seal(part, urgent, payload) if self._digests else b""
            if payload is None:
                self._say(Zero(*part, urgent, digests), channel_id, None)
            else:
                self._say(Page(*part, urgent, digests), channel_id, payload)
                sent_bytes += len(payload)
        return sent_bytes

    def _seal(self, part: PieceRun, urgent: bool, payload: Sized | None) -> bytes:
        if payload is None:
            return sealed(part, urgent)
        return sealed(part, urgent, self._memory.digests_of(payload))

    def __repr__(self) -> str:
        return f"<Pusher {'pushing' if self.pushing else 'idle'}, {self._sender!r}>"
