"""Hazards as text: every one of them parses back; nonsense is refused with what would make sense."""

from __future__ import annotations

import pytest

from migemu.errors import InputError
from migemu.sim import hazards
from migemu.sim.hazards import AtTime, Fault, Hazard, OnMessage, OnStage, Way, in_one_line, parse, parse_all
from migemu.units import MS
from migemu.wire.messages import ChannelRole, Page, Request, Run, Running

THERE = Way(ChannelRole.MAIN, "destination")
BACK = Way(ChannelRole.MAIN, "source")
ALL = {
    "cut main->destination Page 3 byte 5": Hazard(Fault.CUT, THERE, OnMessage(Page, 3), 5),
    "cut main->source at 5ms byte 0": Hazard(Fault.CUT, BACK, AtTime(5 * MS)),
    "truncate main->destination Page 3 byte 100": Hazard(Fault.TRUNCATE, THERE, OnMessage(Page, 3), 100),
    "duplicate preempt->destination message 4": Hazard(
        Fault.DUPLICATE, Way(ChannelRole.PREEMPT, "destination"), OnMessage(None, 4)
    ),
    "corrupt main->destination message 17 byte 8": Hazard(Fault.CORRUPT, THERE, OnMessage(None, 17), 8),
    "delay main->source Request 2 by 5ms": Hazard(Fault.DELAY, BACK, OnMessage(Request, 2), 5 * MS),
    "slow main->destination when source run 1 to 8Mbit": Hazard(
        Fault.SLOW, THERE, OnStage("source", "run", 1), 8_000_000
    ),
    "hold main->destination Page 3": Hazard(Fault.HOLD, THERE, OnMessage(Page, 3)),
    "release main->destination at 1.5ms": Hazard(Fault.RELEASE, THERE, AtTime(1_500_000)),
    "half_open main->source Request 1": Hazard(Fault.HALF_OPEN, BACK, OnMessage(Request, 1)),
    "crash source main->destination Page 9 for 5ms": Hazard(
        Fault.CRASH_SOURCE, THERE, OnMessage(Page, 9), 5 * MS
    ),
    "crash destination at 7ms for 0": Hazard(Fault.CRASH_DESTINATION, None, AtTime(7 * MS)),
    "crash source when destination run 2 for 1s": Hazard(
        Fault.CRASH_SOURCE, None, OnStage("destination", "run", 2), 1000 * MS
    ),
    "lose main->destination Run 1": Hazard(Fault.LOSE, THERE, OnMessage(Run, 1)),
    "dark main->source Running 1": Hazard(Fault.DARK, BACK, OnMessage(Running, 1)),
    "dark at 7ms": Hazard(Fault.DARK, None, AtTime(7 * MS)),
    "fail_recovery 3": Hazard(Fault.FAIL_RECOVERY, amount=3),
}  # fmt: skip


@pytest.mark.parametrize("line", ALL)
def test_a_line_is_read_and_its_hazard_parses_back(line: str) -> None:
    assert parse(line) == ALL[line]
    assert parse(str(ALL[line])) == ALL[line]


def test_there_is_a_line_for_every_fault() -> None:
    assert {hazard.fault for hazard in ALL.values()} == set(Fault)


def test_several_stand_on_lines_or_on_one() -> None:
    assert parse_all("\n".join(ALL)) == tuple(ALL.values())
    assert parse_all(in_one_line(tuple(ALL.values()))) == tuple(ALL.values())
    assert parse_all("  ") == ()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("melt main->destination Page 3", "write a fault"),
        ("cut sideways->destination Page 3 byte 5", "write a fault"),
        ("cut main->destination Pages 3 byte 5", "write a fault"),
        ("cut main->destination Page 3", 'ends in "byte N"'),
        ("cut main->destination Page 3 by 5", 'ends in "byte N"'),
        ("cut main->destination Page 0 byte 5", "count from 1"),
        ("cut main->destination byte 5", "say when"),
        ("cut at 5ms byte 5", "say which way"),
        ("crash source main->destination at 5ms for 1ms", "needs no way"),
        ("crash source Page 3 for 1ms", "say which way"),
        ("delay main->source Request 2 by 5parsecs", "5parsecs"),
        ("hold main->destination Page 3 for 5ms", "takes no amount"),
        ("slow main->destination Page 1 to 0", "use hold"),
        ("fail_recovery 0", "how often"),
        ("fail_recovery at 5ms 2", "and no more"),
    ],
)
def test_nonsense_is_refused_with_what_would_make_sense(line: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(line)


def test_the_examples_of_the_module_are_hazards() -> None:
    """What stands at its top can be copied."""
    lines = [line[4:] for line in (hazards.__doc__ or "").split("\n") if line.startswith("    ")]
    examples = [
        line.split("   ")[0] for line in lines if line.split(" ")[0] in {each.value.split()[0] for each in Fault}
    ]
    assert len(examples) == 16
    assert {parse(example).fault for example in examples} == set(Fault)
