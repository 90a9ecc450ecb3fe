"""What is said to the destination and heard from it: judged, awaited, over whichever connections there are.

Rules
    1. Every message, in and out, is judged by the tables of the protocol before it counts.
    2. What is heard is kept until somebody waits for it, once; a lost main connection takes it away (`forget`).
    3. After the verdict, or once this side has given up, nothing is heard any more.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from migemu.errors import BrokenError, GaveUpError, MigemuError, OverdueError, PeerError
from migemu.mm.pages import Geometry, PageBitmap
from migemu.ports import Channel, Clock, Network
from migemu.scenario.net import NetSettings
from migemu.units import format_time
from migemu.wire.bitmap import BitmapReader
from migemu.wire.codec import Sized
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    MAIN_CHANNEL,
    ChannelId,
    Complete,
    Failed,
    Message,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resumed,
    Run,
    Running,
)  # fmt: skip
from migemu.wire.states import Legality, Role
from source_node.channels import SourceChannels

#: What the destination owes besides answers: that it takes in what is sent.
_ROOM: Final = "room for more"
_BITMAP: Final = "ReceivedBitmap"


class Speaker(Protocol):
    """Who speaks with the destination, and decides what becomes of the migration."""

    def requested(self, request: Request) -> None:
        """A fault at the destination asks for pieces; the request lies within the memory."""

    def gave_up(self, error: GaveUpError) -> None:
        """The destination has given up the migration."""

    def lost(self, channel_id: ChannelId, error: MigemuError | None) -> None:
        """The connection of this name is over, or of no use; `error` is None where the peer closed it in order."""


class Conversation:
    """What one migration's source says and hears, over whichever connections there are at the moment."""

    def __init__(self, speaker: Speaker, network: Network, clock: Clock, net: NetSettings, limits: Limits) -> None:
        """`limits` are those of what the destination may send."""
        self.channels = SourceChannels(self, network, clock, net, limits)
        self.over = False
        #: Whether Run has been said: from then on a connection that is refused may be followed by another.
        self.run_said = False
        #: Whether it may have been heard (`doubtful`), and whether it was: something was said that only follows it.
        self.doubtful = self.run_heard = False
        self._legality = Legality()
        self._speaker = speaker
        self._limits = limits
        self._awaited: dict[type[Message], asyncio.Future[Message]] = {}
        self._bitmap: BitmapReader | None = None
        self._clock = clock

    # --- how far it has come ---

    def resumed(self, ran: bool) -> None:
        """It goes on where a source that is gone has said Run; `ran`: and it is known that this was heard."""
        self._legality = Legality.resumed(running=ran)
        self.run_said = self.doubtful = True
        self.run_heard = ran

    def begin_anew(self) -> None:
        """Nobody has heard what was said so far: all begins with Hello again."""
        self._legality = Legality()

    def paused(self) -> None:
        """The main connection is lost: next comes Hello on another one."""
        self._legality.lost()

    def preempt_lost(self) -> None:
        """The preempt connection is lost alone."""
        self._legality.preempt_lost()

    def end(self) -> None:
        """From here on nothing that comes is heard."""
        self.over = True

    # --- out ---

    def main(self) -> Channel:
        """The main channel. BrokenError when it is lost."""
        main = self.channels.get(MAIN_CHANNEL)
        if main is None:
            raise BrokenError("the main connection was lost")
        return main

    def say(self, message: Message, channel_id: ChannelId = MAIN_CHANNEL, payload: Sized | None = None) -> None:
        """Queue a message on one of the connections. BrokenError when that is lost."""
        channel = self.channels.get(channel_id)
        if channel is None:
            raise BrokenError(f"the {channel_id} connection was lost")
        self._legality.said(Role.SOURCE, message, channel_id.role)
        channel.send(message, payload)

    def say_run(self) -> None:
        """The switch: from here on the guest may run at the destination, even if saying so fails."""
        self.run_said = self.doubtful = True
        self.say(Run())

    def give_up(self, reason: str, over: bool = True) -> None:
        """Tell the destination why, if it can still be told; `over`: for good, else another source may go on."""
        if not self.over:
            self._tell(Failed(reason, over))
        self.over = True

    def disown(self, reason: str) -> None:
        """Tell the destination, in the place of Agreed, that its verdict stands for nothing: the image has changed."""
        self._tell(Failed(reason, True))

    def _tell(self, failed: Failed) -> None:
        main = self.channels.get(MAIN_CHANNEL)
        if main is not None:
            try:
                main.send(failed)
            except MigemuError:
                pass

    async def refuse(self, reason: str) -> None:
        """What came over the main connection cannot be: it is lost, and with it the session that waits here."""
        self.over = False
        self.channels.cut(MAIN_CHANNEL)
        self._speaker.lost(MAIN_CHANNEL, PeerError(reason))
        await asyncio.get_running_loop().create_future()

    async def ask_what_is_there(self, sent: PageBitmap | None) -> BitmapReader | None:
        """Recover: which pages have arrived, of those `sent` (None: not known). None: Run was not heard there."""
        geometry: Geometry = self._limits.geometry
        bitmap = self._bitmap = BitmapReader(geometry, self._limits.memory_pages, sent)
        self.say(Recover())
        answer = await self.until(Recover, _BITMAP)
        self._bitmap = None
        if isinstance(answer, Ready):
            self.doubtful = False  # nor will it be any more: other connections than this one are cut there
        return None if isinstance(answer, Ready) else bitmap

    async def until(self, kind: type[Message], answer: str = "", work_bytes: int = 0, answers: int = 1) -> Message:
        """Wait for a message of the destination, as long as that may take; `work_bytes`, `answers`: see `Due`."""
        answer = answer or kind.__name__
        self.channels.due.expect(answer, self._clock.now_ns(), work_bytes, answers)
        message = await self._awaits(kind)
        self.channels.due.settled(answer)
        del self._awaited[kind]
        return message

    async def drain(self, main: Channel) -> None:
        """Wait until the destination has taken in enough of what was sent. BrokenError when the connection is lost."""
        if not main.writable:
            self.channels.due.expect(_ROOM, self._clock.now_ns())
            await main.drain()
            self.channels.due.settled(_ROOM)

    def forget(self) -> None:
        """The main connection is lost: close the others, and wait for nothing that was to come."""
        self.channels.cut_all()
        self._awaited.clear()
        self._bitmap = None

    # --- in ---

    def announced(self, channel_id: ChannelId, message: Message) -> None:
        """A message of the destination begins. PeerError when it may not be said now, or not on this connection."""
        self._legality.said(Role.DESTINATION, message, channel_id.role)

    def received(self, message: Message, payload: bytes) -> None:
        """A message of the destination, judged already."""
        if self.over:
            return
        if isinstance(message, Running | Resumed | ReceivedBitmap | Request | Complete):
            self.run_heard = True
        if isinstance(message, Request):
            self._speaker.requested(message)
        elif isinstance(message, Failed):
            if message.over or not self.run_said:
                self._speaker.gave_up(GaveUpError(f"the destination gave up: {message.reason}"))
            else:
                self.channels.cut(MAIN_CHANNEL)
                self._speaker.lost(MAIN_CHANNEL, PeerError(f"the destination refused: {message.reason}"))
        elif isinstance(message, ReceivedBitmap):
            if self._bitmap is None:
                raise PeerError("a received bitmap came that was not asked for")
            self._bitmap.take(message, payload)
            self.channels.due.progressed(_BITMAP, self._clock.now_ns())
            if self._bitmap.complete:
                self._answered(Recover, message)
        elif isinstance(message, Ready):
            self._answered(Ready if self._bitmap is None else Recover, message)
        elif isinstance(message, Complete):
            if message.verified == bool(message.reason):
                raise PeerError("a verdict came that contradicts itself")
            self.over = True
            self._answered(Complete, message)
        elif isinstance(message, Running | Resumed):
            self._answered(type(message), message)

    def lost(self, channel_id: ChannelId, error: MigemuError | None) -> None:
        """The connection of this name is over; `error` is None where the destination closed it in order."""
        if not self.over:
            self._speaker.lost(channel_id, error)

    def silent(self, channel_id: ChannelId) -> None:
        """See ChannelOwner: the connection is lost."""
        self.channels.cut(channel_id)
        idle = format_time(self.channels.idle_ns)
        self.lost(channel_id, BrokenError(
            f"the destination has been silent for {idle} (net.idle_timeout); is it stopped, or the network cut?"
        ))  # fmt: skip

    def late(self, channel_id: ChannelId, error: OverdueError) -> None:
        """See ChannelOwner: the connection is lost."""
        self.channels.cut(channel_id)
        self.lost(channel_id, error)

    def before_due_check(self, now: int) -> None:
        """See ChannelOwner: what is due is always up to date here."""

    def _awaits(self, kind: type[Message]) -> asyncio.Future[Message]:
        return self._awaited.setdefault(kind, asyncio.get_running_loop().create_future())

    def _answered(self, kind: type[Message], message: Message) -> None:
        waiter = self._awaits(kind)
        if not waiter.done():
            waiter.set_result(message)

    def __repr__(self) -> str:
        return f"<Conversation {self._legality!r}, {self.channels!r}>"
