"""The emulated link in real time: it holds what its model says.

Most tests move the clock by hand. The last ones are in real time and say only what a late machine cannot break.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.errors import ScenarioError
from migemu.mm.pages import Level
from migemu.scenario.scenario import LinkSettings
from migemu.transport.clock import EARLY_NS
from migemu.transport.shaper import DELAY_MIN, RATE_MAX, check_link
from migemu.units import KIB, MIB, MS, SECOND, US
from migemu.wire.messages import Alive, DeviceState, Page, Request
from tests.conformance.ear import PAGE
from tests.conformance.handwire import STEP_NS, Make, Wire, on_wires
from tests.conformance.worlds import LOOPS, SHAPED, SHAPED_WORLDS, Nodes, in_worlds

#: A segment is handed over this much before it is due, for what loopback takes by itself, and by an early alarm.
HANDOVER_NS = 60 * US
EARLIEST_NS = HANDOVER_NS + EARLY_NS
#: How far ahead of the wire the queue is filled when it has no size of its own.
AHEAD_NS = 300 * US


# --- rate ---


@on_wires
async def test_a_link_is_never_faster_than_its_rate_and_never_idle_while_something_waits(make: Make) -> None:
    for rate in (100 * 10**6, 10**9, 10 * 10**9):
        wire = make(rate=f"{rate // 10**6}Mbit")
        out = wire.exit()
        total = max(64 * KIB, 4 * rate * MS // (8 * SECOND))
        begin = wire.clock.now
        out.port.send([bytes(total)])
        await wire.settle()
        for at, _ in out.arrivals:
            carried = out.bytes_by(at) * 8
            assert carried <= (at - begin + EARLY_NS) * rate // SECOND + 8
            assert carried >= min(total * 8, (at - begin) * rate // SECOND) - 8 * wire.shaper.segment_bytes
        assert out.bytes_by(wire.clock.now) == total


@on_wires
async def test_a_late_machine_does_not_make_the_link_faster(make: Make) -> None:
    """What was missed while nobody looked is not caught up beyond what was in the link's queue."""
    wire = make(rate="1Gbit")
    out = wire.exit()
    begin = wire.clock.now
    out.port.send([bytes(MIB)])
    while not wire.idle:
        await wire.pass_ns(2 * MS)
        assert out.bytes_by(wire.clock.now) * 8 <= (wire.clock.now - begin + EARLY_NS) * 10**9 // SECOND
    assert wire.clock.now - begin > 2 * 8 * MIB


@on_wires
async def test_the_rate_is_one_for_all_connections_together(make: Make) -> None:
    wire = make(rate="1Gbit")
    outs = [wire.exit() for _ in range(3)]
    begin = wire.clock.now
    for out in outs:
        out.port.send([bytes(100 * KIB)])
    await wire.settle()
    assert (wire.clock.now - begin + EARLY_NS) >= 300 * KIB * 8
    assert [len(out.bytes) for out in outs] == [100 * KIB] * 3


@on_wires
async def test_without_a_rate_everything_arrives_after_the_delay_at_once(make: Make) -> None:
    wire = make(delay="2ms")
    out = wire.exit()
    begin = wire.clock.now
    out.port.send([bytes(MIB)])
    await wire.settle()
    assert {at for at, _ in out.arrivals} == {out.arrivals[0][0]}
    assert 2 * MS - EARLIEST_NS <= out.arrivals[0][0] - begin <= 2 * MS


# --- delay and jitter ---


@on_wires
async def test_nothing_arrives_before_the_delay_nor_later_than_a_step_of_the_clock_after_it(make: Make) -> None:
    wire = make(rate="1Gbit", delay="3ms")
    out = wire.exit()
    due: list[int] = []
    for size in (1, 100, 4 * KIB, 20_000):
        await wire.pass_ns(MS)
        due.append(wire.clock.now + size * 8 + 3 * MS)
        out.port.send([bytes(size)])
    await wire.settle()
    for (at, _), when in zip(out.arrivals, due, strict=True):
        assert when - EARLIEST_NS <= at <= when + STEP_NS


