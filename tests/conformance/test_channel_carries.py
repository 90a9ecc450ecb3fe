"""Channel: what it carries arrives whole, in order, in place, and no faster than it is read; in every world."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from migemu.mm.pages import Level
from migemu.ports import Channel
from migemu.units import MS
from migemu.wire.codec import PREAMBLE_BYTES
from migemu.wire.header import encode_head
from migemu.wire.messages import Alive, DeviceState, Message, Page, Request
from tests.conformance.cargo import LARGE, NARROW, body, send_page
from tests.conformance.ear import BLANK, PAGE, PAGES, Ear
from tests.conformance.worlds import WORLDS, Nodes, in_worlds
from tests.samples import SAMPLES

#: Around a page, the size from which payloads are received in place, the staging buffer, and far beyond.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 255, 512, 1024)
MESSAGES = tuple(Request(number, 1, Level.PTE) for number in range(500))


def frame_bytes(frames: Iterable[tuple[Message, bytes]]) -> int:
    return sum(len(encode_head(message, len(payload))) + len(payload) for message, payload in frames)


# --- messages ---


@in_worlds(WORLDS)
async def test_every_kind_of_message_arrives_whole_and_in_order_in_both_directions(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    for message, payload in SAMPLES:
        for end in (here, there):
            end.channel.send(message, payload or None)
    expected = [(message, b"" if isinstance(message, Page) else payload) for message, payload in SAMPLES]
    for end in (here, there):
        await end.ear.hears(len(SAMPLES))
        assert end.ear.heard == expected
        assert end.ear.announcements == [(message, len(payload)) for message, payload in SAMPLES]


@in_worlds(WORLDS)
async def test_many_small_messages_keep_their_order_while_both_sides_talk(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    for number, message in enumerate(MESSAGES):
        here.channel.send(message)
        there.channel.send(message)
        if number % 50 == 0:
            await asyncio.sleep(0)
    assert await here.ear.hears(len(MESSAGES)) == list(MESSAGES)
    assert await there.ear.hears(len(MESSAGES)) == list(MESSAGES)


@in_worlds(WORLDS)
async def test_the_handlers_are_told_of_their_own_channel_and_of_no_other(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    for end in (here, there):
        end.channel.send(Alive())
    for end in (here, there):
        await end.ear.hears(1)
        assert end.ear.channels == {end.channel}


@in_worlds(WORLDS)
async def test_connections_to_one_listener_do_not_mix(nodes: Nodes) -> None:
    """Each has the handler that `accept` named for it."""
    ears: list[Ear] = []

    def accept(_: Channel) -> Ear:
        ears.append(Ear())
        return ears[-1]

    listener = await nodes.destination.listen(nodes.free(), accept)
    nodes.listeners.append(listener)
    ends = [await nodes.source.connect(listener.address, Ear()) for _ in range(4)]
    for number, channel in enumerate(ends):
        channel.send(DeviceState(number), b"x" * 40_000)
    for channel in ends:
        await channel.close()
    for ear in ears:
        assert await ear.end() is None
    assert sorted(message.offset for ear in ears for message, _ in ear.heard) == [0, 1, 2, 3]
    assert all(len(ear.heard) == 1 for ear in ears)


# --- payloads ---


@in_worlds(WORLDS)
async def test_pages_of_any_size_land_in_place_and_nowhere_else(nodes: Nodes) -> None:
    """With a gap of one page behind each run, and a small message behind each."""
    here, there = await nodes.pair()
    first, runs = 1, []
    for pages in SIZES:
        runs.append(Page(first, pages, Level.PTE, urgent=False))
        first += pages + 1
    for run in runs:
        send_page(here.channel, run)
        here.channel.send(Alive())
    heard = await there.ear.hears(2 * len(runs))
    assert heard == [message for run in runs for message in (run, Alive())]
    expected = bytearray([BLANK]) * (PAGES * PAGE)
    for run in runs:
        expected[run.first * PAGE : (run.first + run.count) * PAGE] = body(run.first, run.count)
    assert there.ear.memory == expected


@in_worlds(WORLDS)
async def test_pieces_of_a_larger_level_land_as_a_whole(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    page = Page(8, 3, Level.PMD, urgent=True)
    send_page(here.channel, page)
    assert await there.ear.hears(1) == [page]
    assert there.ear.page(7, 14) == bytes([BLANK]) * PAGE + body(8, 12) + bytes([BLANK]) * PAGE


@in_worlds(WORLDS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (8, 1, 8), (1024, 3)], ids=str)
async def test_a_page_is_heard_of_only_when_all_of_it_lies_in_memory(nodes: Nodes, sizes: tuple[int, ...]) -> None:
    here, there = await nodes.pair()
    whole: list[bool] = []

    def look(_: Channel, message: Message) -> None:
        assert isinstance(message, Page)
        whole.append(there.ear.page(message.first, message.count) == body(message.first, message.count))

    there.ear.on_received = look
    first = 0
    for size in sizes:
        send_page(here.channel, Page(first, size, Level.PTE, urgent=False))
        first += size
    await there.ear.hears(len(sizes))
    assert whole == [True] * len(sizes)


@in_worlds(WORLDS)
async def test_landing_is_asked_in_order_from_the_first_byte_on_and_never_beyond_the_run(nodes: Nodes) -> None:
    """And not before the frame was announced."""
    here, there = await nodes.pair()
    announced_first: list[bool] = []
    there.ear.on_landing = lambda page, _: announced_first.append(page in [m for m, _ in there.ear.announcements])
    runs = [Page(1, 3, Level.PTE, urgent=False), Page(10, 200, Level.PTE, urgent=False)]
    for run in runs:
        send_page(here.channel, run)
    await there.ear.hears(len(runs))
    assert all(announced_first)
    for run in runs:
        offsets = [offset for page, offset in there.ear.landings if page == run]
        assert offsets[0] == 0
        assert offsets == sorted(offsets)  # twice the same where TLS has brought half a record
        assert offsets[-1] < run.count * PAGE


@in_worlds(WORLDS)
async def test_what_was_received_before_lands_in_scrap_when_it_comes_again(nodes: Nodes) -> None:
    """A guest that has written to it meanwhile keeps what it wrote."""
    here, there = await nodes.pair()
    for page in (2, 3, 5, 63):
        there.ear.came[page] = 1
    send_page(here.channel, Page(0, 64, Level.PTE, urgent=False))
    await there.ear.hears(1)
    for page in range(64):
        expected = bytes([BLANK]) * PAGE if page in (2, 3, 5, 63) else body(page)
        assert there.ear.page(page) == expected, page


@in_worlds(WORLDS, **NARROW)
async def test_what_becomes_received_while_it_is_under_way_lands_in_scrap(nodes: Nodes) -> None:
    """The memory that was lent first reached over all of the run; before each receive the channel asks again."""
    here, there = await nodes.pair()

    def overtake(page: Page, offset: int) -> None:
        """From the second receive on, the last page has come another way."""
        if offset:
            there.ear.came[page.count - 1] = 1

    there.ear.on_landing = overtake
    send_page(here.channel, LARGE)
    await there.ear.hears(1)
    assert there.ear.page(0, LARGE.count - 1) == body(0, LARGE.count - 1)
    assert there.ear.page(LARGE.count - 1) == bytes([BLANK]) * PAGE


@in_worlds(WORLDS, **NARROW)
async def test_a_page_on_a_second_connection_overtakes_the_run_that_it_belongs_to(nodes: Nodes) -> None:
    """The late copy must not undo what the guest has done with the early one."""
    here, there = await nodes.pair()
    urgent_here, urgent_there = await nodes.pair(there=Ear(there.ear.memory, there.ear.came))
    late = 900
    written: list[int] = []

    def write(_: Channel, message: Message) -> None:
        there.ear.memory[late * PAGE : late * PAGE + 8] = b"guest wr"
        written.append(len(there.ear.heard))

    urgent_there.ear.on_received = write
    send_page(here.channel, LARGE)
    send_page(urgent_here.channel, Page(late, 1, Level.PTE, urgent=True))
    await there.ear.hears(1)
    await urgent_there.ear.hears(1)
    assert written == [0], "it came before the run had"
    assert there.ear.page(late) == b"guest wr" + body(late)[8:]
    assert there.ear.page(0, late) == body(0, late)
    assert there.ear.page(late + 1, 1023 - late) == body(late + 1, 1023 - late)


# --- statistics ---


@in_worlds(WORLDS)
async def test_what_one_side_has_sent_is_what_the_other_has_received(nodes: Nodes) -> None:
    """Preambles and frames, to the byte; and nothing is queued in the end."""
    here, there = await nodes.pair()
    forth = [(message, b"") for message in MESSAGES[:20]] + [(DeviceState(0), b"d" * 100_000)]
    back = [(Alive(), b"")] * 3
    for end, frames in ((here, forth), (there, back)):
        for message, payload in frames:
            end.channel.send(message, payload or None)
    send_page(here.channel, LARGE)
    forth.append((LARGE, body(0, LARGE.count)))
    await there.ear.hears(len(forth))
    await here.ear.hears(len(back))
    ours, theirs = here.channel.statistics(), there.channel.statistics()
    assert ours.sent_bytes == theirs.received_bytes == PREAMBLE_BYTES + frame_bytes(forth)
    assert theirs.sent_bytes == ours.received_bytes == PREAMBLE_BYTES + frame_bytes(back)
    assert ours.queued_bytes == theirs.queued_bytes == 0
    await here.channel.close()
    assert here.channel.statistics().sent_bytes == ours.sent_bytes, "they can be asked for after the end"


@in_worlds(WORLDS, **NARROW)
async def test_queued_bytes_are_a_part_of_those_sent_and_go_down_to_none(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    send_page(here.channel, LARGE)
    before = here.channel.statistics()
    assert 0 < before.queued_bytes <= before.sent_bytes
    await there.ear.hears(1)
    assert here.channel.statistics().queued_bytes == 0


@in_worlds(WORLDS)
async def test_the_time_of_the_last_receive_is_the_clocks_and_moves_with_what_comes(nodes: Nodes) -> None:
    begin = nodes.clock.now_ns()
    here, there = await nodes.pair()
    here.channel.send(Alive())
    await there.ear.hears(1)
    first = there.channel.statistics().last_received_ns
    assert begin <= first <= nodes.clock.now_ns()
    await nodes.clock.sleep_until(nodes.clock.now_ns() + 2 * MS)
    between = nodes.clock.now_ns()
    here.channel.send(Alive())
    await there.ear.hears(2)
    assert first < there.channel.statistics().last_received_ns
    assert between <= there.channel.statistics().last_received_ns <= nodes.clock.now_ns()
