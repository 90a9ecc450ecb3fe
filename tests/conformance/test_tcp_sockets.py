"""What only the real network has: sockets, kernels' buffers, name resolution, strangers who speak no migemu.

A peer here is a plain socket, driven by hand.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from migemu.address import TcpAddress
from migemu.errors import BrokenError, MigemuError, PeerError, VersionError
from migemu.mm.pages import Level
from migemu.ports import Channel
from migemu.units import MS
from migemu.wire.codec import FrameDecoder, encode, frames_of, preamble
from migemu.wire.messages import PROTOCOL_VERSION, Alive, DeviceState, Failed, Message, Page, Request
from tests.addresses import ANY_PORT
from tests.conformance.cargo import LARGE, NARROW
from tests.conformance.ear import PAGE, PAGES, Ear
from tests.conformance.worlds import BARE_WORLDS, SHAPED_WORLDS, TCP_WORLDS, UNIX_WORLDS, Nodes, in_worlds

#: Where a plain socket can take part: over a socket file too, where a connection cannot be reset.
RAW_WORLDS = (*BARE_WORLDS, *UNIX_WORLDS[:2])
STREAM_WORLDS = (*TCP_WORLDS, *UNIX_WORLDS[:3])
#: Longer than a name can be: no resolver is asked.
NO_NAME = ".".join(["a" * 60] * 5)
LARGE_BYTES = LARGE.count * PAGE


def stream(*frames: tuple[Message, bytes], version: int = PROTOCOL_VERSION) -> bytes:
    return preamble(version) + b"".join(
        bytes(buffer) for message, payload in frames for buffer in encode(message, payload or None)
    )


class Raw:
    """A peer that is nothing but a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._loop = asyncio.get_running_loop()

    async def say(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def hear(self, bytes_max: int = 1 << 20) -> bytes:
        return await self._loop.sock_recv(self.socket, bytes_max)

    async def hear_all(self) -> bytes:
        """Until the other side says that nothing more will come."""
        parts = []
        while part := await self.hear():
            parts.append(part)
        return b"".join(parts)

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@contextmanager
def narrow_socket(nodes: Nodes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX if nodes.files else socket.AF_INET) as sock:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 65_536)
        yield sock


async def caller(nodes: Nodes, sock: socket.socket) -> tuple[Raw, Channel, Ear]:
    """A plain socket that has connected to the destination, and what stands there."""
    ear = Ear()
    accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

    def accept(channel: Channel) -> Ear:
        accepted.set_result(channel)
        return ear

    nodes.listeners.append(await nodes.destination.listen(nodes.free(), accept))
    address = nodes.listeners[0].address
    name = (address.host, address.port) if isinstance(address, TcpAddress) else address.path
    await asyncio.get_running_loop().sock_connect(sock, name)
    nodes.channels.append(await accepted)
    return Raw(sock), nodes.channels[0], ear


async def said(raw: Raw) -> list[Message]:
    """What a channel says to its peer until its end."""
    ear = Ear()
    decoder = FrameDecoder(ear.limits, lambda *_: None, ear.landing)
    return [frame.message for frame in frames_of(decoder, await raw.hear_all())]


# --- how a stream can end ---

FRAMES = ((Alive(), b""), (DeviceState(0), b"s" * 100), (Page(0, 8, Level.PTE, urgent=True), b"p" * 8 * PAGE))
WHOLE = stream(*FRAMES)
BORDERS = tuple(
    itertools.accumulate((sum(len(buffer) for buffer in encode(*frame)) for frame in FRAMES), initial=len(preamble()))
)