@on_wires
async def test_a_link_of_which_more_than_one_segment_in_twenty_was_late_says_that_it_was_not_held(make: Make) -> None:
    wire = make(delay="1ms")
    out = wire.exit()
    assert wire.shaper.unheld is None
    for number in range(21):
        out.port.send([b"on time"])
        await wire.settle()
        assert wire.shaper.unheld is None, number
    for _ in range(2):
        assert wire.shaper.unheld is None
        out.port.send([b"late"])
        await wire.pass_ns(5 * MS)
    assert (wire.shaper.unheld or "").startswith("8 % of the segments were handed on more than 300us late; ")


@on_wires
async def test_what_counts_as_late_grows_with_the_delay(make: Make) -> None:
    """A tenth of it."""
    wire = make(delay="50ms")
    out = wire.exit()
    for late_ns, held in ((4 * MS, True), (6 * MS, False)):
        out.port.send([b"x"])
        await wire.pass_ns(50 * MS + late_ns)
        assert (wire.shaper.unheld is None) == held


@on_wires
async def test_without_a_delay_the_queue_covers_what_is_late(make: Make) -> None:
    wire = make(rate="1Gbit")
    out = wire.exit()
    for _ in range(5):
        out.port.send([b"x"])
        await wire.pass_ns(5 * MS)
    assert wire.shaper.unheld is None


@on_wires
async def test_jitter_moves_arrivals_within_its_bounds_and_never_past_each_other(make: Make) -> None:
    wire = make(rate="1Gbit", delay="4ms", jitter="2ms")
    out = wire.exit()
    sent: list[int] = []
    for number in range(100):
        sent.append(wire.clock.now)
        out.port.send([bytes([number])])
        await wire.pass_ns(250 * US)
    await wire.settle()
    assert out.bytes == bytes(range(100))
    late = [at - when for (at, _), when in zip(out.arrivals, sent, strict=True)]
    assert all(2 * MS - EARLIEST_NS <= each <= 6 * MS + 250 * US for each in late)
    assert max(late) - min(late) > 2 * MS, "it does vary"


@on_wires
async def test_the_same_seed_jitters_the_same_way(make: Make) -> None:
    arrivals = []
    for seed in (1, 1, 2):
        wire = make(seed=seed, rate="1Gbit", delay="4ms", jitter="2ms")
        out = wire.exit()
        for number in range(20):
            out.port.send([bytes([number])])
            await wire.pass_ns(250 * US)
        await wire.settle()
        arrivals.append(out.arrivals)
    assert arrivals[0] == arrivals[1] != arrivals[2]


# --- fairness ---


@on_wires
async def test_an_urgent_frame_on_a_connection_of_its_own_overtakes_what_waits_on_another(make: Make) -> None:
    """In front of it is what the link's queue holds already, and one segment."""
    wire = make(rate="1Gbit", delay="1ms")
    background, urgent = wire.exit(), wire.exit()
    background.port.send([bytes(4 * MIB)])
    await wire.pass_ns(2 * MS)
    asked = wire.clock.now
    on_its_way = background.bytes_by(asked)
    urgent.port.send([b"u" * 4 * KIB])
    while not urgent.port.idle:
        await wire.pass_ns(STEP_NS)
    took = wire.clock.now - asked
    in_front = AHEAD_NS + 2 * wire.shaper.segment_bytes * 8
    assert took <= MS + in_front + 4 * KIB * 8 + STEP_NS
    assert background.bytes_by(wire.clock.now) - on_its_way <= (took + MS) // 8
    assert background.port.waiting_bytes > 3 * MIB


