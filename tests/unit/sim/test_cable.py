"""The emulated network on a cable: what it costs in time and bytes, and what it tells about each frame."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from migemu.address import TcpAddress
from migemu.errors import BrokenError
from migemu.link.scheduler import QueuedFrame
from migemu.mm.pages import Level
from migemu.scenario.net import NetSettings
from migemu.scenario.scenario import LinkSettings
from migemu.sim.cable import Direction
from migemu.sim.emulated_channel import EmulatedChannel
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.loop import VirtualLoop
from migemu.units import KIB, MIB, MS, SECOND
from migemu.wire.codec import PREAMBLE_BYTES
from migemu.wire.header import encode_head
from migemu.wire.messages import Alive, ChannelRole, DeviceState, Hello, Message, Page
from tests.addresses import PLACE
from tests.conformance.ear import BLANK, PAGE, Ear

MIGRATION = "0" * 32
GBIT = 10**9


class Hollow:
    """A payload that knows nothing but its length."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class Nodes:
    """Two nodes, and every delivery with its frame."""

    def __init__(self, loop: VirtualLoop, forth: LinkSettings, back: LinkSettings, net: NetSettings) -> None:
        self.loop = loop
        self.delivered: list[tuple[EmulatedChannel, Message, QueuedFrame]] = []
        self.forth = Direction(loop, forth, back.delay, Random(1))
        directions = self.forth, Direction(loop, back, forth.delay, Random(2))
        self.source, self.destination = EmulatedNetwork.pair(
            loop, net, *directions, lambda *delivery: self.delivered.append(delivery)
        )
        self.ears: list[Ear] = []

    async def connect(self, role: ChannelRole | None = None) -> tuple[EmulatedChannel, Ear]:
        def accept(_: EmulatedChannel) -> Ear:
            self.ears.append(Ear())
            return self.ears[-1]

        if not self.destination.doors:
            await self.destination.listen(PLACE, accept)
        before = len(self.ears)
        channel = await self.source.connect(PLACE, Ear())
        if role is not None:
            channel.send(Hello(role, MIGRATION))
        while len(self.ears) == before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        return channel, self.ears[-1]


def on_cable(
    test: Callable[[Nodes], Awaitable[None]],
    forth: LinkSettings | None = None,
    back: LinkSettings | None = None,
    **net: Any,
) -> int:
    loop = VirtualLoop()

    async def main() -> None:
        await test(
            Nodes(
                loop,
                forth or LinkSettings(rate="1Gbit", delay="1ms"),
                back or LinkSettings(delay="3ms"),
                NetSettings(**net),
            )
        )

    loop.run(main())
    return loop.now_ns


def test_connecting_takes_a_round_trip_and_the_preamble_another_half() -> None:
    async def test(nodes: Nodes) -> None:
        accepted: list[int] = []

        def accept(_: EmulatedChannel) -> Ear:
            accepted.append(nodes.loop.now_ns)
            return Ear()

        await nodes.destination.listen(PLACE, accept)
        await nodes.source.connect(TcpAddress("whatever", PLACE.port), Ear())
        assert nodes.loop.now_ns == 4 * MS
        await asyncio.sleep(1)
        assert accepted == [5 * MS + PREAMBLE_BYTES * 8]

    on_cable(test)


def test_a_message_takes_its_bytes_at_the_rate_and_the_delay() -> None:
    async def test(nodes: Nodes) -> None:
        channel, ear = await nodes.connect()
        begin = nodes.loop.now_ns
        page = Page(0, 256, Level.PTE, urgent=False)
        channel.send(page, Hollow(MIB))
        size = len(encode_head(page, MIB)) + MIB
        await ear.hears(1)
        assert nodes.loop.now_ns - begin == size * 8 + MS
        assert channel.statistics().sent_bytes == PREAMBLE_BYTES + size

    on_cable(test)


def test_a_placeholder_brings_no_bytes() -> None:
    """It counts as they do, and is asked where it belongs as they are."""

    async def test(nodes: Nodes) -> None:
        sent = []
        for payload in (Hollow(MIB), b"r" * MIB):
            channel, ear = await nodes.connect()
            channel.send(Page(0, 256, Level.PTE, urgent=False), payload)
            channel.send(DeviceState(0), Hollow(5))
            await ear.hears(2)
            sent.append(channel.statistics().sent_bytes)
            real = isinstance(payload, bytes)
            assert ear.page(0, 256) == (payload if real else bytes([BLANK]) * MIB)
            assert ear.landings
            assert len(ear.heard[1][1]) == 5
        assert sent[0] == sent[1]

    on_cable(test)


