"""Channel: holding back, closing, breaking, refusing; in every world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from migemu.errors import BrokenError, ClosedError, PeerError
from migemu.mm.pages import Level
from migemu.ports import Channel
from migemu.wire.messages import Alive, Failed, Message, Page, Request, Running
from tests.conformance.cargo import LARGE, NARROW, body, send_page
from tests.conformance.ear import BLANK, PAGE, Ear
from tests.conformance.worlds import WORLDS, Nodes, in_worlds


def soon(call: Callable[[], object]) -> None:
    """In the loop's next turn: no handler closes a channel from within `landing`."""
    asyncio.get_running_loop().call_soon(call)


# --- back-pressure ---


async def fill(channel: Channel) -> int:
    """Send until there is no more room, without giving the peer a turn to read; how many pages that was."""
    count = 0
    while channel.writable:
        send_page(channel, Page(count % 1024, 1, Level.PTE, urgent=False))
        count += 1
        assert count < 16_384, "a channel that takes 64 MiB does not hold anybody back"
    return count


@in_worlds(WORLDS)
async def test_a_channel_nobody_reads_from_is_not_writable_before_long_and_is_again_when_it_is_read(
    nodes: Nodes,
) -> None:
    here, there = await nodes.pair()
    await here.channel.drain()
    for _ in range(3):
        count = await fill(here.channel)
        assert count > 1
        assert here.channel.statistics().queued_bytes > 0
        await here.channel.drain()
        assert here.channel.writable
    here.channel.send(Running())
    await there.ear.until(lambda: there.ear.heard[-1:] == [(Running(), b"")])


@in_worlds(WORLDS, **NARROW)
async def test_a_message_may_be_sent_though_the_channel_is_not_writable(nodes: Nodes) -> None:
    """`send` never waits and loses nothing: 4 MiB on connections that hold a few hundred KiB."""
    here, there = await nodes.pair()
    send_page(here.channel, LARGE)
    assert not here.channel.writable
    send_page(here.channel, Page(1024, 300, Level.PTE, urgent=False))
    here.channel.send(Alive())
    await there.ear.hears(3)
    assert there.ear.page(0, 1324) == body(0, 1324)


