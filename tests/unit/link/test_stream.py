"""What TCP makes of a wire: published throughput under loss, repairs by hand, windows, idle times, outages."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.link.congestion import CONGESTION, INITIAL_WINDOW, MSS, Cubic, Reno, RetransmissionTimer
from migemu.link.model import LinkModel
from migemu.link.scheduler import Flow, LinkScheduler, QueuedFrame, Scheduling
from migemu.link.stream import Stream
from migemu.units import KIB, MIB, MS, SECOND

GBIT = 10**9
RTO_MIN = 200 * MS


class Losses(Random):
    """Loses exactly the packets whose numbers are given; what is sent again gets through."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(1)
        before = -1
        self._gaps = []
        for number in numbers:
            self._gaps.append(number - before - 1)
            before = number

    def random(self) -> float:
        """Inverted by the stream: the draw that makes it skip so many packets, with a loss of one half."""
        if not self._gaps:
            return 1 - 2.0**-50
        return 1 - 2.0 ** -(self._gaps.pop(0) + 0.5)


class Line:
    """One connection over a wire of its own."""

    def __init__(
        self, congestion: str = "reno", *, rate: int = GBIT, rtt_ns: int = 10 * MS, loss: float = 0.0,
        rng: Random | None = None, outages: tuple[tuple[int, int], ...] = (), buffer_bytes: int = 0,
        open_bytes: int = 1 << 62,
    ) -> None:  # fmt: skip
        model = LinkModel(rate, rtt_ns // 2, 0, 0, Random(1), outages=outages)
        self.wire = LinkScheduler(model, Scheduling.FIFO, 64 * KIB)
        self.stream = Stream(
            CONGESTION[congestion](), rtt_ns, rtt_ns // 2, rng or Random(1), loss=loss, rto_min_ns=RTO_MIN,
            buffer_bytes=buffer_bytes, open_bytes=open_bytes,
        )  # fmt: skip
        self.flow: Flow = self.wire.flow("main", self.stream)
        self.now = 0
        self.frames: list[QueuedFrame] = []

    def send(self, size: int, at: int | None = None) -> QueuedFrame:
        self.now = self.now if at is None else at
        frame = self.wire.send(self.flow, size, None, self.now)
        self.frames += self.wire.advance(self.now)
        return frame

    def settle(self) -> int:
        """Until everything has arrived; when the last did."""
        while (when := self.wire.deadline()) is not None:
            assert when > self.now
            self.now = when
            for frame in self.wire.advance(when):
                assert frame.arrived_ns >= when, "it is certain before it arrives"
                self.frames.append(frame)
        assert self.flow.waiting_bytes == 0
        return max(frame.arrived_ns for frame in self.frames)


def throughput_bps(congestion: str, loss: float, rtt_ns: int, packets: int = 40_000) -> float:
    line = Line(congestion, rate=100 * GBIT, rtt_ns=rtt_ns, loss=loss)
    for _ in range(packets // 100):
        line.send(100 * MSS)
    return packets * MSS * 8 * SECOND / line.settle()


# --- published figures ---


@pytest.mark.parametrize("loss", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("rtt_ns", [10 * MS, 70 * MS])
def test_renos_throughput_is_the_square_root_law(loss: float, rtt_ns: int) -> None:
    """M. Mathis et al., The macroscopic behavior of the TCP congestion avoidance algorithm, CCR 1997:

    MSS / RTT * sqrt(3/2) / sqrt(p) with every segment acknowledged; within a third, timeouts included.
    """
    law = MSS * 8 * SECOND / rtt_ns * math.sqrt(1.5 / loss)
    assert law / 1.35 < throughput_bps("reno", loss, rtt_ns) < law * 1.35


def test_cubics_throughput_is_its_response_function() -> None:
    """RFC 9438, 5.1: the average window is 1.054 * RTT^0.75 / p^0.75 segments where Reno's would be smaller."""
    loss, rtt_s = 0.0001, 0.07
    law = 1.054 * (rtt_s / loss) ** 0.75 * MSS * 8 / rtt_s
    measured = throughput_bps("cubic", loss, 70 * MS, packets=150_000)
    assert law / 1.5 < measured < law * 1.5
    assert measured > 1.1 * throughput_bps("reno", loss, 70 * MS, packets=150_000)


def test_on_short_paths_cubic_is_as_fast_as_reno() -> None:
    """RFC 9438, 4.3: the Reno-friendly region."""
    reno, cubic = (throughput_bps(name, 0.001, 10 * MS) for name in ("reno", "cubic"))
    assert reno / 1.4 < cubic < reno * 1.4


def test_without_loss_the_wire_is_filled() -> None:
    line = Line("cubic", rtt_ns=MS, open_bytes=GBIT // 8 // 1000 + 256 * KIB)
    for _ in range(64):
        line.send(MIB)
    busy = 64 * MIB * 8
    assert busy <= line.settle() <= busy * 1.02 + 10 * MS
    assert line.stream.open


# --- by hand ---


def test_slow_start_doubles_the_window_each_round_trip() -> None:
    """10 segments, then 20, 40: the last of 65 goes out in the third flight."""
    line = Line(rate=100 * GBIT)
    line.send(65 * MSS)
    assert 2 * 10 * MS + 5 * MS <= line.settle() < 3 * 10 * MS


def test_a_lone_lost_frame_costs_the_retransmission_timeout() -> None:
    """Nothing follows that could tell of it."""
    line = Line(loss=0.5, rng=Losses(0))
    line.send(4 * KIB)
    departed = -(-4 * KIB * 8 * SECOND // GBIT)
    arrived = line.settle()
    assert RTO_MIN + 5 * MS <= arrived <= RTO_MIN + 5 * MS + departed
    assert (line.stream.repaired_late, line.stream.repaired_fast) == (1, 0)
    assert line.stream.congestion.window == MSS


def test_a_lost_packet_with_three_behind_it_costs_a_round_trip_and_half_the_window() -> None:
    line = Line(loss=0.5, rng=Losses(2))
    frame = line.send(6 * MSS)
    arrived = line.settle()
    assert 15 * MS < arrived == frame.arrived_ns < 15 * MS + 200_000
    assert (line.stream.repaired_late, line.stream.repaired_fast) == (0, 1)
    assert line.stream.congestion.window == max(2 * MSS, 6 * MSS // 2)


def test_what_was_complete_before_the_loss_is_not_held_up_and_what_is_behind_it_is() -> None:
    line = Line(loss=0.5, rng=Losses(4))
    before, hit, behind = [line.send(4 * MSS) for _ in range(3)]
    line.settle()
    assert before.arrived_ns < 6 * MS
    assert behind.arrived_ns >= hit.arrived_ns > 15 * MS
    assert hit.departed_ns < MS


def test_frames_that_come_later_tell_of_the_loss_before_the_timer_does() -> None:
    line = Line(loss=0.5, rng=Losses(0))
    lost = line.send(MSS)
    for number in range(1, 4):
        line.send(MSS, at=number * 20 * MS)
    line.settle()
    assert 60 * MS + 15 * MS < lost.arrived_ns < 60 * MS + 15 * MS + 50_000
    assert line.stream.repaired_fast == 1


def test_each_try_to_send_again_that_is_lost_doubles_the_timer() -> None:
    class TwiceLost(Losses):
        def random(self) -> float:
            drawn = super().random()
            self.draws = getattr(self, "draws", 0) + 1
            return 0.0 if self.draws in (3, 4) else drawn  # the two draws after the gaps of the first loss

    line = Line(loss=0.5, rng=TwiceLost(0))
    line.send(MSS)
    assert RTO_MIN + 2 * RTO_MIN + 4 * RTO_MIN + 5 * MS <= line.settle() <= 7 * RTO_MIN + 6 * MS
    assert line.stream.repaired_late == 3


def test_the_window_begins_anew_after_an_idle_time() -> None:
    reno = Reno()
    reno.acknowledged(100 * MSS, MS, MS)
    assert reno.window == INITIAL_WINDOW + 100 * MSS
    line = Line(rate=100 * GBIT)
    line.send(200 * MSS)
    line.settle()
    grown = line.stream.congestion.window
    assert grown > 4 * INITIAL_WINDOW
    line.send(MSS, at=line.now + RTO_MIN // 2)
    assert line.stream.congestion.window >= grown
    line.send(MSS, at=line.now + 2 * RTO_MIN)
    assert line.stream.congestion.window == INITIAL_WINDOW


def test_a_buffer_holds_back_what_is_not_acknowledged() -> None:
    """64 KiB a round trip."""
    line = Line("none", rate=100 * GBIT, buffer_bytes=64 * KIB)
    line.send(MIB)
    assert 15 * 10 * MS + 5 * MS <= line.settle() <= 16 * 10 * MS + 6 * MS


def test_after_an_outage_the_sender_is_found_by_its_timer() -> None:
    """Down from 1 to 500 ms: tries after 200 ms and 400 more; the second gets through, with one segment."""
    line = Line("reno", outages=((MS, 500 * MS),))
    line.send(4 * KIB, at=2 * MS)
    assert line.settle() == 2 * MS + 600 * MS + 10 * MS + 5 * MS + 4 * KIB * 8
    assert line.stream.congestion.window <= 4 * MSS


def test_the_retransmission_timer_follows_the_round_trips() -> None:
    """RFC 6298, 2: srtt + 4 rttvar, at least the minimum."""
    timer = RetransmissionTimer(1 * MS)
    assert timer.rto_ns == SECOND
    timer.sample(100 * MS)
    assert timer.rto_ns == 300 * MS
    for _ in range(100):
        timer.sample(100 * MS)
    assert timer.rto_ns == pytest.approx(100 * MS, rel=0.01)
    timer.sample(300 * MS)
    assert timer.rto_ns == pytest.approx(125 * MS + 4 * 50 * MS, rel=0.02)


def test_cubic_comes_back_to_its_plateau_and_stays_there() -> None:
    """RFC 9438, 4.2: after K seconds the window is what it was at the loss."""
    cubic = Cubic()
    cubic.window = cubic.ssthresh = 1000 * MSS
    cubic.lost(1000 * MSS, SECOND)
    assert cubic.window == pytest.approx(700 * MSS, abs=1)
    k_s = (300 / 0.4) ** (1 / 3)
    now, rtt = SECOND, 100 * MS
    seen = []
    while now < SECOND + 1.6 * k_s * SECOND:
        now += rtt
        cubic.acknowledged(cubic.window, rtt, now)
        seen.append((now, cubic.window))
    at_k = next(window for when, window in seen if when >= SECOND + k_s * SECOND)
    assert at_k == pytest.approx(1000 * MSS, rel=0.03)
    assert [window for _, window in seen] == sorted(window for _, window in seen)


# --- for any traffic ---

traffics = st.lists(st.tuples(st.integers(0, 300_000_000), st.integers(0, 200_000)), min_size=1, max_size=15)
lines = st.builds(
    dict, congestion=st.sampled_from(list(CONGESTION)), loss=st.sampled_from([0.0, 0.01, 0.2]),
    buffer_bytes=st.sampled_from([0, 20_000]), seed=st.integers(0, 20),
    outages=st.sampled_from([(), ((50 * MS, 60 * MS), (400 * MS, 900 * MS))]),
)  # fmt: skip


def play(frames: list[tuple[int, int]], options: dict[str, Any], peek_ns: int = 0) -> tuple[Line, list[QueuedFrame]]:
    """Send frames of (pause before it, size), and ask every `peek_ns` besides when the wire wants to be asked."""
    settings = dict(options)
    line = Line(rng=Random(settings.pop("seed")), **settings)
    sent: list[QueuedFrame] = []
    for pause, size in frames:
        until = line.now + pause
        while (when := _next(line, peek_ns)) is not None and when <= until:
            line.now = when
            line.frames += line.wire.advance(when)
        sent.append(line.send(size, at=until))
    while (when := _next(line, peek_ns)) is not None:
        assert when > line.now
        line.now = when
        line.frames += line.wire.advance(when)
    return line, sent


def _next(line: Line, peek_ns: int) -> int | None:
    when = line.wire.deadline()
    return when if when is None or not peek_ns else min(when, line.now + peek_ns)


@given(frames=traffics, options=lines)
def test_everything_arrives_once_in_order_and_never_before_the_light(
    frames: list[tuple[int, int]], options: dict[str, Any]
) -> None:
    line, sent = play(frames, options)
    assert [frame.serial for frame in line.frames] == [frame.serial for frame in sent]
    arrivals = [frame.arrived_ns for frame in sent]
    assert arrivals == sorted(arrivals)
    for frame in sent:
        assert frame.enqueued_ns <= frame.started_ns <= frame.departed_ns <= frame.arrived_ns - 5 * MS


@given(frames=traffics, options=lines)
def test_asking_more_often_changes_nothing(frames: list[tuple[int, int]], options: dict[str, Any]) -> None:
    _, once = play(frames, options)
    _, often = play(frames, options, peek_ns=7 * MS + 13)
    assert [frame.arrived_ns for frame in once] == [frame.arrived_ns for frame in often]