def test_each_delivery_is_told_with_its_times_and_with_what_was_in_front() -> None:
    """An urgent page on a strict wire: behind what is left of the segment on it, and of the queue of two of them."""

    async def test(nodes: Nodes) -> None:
        main, _ = await nodes.connect(ChannelRole.MAIN)
        urgent, ear = await nodes.connect(ChannelRole.PREEMPT)
        nodes.delivered.clear()
        main.send(Page(0, 256, Level.PTE, urgent=False), Hollow(MIB))
        await asyncio.sleep(0.001)
        sent_ns = nodes.loop.now_ns
        urgent.send(Page(300, 1, Level.PTE, urgent=True), Hollow(PAGE))
        await ear.hears(2)
        channel, message, frame = nodes.delivered[0]
        assert isinstance(message, Page)
        assert (channel.role, message.first, frame.channel) == (ChannelRole.PREEMPT, 300, "preempt")
        assert frame.enqueued_ns == sent_ns
        assert frame.arrived_ns == nodes.loop.now_ns
        assert frame.departed_ns - frame.started_ns == frame.size * 8
        assert frame.arrived_ns - frame.departed_ns == MS
        assert 128 * KIB <= (frame.started_ns - sent_ns) // 8 <= 192 * KIB, "the queue, and a segment"

    on_cable(test, LinkSettings(rate="1Gbit", delay="1ms", scheduling="strict", queue="128K"))


def test_parts_are_told_as_one_frame() -> None:
    async def test(nodes: Nodes) -> None:
        channel, ear = await nodes.connect()
        begin = nodes.loop.now_ns
        channel.send(Page(0, 64, Level.PTE, urgent=False), bytes(256 * KIB))
        await ear.hears(1)
        [(_, _, frame)] = nodes.delivered
        assert (frame.enqueued_ns, frame.started_ns) == (begin, begin)
        assert frame.arrived_ns == nodes.loop.now_ns

    on_cable(test)


@pytest.mark.parametrize("scheduling", ["fifo", "fair", "strict"])
def test_who_waits_in_which_order(scheduling: str) -> None:
    """4 KiB on the second channel behind 1 MiB on the first: the whole of it, or its segment."""

    async def test(nodes: Nodes) -> None:
        main, _ = await nodes.connect(ChannelRole.MAIN)
        urgent, ear = await nodes.connect(ChannelRole.PREEMPT)
        main.send(Page(0, 256, Level.PTE, urgent=False), Hollow(MIB))
        begin = nodes.loop.now_ns
        urgent.send(Page(300, 1, Level.PTE, urgent=True), Hollow(PAGE))
        await ear.hears(2)
        took_bytes = (nodes.loop.now_ns - begin - MS) // 8
        if scheduling == "fifo":
            assert MIB < took_bytes < MIB + 2 * PAGE
        else:
            assert PAGE < took_bytes < 64 * KIB + 2 * PAGE

    on_cable(test, LinkSettings(rate="1Gbit", delay="1ms", scheduling=scheduling, queue="1"))


def test_a_peer_that_cannot_be_reached_any_more_is_cut_off() -> None:
    """The link goes down for good: close gives up after a while, as over TCP."""

    async def test(nodes: Nodes) -> None:
        channel, _ = await nodes.connect()
        await asyncio.sleep(0.1)
        channel.send(Alive())
        begin = nodes.loop.now_ns
        await channel.close()
        assert 2 * SECOND <= nodes.loop.now_ns - begin <= 4 * SECOND

    on_cable(test, LinkSettings(rate="1Gbit", delay="1ms", outages="50ms-10min"))


def test_nobody_answers_while_the_link_is_down() -> None:
    async def test(nodes: Nodes) -> None:
        await nodes.destination.listen(PLACE, lambda _: Ear())
        with pytest.raises(BrokenError, match=f"nobody answers at {PLACE} .no answer in time; tried for 500ms"):
            await nodes.source.connect(PLACE, Ear())

    assert on_cable(test, LinkSettings(rate="1Gbit", outages="0-10min"), connect_timeout="500ms") == SECOND // 2


def test_the_same_seed_plays_the_same_and_bytes_are_those_of_the_codec() -> None:
    """A lossy, jittery, reordering pair of links: every time to the nanosecond."""
    link = LinkSettings(
        rate="100Mbit", delay="5ms", jitter="2ms", distribution="pareto", reorder=True, loss=0.02, congestion="cubic"
    )
    seen: list[list[tuple[int, int]]] = []

    async def test(nodes: Nodes) -> None:
        channels = [await nodes.connect(role) for role in (ChannelRole.MAIN, ChannelRole.PREEMPT)]
        for number in range(100):
            for channel, _ in channels:
                channel.send(Page(number, 1, Level.PTE, urgent=False), Hollow(PAGE))
            await asyncio.sleep(0.0005)
        for _, ear in channels:
            await ear.hears(101)
        assert [len(ear.heard) for _, ear in channels] == [101, 101]
        seen.append([(frame.serial, frame.arrived_ns) for _, _, frame in nodes.delivered])

    for _ in range(2):
        on_cable(test, link, link)
    assert seen[0] == seen[1]
    serials = [serial for serial, _ in seen[0]]
    assert serials != sorted(serials), "channels overtake each other"
