"""The source's connections: made here, and watched as the destination's are (`migemu.node.channels`).

Rule: whoever is lost is reported once, by name; also before `connect` has come back.
"""

from __future__ import annotations

from typing import Protocol

from migemu.address import Address
from migemu.errors import BrokenError, MigemuError, PeerError
from migemu.node.channels import ChannelOwner, WatchedChannels
from migemu.node.due import Due
from migemu.ports import Channel, Clock, Network
from migemu.scenario.net import NetSettings
from migemu.wire.limits import Limits
from migemu.wire.messages import ChannelId, Message, Page


class SourceChannelOwner(ChannelOwner, Protocol):
    """Who hears what the destination says."""

    def announced(self, channel_id: ChannelId, message: Message) -> None:
        """A message begins; PeerError refuses it, and ends the connection."""

    def received(self, message: Message, payload: bytes) -> None:
        """A message is complete. PeerError ends the connection."""

    def lost(self, channel_id: ChannelId, error: MigemuError | None) -> None:
        """The connection of this name is over; `error` is None where the peer closed it in order."""


class SourceChannel:
    """ports.ChannelHandler of one connection of the source, from before it stands."""

    def __init__(self, channels: SourceChannels, channel_id: ChannelId, limits: Limits) -> None:
        self.limits = limits
        self.channel_id = channel_id
        self._channels = channels

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        """See ports.ChannelHandler, here as below."""
        self._channels.owner.announced(self.channel_id, message)

    def landing(self, page: Page, offset: int) -> memoryview:
        """A destination sends no pages: the states have refused it before. PeerError."""
        raise PeerError("a destination sends no pages")

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        """Passed on, unless the connection has been replaced meanwhile."""
        if self._channels.has(self):
            self._channels.owner.received(message, payload)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """Passed on, unless the connection has been replaced meanwhile."""
        self._channels.lost(self, channel, error)


class SourceChannels(WatchedChannels):
    """The channels of one outgoing migration, those included that are being made."""

    def __init__(
        self, owner: SourceChannelOwner, network: Network, clock: Clock, net: NetSettings, limits: Limits
    ) -> None:  # fmt: skip
        super().__init__(owner, clock, net.idle_timeout, Due("the destination", net.answer_timeout))
        self.owner = owner
        #: Whether one that is gone has brought a byte.
        self.heard = False
        self._network = network
        self._limits = limits
        self._handlers: dict[ChannelId, SourceChannel] = {}

    async def connect(self, channel_id: ChannelId, address: Address, *, once: bool = False) -> Channel:
        """Make the connection of this name; another one is cut. BrokenError: nobody answers, or it is lost at once.

        `once`: the first refusal counts; else it is tried for `net.connect_timeout`.
        """
        self.cut(channel_id)
        handler = self._handlers[channel_id] = SourceChannel(self, channel_id, self._limits)
        try:
            channel = await self._network.connect(address, handler, once=once)
        except BaseException:
            if self.has(handler):
                del self._handlers[channel_id]
            raise
        if not self.has(handler):
            channel.abort()
            raise BrokenError(f"the connection to {channel.peer} was lost at once")
        self.put(channel_id, channel)
        return channel

    def has(self, handler: SourceChannel) -> bool:
        """Whether its connection is of the migration: neither replaced nor over."""
        return self._handlers.get(handler.channel_id) is handler

    def lost(self, handler: SourceChannel, channel: Channel, error: MigemuError | None) -> None:
        """A connection is over; the owner is told if it was of the migration."""
        if self.has(handler):
            if self.forget(handler.channel_id) is None:  # `connect` has not come back
                self._count(channel)
            self.owner.lost(handler.channel_id, error)

    def forget(self, channel_id: ChannelId) -> Channel | None:
        """See WatchedChannels; also where the connection does not stand yet."""
        self._handlers.pop(channel_id, None)
        return super().forget(channel_id)

    def _count(self, channel: Channel) -> None:
        super()._count(channel)
        self.heard = self.heard or channel.statistics().received_bytes > 0
