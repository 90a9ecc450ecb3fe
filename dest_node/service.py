"""The destination's shell: the door, and who comes through it.

A destination serves one migration and is done. Its source may come again, as often as connections break. Whoever
connects has to say within `net.hello_timeout` what it wants: the main channel of a migration, or the preempt channel of
the one that is being served. Everybody else (a stranger, another version, a second source) is told why and shown out;
the door stays open and the migration undisturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dest_node.incoming import Incoming
from dest_node.left import Keeping, Left
from dest_node.parts import Allocate
from dest_node.receiver import Receiver
from migemu.errors import BrokenError, MigemuError, PeerError, one_line
from migemu.outcome import Outcome
from migemu.ports import Channel, Clock, Landing, Listener, Network, Tracer
from migemu.scenario import Scenario
from migemu.units import SECOND, format_time
from migemu.wire.codec import Limits
from migemu.wire.messages import ChannelRole, Failed, Hello, Message, Page


class _Visitor:
    """ChannelHandler of one accepted connection: nobody until it says Hello, then a channel of the migration."""

    def __init__(self, destination: Destination, channel: Channel, limits: Limits) -> None:
        self.limits = limits
        self.channel = channel
        self.incoming: Incoming | None = None
        self._destination = destination
        timeout_s = destination.scenario.net.hello_timeout / SECOND
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._timed_out)

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        if self.incoming is None:
            if not isinstance(message, Hello):
                raise PeerError(f"{type(message).__name__} came before Hello")
            self.incoming = self._destination.admit(channel, message)
        self.incoming.announced(channel, message)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        assert self.incoming is not None
        return self.incoming.landing(page, offset)

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        assert self.incoming is not None
        self._timer.cancel()
        self.incoming.received(message, payload)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        self._timer.cancel()
        self._destination.left(self)
        if self.incoming is not None:
            self.incoming.lost(channel, error)
        else:
            self._destination.turned_away(channel, error or BrokenError("it left without saying Hello"))

    def leave(self) -> None:
        """The channel was closed from here."""
        self._timer.cancel()
        self._destination.left(self)

    def _timed_out(self) -> None:
        if self.incoming is None:
            wait = format_time(self._destination.scenario.net.hello_timeout)
            self._destination.left(self)
            self._destination.turned_away(self.channel, BrokenError(f"it said nothing for {wait} (net.hello_timeout)"))
            self.channel.abort()


class Destination:
    """Listens, serves one migration, and answers with its outcome."""

    def __init__(
        self, scenario: Scenario, network: Network, clock: Clock, allocate: Allocate, *,
        read_text: Callable[[str], str], notice: Callable[[str], None], tracer: Tracer | None = None,
        make_receiver: Callable[..., Receiver] = Receiver, keeping: Keeping | None = None, left: Left | None = None,
    ) -> None:  # fmt: skip
        """`allocate(geometry, bytes)` provides the guest's memory; `notice` is told, in a line, who was turned away.

        `make_receiver` makes what decides; another one is for those who try it. `keeping` keeps what another
        destination can go on with; `left` is what one has left that this one goes on with.
        """
        self.scenario = scenario
        self.incoming: Incoming | None = None
        self.turned_away_count = 0
        self._network = network
        self._clock = clock
        self._allocate = allocate
        self._read_text = read_text
        self._notice = notice
        self._tracer = tracer
        self._make_receiver = make_receiver
        self._keeping = keeping
        self._left = left
        self._listener: Listener | None = None
        self._limits = Limits(scenario.limits.frame_bytes_max)  # the memory's size is filled in by its Advise
        self._visitors: dict[_Visitor, None] = {}  # a set would have no order
        self._arrived: asyncio.Future[Incoming] | None = None

    async def listen(self, host: str, port: int) -> Listener:
        """Open the door. BrokenError when the address cannot be used; what comes of coming back (`Incoming`)."""
        self._arrived = asyncio.get_running_loop().create_future()
        if self._left is not None:  # first, or its source would be told that nobody knows of it
            await self._begin(self._left.migration).come_back(self._left)
        try:
            self._listener = await self._network.listen(host, port, self._accept)
        except BaseException:
            if self.incoming is not None:
                await self.incoming.stop()
            raise
        return self._listener

    async def serve(self) -> Outcome:
        """Serve one migration after `listen`. Any MigemuError, after which `incoming.outcome()` tells what arrived."""
        assert self._arrived is not None
        assert self._listener is not None
        incoming: Incoming | None = None
        try:
            incoming = await self._first_source()
            await incoming.finished
        except (MigemuError, asyncio.CancelledError) as error:
            if incoming is not None:
                returns = not isinstance(error, MigemuError) and self._keeping is not None and not self._keeping.lost
                incoming.tell(one_line(error) or "the destination was interrupted", over=not returns)
            raise
        finally:
            await self._listener.close()
            if incoming is not None:
                await incoming.stop()
                await incoming.close()
            for visitor in list(self._visitors):
                visitor.channel.abort()
        return incoming.outcome()

    async def _first_source(self) -> Incoming:
        """Wait for a source, for `net.listen_timeout` at most if one is set."""
        assert self._arrived is not None
        timeout_ns = self.scenario.net.listen_timeout
        try:
            return await asyncio.wait_for(self._arrived, timeout_ns / SECOND if timeout_ns else None)
        except TimeoutError:
            away = f" ({self.turned_away_count} other peers were turned away)" if self.turned_away_count else ""
            raise BrokenError(f"no source came within {format_time(timeout_ns)} (net.listen_timeout){away}") from None

    def _accept(self, channel: Channel) -> _Visitor:
        visitor = _Visitor(self, channel, self._limits)
        self._visitors[visitor] = None
        return visitor

    def admit(self, channel: Channel, hello: Hello) -> Incoming:
        """What a Hello gets into. PeerError tells who may not come in, and why."""
        if len(self._visitors) > self.scenario.limits.connections_max:
            raise PeerError("too many connections (limits.connections_max)")
        incoming = self.incoming
        if incoming is None and hello.again:
            reason = (
                f"this destination knows nothing of migration {hello.migration[:8]}; it was started anew, without the "
                "checkpoint of the one that did: its memory, and with it the guest, is lost"
            )
            channel.send(Failed(reason, True))
            raise PeerError(reason)
        if incoming is None and hello.channel is ChannelRole.MAIN:
            incoming = self._begin(hello.migration)
            incoming.connect(channel)
            return incoming
        if incoming is None:
            raise PeerError("a preempt channel came without a migration")
        if hello.migration != incoming.migration:
            raise PeerError("this destination is busy with another migration; it serves one")
        if hello.channel is ChannelRole.PREEMPT:
            incoming.attach(channel)
        elif hello.again and incoming.may_recover:
            incoming.connect(channel)
        else:
            raise PeerError("this destination is busy with this migration, which has a source")
        return incoming

    def _begin(self, migration: str) -> Incoming:
        """The one that is served."""
        incoming = self.incoming = Incoming(
            self.scenario, self._clock, self._allocate, self._read_text, self._limits, migration, self._closed,
            self._tracer, self._make_receiver, self._keeping, self._left,
        )  # fmt: skip
        assert self._arrived is not None
        if not self._arrived.done():
            self._arrived.set_result(incoming)
        return incoming

    def _closed(self, channel: Channel) -> None:
        for visitor in list(self._visitors):
            if visitor.channel is channel:
                visitor.leave()

    def left(self, visitor: _Visitor) -> None:
        """A connection is over."""
        self._visitors.pop(visitor, None)

    def turned_away(self, channel: Channel, error: MigemuError) -> None:
        """Somebody connected who is no source of ours."""
        self.turned_away_count += 1
        self._notice(f"turned away {channel.peer}: {error}")

    def __repr__(self) -> str:
        return f"<Destination {self.incoming!r}, {len(self._visitors)} connections>"
