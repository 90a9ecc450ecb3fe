"""The connections of one incoming migration: at most one of each role, each watched for silence.

Rules
    1. A line that was cut or replaced is not of the migration any more.
    2. The destination never connects: it waits for the source to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from migemu.errors import MigemuError, OverdueError
from migemu.node.due import Due
from migemu.node.keepalive import keep_alive
from migemu.ports import Channel, Clock
from migemu.wire.messages import Alive, ChannelRole, Failed, Message


class DestinationChannels:
    """All of them.

    `silent` is told of a channel on which nothing has come for `idle_ns`; `late` of what the source owes on the main
    one for too long. `look` is called before that is looked at, with the time.
    """

    def __init__(
        self, clock: Clock, idle_ns: int, due: Due, silent: Callable[[ChannelRole], None],
        late: Callable[[OverdueError], None], look: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self.idle_ns = idle_ns
        self._silent, self._late, self._look = silent, late, look
        self._due = due
        self._channels: dict[ChannelRole, Channel] = {}
        self._watches: dict[ChannelRole, asyncio.Task[None]] = {}
        self._received_bytes = 0  # over those that are gone

    def put(self, role: ChannelRole, channel: Channel) -> None:
        """`channel` is that of `role` from now on; another one is cut."""
        self.cut(role)
        self._channels[role] = channel
        alive = keep_alive(
            self._clock, channel, self.idle_ns, lambda: channel.send(Alive()), lambda: self._silent(role),
            lambda now: role is ChannelRole.MAIN and self._is_late(now),
        )  # fmt: skip
        self._watches[role] = asyncio.get_running_loop().create_task(alive)

    def _is_late(self, now: int) -> bool:
        self._look(now)
        error = self._due.overdue(now)
        if error is not None:
            self._late(error)
        return error is not None

    def get(self, role: ChannelRole) -> Channel | None:
        """The channel of `role`, if there is one."""
        return self._channels.get(role)

    @property
    def preempt(self) -> Channel | None:
        """The preempt channel, if there is one."""
        return self._channels.get(ChannelRole.PREEMPT)

    def role(self, channel: Channel) -> ChannelRole | None:
        """What `channel` is to the migration; None: nothing any more."""
        return next((role for role, each in self._channels.items() if each is channel), None)

    def forget(self, role: ChannelRole) -> Channel | None:
        """The channel of `role` is over."""
        channel = self._channels.pop(role, None)
        if channel is not None:
            self._received_bytes += channel.statistics().received_bytes
            self._watches.pop(role).cancel()
            if role is ChannelRole.MAIN:
                self._due.settled()
        return channel

    def cut(self, role: ChannelRole) -> None:
        """Close the channel of `role` now, if there is one; nobody is told."""
        channel = self.forget(role)
        if channel is not None:
            channel.abort()

    def say(self, message: Message, payload: bytes | None = None) -> None:
        """Say something to the source, if there is a connection to it."""
        main = self._channels.get(ChannelRole.MAIN)
        if main is not None:
            main.send(message, payload)

    def tell(self, reason: str, over: bool) -> None:
        """Tell the source that this side ends, if it can still be told; `over`: and the migration with it."""
        try:
            self.say(Failed(reason, over))
        except MigemuError:
            pass

    def stop_watching(self) -> None:
        """From here on silence is no surprise."""
        for watch in self._watches.values():
            watch.cancel()

    async def close(self) -> None:
        """Send what is queued, then close all of them."""
        for role in reversed(ChannelRole):
            channel = self._channels.get(role)
            if channel is not None:
                await channel.close()

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in over all connections there ever were."""
        here = sum(channel.statistics().received_bytes for channel in self._channels.values())
        return self._received_bytes + here

    def __repr__(self) -> str:
        return f"<Lines {', '.join(role.value for role in self._channels) or 'none'}>"
