"""Directories of runs for tests, as `migemu run` leaves them: made up, with every figure known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from migemu.guest.blocktime import Blocktime
from migemu.mm.pages import X86_64, Geometry, Level
from migemu.node.outcome import Outcome, Snapshot, Times
from migemu.result import build
from migemu.scenario.scenario import load
from migemu.trace.events import CarriedFrame, Event
from migemu.wire.states import Stage
from tests.unit.trace.traces import destination, event, source, write_lines

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
RUN = 64


def result(kind: str = "measured", status: str = "completed", name: str = "made-up") -> dict[str, Any]:
    """A result with two vCPUs and three faults of 200 us, 300 us and 5 ms."""
    blocktime = Blocktime(2)
    blocktime.started(0)
    for vcpu, began, ended in ((0, 1_000, 201_000), (1, 300_000, 600_000), (0, 1_000_000, 6_000_000)):
        blocktime.faulted(vcpu, 7, began)
        blocktime.woken(vcpu, ended)
    blocktime.finish(7_000_000)
    times = Times(advise=1, ready=2, run=3, first_piece=4, last_piece=1_000_000, finish=1_000_001)
    snapshot = Snapshot(
        2_000_000,
        Stage.COMPLETED,
        X86_64,
        1 << 30,
        1 << 29,
        1 << 29,
        leaves={PUD: 1},
        table_bytes_max=4096,
        times=times,
    )
    histogram = blocktime.latency.histogram()
    scenario = load(None, [f"scenario.name={name}", "guest.vcpus=2", "guest.workload=zipf:exponent=1.1"])
    told = json.dumps(scenario.resolved())
    outcome = Outcome(snapshot, True, "ab", 9, told, 0, blocktime.statistics(), histogram, 10, 5, 0)
    return build(outcome, scenario, kind, status, "" if status == "completed" else "the source went away")


def write_run(
    directory: Path, events: list[Event] | None = None, said: dict[str, Any] | None = None, kind: str = "measured"
) -> Path:
    """A directory with a result and, if there are events, a trace."""
    directory.mkdir(parents=True, exist_ok=True)
    said = dict(said) if said is not None else result(kind)
    if events is not None:
        trace = write_lines(directory / "trace.jsonl", events, kind)
        said["trace_digest"] = sha256(trace.read_bytes().partition(b"\n")[2]).hexdigest()
    (directory / "result.json").write_text(json.dumps(said))
    return directory


def migration(geometry: Geometry = X86_64, *, wire: bool = False, faults: int = 200, seed: int = 1) -> list[Event]:
    """One hugetlb page in runs of up to 64 pieces, `faults` faults in between, collapsed as it fills up."""
    return [_later(each, 5_000_000) for each in _migration(geometry, wire, faults, Random(seed))]


def _later(each: Event, by: int) -> Event:
    wire = each.wire and CarriedFrame(*(time + by for time in each.wire[:3]), each.wire.frame_bytes)
    return each._replace(t=each.t + by, wire=wire)


def _migration(geometry: Geometry, wire: bool, faults: int, random: Random) -> Iterator[Event]:
    pages, run = geometry.pages(PUD), min(RUN, geometry.pages(PMD))
    wanted = sorted(random.sample(range(pages), min(faults, pages // 2)))
    came: set[int] = set()
    yield event("source", "memory", count=pages, detail=geometry.name, t=-900_000)
    yield destination("memory", count=pages, detail=geometry.name, t=-800_000)
    yield destination("state", detail="advise", t=-700_000)
    yield destination("state", detail="run", t=0)
    t = 0
    for first in range(0, pages, run):
        t += 20_000
        ask = next((page for page in wanted if page >= first + run and page not in came), None)
        if ask is not None and len(came) * pages < first * len(wanted):
            came.add(ask)
            t += 1_000
            yield from _answered(ask, t, len(came) % 2, wire, random.randrange(50_000, 400_000), zero=ask % 7 == 0)
            t += 500_000
        yield source("sent", first, run, t=t)
        if wire:
            yield event("link", "carried", first, run, PTE, t=t + 9_000, detail="main",
                        wire=CarriedFrame(t, t + 10, t + 8_000, run * 4096 + 20))  # fmt: skip
        fresh, at = [page for page in range(first, first + run) if page not in came], t + 10_000
        for page in sorted(set(range(first, first + run)) - set(fresh)):
            yield destination("dropped", page, 1, detail="duplicate", t=at)
        for start, count in _runs(fresh):
            yield destination("received", start, count, t=at)
            yield destination("continued", start, count, t=at)
        end = first + run
        for level in (PMD, PUD):
            if end % geometry.pages(level) == 0:
                start = end - geometry.pages(level)
                yield destination("cleared", start, 512, PTE if level is PMD else PMD, t=at)
                yield destination("collapsed", start, level=level, t=at + 500)
                yield destination("flushed", start, geometry.pages(level), t=at + 700)
                yield destination("freed", start, 1, t=at + 900)
                at += 1_000
        t = at
    yield source("state", detail="end", t=t)
    yield destination("ended", count=pages, t=t + 10)
    yield destination("state", detail="end", t=t + 10)
    yield destination("state", detail="completed", t=t + 1_000_000)


def _answered(page: int, t: int, vcpu: int, wire: bool, latency: int, *, zero: bool) -> Iterator[Event]:
    """A fault at `t`, and its answer `latency` later, in hundredths of that."""
    step = latency // 100
    detail = "zero" if zero else None
    yield destination("faulted", page, vcpu=vcpu, write=True, t=t)
    yield destination("requested", page, 1, t=t + step)
    if wire:
        yield event("link", "carried", page, 1, PTE, t=t + 10 * step, detail="return",
                    wire=CarriedFrame(t + step, t + 2 * step, t + 3 * step, 40))  # fmt: skip
        yield source("asked", page, 1, PTE, t=t + 11 * step)
    yield source("sent", page, 1, urgent=True, detail=detail, t=t + 12 * step)
    if wire:
        yield event("link", "carried", page, 1, PTE, t=t + 80 * step, detail="preempt",
                    wire=CarriedFrame(t + 12 * step, t + 40 * step, t + 45 * step, 4128))  # fmt: skip
    yield destination("received", page, 1, urgent=True, detail=detail, t=t + 81 * step)
    yield destination("continued", page, 1, t=t + 90 * step)
    yield destination("woken", page, vcpu=vcpu, t=t + latency)


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for number, page in enumerate(pages):
        if number + 1 == len(pages) or pages[number + 1] != page + 1:
            yield pages[start], number + 1 - start
            start = number + 1