@in_worlds(WORLDS, **NARROW)
async def test_all_who_wait_for_room_are_let_in_and_one_may_give_up(nodes: Nodes) -> None:
    here, _ = await nodes.pair()
    send_page(here.channel, LARGE)
    waiting = [asyncio.ensure_future(here.channel.drain()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None, None]


@in_worlds(WORLDS, **NARROW)
async def test_who_waits_for_room_is_told_when_the_connection_is_lost(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    there.ear.on_landing = lambda *_: soon(there.channel.abort)
    send_page(here.channel, LARGE)
    with pytest.raises(BrokenError):
        await here.channel.drain()
    with pytest.raises(BrokenError):
        await here.channel.drain()


# --- the end ---


@in_worlds(WORLDS, **NARROW)
async def test_close_sends_what_is_queued_and_the_peer_hears_of_a_proper_end(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    send_page(here.channel, LARGE)
    here.channel.send(Failed("the last word"))
    assert here.channel.statistics().queued_bytes > 0
    await here.channel.close()
    assert await there.ear.end() is None
    assert await there.ear.hears(2) == [LARGE, Failed("the last word")]
    assert there.ear.page(0, LARGE.count) == body(0, LARGE.count)


@in_worlds(WORLDS)
async def test_close_may_be_called_twice_also_at_the_same_time(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    here.channel.send(Alive())
    await asyncio.gather(here.channel.close(), here.channel.close())
    await here.channel.close()
    here.channel.abort()
    assert await there.ear.end() is None
    assert await there.ear.hears(1) == [Alive()]
    await there.channel.close()


@in_worlds(WORLDS)
async def test_both_sides_may_close_at_the_same_time(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    await asyncio.gather(here.channel.close(), there.channel.close())


@in_worlds(WORLDS)
async def test_abort_may_be_called_twice_and_close_after_it_returns(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    here.channel.abort()
    here.channel.abort()
    await here.channel.close()
    await there.ear.end()


@in_worlds(WORLDS)
async def test_whoever_closes_or_aborts_is_not_told_that_it_is_over(nodes: Nodes) -> None:
    closed, its_peer = await nodes.pair()
    aborted, another_peer = await nodes.pair()
    await closed.channel.close()
    aborted.channel.abort()
    await its_peer.ear.end()
    await another_peer.ear.end()
    await aborted.channel.close()
    assert closed.ear.ends == aborted.ear.ends == []


@in_worlds(WORLDS)
async def test_sending_after_close_or_abort_is_our_own_mistake(nodes: Nodes) -> None:
    closed, _ = await nodes.pair()
    aborted, _ = await nodes.pair()
    closing = asyncio.ensure_future(closed.channel.close())
    aborted.channel.abort()
    await asyncio.sleep(0)
    for end in (closed, aborted):
        with pytest.raises(ClosedError, match="Alive"):
            end.channel.send(Alive())
    await closing
    await aborted.channel.close()
    for end in (closed, aborted):
        with pytest.raises(ClosedError):
            send_page(end.channel, LARGE)


@in_worlds(WORLDS)
async def test_a_peer_that_closes_between_two_messages_is_lost_once_and_without_an_error(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    there.channel.send(Alive())
    await there.channel.close()
    assert await here.ear.end() is None
    assert here.ear.heard == [(Alive(), b"")]
    with pytest.raises(BrokenError):
        await here.channel.drain()
    await here.channel.close()
    assert here.ear.ends == [None]


@in_worlds(WORLDS, **NARROW)
async def test_a_connection_that_ends_within_a_message_is_broken(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    there.ear.on_landing = lambda *_: soon(here.channel.abort)
    send_page(here.channel, LARGE)
    error = await there.ear.end()
    assert isinstance(error, BrokenError)
    assert there.channel.peer in str(error)
    assert there.ear.heard == []


@in_worlds(WORLDS, **NARROW)
async def test_abort_loses_what_is_queued(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    send_page(here.channel, LARGE)
    here.channel.send(Alive())
    here.channel.abort()
    await there.ear.end()
    assert (Alive(), b"") not in there.ear.heard


@in_worlds(WORLDS)
async def test_nothing_is_heard_after_the_handler_has_closed_the_channel(nodes: Nodes) -> None:
    """Although more had come with the same receive."""
    here, there = await nodes.pair()
    there.ear.on_received = lambda channel, _: channel.abort()
    for number in range(20):
        here.channel.send(Request(number, 1, Level.PTE))
    await here.ear.end()
    assert [message.first for message, _ in there.ear.heard] == [0]


@in_worlds(WORLDS)
async def test_nothing_is_announced_and_nothing_lands_after_the_handler_has_closed_the_channel(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    there.ear.on_received = lambda channel, _: channel.abort()
    here.channel.send(Alive())
    send_page(here.channel, Page(0, 1, Level.PTE, urgent=False))
    await here.ear.end()
    assert there.ear.announcements == [(Alive(), 0)]
    assert there.ear.page(0) == bytes([BLANK]) * PAGE


# --- a peer that breaks the protocol ---


@in_worlds(WORLDS)
async def test_a_refused_peer_is_told_the_reason_and_the_connection_is_over(nodes: Nodes) -> None:
    here, there = await nodes.pair()

    def refuse(message: Message) -> None:
        if isinstance(message, Page):
            raise PeerError("no pages today")

    there.ear.on_announced = refuse
    here.channel.send(Alive())
    send_page(here.channel, Page(0, 16, Level.PTE, urgent=False))
    here.channel.send(Alive())
    assert await here.ear.end() is None
    assert here.ear.heard == [(Failed("no pages today"), b"")]

    error = await there.ear.end()
    assert isinstance(error, PeerError)
    assert str(error) == "no pages today"
    assert there.ear.heard == [(Alive(), b"")], "what came before it counts, what came behind it does not"
    assert there.ear.landings == []
    assert there.ear.page(0, 16) == bytes([BLANK]) * (16 * PAGE)
    with pytest.raises(ClosedError):
        there.channel.send(Alive())


@in_worlds(WORLDS, **NARROW)
async def test_the_reason_is_heard_by_a_peer_that_goes_on_talking(nodes: Nodes) -> None:
    """A connection closed with bytes unread is reset, and the last word with it: so they are read, and thrown away."""
    here, there = await nodes.pair()

    def refuse(_: Message) -> None:
        raise PeerError("that is enough")

    there.ear.on_announced = refuse
    for _ in range(2):
        send_page(here.channel, LARGE)
    assert await here.ear.hears(1) == [Failed("that is enough")]
    assert await here.ear.end() is None
    assert isinstance(await there.ear.end(), PeerError)
    assert there.ear.page(0, LARGE.count) == bytes([BLANK]) * (LARGE.count * PAGE)


@in_worlds(WORLDS)
async def test_a_frame_beyond_the_limits_of_the_handler_is_refused(nodes: Nodes) -> None:
    there_ear = Ear()
    there_ear.limits.memory_pages = 16
    here, there = await nodes.pair(there=there_ear)
    send_page(here.channel, Page(15, 1, Level.PTE, urgent=False))
    send_page(here.channel, Page(15, 2, Level.PTE, urgent=False))
    error = await there.ear.end()
    assert isinstance(error, PeerError)
    assert "outside the memory of 16 pages" in str(error)
    assert await here.ear.hears(1) == [Failed(str(error))]
    assert len(there.ear.heard) == 1
