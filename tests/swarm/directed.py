"""Cases that are not drawn: every fault, on every message, in every state in which it can be said, each by itself.

`BASES` are worlds in which, between them, everything is said that can be. Where each message comes is looked up by
running them; then they run again, with one fault more, exactly there. Nothing before it is changed by that.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Final

from migemu.scenario.scenario import load
from migemu.sim.coverage import Kind, Said, Seen, can_be
from migemu.sim.hazards import Fault, Hazard, OnMessage, parse_all
from migemu.units import MS
from tests.swarm.drawing import Case
from tests.swarm.trial import try_out

_SETTINGS: Final = {
    "memory.geometry": "tiny", "memory.size": "256K", "push.run": "8K", "push.hold": "5ms", "device.state": "4K",
    "guest.vcpus": 2, "guest.workload": "uniform", "guest.rate": 20_000, "guest.tick": 0, "guest.write_share": 0.5,
    "guest.accesses_max": 100, "link.rate": "100Mbit", "link.delay": "200us", "return_link.delay": "200us",
    "net.idle_timeout": "100ms", "net.hello_timeout": "500ms", "net.connect_timeout": "1s",
    "net.answer_timeout": "1s",
    "recovery.timeout": "20s", "recovery.backoff_min": "1ms", "recovery.backoff_max": "50ms", "recovery.errors_max": 20,
    "integrity.digests": "on",
}  # fmt: skip
#: What never comes strikes nobody; without any hazard nobody would look where messages come.
_NONE: Final = "cut main->destination Advise 2 byte 0"
#: A name: what is set besides, and what goes wrong before the fault in question.
BASES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "nothing goes wrong": ({}, _NONE),
    "long silences": ({"push.hold": "60ms"}, _NONE),
    "mostly zeros": ({"memory.zero_share": 0.9}, _NONE),
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
_AMOUNTS: Final = {
    Fault.DELAY: 5 * MS, Fault.SLOW: 1_000_000, Fault.CRASH_SOURCE: 5 * MS, Fault.CRASH_DESTINATION: 5 * MS,
}  # fmt: skip


def base(name: str) -> Case:
    """One of `BASES`, as it is."""
    settings, hazards = BASES[name]
    scenario = load(None, [f"{key}={value}" for key, value in (_SETTINGS | settings).items()])
    return Case(f'--base "{name}"', scenario, parse_all(hazards), 500 * MS)


@cache
def _places() -> dict[tuple[Said, bool], tuple[str, Seen]]:
    """Each message in a state, with a payload or without: in which base it comes, and where."""
    found: dict[tuple[Said, bool], tuple[str, Seen]] = {}
    for name in BASES:
        verdict = try_out(base(name))
        assert not verdict.complaint, f"{name}: {verdict.complaint}"
        for key, seen in verdict.coverage.seen.items():
            found.setdefault(key, (name, seen))
    return found


def directed(said: Said, kind: Kind) -> Case:
    """The case in which `kind` hits `said`. KeyError: it is never said."""
    places = _places()
    name, seen = places.get((said, True)) or places[said, False]
    amount = _AMOUNTS.get(kind.fault, 0)
    if kind.part == "header":
        amount = seen.header_bytes // 2 + 3
    elif kind.part == "payload":
        amount = (seen.header_bytes + seen.size) // 2
    case = base(name)
    return case.with_hazards(*case.hazards, Hazard(kind.fault, seen.way, OnMessage(said.kind, seen.nth), amount))


#: All that is said at the switch and at the end, and again after a recovery.
DARK: Final = {
    "nothing goes wrong": (
        "main->destination Hello 1", "main->destination Advise 1", "main->source Ready 1", "main->destination Listen 1",
        "main->destination DeviceState 1", "main->destination Run 1", "main->source Running 1",
        "main->destination Page 1", "main->destination End 1", "main->destination Digests 1",
        "main->destination Digests 4", "main->source Complete 1", "main->destination Agreed 1",
    ),
    "Run is not heard": (
        "main->destination Hello 2", "main->destination Recover 1", "main->source Ready 2",
        "main->destination Listen 2", "main->destination DeviceState 2", "main->destination Run 2",
        "main->source Running 1",
    ),
    "Running is not heard": (
        "main->destination Hello 2", "main->destination Recover 1", "main->source ReceivedBitmap 1",
        "main->destination Resume 1", "main->source Resumed 1", "main->destination End 1", "main->source Complete 1",
    ),
}  # fmt: skip


def darkened(name: str, at: str, keeps: bool) -> Case:
    """A base that goes dark for good as a message comes."""
    case = base(name)
    return replace(case.with_hazards(*case.hazards, *parse_all(f"dark {at}")), keeps=keeps)


def combinations() -> list[tuple[Said, Kind]]:
    """All that can be."""
    return [(said, kind) for said, kinds in can_be().items() for kind in kinds]
