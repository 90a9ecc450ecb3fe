"""The source's connections: one for each role at most, each watched for silence.

Rules
    1. A line that was cut, or replaced, is not of the migration any more: whatever it still says goes unheard.
    2. Who is lost is told once, by role; also before `connect` has come back.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from migemu.address import Address
from migemu.errors import BrokenError, MigemuError, PeerError
from migemu.node.due import Due
from migemu.node.keepalive import keep_alive
from migemu.ports import Channel, Clock, Network
from migemu.scenario.net import NetSettings
from migemu.units import format_time
from migemu.wire.limits import Limits
from migemu.wire.messages import Alive, ChannelRole, Message, Page


class Owner(Protocol):
    """Who is told what the lines hear."""

    def announced(self, role: ChannelRole, message: Message) -> None:
        """A message begins; PeerError refuses it."""

    def received(self, message: Message, payload: bytes) -> None:
        """A message is complete."""

    def lost(self, role: ChannelRole, error: MigemuError | None) -> None:
        """The connection of `role` is over."""


class SourceChannel:
    """ChannelHandler of one connection."""

    def __init__(self, lines: SourceChannels, role: ChannelRole, limits: Limits) -> None:
        self.limits = limits
        self.role = role
        self.channel: Channel | None = None
        self.watch: asyncio.Task[None] | None = None
        self._lines = lines

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        """See ports.ChannelHandler, here as below."""
        self._lines.owner.announced(self.role, message)

    def landing(self, page: Page, offset: int) -> memoryview:
        """Nowhere."""
        raise PeerError("a destination sends no pages")  # the states have refused it before

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        """Passed on, as long as the line is of the migration."""
        if self._lines.has(self):
            self._lines.owner.received(message, payload)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """Passed on."""
        self.channel = channel
        self._lines.lost(self, error)


class SourceChannels:
    """All of them."""

    def __init__(self, owner: Owner, network: Network, clock: Clock, net: NetSettings, limits: Limits) -> None:
        self.owner = owner
        #: What the destination owes on the main line.
        self.due = Due("the destination", net.answer_timeout)
        self._network = network
        self._clock = clock
        self._net = net
        self._limits = limits
        self._lines: dict[ChannelRole, SourceChannel] = {}
        self._sent_bytes = 0  # by those that are gone
        #: Whether one of those has brought a byte.
        self.heard = False

    async def connect(self, role: ChannelRole, address: Address, *, once: bool = False) -> Channel:
        """A new line of `role`. BrokenError when nobody answers, or it is lost at once."""
        line = SourceChannel(self, role, self._limits)
        self.cut(role)
        self._lines[role] = line
        try:
            line.channel = await self._network.connect(address, line, once=once)
        except BaseException:
            if self.has(line):
                del self._lines[role]
            raise
        if not self.has(line):
            line.channel.abort()
            raise BrokenError(f"the connection to {line.channel.peer} was lost at once")
        alive = keep_alive(
            self._clock, line.channel, self._net.idle_timeout,
            lambda: self._say_alive(line), lambda: self._silent(line), lambda now: self._is_late(line, now),
        )  # fmt: skip
        line.watch = asyncio.get_running_loop().create_task(alive)
        return line.channel

    def has(self, line: SourceChannel) -> bool:
        """Whether it is of the migration."""
        return self._lines.get(line.role) is line

    def get(self, role: ChannelRole) -> Channel | None:
        """The channel of `role`, if there is one."""
        line = self._lines.get(role)
        return line.channel if line is not None else None

    def lost(self, line: SourceChannel, error: MigemuError | None) -> None:
        """A connection is over."""
        if self.has(line):
            self._forget(line)
            self.owner.lost(line.role, error)

    def _say_alive(self, line: SourceChannel) -> None:
        assert line.channel is not None
        line.channel.send(Alive())

    def _silent(self, line: SourceChannel) -> None:
        if self.has(line):
            self.cut(line.role)
            idle = format_time(self._net.idle_timeout)
            self.owner.lost(line.role, BrokenError(
                f"the destination has been silent for {idle} (net.idle_timeout); is it stopped, or the network cut?"
            ))  # fmt: skip

    def _is_late(self, line: SourceChannel, now: int) -> bool:
        """Whether the destination owes something; then the line is lost."""
        error = self.due.overdue(now) if line.role is ChannelRole.MAIN else None
        if error is not None and self.has(line):
            self.cut(line.role)
            self.owner.lost(line.role, error)
        return error is not None

    def cut(self, role: ChannelRole) -> None:
        """Close the line of `role` now, if there is one; nobody is told."""
        line = self._lines.get(role)
        if line is not None:
            self._forget(line)
            if line.channel is not None:
                line.channel.abort()

    def cut_all(self) -> None:
        """Close all of them now."""
        for role in ChannelRole:
            self.cut(role)

    def _forget(self, line: SourceChannel) -> None:
        del self._lines[line.role]
        if line.role is ChannelRole.MAIN:
            self.due.settled()
        if line.channel is not None:
            self._sent_bytes += line.channel.statistics().sent_bytes
            self.heard = self.heard or line.channel.statistics().received_bytes > 0
        if line.watch is not None:
            line.watch.cancel()

    async def close(self) -> None:
        """Send what is queued, then close all of them; urgent pieces first."""
        for role in reversed(ChannelRole):
            line = self._lines.get(role)
            if line is not None and line.channel is not None:
                if line.watch is not None:
                    line.watch.cancel()
                await line.channel.close()

    @property
    def sent_bytes(self) -> int:
        """Bytes that have gone out over all connections there ever were."""
        here = (line.channel for line in self._lines.values())
        return self._sent_bytes + sum(channel.statistics().sent_bytes for channel in here if channel is not None)

    def __repr__(self) -> str:
        return f"<Lines {', '.join(role.value for role in self._lines) or 'none'}>"
