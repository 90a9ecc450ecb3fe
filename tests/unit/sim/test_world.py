"""Whole migrations in virtual time: to the nanosecond, and what becomes of one that fails."""

from __future__ import annotations

import pytest

from migemu.analysis.attribution import Attribution, Cause
from migemu.errors import BrokenError, GaveUpError, InputError, MigemuError
from migemu.mm.pages import TINY, Level
from migemu.policy.collapse_policy import Eager, collapse_policies
from migemu.sim.waiting import CrashError
from migemu.sim.world import START_NS, World
from migemu.trace.events import Happening
from migemu.units import MS, US
from migemu.wire.header import encode_head
from migemu.wire.messages import End, Listen, Page, Run
from migemu.worlds.modelled import Services
from tests.unit.sim.played import BARE, LIVELY, play, scenario

#: By `mm.costs` and `mm.fault_costs`: 16 base pages in 4 messages, each received and continued as one run.
RECEIVE_PAGE_NS = 4096 * 228 >> 10
CONTINUE_NS, ENTRY_NS, EVENT_NS, WAKE_NS = 1_000, 132, 2_750, 2_750
MESSAGE_NS = 4 * RECEIVE_PAGE_NS + CONTINUE_NS + 3 * ENTRY_NS
PAGES_NS = 4 * MESSAGE_NS


# --- to the nanosecond ---


def test_on_a_link_that_only_delays_a_migration_takes_its_trips() -> None:
    """SYN, SYN-ACK, Advise: 3. Ready, then Run: 2. Running, then End: 2. What the pages cost is hidden in these."""
    times = play(scenario(BARE, link__delay="1ms", return_link__delay="1ms")).outcome.snapshot.times
    assert (times.advise, times.ready, times.run) == (START_NS + 3 * MS, START_NS + 3 * MS, START_NS + 5 * MS)
    assert times.first_piece == START_NS + 5 * MS + MESSAGE_NS
    assert times.last_piece == START_NS + 5 * MS + PAGES_NS
    assert times.finish == START_NS + 7 * MS


def test_each_direction_has_its_own_delay() -> None:
    run = play(scenario(BARE, link__delay="3ms", return_link__delay="1ms"))
    times = run.outcome.snapshot.times
    assert (times.advise, times.run, times.finish) == tuple(START_NS + trip * MS for trip in (7, 11, 15))
    assert run.outcome.downtime_ns == 4 * MS


def test_where_trips_are_short_it_takes_what_the_pages_cost() -> None:
    times = play(scenario(BARE, link__delay="1us", return_link__delay="1us")).outcome.snapshot.times
    assert times.finish == START_NS + 5 * US + PAGES_NS


def test_every_byte_takes_its_time_on_the_wire() -> None:
    """1 ns a byte there, none back: what stands in front of Run, of the last page, and of the end."""
    settings = scenario(BARE, link__delay="1ms", link__rate="8Gbit", return_link__delay="1ms")
    run = play(settings)
    times = run.outcome.snapshot.times
    before_run = sum(len(encode_head(message, 0)) for message in (Listen(), Run()))
    assert times.run == times.ready + 2 * MS + before_run
    message = len(encode_head(Page(0, 4, Level.PTE, False), 16_384)) + 16_384
    assert times.last_piece == times.run + 4 * message + MESSAGE_NS
    wire_bytes = run.outcome.snapshot.wire_bytes
    end = len(encode_head(End(16, wire_bytes, run.outcome.downtime_ns), 0))
    assert run.outcome.downtime_ns == 2 * MS + before_run
    assert times.finish == times.run + 2 * MS + end


def test_a_fault_takes_its_event_two_trips_its_place_and_its_wake() -> None:
    """Nothing is pushed; three pages are touched, each is asked for, and the answer is not in anybody's way."""
    settings = scenario(
        BARE, guest__vcpus=1, guest__workload="sequential", guest__accesses_max=3, guest__tick=0, push__hold="1s",
        link__delay="1ms", return_link__delay="2ms", costs__handler="same_core",
    )  # fmt: skip
    blocktime = play(settings).outcome.blocktime
    assert blocktime is not None
    assert blocktime.latency is not None
    each_ns = EVENT_NS + 2 * MS + 1 * MS + RECEIVE_PAGE_NS + CONTINUE_NS + WAKE_NS
    assert (blocktime.latency.count, blocktime.latency.mean_ns, blocktime.latency.max_ns) == (3, each_ns, each_ns)
    assert blocktime.vcpus[0].blocktime_ns == blocktime.overlapped_blocktime_ns == 3 * each_ns


def test_what_was_charged_is_told() -> None:
    run = play(scenario(BARE))
    statistics = run.world.statistics()
    assert (statistics.source_busy_ns, statistics.destination_busy_ns) == (0, PAGES_NS)
    assert statistics.loop.now_ns >= START_NS + PAGES_NS
    assert repr(run.world).startswith("<World unnamed, seed 1, <VirtualLoop closed")