@on_wires
async def test_connections_that_send_at_the_same_time_take_turns(make: Make) -> None:
    """A segment each: none is ahead by more than one, though the first has had all its bytes waiting before."""
    wire = make(rate="1Gbit")
    outs = [wire.exit() for _ in range(3)]
    outs[0].port.send([bytes(500_000)])
    ahead = 500_000 - outs[0].port.waiting_bytes
    for out in outs[1:]:
        out.port.send([bytes(500_000)])
    while not all(out.port.idle for out in outs):
        await wire.pass_ns(STEP_NS)
        carried = [len(out.bytes) for out in outs]
        assert max(carried) - min(carried) <= ahead + wire.shaper.segment_bytes
    assert [len(out.bytes) for out in outs] == [500_000] * 3


@on_wires
async def test_a_connection_that_is_closed_does_not_hold_the_others_up(make: Make) -> None:
    """What it had waiting is never sent; what was on the wire arrives."""
    wire = make(rate="1Gbit", delay="1ms")
    gone, stays = wire.exit(), wire.exit()
    gone.port.send([bytes(4 * MIB)])
    under_way = 4 * MIB - gone.port.waiting_bytes
    gone.port.close()
    begin = wire.clock.now
    stays.port.send([bytes(10_000)])
    await wire.settle()
    assert len(gone.bytes) == under_way > 0
    assert len(stays.bytes) == 10_000
    assert wire.clock.now - begin <= (under_way + 10_000) * 8 + MS + STEP_NS


# --- what waits ---


@on_wires
async def test_a_port_is_writable_below_its_send_buffer_and_says_when_it_is_again(make: Make) -> None:
    wire = make(rate="1Gbit", socket_bytes=100_000)
    out = wire.exit()
    calls: list[int] = []
    assert out.port.writable
    out.port.send([bytes(300_000)])
    assert not out.port.writable
    out.port.when_writable(lambda: calls.append(out.port.waiting_bytes))
    await wire.pass_ns(100 * US)
    assert calls == []
    await wire.settle()
    assert len(calls) == 1
    assert 100_000 - wire.shaper.segment_bytes <= calls[0] < 100_000
    assert out.port.writable


@on_wires
async def test_what_is_idle_has_nothing_waiting_and_nothing_under_way(make: Make) -> None:
    wire = make(delay="1ms")
    out = wire.exit()
    assert out.port.idle
    out.port.send([b"x"])
    assert out.port.waiting_bytes == 0
    assert not out.port.idle
    await wire.settle()
    assert out.bytes == b"x"


@on_wires
async def test_a_closed_shaper_drops_what_is_under_way_and_may_be_closed_twice(make: Make) -> None:
    wire = make(delay="1ms")
    out = wire.exit()
    out.port.send([b"x"])
    wire.shaper.close()
    wire.shaper.close()
    wire.clock.now += SECOND
    for _ in range(5):
        await asyncio.sleep(0)
    assert out.arrivals == []


frames = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 200_000), st.sampled_from([0, 50 * US, 3 * MS])), max_size=12
)


