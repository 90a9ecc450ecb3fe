"""The watch of a world: order, digest, rules."""

from __future__ import annotations

import hashlib
from contextvars import Context
from random import Random

import pytest

from migemu.mm.pages import TINY, Level
from migemu.sim.loop import VirtualLoop
from migemu.sim.world_watch import WorldWatch
from migemu.trace.events import Event, Happening, event_line
from migemu.trace.recorder import MemoryRecorder
from tests.unit.sim.played import LIVELY, play, scenario

PAGES = TINY.pages(Level.PUD)


def state(t: int, detail: str = "run") -> Event:
    return Event(t, "destination", Happening.STATE, detail=detail)


def watch(loop: VirtualLoop, behind: MemoryRecorder | None = None) -> WorldWatch:
    return WorldWatch(loop, TINY, PAGES, behind)


def test_events_come_out_by_time_and_those_of_one_time_as_they_came() -> None:
    """However far ahead a processor was: here 20,000 events, in the order of the loop, up to 1000 ns ahead of it."""
    loop, recorder, random = VirtualLoop(), MemoryRecorder(), Random(1)
    watching = watch(loop, recorder)
    emitted: list[Event] = []

    def emit(number: int) -> None:
        emitted.append(state(loop.now_ns + random.choice((0, 0, 0, 1, 7, 1000)), str(number)))
        watching.emit(emitted[-1])

    for number in range(20_000):
        loop.call_at_ns(number // 3, emit, number, context=Context())
    loop.call_at_ns(10_000, loop.stop)
    loop.run_forever()
    assert len(recorder.events) > 15_000, "most have gone before the end"
    watching.finish(cut=True)
    assert recorder.events == sorted(emitted, key=lambda event: event.t)
    assert watching.events == 20_000
    loop.close()


def test_nothing_goes_before_the_clock_has_reached_it() -> None:
    loop, recorder = VirtualLoop(), MemoryRecorder()
    watching = watch(loop, recorder)
    for number in range(4096):
        watching.emit(state(number % 2, str(number)))
    assert {event.t for event in recorder.events} == {0}
    watching.finish(cut=True)
    assert len(recorder.events) == 4096
    loop.close()


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000])
def test_the_digest_is_that_of_the_lines_of_the_trace(count: int) -> None:
    loop = VirtualLoop()
    watching = watch(loop)
    events = [state(0, str(number)) for number in range(count)]
    for event in events:
        watching.emit(event)
    watching.finish(cut=True)
    lines = "".join(event_line(event) + "\n" for event in events)
    assert watching.digest == hashlib.sha256(lines.encode()).hexdigest()
    loop.close()


def test_the_first_violation_of_each_rule_is_kept() -> None:
    loop = VirtualLoop()
    watching = watch(loop)
    for t, first in ((3, 1), (1, 2), (2, 3)):
        watching.emit(Event(t, "destination", Happening.CONTINUED, first, 1, Level.PTE))
    assert not watching.violations, "they have not been reached"
    watching.finish(cut=True)
    assert watching.violations["mapped_within_received"].event.first == 2, "the earliest, not the first that was told"
    loop.close()


@pytest.mark.parametrize("held_max", [1, 7])
def test_when_events_are_let_go_changes_nothing(held_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing that comes later is earlier than what was let go."""
    settings = scenario(LIVELY, push__order="random")
    as_ever = play(settings)
    monkeypatch.setattr("migemu.sim.world_watch._HELD_MAX", held_max)
    at_once = play(settings)
    assert at_once.trace == as_ever.trace
    assert at_once.world.watch.digest == as_ever.world.watch.digest
    times = [event.t for event in at_once.trace]
    assert times == sorted(times)
    assert len(times) > 300
