"""Whole migrations whose connections are cut, at every message and at many bytes: what is lost, and what is not."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from migemu.address import Address
from migemu.errors import BrokenError, MigemuError
from migemu.node.outcome import Outcome
from migemu.scenario.scenario import Scenario
from migemu.sim.hazards import parse
from migemu.sim.world import World
from migemu.trace.events import Event, Happening
from migemu.trace.recorder import MemoryRecorder
from migemu.units import SECOND
from migemu.worlds.modelled import Services
from tests.unit.sim.played import LIVELY, scenario

#: What a cut may hit: the way, the message, how many of them, at how many bytes.
CUTS = (
    ("main->destination", "Run", 1, (0, 1, 7)),
    ("main->destination", "Listen", 1, (0, 7)),
    ("main->destination", "DeviceState", 1, (0, 7, 2000)),
    ("main->destination", "Page", 9, (0, 1, 7, 14, 15, 16, 5000)),
    ("main->destination", "Zero", 2, (0, 7)),
    ("main->destination", "End", 1, (0, 1, 7)),
    ("main->destination", "Digests", 3, (0, 7, 50)),
    ("main->destination", "Agreed", 1, (0, 1, 20)),
    ("main->source", "Running", 1, (0, 1)),
    ("main->source", "Request", 5, (0, 1, 7)),
    ("main->source", "Complete", 1, (0, 7)),
    ("preempt->destination", "Page", 6, (0, 1, 7, 4000)),
    ("preempt->destination", "Zero", 2, (0, 7)),
)

#: Nothing is pushed at first: what comes was asked for, on the preempt channel.
PULLED = {"push.hold": "10ms"}


class ServicesWithErrors(Services):
    """Services that keep the error that each source ended with."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def source(self, *arguments: Any) -> Any:
        source, errors = super().source(*arguments), self.errors

        class Telling:
            async def run(self, address: Address) -> Any:
                try:
                    return await source.run(address)
                except MigemuError as error:
                    errors.append(str(error))
                    raise

        return Telling()


def play(settings: Scenario, *hazards: str) -> tuple[Outcome, list[Event], World]:
    """One world with hazards, every rule watching."""
    recorder = MemoryRecorder()
    world = World(
        settings, Services(), recorder, hazards=[parse(hazard) for hazard in hazards], time_max_ns=200 * SECOND
    )
    outcome = world.run()
    assert not world.watch.violations
    return outcome, recorder.events, world


def whole(outcome: Outcome, events: list[Event]) -> None:
    """Verified, every write kept, everything received once, and nothing that had arrived sent again."""
    assert outcome.verified
    assert outcome.certificate is not None
    assert outcome.certificate.pages == 128
    assert outcome.certificate.guest_writes == outcome.writes
    arrived: set[int] = set()
    known: set[int] = set()
    for event in events:
        pages = range(event.first or 0, (event.first or 0) + (event.count or 0))
        if event.event is Happening.RECEIVED:
            assert not arrived.intersection(pages), "received twice"
            arrived.update(pages)
        elif event.event is Happening.RECOVERED:
            known = set(arrived)
        elif event.event is Happening.SENT:
            assert not known.intersection(pages), "what had arrived was sent again"
    assert len(arrived) == 128


@pytest.mark.parametrize(("way", "message", "times", "places"), CUTS, ids=lambda value: str(value))
def test_after_the_switch_a_connection_may_be_cut_anywhere(
    way: str, message: str, times: int, places: tuple[int, ...]
) -> None:
    settings = scenario(LIVELY, PULLED if way.startswith("preempt") else {})
    for nth, byte in product(range(1, times + 1), places):
        hazard = f"cut {way} {message} {nth} byte {byte}"
        outcome, events, world = play(settings, hazard)
        whole(outcome, events)
        assert world.injection is not None
        assert [str(each) for each in world.injection.struck] in ([], [hazard])
        if world.injection.struck and message not in ("Agreed", "Complete"):
            assert outcome.recovery.count + outcome.recovery.preempt_lost == 1, hazard
        assert outcome.certificate is not None
        assert outcome.certificate.countersigned == (message != "Agreed")


