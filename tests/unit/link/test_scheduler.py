"""The wire: whose segment is next, by hand, against a slow twin, and for any traffic."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.link.model import LinkModel
from migemu.link.scheduler import Flow, LinkScheduler, QueuedFrame, Scheduling
from migemu.units import KIB, MIB, MS, SECOND, US

GBIT = 10**9
SEGMENT = 1000
FIFO, FAIR, STRICT = Scheduling.FIFO, Scheduling.FAIR, Scheduling.STRICT
every_scheduling = pytest.mark.parametrize("scheduling", Scheduling, ids=lambda scheduling: scheduling.value)


class Sent(NamedTuple):
    """A frame of a test: when, on which channel, how large."""

    at: int
    channel: int
    size: int


class Bench:
    """A wire of 1 Gbit/s (8 ns a byte) and three channels, the first of which is urgent."""

    def __init__(self, scheduling: Scheduling, ahead_ns: int = 0, rate_bps: int = GBIT, **model: int) -> None:
        self.wire = LinkScheduler(
            LinkModel(rate_bps, model.get("delay_ns", 0), model.get("jitter_ns", 0), 0, Random(1)),
            scheduling, SEGMENT, ahead_ns, reorder=bool(model.get("reorder", 0)),
        )  # fmt: skip
        self.flows: list[Flow] = [self.wire.flow(name) for name in ("urgent", "main", "other")]
        self.flows[0].urgent = True
        self.done: list[QueuedFrame] = []

    def play(self, traffic: Sequence[Sent], peeks: Sequence[int] = ()) -> list[QueuedFrame]:
        """Send everything at its time, ask at every deadline and at `peeks`; the frames in the order of sending."""
        frames: list[QueuedFrame] = []
        looks = sorted(peeks)
        for sent in traffic:
            while looks and looks[0] <= sent.at:
                self.until(looks[0])
                self.done += self.wire.advance(looks.pop(0))
            self.until(sent.at)
            frames.append(self.wire.send(self.flows[sent.channel], sent.size, None, sent.at))
            self.done += self.wire.advance(sent.at)
        self.until(1 << 61)
        assert sorted(each.serial for each in self.done) == [each.serial for each in frames], "each exactly once"
        return frames

    def until(self, end_ns: int) -> None:
        before = -1
        while (when_ns := self.wire.deadline()) is not None and when_ns <= end_ns:
            assert when_ns > before, "it asks to be asked again and nothing happens"
            before = when_ns
            self.done += self.wire.advance(when_ns)


def naive(
    traffic: Sequence[Sent], scheduling: Scheduling, ahead_ns: int, rate_bps: int = GBIT
) -> list[tuple[int, int]]:
    """(started, departed) of each frame, a segment at a time, with exact fractions left to the end."""
    queues: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}  # [number, bytes left]
    turns: list[int] = []
    deficit = dict.fromkeys(queues, SEGMENT)
    started, departed = [-1] * len(traffic), [-1] * len(traffic)
    coming = list(enumerate(traffic))
    now = free = busy_since = busy_bytes = 0
    while coming or turns:
        at = max(now, free - ahead_ns) if turns else coming[0][1].at
        if coming and (coming[0][1].at < at or not turns):
            number, sent = coming.pop(0)
            now = max(now, sent.at)
            if not queues[sent.channel]:
                turns.append(sent.channel)
                deficit[sent.channel] = SEGMENT
            queues[sent.channel].append([number, sent.size])
            continue
        now = at
        for spent in [channel for channel in turns if deficit[channel] <= 0 and len(turns) > 1]:
            deficit[spent] += SEGMENT
            turns.remove(spent)
            turns.append(spent)
        if scheduling is FAIR:
            channel = turns[0]
        elif scheduling is FIFO:
            channel = min(turns, key=lambda channel: queues[channel][0][0])
        else:
            channel = min(turns, key=lambda channel: (channel != 0, queues[channel][0][0]))
        alone = len(turns) == 1
        frame = queues[channel][0]
        count = min(frame[1], SEGMENT)
        if at > free:
            busy_since, busy_bytes = at, 0
        if started[frame[0]] < 0:
            started[frame[0]] = max(at, free)
        busy_bytes += count
        free = busy_since + -(-busy_bytes * 8 * SECOND // rate_bps)
        frame[1] -= count
        deficit[channel] = 0 if alone else deficit[channel] - count
        if not frame[1]:
            departed[frame[0]] = free
            queues[channel].pop(0)
        if not queues[channel]:
            turns.remove(channel)
    return list(zip(started, departed, strict=True))


sizes = st.one_of(st.integers(0, 3 * SEGMENT), st.integers(0, 40 * SEGMENT), st.sampled_from([SEGMENT, 20 * SEGMENT]))
traffics = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 4000, 8000, 100_000]), st.integers(0, 2), sizes), min_size=1, max_size=25
).map(
    lambda rows: [
        Sent(sum(pause for pause, _, _ in rows[: index + 1]), channel, size)
        for index, (_, channel, size) in enumerate(rows)
    ]
)


# --- by hand ---


@pytest.mark.parametrize(
    ("scheduling", "departures"),
    [
        # 10 segments on main from 0 on; at 12 us (in the middle of the second one) 500 bytes on urgent and on other
        (FIFO, [80_000, 84_000, 88_000]),
        (FAIR, [88_000, 20_000, 24_000]),
        (STRICT, [84_000, 20_000, 88_000]),
    ],
    ids=["fifo", "fair", "strict"],
)
def test_departures_by_hand(scheduling: Scheduling, departures: list[int]) -> None:
    frames = Bench(scheduling).play([Sent(0, 1, 10_000), Sent(12_000, 0, 500), Sent(12_000, 2, 500)])
    assert [frame.departed_ns for frame in frames] == departures


def test_a_queue_that_is_filled_ahead_cannot_be_overtaken() -> None:
    """4 us of it are half a segment: the third is taken when half of the second has departed."""
    bench = Bench(STRICT, ahead_ns=4_000)
    _, before, after = bench.play([Sent(0, 1, 10_000), Sent(11_999, 0, 500), Sent(36_000, 0, 500)])
    assert before.departed_ns == 20_000
    assert after.departed_ns == 20_000 + 28_000


def test_the_times_of_a_frame() -> None:
    bench = Bench(STRICT, delay_ns=MS)
    first, second = bench.play([Sent(0, 1, 3000), Sent(100, 0, 500)])
    assert (first.enqueued_ns, first.started_ns, first.departed_ns, first.arrived_ns) == (0, 0, 28_000, MS + 28_000)
    assert (second.enqueued_ns, second.started_ns, second.departed_ns) == (100, 8000, 12_000)


def test_a_buffer_says_when_it_has_room() -> None:
    bench = Bench(FIFO)
    flow = bench.flows[1]
    bench.wire.send(flow, 10_000, None, 0)
    bench.wire.advance(0)
    flow.room_bytes, flow.room_wanted = 5000, True
    when = bench.wire.deadline()
    assert when == 5 * 8000
    bench.wire.advance(when - 1)
    assert flow.waiting_bytes == 5000
    bench.wire.advance(when)
    assert flow.waiting_bytes == 4000


def test_what_is_dropped_never_departs_and_the_others_go_on() -> None:
    bench = Bench(FAIR)
    bench.wire.send(bench.flows[1], MIB, None, 0)
    kept = bench.wire.send(bench.flows[2], 5000, None, 0)
    bench.wire.advance(20_000)
    bench.wire.drop(bench.flows[1])
    bench.until(SECOND)
    assert bench.done == [kept]
    assert bench.flows[1].waiting_bytes == 0
    assert kept.departed_ns == (5000 + 2000) * 8


# --- for any traffic ---


@every_scheduling
@given(traffic=traffics, ahead_ns=st.sampled_from([0, 3000, 8000, 50_000]), rate=st.sampled_from([GBIT, 3 * GBIT]))
def test_the_wire_is_its_slow_twin(scheduling: Scheduling, traffic: list[Sent], ahead_ns: int, rate: int) -> None:
    frames = Bench(scheduling, ahead_ns, rate).play(traffic)
    assert [(frame.started_ns, frame.departed_ns) for frame in frames] == naive(traffic, scheduling, ahead_ns, rate)


@every_scheduling
@given(traffic=traffics, ahead_ns=st.sampled_from([0, 8000]), peeks=st.lists(st.integers(0, 500_000), max_size=20))
def test_asking_more_often_changes_nothing(
    scheduling: Scheduling, traffic: list[Sent], ahead_ns: int, peeks: list[int]
) -> None:
    once, often = Bench(scheduling, ahead_ns).play(traffic), Bench(scheduling, ahead_ns).play(traffic, peeks)
    assert [frame.departed_ns for frame in once] == [frame.departed_ns for frame in often]


@every_scheduling
@given(traffic=traffics)
def test_it_is_work_conserving_and_loses_nothing(scheduling: Scheduling, traffic: list[Sent]) -> None:
    """The last bit of each busy period departs when that of a single queue would."""
    frames = Bench(scheduling).play(traffic)
    free = since = count = 0
    for sent in traffic:
        if sent.at > free:
            since, count = sent.at, 0
        count += sent.size
        free = since + count * 8
    assert max(frame.departed_ns for frame in frames) == free


@every_scheduling
@given(traffic=traffics, jitter=st.sampled_from([0, MS]), reorder=st.integers(0, 1))
def test_each_channel_keeps_its_order(scheduling: Scheduling, traffic: list[Sent], jitter: int, reorder: int) -> None:
    frames = Bench(scheduling, delay_ns=MS, jitter_ns=jitter, reorder=reorder).play(traffic)
    for channel in ("urgent", "main", "other"):
        arrivals = [frame.arrived_ns for frame in frames if frame.channel == channel]
        assert arrivals == sorted(arrivals)
    if not reorder:
        by_departure = sorted(frames, key=lambda frame: (frame.departed_ns, frame.arrived_ns))
        assert [frame.arrived_ns for frame in by_departure] == sorted(frame.arrived_ns for frame in frames)


@given(traffic=traffics)
def test_fifo_is_the_closed_form(traffic: list[Sent]) -> None:
    frames = Bench(FIFO, delay_ns=5).play(traffic)
    model = LinkModel(GBIT, 5, 0, 0, Random(1))
    assert [frame.arrived_ns for frame in frames] == [model.send(sent.size, sent.at) for sent in traffic]


@given(traffic=traffics, ahead_ns=st.sampled_from([0, 8000, 50_000]))
def test_strict_an_urgent_frame_waits_for_a_segment_and_the_queue_and_urgent_ones_alone(
    traffic: list[Sent], ahead_ns: int
) -> None:
    frames = Bench(STRICT, ahead_ns).play(traffic)
    free = 0
    for sent, frame in zip(traffic, frames, strict=True):
        if sent.channel == 0:
            latest = max(sent.at + ahead_ns + SEGMENT * 8, free) + sent.size * 8
            assert frame.departed_ns <= latest
            free = latest


@given(sizes=st.tuples(st.integers(1, 60_000), st.integers(1, 60_000), st.integers(1, 60_000)))
def test_fair_channels_that_wait_together_get_the_same(sizes: tuple[int, int, int]) -> None:
    """When one is done, none of the others has got more than a segment more or less than it, while it had as much."""
    frames = Bench(FAIR).play([Sent(0, channel, size) for channel, size in enumerate(sizes)])
    for frame, size in zip(frames, sizes, strict=True):
        most = sum(min(other, size + 2 * SEGMENT) for other in sizes) - min(size, size + 2 * SEGMENT) + size
        least = sum(min(other, max(0, size - 2 * SEGMENT)) for other in sizes if other != size)
        assert least * 8 <= frame.departed_ns <= most * 8


@every_scheduling
def test_a_free_wire_takes_no_time(scheduling: Scheduling) -> None:
    frames = Bench(scheduling, rate_bps=0, delay_ns=7).play([Sent(5, 1, MIB), Sent(5, 0, 0), Sent(6, 2, 3)])
    assert [frame.arrived_ns for frame in frames] == [12, 12, 13]


def test_an_outage_holds_everything_up() -> None:
    model = LinkModel(GBIT, 100, 0, 0, Random(1), outages=((10_000, 50_000), (60_000, 70_000)))
    wire = LinkScheduler(model, STRICT, SEGMENT)
    bulk = wire.flow("main")
    frames = [wire.send(bulk, size, None, 0) for size in (1000, 1000, 2000)]
    while (when := wire.deadline()) is not None:
        wire.advance(when)
    assert [frame.departed_ns for frame in frames] == [8000, 16_000 + 40_000, 32_000 + 40_000 + 10_000]
    later = wire.send(bulk, 0, None, 65_000 + MS)
    wire.advance(65_000 + MS)
    assert later.arrived_ns == 65_100 + MS


def test_the_cost_does_not_grow_with_the_segments() -> None:
    """Two channels with 64 MiB each in segments of a packet: a few questions a frame, not one a segment."""
    wire = LinkScheduler(LinkModel(25 * GBIT, 25 * US, 0, 0, Random(1)), FAIR, 1500)
    for flow in (wire.flow("main"), wire.flow("preempt")):
        for _ in range(64):
            wire.send(flow, MIB, None, 0)
    questions, done = 0, wire.advance(0)
    while (when := wire.deadline()) is not None:
        questions += 1
        done += wire.advance(when)
    assert len(done) == 128
    assert questions <= 4 * len(done)
    assert done[-1].departed_ns == 128 * MIB * 8 * SECOND // (25 * GBIT) + 1


def test_a_wire_says_what_it_does() -> None:
    wire = LinkScheduler(LinkModel(GBIT, 0, 0, 0, Random(1)), STRICT, 4 * KIB)
    wire.send(wire.flow("main"), 10_000, None, 0)
    wire.advance(0)
    assert repr(wire) == "<Wire strict, 4096 bytes queued, main 5904 waiting>"
