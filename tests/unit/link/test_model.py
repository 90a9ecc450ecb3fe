"""The link as arithmetic, by hand and for any traffic."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.link.model import LinkModel
from migemu.units import MS, SECOND, US

GBIT = 10**9


def link(
    rate_bps: int = 0, delay_ns: int = 0, jitter_ns: int = 0, queue_bytes_max: int = 0, seed: int = 1
) -> LinkModel:  # fmt: skip
    return LinkModel(rate_bps, delay_ns, jitter_ns, queue_bytes_max, Random(seed))


@pytest.mark.parametrize(
    ("wire", "frames", "arrivals"),
    [
        # (bytes, sent at); 1 Gbit/s is 8 ns a byte
        (link(), [(1000, 5), (10**9, 5), (1, 7)], [5, 5, 7]),
        (link(delay_ns=100), [(1000, 5), (1, 7)], [105, 107]),
        (link(GBIT), [(1000, 0)], [8000]),
        (link(GBIT), [(1000, 0), (500, 0), (500, 1000)], [8000, 12_000, 16_000]),
        (link(GBIT), [(1000, 0), (500, 8000), (500, 20_000)], [8000, 12_000, 24_000]),
        (link(GBIT, 50 * US), [(1000, 0), (1000, 0)], [58_000, 66_000]),
        (link(25 * GBIT, 10 * US), [(4096, 100), (2 << 20, 100)], [11_411, 682_500]),
        (link(3), [(1, 0), (1, 0)], [2_666_666_667, 5_333_333_334]),
        (link(GBIT), [(0, 3), (1, 3), (0, 3)], [3, 11, 11]),
    ],
    ids=["free", "delay", "rate", "back to back", "with pauses", "both", "25G", "rounded up", "empty frames"],
)  # fmt: skip
def test_arrivals_by_hand(wire: LinkModel, frames: list[tuple[int, int]], arrivals: list[int]) -> None:
    assert [wire.send(*frame) for frame in frames] == arrivals


def test_what_is_queued_departs_bit_by_bit() -> None:
    """A byte counts until its last bit has left the transmitter; the wire's delay is no queue."""
    wire = link(GBIT, delay_ns=SECOND)
    for _ in range(3):
        wire.send(1000, 0)
    assert [wire.queued_bytes(t) for t in (0, 1, 7, 8, 8000, 23_999, 24_000, 24_001)] == [
        3000, 3000, 3000, 2999, 2000, 1, 0, 0
    ]  # fmt: skip


def test_a_wire_without_a_rate_has_no_queue() -> None:
    wire = link(delay_ns=SECOND, queue_bytes_max=1)
    wire.send(10**9, 0)
    assert (wire.queued_bytes(0), wire.room_at(0)) == (0, 0)


@pytest.mark.parametrize(
    ("queue_bytes_max", "frames", "now", "room_at"),
    [
        (0, [10**9], 0, 0),  # no limit
        (1000, [], 5, 5),
        (1000, [1000], 0, 0),
        (1000, [1001], 0, 8),
        (1000, [400, 400, 400], 0, 1600),  # 1000 bytes are left when 200 have departed
        (1000, [400, 400, 400], 1599, 1600),
        (1000, [400, 400, 400], 1600, 1600),
        (1000, [400, 400, 400], 5000, 5000),
        (1000, [5000], 100, 32_000),  # a frame larger than the queue
        (1, [10, 10], 0, 152),
    ],
)
def test_a_full_queue_has_room_again_when_enough_has_departed(
    queue_bytes_max: int, frames: list[int], now: int, room_at: int
) -> None:
    wire = link(GBIT, delay_ns=MS, queue_bytes_max=queue_bytes_max)
    for frame_bytes in frames:
        wire.send(frame_bytes, 0)
    assert wire.room_at(now) == room_at


def test_jitter_is_drawn_from_both_sides_of_the_delay() -> None:
    """Frames far apart, so that keeping order changes nothing."""
    wire = link(delay_ns=1000, jitter_ns=300)
    offsets = [wire.send(1, now) - now for now in range(0, 10**7, 10**4)]
    assert min(offsets) >= 700
    assert max(offsets) <= 1300
    assert {offset < 1000 for offset in offsets} == {True, False}
    assert min(offsets) < 750, "the whole width is used"
    assert max(offsets) > 1250


def test_the_seed_decides() -> None:
    sent = [[link(delay_ns=10**6, jitter_ns=10**6, seed=seed).send(1, 0) for _ in range(3)] for seed in (1, 1, 2)]
    assert sent[0] == sent[1] != sent[2]


traffic = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 50_000)), min_size=1, max_size=40)


@given(
    frames=traffic,
    rate_bps=st.sampled_from([0, 1, 7, 10**6, GBIT, 25 * GBIT]),
    delay_ns=st.integers(0, 10**6),
    jitter=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_never_out_of_order_never_early_never_above_the_rate(
    frames: list[tuple[int, int]], rate_bps: int, delay_ns: int, jitter: float, seed: int
) -> None:
    """`frames` are (bytes, pause before it)."""
    jitter_ns = int(delay_ns * jitter)
    wire = link(rate_bps, delay_ns, jitter_ns, seed=seed)
    now = 0
    sent: list[tuple[int, int, int]] = []
    for frame_bytes, pause in frames:
        now += pause
        sent.append((now, frame_bytes, wire.send(frame_bytes, now)))
    arrivals = [arrival for _, _, arrival in sent]
    assert arrivals == sorted(arrivals)
    for index, (start, _, _) in enumerate(sent):
        behind = 0
        for _, frame_bytes, arrival in sent[index:]:
            behind += frame_bytes
            earliest = start + delay_ns - jitter_ns
            assert arrival >= earliest, "a frame arrived before the light did"
            assert (arrival - earliest) * rate_bps >= behind * 8 * SECOND or not rate_bps, "more than the rate"
    if not jitter_ns and rate_bps:
        for (_, _, before), (_, frame_bytes, arrival) in pairwise(sent):
            assert (arrival - before + 1) * rate_bps > frame_bytes * 8 * SECOND, "sums are rounded, not each"


@given(frames=traffic, rate_bps=st.sampled_from([7, 10**6, GBIT, 3 * GBIT]), queue_bytes_max=st.integers(1, 50_000))
def test_who_waits_for_room_never_holds_more_than_the_queue_and_one_frame(
    frames: list[tuple[int, int]], rate_bps: int, queue_bytes_max: int
) -> None:
    """And does not wait a nanosecond longer than needed."""
    wire = link(rate_bps, MS, queue_bytes_max=queue_bytes_max)
    now = arrived = 0
    for frame_bytes, pause in frames:
        asked = now + pause
        now = wire.room_at(asked)
        assert wire.queued_bytes(now) <= queue_bytes_max
        assert wire.room_at(now) == now
        assert now == asked or wire.queued_bytes(now - 1) > queue_bytes_max
        arrived = wire.send(frame_bytes, now)
        assert wire.queued_bytes(now) <= queue_bytes_max + frame_bytes + 1, "times are whole ns: a byte at most"
    assert wire.queued_bytes(arrived) == 0


def test_a_link_says_what_it_is() -> None:
    assert repr(link(GBIT, 50 * US)) == "<LinkModel 1000000000 bit/s, 50000 ns>"
