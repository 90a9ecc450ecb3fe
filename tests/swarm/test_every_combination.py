"""Every fault, on every message, in every state in which it can be said: all are reached, and all are survived.

`BASES` are worlds in which, between them, everything is said that can be. Where each message comes is looked up by
running them; then they run again, with one fault more, exactly there. Nothing before it is changed by that.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import pytest

from migemu.scenario import load
from migemu.sim.coverage import Coverage, Kind, Said, Seen, can_be
from migemu.sim.hazards import Fault, Hazard, OnMessage, in_one_line, parse_all
from migemu.units import MS
from tests.swarm.drawing import Case
from tests.swarm.trial import Verdict, try_out

_SETTINGS: Final = {
    "memory.geometry": "tiny", "memory.size": "256K", "push.run": "8K", "push.hold": "5ms", "device.state": "4K",
    "guest.vcpus": 2, "guest.workload": "uniform", "guest.rate": 20_000, "guest.tick": 0, "guest.write_share": 0.5,
    "guest.accesses_max": 100, "link.rate": "100Mbit", "link.delay": "200us", "return_link.delay": "200us",
    "net.idle_timeout": "100ms", "net.hello_timeout": "500ms", "net.connect_timeout": "1s",
    "recovery.timeout": "20s", "recovery.backoff_min": "1ms", "recovery.backoff_max": "50ms", "recovery.errors_max": 20,
    "integrity.digests": "on",
}  # fmt: skip
#: A name: what is set besides, and what goes wrong before the fault in question. Something always has to, or nobody
#: looks: a message that never comes is nothing.
BASES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "nothing goes wrong": ({}, "cut main->destination Advise 2 byte 0"),
    "long silences": ({"push.hold": "60ms"}, "cut main->destination Advise 2 byte 0"),
    "mostly zeros": ({"memory.zero_share": 0.9}, "cut main->destination Advise 2 byte 0"),
    "lost in the middle": ({}, "cut main->destination Page 5 byte 0"),
    "Run is not heard": ({}, "cut main->destination Run 1 byte 0"),
    "Running is not heard": ({}, "half_open main->source Running 1; cut main->destination Page 5 byte 0"),
    "preempt is lost": ({}, "cut preempt->destination message 4 byte 0"),
    "preempt is lost, mostly zeros": ({"memory.zero_share": 0.9}, "cut preempt->destination message 4 byte 0"),
    "preempt is lost with all on it": (
        {}, "hold preempt->destination message 2; cut preempt->destination when destination end 1 byte 0"
    ),
    "zeros are lost with it": (
        {"memory.zero_share": 0.9},
        "hold preempt->destination message 2; cut preempt->destination when destination end 1 byte 0",
    ),
    "preempt is lost, and the verdict not heard yet": (
        {}, "hold main->source Complete 1; cut preempt->destination when destination completed 1 byte 0; "
        "release main->source at 80ms",
    ),
}  # fmt: skip
ROWS: Final = can_be()


def _case(base: str, *more: Hazard) -> Case:
    settings, hazards = BASES[base]
    scenario = load(None, [f"{name}={value}" for name, value in (_SETTINGS | settings).items()])
    return Case(0, scenario, (*parse_all(hazards), *more), 500 * MS)


@cache
def _bases() -> dict[tuple[Said, bool], tuple[str, Seen]]:
    """Each message in a state, with a payload or without: in which base it comes, and where."""
    found: dict[tuple[Said, bool], tuple[str, Seen]] = {}
    for base in BASES:
        verdict = try_out(_case(base))
        assert not verdict.complaint, base
        for key, seen in verdict.coverage.seen.items():
            found.setdefault(key, (base, seen))
    return found


def _strike(said: Said, kind: Kind) -> Verdict:
    bases = _bases()
    base, seen = bases.get((said, True)) or bases[said, False]
    amounts = {
        "header": seen.header_bytes // 2 + 3, "payload": (seen.header_bytes + seen.size) // 2, "between": 0,
    } if kind.part else dict.fromkeys([""], _AMOUNTS.get(kind.fault, 0))  # fmt: skip
    hazard = Hazard(kind.fault, seen.way, OnMessage(said.kind, seen.nth), amounts[kind.part])
    case = _case(base, hazard)
    verdict = try_out(case)
    assert not verdict.complaint, f"{base}: {in_one_line(case.hazards)}: {verdict.complaint}"
    return verdict


_AMOUNTS: Final = {
    Fault.DELAY: 5 * MS, Fault.SLOW: 1_000_000, Fault.CRASH_SOURCE: 5 * MS, Fault.CRASH_DESTINATION: 5 * MS,
}  # fmt: skip


@pytest.mark.parametrize("said", ROWS, ids=str)
def test_every_fault_hits_it_in_this_state_and_is_survived(said: Said) -> None:
    coverage = Coverage()
    for kind in ROWS[said]:
        coverage.add(_strike(said, kind).coverage)
    missed = [str(kind) for kind in ROWS[said] if (said, kind) not in coverage.counts]
    assert not missed