@in_worlds(STREAM_WORLDS)
@pytest.mark.parametrize(
    "cut", [0, 3, 7, *(border + more for border in BORDERS[:-1] for more in (1, 5, 7)), len(WHOLE) - 1]
)
async def test_a_stream_that_ends_within_a_message_is_broken(nodes: Nodes, cut: int) -> None:
    """The preamble counts as one. What was complete before it has been heard."""
    with narrow_socket(nodes) as sock:
        raw, channel, ear = await caller(nodes, sock)
        await raw.say(WHOLE[:cut])
        sock.shutdown(socket.SHUT_WR)
        error = await ear.end()
        assert isinstance(error, BrokenError)
        assert str(error) == f"the connection to {channel.peer} ended in the middle of a message"
        assert len(ear.heard) == sum(border <= cut for border in BORDERS[1:])


@in_worlds(STREAM_WORLDS)
@pytest.mark.parametrize("cut", BORDERS)
async def test_a_stream_that_ends_between_two_messages_ends_well(nodes: Nodes, cut: int) -> None:
    with narrow_socket(nodes) as sock:
        raw, _, ear = await caller(nodes, sock)
        await raw.say(WHOLE[:cut])
        sock.shutdown(socket.SHUT_WR)
        assert await ear.end() is None
        assert len(ear.heard) == BORDERS.index(cut)
        assert preamble().startswith(await raw.hear_all()), "it closes its side too, without another word"


@in_worlds(STREAM_WORLDS)
async def test_a_stream_that_comes_byte_by_byte_is_heard_all_the_same(nodes: Nodes) -> None:
    frames = [(Request(number, 1, Level.PTE), b"") for number in range(5)] + [(DeviceState(7), b"abc")]
    with narrow_socket(nodes) as sock:
        raw, _, ear = await caller(nodes, sock)
        if not nodes.files:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in stream(*frames):
            await raw.say(bytes([byte]))
            await asyncio.sleep(0)
        await ear.hears(len(frames))
        assert ear.heard == frames


@in_worlds(TCP_WORLDS)
async def test_a_connection_that_is_reset_is_broken_and_says_so(nodes: Nodes) -> None:
    with narrow_socket(nodes) as sock:
        raw, channel, ear = await caller(nodes, sock)
        await raw.say(WHOLE)
        await ear.hears(len(FRAMES))
        raw.reset()
        error = await ear.end()
        assert isinstance(error, BrokenError)
        assert str(error) == f"the connection to {channel.peer} broke: Connection reset by peer"
        with pytest.raises(BrokenError):
            await channel.drain()
        await channel.close()


@in_worlds(TCP_WORLDS, **NARROW)
async def test_whoever_waits_for_room_when_the_connection_is_reset_is_told(nodes: Nodes) -> None:
    with narrow_socket(nodes) as sock:
        raw, channel, ear = await caller(nodes, sock)
        channel.send(LARGE, bytes(LARGE_BYTES))
        waiting = asyncio.ensure_future(channel.drain())
        await raw.hear()
        raw.reset()
        with pytest.raises(BrokenError, match="was lost"):
            await waiting
        assert isinstance(await ear.end(), BrokenError)


@in_worlds(TCP_WORLDS, **NARROW)
async def test_a_lost_connection_can_still_be_aborted_and_closed(nodes: Nodes) -> None:
    """In whatever state it was lost: with nothing queued, with much queued, after an end or a reset."""
    for queued, end in itertools.product((0, LARGE_BYTES), (socket.socket.close, None)):
        with narrow_socket(nodes) as sock:
            nodes.listeners.clear()
            nodes.channels.clear()
            raw, channel, ear = await caller(nodes, sock)
            await raw.say(preamble())
            if queued:
                channel.send(LARGE, bytes(queued))
            await raw.hear()
            if end is None:
                raw.reset()
            else:
                end(sock)
            await ear.end()
            channel.abort()
            await channel.close()
            channel.abort()
            await nodes.leave()
            assert channel.statistics().queued_bytes == 0
    nodes.listeners.clear()


