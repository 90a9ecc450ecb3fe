"""Whose turn is it: of many connections that all have bytes waiting, none is read for longer than its turn.

Everything is in the kernel before anybody reads, so that what is asserted is an order, not a time.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from migemu.mm.pages import TINY, Level
from migemu.ports import Channel
from migemu.scenario.net import NetSettings
from migemu.transport.channel import TcpChannel
from migemu.transport.clock import MonotonicClock
from migemu.transport.tcp import TcpNetwork
from migemu.units import MIB
from migemu.wire.codec import encode, preamble
from migemu.wire.messages import Alive, Message, Page, Request
from tests.addresses import ANY_PORT
from tests.conformance.ear import Ear

FLOODS = 7
RUN = Page(0, 1 * MIB // TINY.page_bytes, Level.PTE, False)


class Peer:
    """A connection that somebody has filled with bytes, none of which has been read."""

    def __init__(self, connection: socket.socket, channel: TcpChannel, ear: Ear) -> None:
        self.connection, self.channel, self.ear = connection, channel, ear
        self._before = channel.statistics().received_bytes
        channel._transport.pause_reading()  # type: ignore[union-attr]

    def fill(self) -> int:
        """As much as the kernel takes; how much that was."""
        data = b"".join(encode(RUN, bytes(RUN.count * TINY.page_bytes)))
        sent = 0
        try:
            while sent < len(data):
                sent += self.connection.send(data[sent:])
        except BlockingIOError:
            pass
        return sent

    @property
    def read_bytes(self) -> int:
        return self.channel.statistics().received_bytes - self._before


async def peers(net: NetSettings, count: int, network: TcpNetwork) -> list[Peer]:
    """So many connections, greeted and then not read."""
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[Channel] = asyncio.Queue()

    def accept(channel: Channel) -> Ear:
        made.put_nowait(channel)
        return ear

    listener = await network.listen(ANY_PORT, accept)
    found = []
    for _ in range(count):
        ear = Ear()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 * MIB)
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", listener.address.port))
        await loop.sock_sendall(connection, preamble() + b"".join(encode(Alive(), None)))
        channel = await made.get()
        await ear.hears(1)
        assert isinstance(channel, TcpChannel)
        found.append(Peer(connection, channel, ear))
    await listener.close()
    return found


@pytest.mark.parametrize("hot", [False, True], ids=["cold", "hot"])
async def test_a_message_waits_for_one_turn_of_each_other_connection_and_no_more(hot: bool) -> None:
    """Seven are full, their runs larger than a turn. While faults come and go, turns are shorter."""
    net = NetSettings(read="256K", read_hot="16K", receive_buffer="1M", busy_poll="10ms")
    network = TcpNetwork(net, MonotonicClock())
    turn = net.read_hot if hot else net.read // ((FLOODS + 1) // 2)
    *floods, lone = await peers(net, FLOODS + 1, network)
    for flood in floods:
        assert flood.fill() > 4 * turn
    await asyncio.get_running_loop().sock_sendall(lone.connection, b"".join(encode(Alive(), None)))
    heard: list[list[int]] = []

    def note(_channel: Channel, _message: Message) -> None:
        heard.append([flood.read_bytes for flood in floods])

    lone.ear.on_received = note
    if hot:
        lone.channel.send(Request(0, 1, Level.PTE, True))
    for peer in (*floods, lone):
        peer.channel._transport.resume_reading()  # type: ignore[union-attr]
    await lone.ear.hears(2)
    # A turn ends with the read that fills it; the lone one may come last, and readiness may be told in two rounds.
    waited_for = heard[0]
    for peer in (*floods, lone):
        peer.channel.abort()
        peer.connection.close()
    assert max(waited_for) <= 2 * 2 * turn