@pytest.mark.parametrize(
    "settings",
    [
        {"pull.preempt": "off"}, {"pull.sender": "push"}, {"pull.resend": "on"}, {"integrity.digests": "on"},
        {"push.piece": "2M", "pull.piece": "2M"}, {"push.order": "random"}, {"costs.threads": "three"},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_the_policies_the_same_holds(settings: dict[str, Any]) -> None:
    for seed, first, second in ((1, 2, 5), (2, 4, 6), (3, 1, 9)):
        outcome, events, _ = play(
            scenario(LIVELY, settings, scenario__seed=seed),
            f"cut main->destination Page {first} byte 9", f"cut main->destination Page {second} byte 700",
            "cut main->source Request 4 byte 1", "cut main->destination End 1 byte 2",
        )  # fmt: skip
        whole(outcome, events)
        assert outcome.recovery.count >= 2
        assert outcome.recovery.pages_lost > 0
        assert outcome.recovery.bitmap_bytes > 0
        assert outcome.recovery.paused_ns > 0


@pytest.mark.parametrize("message", ["Hello", "Recover", "Resume"])
@pytest.mark.parametrize("byte", [0, 1, 7])
def test_a_recovery_may_be_cut_itself(message: str, byte: int) -> None:
    nth = 2 if message == "Hello" else 1
    outcome, events, _ = play(
        scenario(LIVELY), "cut main->destination Page 3 byte 100", f"cut main->destination {message} {nth} byte {byte}"
    )
    whole(outcome, events)


@pytest.mark.parametrize("message", ["ReceivedBitmap", "Resumed"])
def test_so_may_the_answers_be(message: str) -> None:
    for byte in (0, 1, 7):
        outcome, events, _ = play(
            scenario(LIVELY), "cut main->destination Page 3 byte 100", f"cut main->source {message} 1 byte {byte}"
        )
        whole(outcome, events)


def test_recoveries_that_fail_are_tried_again_and_again() -> None:
    outcome, events, _ = play(scenario(LIVELY), "cut main->destination Page 3 byte 100", "fail_recovery 5")
    whole(outcome, events)
    assert outcome.recovery.count == 1
    assert outcome.recovery.paused_ns > 1_000_000_000, "six waits, each twice as long as the one before"


@pytest.mark.parametrize("way", ["main->destination Page 4", "main->source Request 3", "main->destination End 1"])
def test_a_connection_that_looks_alive_is_found_out_by_its_silence_and_replaced(way: str) -> None:
    outcome, events, _ = play(scenario(LIVELY, net__idle_timeout="100ms"), f"half_open {way}")
    whole(outcome, events)
    assert outcome.recovery.count == 1


def test_a_preempt_channel_that_is_lost_alone_stops_nothing() -> None:
    """Urgent pieces go over the main channel, and return to the new one."""
    outcome, events, _ = play(scenario(LIVELY, PULLED), "cut preempt->destination Page 3 byte 9")
    whole(outcome, events)
    assert (outcome.recovery.count, outcome.recovery.preempt_lost) == (0, 1)
    assert outcome.recovery.paused_ns == 0
    stages = [event.detail for event in events if event.event is Happening.STATE]
    assert "paused" not in stages


def test_what_was_asked_for_before_the_preempt_channel_is_back_is_not_forgotten() -> None:
    """The requests find the main channel full, and the preempt channel is back before it has room."""
    settings = scenario(LIVELY, {"push.piece": "2M", "scenario.seed": 866})
    outcome, events, _ = play(settings, "cut main->source Request 1 byte 9", "cut main->destination Hello 2 byte 0")
    whole(outcome, events)


def test_a_preempt_channel_that_looks_alive_is_found_out_by_its_silence() -> None:
    settings = scenario(LIVELY, {"push.hold": "3s", "net.idle_timeout": "100ms", "guest.workload": "sequential"})
    outcome, events, _ = play(settings, "half_open preempt->destination Page 2")
    whole(outcome, events)
    assert (outcome.recovery.count, outcome.recovery.preempt_lost) == (0, 1)


def test_vcpus_run_on_where_their_pages_are_here() -> None:
    """They walk behind the push, slowly; it is cut, and they go on until they come to what is missing."""
    walking = {"guest.workload": "sequential", "guest.rate": 1000, "guest.write_share": 1, "push.order": "sequential"}
    outcome, events, _ = play(scenario(LIVELY, walking), "cut main->destination Page 6 byte 9")
    whole(outcome, events)
    stages = {event.detail: event.t for event in events if event.event is Happening.STATE}
    written = [event.t for event in events if event.event is Happening.WRITTEN]
    assert sum(stages["paused"] < t < stages["recover"] for t in written) > 10


def test_a_link_that_is_down_for_ten_seconds_is_waited_for() -> None:
    outcome, events, _ = play(scenario(LIVELY, {"link.outages": "12ms-10s", "net.idle_timeout": "1s"}))
    whole(outcome, events)
    assert outcome.recovery.paused_ns > 8_000_000_000


# --- before the switch ---


@pytest.mark.parametrize("message", ["Hello", "Advise"])
def test_before_the_switch_the_guest_runs_on_at_the_source_which_says_so(message: str) -> None:
    for byte in (0, 1, 7):
        nodes = ServicesWithErrors()
        world = World(scenario(LIVELY), nodes, None, hazards=[parse(f"cut main->destination {message} 1 byte {byte}")])
        with pytest.raises(BrokenError):
            world.run()
        (told,) = nodes.errors
        assert told.endswith(". The guest runs on at the source, whose image is unchanged")


# --- giving up ---


def test_a_source_that_never_comes_back_is_given_up_with_who_waits_for_what() -> None:
    nodes = ServicesWithErrors()
    world = World(scenario(LIVELY, {"link.outages": "12ms-500s"}), nodes, None)
    with pytest.raises(
        BrokenError, match=r"The guest is lost: 3 vCPUs wait for 3 pages|The guest is at the destination"
    ):
        world.run()
    (told,) = nodes.errors
    assert "No progress for 60s (recovery.timeout)" in told
    assert "The guest is at the destination, where" in told
    assert "of 128 base pages are not known to have arrived" in told
    assert "go on with migemu-source --recover DIR" in told


def test_without_recovery_a_lost_connection_is_the_end() -> None:
    with pytest.raises(MigemuError, match=r"closed the main connection|in the middle of a message"):
        play(scenario(LIVELY, recovery__timeout=0), "cut main->destination Page 3 byte 100")


# --- integrity ---


def test_a_corrupt_piece_is_refused_and_asked_for_again() -> None:
    hazards = ("corrupt main->destination Page 3 byte 9000", "corrupt preempt->destination Page 2 byte 3000")
    outcome, events, _ = play(scenario(LIVELY, PULLED, integrity__digests="on"), *hazards)
    whole(outcome, events)
    assert outcome.corrupt == 2
    assert outcome.recovery.count == 0
    dropped = [event.count for event in events if event.event is Happening.DROPPED and event.detail == "corrupt"]
    assert dropped == [1, 1]


#: The first page of a 2M piece is damaged; it is zero, as the piece is not, and comes again alone, without bytes.
ZERO_AGAIN = {
    "memory.geometry": "x86_64", "memory.size": "1G", "memory.zero_share": 0.5, "guest.vcpus": 0, "push.piece": "2M",
    "push.order": "sequential", "push.run": "2M", "link.rate": "100Gbit", "collapse.policy": "never",
}  # fmt: skip


@pytest.mark.parametrize(
    "hazards",
    [
        ("corrupt main->destination Page 2 byte 5000",),
        ("corrupt main->destination Page 2 byte 5000", "cut main->destination Page 3 byte 0"),
    ],
    ids=["refused", "refused, and then a recovery"],
)
def test_a_corrupt_page_that_comes_again_without_bytes_is_zero(hazards: tuple[str, ...]) -> None:
    outcome, events, _ = play(scenario(ZERO_AGAIN, integrity__digests="on"), *hazards)
    assert outcome.corrupt == 1
    (dropped,) = [event.first for event in events if event.event is Happening.DROPPED]
    again = [event for event in events if event.event is Happening.RECEIVED and event.first == dropped]
    assert [event.detail for event in again] == ["zero"], "or this shows nothing"
    assert outcome.verified


def test_without_digests_it_is_found_at_the_end() -> None:
    with pytest.raises(MigemuError, match="the first bad piece is base page"):
        play(scenario(LIVELY), "corrupt main->destination Page 3 byte 9000")


def test_a_corrupt_header_is_a_lost_connection_and_counted() -> None:
    for byte in range(16):
        outcome, events, _ = play(
            scenario(LIVELY, integrity__digests="on"), f"corrupt main->destination Page 3 byte {byte}"
        )
        whole(outcome, events)
        assert outcome.recovery.count + outcome.corrupt >= 1


def test_digests_that_come_corrupt_are_a_lost_connection() -> None:
    outcome, events, _ = play(
        scenario(LIVELY, integrity__digests="on"), "corrupt main->destination Digests 2 byte 30"
    )  # fmt: skip
    whole(outcome, events)
    assert (outcome.recovery.count, outcome.recovery.errors) == (1, 1)


def test_a_verdict_on_other_bytes_is_a_lost_connection() -> None:
    """The digest in it came corrupt, or is a lie: the source has its own."""
    outcome, events, _ = play(scenario(LIVELY), "corrupt main->source Complete 1 byte 30")
    whole(outcome, events)
    assert outcome.certificate is not None
    assert outcome.certificate.countersigned
    assert outcome.recovery.count == 1


def test_a_verdict_that_contradicts_itself_is_heard_again() -> None:
    """One bit, and "verified" is "not verified", for no reason."""
    outcome, events, _ = play(scenario(LIVELY), "corrupt main->source Complete 1 byte 8")
    whole(outcome, events)
    assert outcome.recovery.count == 1
    assert outcome.certificate is not None
    assert outcome.certificate.countersigned


def test_a_last_word_with_other_figures_signs_nothing() -> None:
    """Every byte has been compared by then: the migration is verified, and its certificate not countersigned."""
    outcome, events, _ = play(scenario(LIVELY), "corrupt main->destination Agreed 1 byte 30")
    whole(outcome, events)
    assert outcome.certificate is not None
    assert not outcome.certificate.countersigned


def test_a_page_that_comes_corrupt_again_and_again_ends_in_paused_with_the_reason_and_then_in_the_error() -> None:
    """Every Page that comes is damaged: it is asked for again, then the connection is given up, and so on."""
    settings = scenario(LIVELY, integrity__digests="on", recovery__errors_max=1, pull__preempt="off")
    nodes = ServicesWithErrors()
    hazards = [parse(f"corrupt main->destination Page {nth} byte 4000") for nth in range(1, 200)]
    world = World(settings, nodes, None, hazards=hazards)
    with pytest.raises(MigemuError, match=r"recovery\.errors_max") as caught:
        world.run()
    assert "came corrupt 2 times" in str(caught.value) or "came corrupt 2 times" in nodes.errors[0]
