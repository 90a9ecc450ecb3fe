"""A tee: each tracer gets every event, in order, up to the one that refuses it."""

from __future__ import annotations

import hashlib

import pytest

from migemu.mm.pages import TINY, Level
from migemu.trace.events import Event, Happening, event_line
from migemu.trace.recorder import MemoryRecorder
from migemu.trace.rule_watch import RuleWatch
from migemu.trace.tee import Tee
from migemu.trace.trace_digest import TraceDigest

EVENTS = [Event(t, "source", Happening.STATE, detail=str(t)) for t in range(5000)]


class Refusing:
    def emit(self, event: Event) -> None:
        raise ValueError(event.detail)


def test_each_gets_every_event_in_order() -> None:
    first, second = MemoryRecorder(), MemoryRecorder()
    tee = Tee(first, None, Tee(second))
    for event in EVENTS:
        tee.emit(event)
    assert first.events == second.events == EVENTS


def test_what_one_raises_is_raised_and_those_after_it_are_not_reached() -> None:
    before, after = MemoryRecorder(), MemoryRecorder()
    with pytest.raises(ValueError, match=r"^0$"):
        Tee(before, Refusing(), after).emit(EVENTS[0])
    assert (before.events, after.events) == ([EVENTS[0]], [])


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 5000])
def test_the_digest_is_that_of_the_lines_whenever_it_is_asked_for(count: int) -> None:
    digest, asked_before = TraceDigest(), TraceDigest()
    lines = ""
    for event in EVENTS[:count]:
        digest.emit(event)
        asked_before.emit(event)
        lines += event_line(event) + "\n"
        if event.t % 1000 == 7:
            assert asked_before.hexdigest == hashlib.sha256(lines.encode()).hexdigest()
    assert digest.hexdigest == asked_before.hexdigest == hashlib.sha256(lines.encode()).hexdigest()
    assert digest.events == count


def test_the_first_violation_of_each_rule_is_kept() -> None:
    watch = RuleWatch(TINY, TINY.pages(Level.PUD))
    early = [Event(t, "destination", Happening.CONTINUED, 3, 1, Level.PTE) for t in (1, 2)]
    for event in early:
        watch.emit(event)
    assert watch.violations["mapped_within_received"].event == early[0]
    before = set(watch.violations)
    watch.finish(cut=True)
    assert set(watch.violations) >= before