@settings(max_examples=40)
@given(
    traffic=frames,
    rate=st.sampled_from(["0", "200Mbit", "5Gbit"]),
    delay=st.sampled_from([0, 1, 5]),
    jittered=st.booleans(),
)
def test_whatever_is_sent_each_connection_delivers_all_of_it_in_order(
    traffic: list[tuple[int, int, int]], rate: str, delay: int, jittered: bool
) -> None:
    async def main() -> None:
        wire = Wire(rate=rate, delay=f"{delay}ms", jitter=f"{delay if jittered else 0}ms")
        outs = [wire.exit() for _ in range(3)]
        sent = [b"", b"", b""]
        random = Random(1)
        for number, size, pause_ns in traffic:
            data = random.randbytes(size)
            sent[number] += data
            outs[number].port.send([data[: size // 3], data[size // 3 :]])
            await wire.pass_ns(pause_ns)
        await wire.settle(MS)
        assert [out.bytes for out in outs] == sent
        wire.shaper.close()

    LOOPS[0].run(main())


# --- what cannot be held ---


@pytest.mark.parametrize(
    ("link", "key"),
    [
        ({"rate": f"{RATE_MAX // 10**9 + 1}Gbit"}, "link.rate"),
        ({"delay": f"{DELAY_MIN // US - 1}us"}, "link.delay"),
        ({"delay": "5ms", "jitter": "10us"}, "link.jitter"),
    ],
    ids=str,
)
def test_a_link_that_real_time_cannot_hold_is_refused_by_its_key(link: dict[str, str], key: str) -> None:
    with pytest.raises(ScenarioError) as error:
        check_link("link", LinkSettings(**link))
    assert error.value.key == key


@pytest.mark.parametrize(
    "link",
    [
        {},
        {"rate": f"{RATE_MAX // 10**9}Gbit"},
        {"delay": f"{DELAY_MIN // US}us"},
        {"delay": "9ms", "jitter": "9ms"},
        {"delay": "9ms", "jitter": "9ms", "distribution": "pareto:shape=2"},
    ],
    ids=str,
)
def test_a_link_that_real_time_can_hold_is_accepted(link: dict[str, str]) -> None:
    check_link("link", LinkSettings(**link))


# --- in real time, over TCP ---


@in_worlds(SHAPED_WORLDS)
async def test_a_message_takes_the_delay_and_its_answer_takes_it_again(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    there.ear.on_received = lambda channel, message: channel.send(message)
    for number in range(3):
        begin = nodes.clock.now_ns()
        here.channel.send(Alive())
        await there.ear.hears(number + 1)
        assert nodes.clock.now_ns() - begin >= SHAPED.delay - EARLIEST_NS
        await here.ear.hears(number + 1)
        assert nodes.clock.now_ns() - begin >= 2 * (SHAPED.delay - EARLIEST_NS)


@in_worlds(SHAPED_WORLDS)
async def test_bytes_take_at_least_the_time_that_the_rate_gives_them(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    size = MIB
    begin = nodes.clock.now_ns()
    here.channel.send(Page(0, size // PAGE, Level.PTE, urgent=False), bytes(size))
    await there.ear.hears(1)
    assert nodes.clock.now_ns() - begin >= size * 8 * SECOND // SHAPED.rate + SHAPED.delay - EARLIEST_NS


@in_worlds(SHAPED_WORLDS)
async def test_an_urgent_page_on_a_second_connection_overtakes_the_background_on_the_first(nodes: Nodes) -> None:
    """Both directions of the order: the urgent page was sent last and is there first."""
    here, there = await nodes.pair()
    urgent_here, urgent_there = await nodes.pair()
    order: list[str] = []
    there.ear.on_received = lambda *_: order.append("background")
    urgent_there.ear.on_received = lambda *_: order.append("urgent")
    here.channel.send(Page(0, 1024, Level.PTE, urgent=False), bytes(1024 * PAGE))
    urgent_here.channel.send(Page(1, 1, Level.PTE, urgent=True), bytes(PAGE))
    await there.ear.hears(1)
    await urgent_there.ear.hears(1)
    assert order == ["urgent", "background"]


@in_worlds(SHAPED_WORLDS, write_hot="4K", high_water="64K")
async def test_who_waits_while_small_slices_go_out_is_let_in_although_the_link_has_filled_meanwhile(
    nodes: Nodes,
) -> None:
    """After something urgent the socket gets a slice a turn; the link's room is another matter, and comes later."""
    here, _ = await nodes.pair()
    waiting = None
    for _ in range(50):
        here.channel.send(Request(0, 1, Level.PTE))
        here.channel.send(DeviceState(0), bytes(24 * KIB))  # the link has room for more
        until = nodes.clock.now_ns() + 5 * MS
        while here.channel.writable and nodes.clock.now_ns() < until:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        if not here.channel.writable:
            waiting = asyncio.ensure_future(here.channel.drain())
            await asyncio.sleep(0)
            break
    assert waiting is not None
    here.channel.send(Page(0, 1024, Level.PTE, urgent=False), bytes(1024 * PAGE))
    await asyncio.wait_for(waiting, 2)