@in_worlds(TCP_WORLDS)
async def test_a_caller_that_is_gone_before_it_is_let_in_disturbs_nobody(nodes: Nodes) -> None:
    ears: list[Ear] = []

    def accept(_: Channel) -> Ear:
        ears.append(Ear())
        return ears[-1]

    nodes.listeners.append(await nodes.destination.listen(ANY_PORT, accept))
    address = nodes.listeners[0].address
    for _ in range(3):
        Raw(
            socket.create_connection((address.host, address.port))
        ).reset()  # the kernel lets it in; the loop has not had a turn
    last = await nodes.source.connect(address, Ear())
    await last.close()
    await ears[-1].end()
    assert all([isinstance(await ear.end(), BrokenError) for ear in ears[:-1]])


# --- back-pressure ---


@in_worlds(STREAM_WORLDS, **NARROW)
async def test_a_channel_waits_for_a_peer_that_does_not_read(nodes: Nodes) -> None:
    """However often the loop turns; and goes on as soon as it does."""
    with narrow_socket(nodes) as sock:
        raw, channel, _ = await caller(nodes, sock)
        channel.send(LARGE, bytes(LARGE_BYTES))
        draining = asyncio.ensure_future(channel.drain())
        for _ in range(5):
            await nodes.clock.sleep_until(nodes.clock.now_ns() + MS)
            assert not channel.writable
            assert not draining.done()
            assert channel.statistics().queued_bytes > LARGE_BYTES // 2
        expected = stream((LARGE, bytes(LARGE_BYTES)))
        heard = 0
        while heard < len(expected):
            heard += len(await raw.hear())
        await draining
        assert channel.writable
        assert channel.statistics().queued_bytes == 0
        assert heard == len(expected)


@in_worlds(SHAPED_WORLDS, **NARROW)
async def test_who_waits_is_let_in_although_others_have_filled_the_link_meanwhile(nodes: Nodes) -> None:
    """Room at the socket and room on the link come at different times; `drain` needs both, in whichever order."""
    with narrow_socket(nodes) as sock:
        raw, channel, _ = await caller(nodes, sock)
        sent = 0
        waiting = None
        while waiting is None:  # until the socket is full and the link has room
            if channel.writable:
                channel.send(DeviceState(0), bytes(16 << 10))
                sent += 1
            await nodes.clock.sleep_until(nodes.clock.now_ns() + MS)
            assert sent < 1000
            before = channel.statistics().queued_bytes
            await nodes.clock.sleep_until(nodes.clock.now_ns() + 5 * MS)
            if not channel.writable and before == channel.statistics().queued_bytes:
                waiting = asyncio.ensure_future(channel.drain())
        await asyncio.sleep(0)
        channel.send(LARGE, bytes(LARGE_BYTES))
        expected = len(stream(*[(DeviceState(0), bytes(16 << 10))] * sent, (LARGE, bytes(LARGE_BYTES))))
        while expected:
            expected -= len(await raw.hear())
        await asyncio.wait_for(waiting, 2)


# --- strangers ---


@in_worlds(RAW_WORLDS)
@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", PeerError, "does not speak migemu"),
        (stream(version=PROTOCOL_VERSION + 1), VersionError, "a newer version"),
        (stream(version=0), VersionError, "an older version"),
        (preamble() + bytes(6), PeerError, "not msgpack"),
        (preamble() + b"\xff" * 6, PeerError, "larger than the limit"),
        (stream((Page(PAGES, 1, Level.PTE, urgent=False), bytes(PAGE))), PeerError, "outside the memory"),
    ],
    ids=["stranger", "newer", "older", "no header", "huge", "outside"],
)
async def test_bytes_that_break_the_protocol_are_refused_with_a_reason(
    nodes: Nodes, data: bytes, kind: type[MigemuError], reason: str
) -> None:
    with narrow_socket(nodes) as sock:
        raw, _, ear = await caller(nodes, sock)
        await raw.say(data + bytes(100_000))
        (last,) = await said(raw)
        assert isinstance(last, Failed)
        assert reason in last.reason
        sock.close()
        error = await ear.end()
        assert type(error) is kind
        assert str(error) == last.reason
        assert ear.heard == []


