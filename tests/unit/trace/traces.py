"""Traces for tests: events in few words, and a long one like those of real runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from migemu.mm.pages import TINY, X86_64, Geometry, Level
from migemu.trace.events import Event, Happening, event_line, header_line

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
PAGES = 32
_OF_LEVELS = (Happening.SENT, Happening.RECEIVED, Happening.CONTINUED, Happening.REQUESTED, Happening.CLEARED)


def event(node: str, name: str, first: int | None = None, *values: Any, t: int = 0, **fields: Any) -> Event:
    """`event("destination", "continued", 0, 4)`; level and urgent are filled in where the event needs them."""
    happening = Happening(name)
    if happening in (Happening.SENT, Happening.RECEIVED):
        fields.setdefault("urgent", False)
    if len(values) < 2 and happening in _OF_LEVELS:
        fields.setdefault("level", PTE)
    if happening is Happening.FAULTED:
        fields.setdefault("write", False)
    return Event(t, node, happening, first, *values, **fields)


def destination(name: str, first: int | None = None, *values: Any, **fields: Any) -> Event:
    """An event of the destination."""
    return event("destination", name, first, *values, **fields)


def source(name: str, first: int | None = None, *values: Any, **fields: Any) -> Event:
    """An event of the source."""
    return event("source", name, first, *values, **fields)


def memory(node: str = "destination", pages: int = PAGES, geometry: Geometry = TINY) -> Event:
    """What a trace is about."""
    return event(node, "memory", count=pages, detail=geometry.name)


def whole(*, policy: str = "eager collapses steps") -> list[Event]:
    """A migration of two TINY hugetlb pages from beginning to end, by runs, with a fault and a duplicate."""
    events = [memory("source"), memory(), source("state", detail="run"), destination("state", detail="run")]
    events += [destination("policy", detail=policy)]
    events += [destination("faulted", 9, vcpu=1, write=True), destination("requested", 9, 1)]
    events += [source("sent", 9, 1, urgent=True), destination("received", 9, 1, urgent=True)]
    events += [destination("continued", 9, 1), destination("woken", 9, vcpu=1), destination("written", 9, vcpu=1)]
    for first in range(0, PAGES, 4):
        events.append(source("sent", first, 4))
        fresh = [(first, 4)] if first != 8 else [(8, 1), (10, 2)]
        for start, count in fresh:
            events += [destination("received", start, count), destination("continued", start, count)]
        if first == 8:
            events.append(destination("dropped", 9, 1, detail="duplicate"))
        if "collapses" in policy:
            events += collapsed(first, PMD, 4)
            if first % 16 == 12:
                events += collapsed(first - 12, PUD, 4)
    events += [source("state", detail="end"), destination("ended", count=PAGES), destination("state", detail="end")]
    return [*events, destination("state", detail="completed")]


def collapsed(first: int, level: Level, leaves: int) -> list[Event]:
    """One collapse of TINY, in the kernel's order."""
    small = PTE if level == PMD else PMD
    return [
        destination("cleared", first, leaves, small), destination("collapsed", first, level=level),
        destination("flushed", first, TINY.pages(level)), destination("freed", first, 1),
    ]  # fmt: skip


def write_lines(path: Path, events: Iterator[Event] | list[Event], kind: str = "measured") -> Path:
    """A trace file of these events."""
    with path.open("w", encoding="utf-8") as file:
        file.write(header_line(kind) + "\n")
        file.writelines(event_line(event) + "\n" for event in events)
    return path


def long_trace(events: int, seed: int = 1) -> Iterator[Event]:
    """About `events` events of a run over 1 GiB pages: 4K pieces in runs up to 64, faults, writes, eager collapses.

    Pages are sent in runs of random length, interrupted by urgent ones; every vCPU faults now and then.
    """
    random = Random(seed)
    t = 0
    per_pud = X86_64.pages(PUD)
    pages = per_pud * max(1, -(-events // 160_000))
    node, run = "destination", 0
    yield event("source", "memory", count=pages, detail="x86_64")
    yield event(node, "memory", count=pages, detail="x86_64")
    yield event(node, "policy", detail="eager collapses steps")
    yield event(node, "state", detail="run")
    first = 0
    while first < pages:
        t += random.randrange(500, 5_000)
        run = min(random.choice((1, 1, 1, 1, 1, 2, 4, 64)), 512 - first % 512)
        vcpu = random.randrange(8)
        if run == 1:
            yield event(node, "faulted", first, vcpu=vcpu, write=True, t=t)
            yield event(node, "requested", first, 1, t=t + 10)
        yield event("source", "sent", first, run, urgent=run == 1, t=t + 100)
        yield event(node, "received", first, run, urgent=run == 1, t=t + 200)
        yield event(node, "continued", first, run, t=t + 210)
        if run == 1:
            yield event(node, "woken", first, vcpu=vcpu, t=t + 220)
            yield event(node, "written", first, vcpu=vcpu, t=t + 230)
        first += run
        t += 250
        for level, size in ((PMD, 512), (PUD, per_pud)):
            if first % size == 0:
                small, leaves = (PTE, 512) if level == PMD else (PMD, 512)
                yield event(node, "cleared", first - size, leaves, small, t=t)
                yield event(node, "collapsed", first - size, level=level, t=t)
                yield event(node, "flushed", first - size, size, t=t)
                yield event(node, "freed", first - size, 1, t=t)
    yield event("source", "state", detail="end", t=t)
    yield event(node, "ended", count=pages, t=t)
    yield event(node, "state", detail="completed", t=t)