# --- where the time of each fault went ---


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pull.preempt": "off", "push.piece": "2M", "link.scheduling": "fifo"},
        {"pull.resend": "on", "link.congestion": "cubic", "link.loss": 0.05},
        {"collapse.policy": "batched:spans=3", "costs.lock": "vma_lock", "link.distribution": "pareto"},
        {"link.rate": "1Gbit", "link.delay": "10us", "link.jitter": 0, "costs.handler": "sleeping"},
    ],
    ids=str,
)
def test_the_parts_of_every_fault_sum_to_its_latency_and_the_faults_are_those_of_the_result(
    settings: dict[str, object],
) -> None:
    run = play(scenario(LIVELY, settings))
    attribution = Attribution(TINY, 128)
    faults = [fault for event in run.trace if (fault := attribution.take(event)) is not None]
    for fault in faults:
        assert sum(fault.phases) == fault.latency_ns
        assert min(fault.phases) >= 0
    blocktime = run.outcome.blocktime
    assert blocktime is not None
    assert blocktime.latency is not None
    assert len(faults) == blocktime.latency.count > 10
    assert sum(fault.latency_ns for fault in faults) == sum(vcpu.blocktime_ns for vcpu in blocktime.vcpus)
    assert max(fault.latency_ns for fault in faults) == blocktime.latency.max_ns
    assert attribution.has_wire
    assert Cause.UNKNOWN not in {fault.cause for fault in faults}


def test_every_rule_watches_and_finds_something_to_judge() -> None:
    run = play(scenario(LIVELY))
    assert not run.world.watch.violations
    happened = {event.event for event in run.trace}
    assert happened >= {
        Happening.FAULTED, Happening.REQUESTED, Happening.ASKED, Happening.SENT, Happening.CARRIED, Happening.RECEIVED,
        Happening.CONTINUED, Happening.WOKEN, Happening.WRITTEN, Happening.COLLAPSED, Happening.ENDED,
    }  # fmt: skip


# --- failing ---


@pytest.mark.parametrize(
    ("settings", "kind", "told"),
    [
        ({"limits.memory_max": "64K", "memory.size": "128K"}, InputError, "limits.memory_max of this destination"),
        ({"guest.vcpus": 1, "guest.workload": "replay:path=/no/such"}, InputError, "guest.workload=.*No such file"),
        ({"link.outages": "0s-60s"}, BrokenError, "nobody answers at .*tried for 10s"),
        (
            {"link.outages": "3ms-60s", "link.delay": "1ms", "recovery.timeout": 0},
            BrokenError,
            "source has been silent for 10s",
        ),
        (
            {"return_link.outages": "1500us-60s", "return_link.delay": "1ms", "recovery.timeout": 0},
            BrokenError,
            "destination has been silent",
        ),
    ],
    ids=["memory", "workload", "no connection", "cut there", "cut back"],
)
def test_whichever_node_fails_the_cause_is_raised_and_not_what_the_other_heard_of_it(
    settings: dict[str, object], kind: type[MigemuError], told: str
) -> None:
    world = World(scenario(BARE, settings), Services(), None)
    with pytest.raises(kind, match=told) as caught:
        world.run()
    assert not isinstance(caught.value, GaveUpError)
    assert world.loop.is_closed()


def test_a_node_that_waits_for_one_that_has_failed_is_ended_after_a_while() -> None:
    """Nobody has come to the destination, and it would wait for ever; the source gave up after 10 s."""
    world = World(scenario(BARE, link__outages="0s-60s"), Services(), None)
    with pytest.raises(BrokenError):
        world.run()
    assert world.statistics().loop.now_ns >= START_NS + 30_000 * MS


class Raising(Eager):
    """Divides by zero."""

    def mapped(self, *_: object) -> list[object]:  # type: ignore[override]
        return [1 // 0]


def test_a_policy_that_raises_ends_the_run_with_its_own_traceback() -> None:
    with collapse_policies.lent("raising", Raising):
        world = World(scenario(BARE, collapse__policy="raising"), Services(), None)
        with pytest.raises(CrashError) as caught:
            world.run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"memory.image": "x"}, "memory.image: a migration in virtual time has no bytes"),
        ({"guest.vcpus": 1, "guest.rate": 0}, "guest.rate: .* never ends in virtual time"),
        ({"link.distribution": "samples:path=/no/such"}, r"^link.distribution=samples:path=/no/such: .*No such file"),
        ({"return_link.distribution": "samples:path=/"}, r"^return_link.distribution=.*directory"),
    ],
    ids=str,
)
def test_what_a_world_cannot_follow_is_refused_before_it_begins(settings: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        World(scenario(BARE, settings), Services(), None)


def test_a_guest_without_a_rate_may_run_for_so_many_accesses() -> None:
    run = play(scenario(BARE, guest__vcpus=2, guest__rate=0, guest__accesses_max=100, push__hold="1s"))
    assert run.outcome.reads + run.outcome.writes == 200