@in_worlds(RAW_WORLDS)
async def test_what_came_in_order_is_heard_before_the_mistake_behind_it(nodes: Nodes) -> None:
    with narrow_socket(nodes) as sock:
        raw, _, ear = await caller(nodes, sock)
        await raw.say(stream((Alive(), b""), (Request(1, 1, Level.PTE), b"")) + b"\xff" * 6)
        assert isinstance(await ear.end(), PeerError)
        assert [message for message, _ in ear.heard] == [Alive(), Request(1, 1, Level.PTE)]


# --- names and addresses ---


@in_worlds(BARE_WORLDS)
@pytest.mark.parametrize("host", [NO_NAME, "a..b", "a" * 64], ids=["too long", "empty label", "long label"])
async def test_connecting_to_a_host_that_cannot_be_resolved_is_the_worlds_fault_at_once(
    nodes: Nodes, host: str
) -> None:
    """Trying again would not help."""
    with pytest.raises(BrokenError) as error:
        await nodes.source.connect(TcpAddress(host, 9), Ear())
    assert str(error.value).startswith(f"{host} cannot be resolved: ")


@in_worlds(BARE_WORLDS)
@pytest.mark.parametrize("host", [NO_NAME, "a..b", "a" * 64], ids=["too long", "empty label", "long label"])
async def test_listening_at_a_host_that_cannot_be_resolved_is_the_worlds_fault(nodes: Nodes, host: str) -> None:
    with pytest.raises(BrokenError) as error:
        await nodes.destination.listen(TcpAddress(host, 0), lambda _: Ear())
    assert str(error.value).startswith(f"cannot listen on {host}:0: ")
    assert "Errno" not in str(error.value)


@in_worlds(BARE_WORLDS)
async def test_listening_at_an_address_of_another_machine_is_refused_by_name(nodes: Nodes) -> None:
    """192.0.2.0/24 is for documentation: nobody has it."""
    with pytest.raises(BrokenError, match=r"cannot listen on 192.0.2.1:0: Cannot assign requested address"):
        await nodes.destination.listen(TcpAddress("192.0.2.1", 0), lambda _: Ear())


@in_worlds(BARE_WORLDS, congestion="nosuch")
async def test_a_congestion_control_that_the_kernel_does_not_know_is_named(nodes: Nodes) -> None:
    """By whoever opens the connection or the door first; never as an exception that nobody catches."""

    async def meet() -> None:
        nodes.listeners.append(await nodes.destination.listen(ANY_PORT, lambda _: Ear()))
        nodes.channels.append(await nodes.source.connect(nodes.listeners[0].address, Ear()))

    with pytest.raises(BrokenError, match=r"net\.congestion=nosuch: the kernel refuses it"):
        await meet()


# --- nothing is left behind ---


def _close_both(here: Channel, there: Channel) -> list[Any]:
    return [here.close(), there.close()]


def _one_closes(here: Channel, _: Channel) -> list[Any]:
    return [here.close()]


def _one_aborts(here: Channel, _: Channel) -> list[Any]:
    here.abort()
    return []


@in_worlds(STREAM_WORLDS, **NARROW)
@pytest.mark.parametrize("end", [_close_both, _one_closes, _one_aborts])
async def test_when_one_side_ends_a_connection_both_sockets_are_closed(
    nodes: Nodes, end: Callable[[Channel, Channel], list[Any]]
) -> None:
    """Nobody has to clean up behind; the world sees that no descriptor is left, here no warning is."""
    here, there = await nodes.pair()
    there.channel.send(Alive())
    send = [(here.channel, Alive()), (there.channel, Alive())]
    for channel, message in send:
        channel.send(message)
    await here.ear.hears(1)
    await asyncio.gather(*end(here.channel, there.channel))
    if end is not _close_both:
        await there.ear.end()
    nodes.channels.clear()
    for _ in range(3):
        await asyncio.sleep(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del here, there, send
        gc.collect()
