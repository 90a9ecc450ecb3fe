"""The connections of one migration, at either node: at most one for each `ChannelId`, each watched for silence.

Rules
    1. A channel that was cut or replaced is not of the migration any more.
    2. Both nodes say Alive when they have nothing to say. A peer counts as lost when nothing at all has come from it
       for `net.idle_timeout`, and, as `migemu.node.due` has it, when it says Alive and no more.
    3. A node that was itself stopped (a debugger, SIGSTOP, a suspended laptop) finds old timestamps when it wakes; it
       gives the peer's bytes a turn first.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from migemu.errors import MigemuError, OverdueError
from migemu.node.due import Due
from migemu.ports import Channel, Clock
from migemu.wire.messages import Alive, ChannelId, ChannelRole


class ChannelOwner(Protocol):
    """Who decides what becomes of a channel whose peer does not do what it should. The channel is still open then."""

    def silent(self, channel_id: ChannelId) -> None:
        """Nothing has come on this channel for `net.idle_timeout`."""

    def late(self, channel_id: ChannelId, error: OverdueError) -> None:
        """The peer is there, and what it owes on this channel has not come; `error` says what."""

    def before_due_check(self, now: int) -> None:
        """What is due on the main channel is looked at next: last chance to bring `Due` up to date. `now` in ns."""


class WatchedChannels:
    """One migration's channels at one node, and what the peer owes on the main one (`due`)."""

    def __init__(self, owner: ChannelOwner, clock: Clock, idle_ns: int, due: Due) -> None:
        """`idle_ns`: how long a peer may be silent; this side says Alive four times in it."""
        self.idle_ns = idle_ns
        self.due = due
        self._owner = owner
        self._clock = clock
        self._channels: dict[ChannelId, Channel] = {}
        self._watches: dict[ChannelId, asyncio.Task[None]] = {}
        self._sent_bytes = self._received_bytes = 0  # over those that are gone

    def put(self, channel_id: ChannelId, channel: Channel) -> None:
        """`channel` is the one of this name from now on, and watched; another one is cut."""
        if channel_id in self._channels:
            self.cut(channel_id)
        self._channels[channel_id] = channel
        self._watches[channel_id] = asyncio.get_running_loop().create_task(self._watch(channel_id, channel))

    async def _watch(self, channel_id: ChannelId, channel: Channel) -> None:
        """Say Alive, and tell the owner, once, when the peer is silent or late."""
        clock = self._clock
        while True:
            before = clock.now_ns()
            await clock.sleep_until(before + self.idle_ns // 4)
            now = clock.now_ns()
            if now - before > self.idle_ns // 2:
                continue
            if now - channel.statistics().last_received_ns > self.idle_ns:
                self._owner.silent(channel_id)
                return
            if channel_id.role is ChannelRole.MAIN and (error := self._overdue(now)) is not None:
                self._owner.late(channel_id, error)
                return
            try:
                channel.send(Alive())
            except MigemuError:  # the channel is gone, and its handler has heard of it
                return

    def _overdue(self, now: int) -> OverdueError | None:
        self._owner.before_due_check(now)
        return self.due.overdue(now)

    def get(self, channel_id: ChannelId) -> Channel | None:
        """The channel of this name, if there is one."""
        return self._channels.get(channel_id)

    def identify(self, channel: Channel) -> ChannelId | None:
        """The name of `channel`; None if it is not of the migration any more."""
        return next((channel_id for channel_id, each in self._channels.items() if each is channel), None)

    def forget(self, channel_id: ChannelId) -> Channel | None:
        """The channel of this name is over: neither used nor watched any more. It, if there was one; not closed."""
        channel = self._channels.pop(channel_id, None)
        if channel is not None:
            self._watches.pop(channel_id).cancel()
            self._count(channel)
            if channel_id.role is ChannelRole.MAIN:
                self.due.settled()
        return channel

    def _count(self, channel: Channel) -> None:
        """`channel` is gone: what it has carried counts on."""
        statistics = channel.statistics()
        self._sent_bytes += statistics.sent_bytes
        self._received_bytes += statistics.received_bytes

    def cut(self, channel_id: ChannelId) -> None:
        """Close the channel of this name now, if there is one; what is queued is lost, and the owner is not told."""
        channel = self.forget(channel_id)
        if channel is not None:
            channel.abort()

    def cut_all(self) -> None:
        """Cut each of them, the main one first."""
        for channel_id in sorted(self._channels, key=lambda each: each.role is not ChannelRole.MAIN):
            self.cut(channel_id)

    def stop_watching(self) -> None:
        """From here on silence is no surprise."""
        for watch in self._watches.values():
            watch.cancel()

    async def close(self) -> None:
        """Send what is queued, then close each of them, the main one last."""
        for channel_id in sorted(self._channels, key=lambda each: each.role is ChannelRole.MAIN):
            channel = self._channels.get(channel_id)
            if channel is not None:
                self._watches[channel_id].cancel()
                await channel.close()

    @property
    def sent_bytes(self) -> int:
        """Bytes that have gone out over all channels there ever were, frames and preambles included."""
        return self._sent_bytes + sum(channel.statistics().sent_bytes for channel in self._channels.values())

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in over all channels there ever were, frames and preambles included."""
        return self._received_bytes + sum(channel.statistics().received_bytes for channel in self._channels.values())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(map(str, self._channels)) or 'none'}>"
