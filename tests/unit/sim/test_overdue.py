"""A message is lost on a connection that lives on, and both nodes go on saying Alive: nobody waits for it for ever.

TCP loses nothing; a proxy can, and so can a bug in a peer, to which a node that hangs looks the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from migemu.errors import MigemuError, OverdueError
from migemu.node.due import Due
from migemu.node.outcome import Outcome
from migemu.sim.hazards import parse
from migemu.sim.waiting import SimulationError
from migemu.sim.world import World
from migemu.units import SECOND
from tests.unit.sim.played import LIVELY, scenario
from tests.unit.sim.test_recovery import ServicesWithErrors

#: A way and a message, what makes it be said, and whether the migration is verified in the end.
_LOSS, _UNHEARD = "cut main->destination Page 3 byte 100; ", "cut main->destination Run 1 byte 0; "
MESSAGES = [
    ("main->destination Hello 1", "", False), ("main->destination Advise 1", "", False),
    ("main->source Ready 1", "", False), ("main->destination Listen 1", "", True),
    ("main->destination DeviceState 1", "", True), ("main->destination Run 1", "", True),
    ("main->source Running 1", "", True), ("main->destination Page 5", "", True),
    ("main->destination Zero 2", "", True), ("preempt->destination Hello 1", "", True),
    ("preempt->destination Page 3", "", True), ("main->source Request 2", "", True),
    ("main->destination End 1", "", True), ("main->destination Digests 1", "", True),
    ("main->destination Digests 8", "", True), ("main->source Complete 1", "", True),
    ("main->destination Agreed 1", "", True), ("main->destination Hello 2", _LOSS, True),
    ("main->destination Recover 1", _LOSS, True), ("main->source ReceivedBitmap 1", _LOSS, True),
    ("main->destination Resume 1", _LOSS, True), ("main->source Resumed 1", _LOSS, True),
    ("main->source Ready 2", _UNHEARD, True), ("main->destination Listen 2", _UNHEARD, True),
    ("main->destination Run 2", _UNHEARD, True),
    ("main->destination Recover 1", "cut preempt->destination Page 3 byte 0; ", True),
    ("main->source ReceivedBitmap 1", "cut preempt->destination Page 3 byte 0; ", True),
]  # fmt: skip
_SHORT = {"net.idle_timeout": "400ms", "net.answer_timeout": "2s", "recovery.timeout": "20s", "push.hold": "5ms"}


def _play(hazards: str, **settings: Any) -> tuple[Outcome, World]:
    world = World(
        scenario(LIVELY, _SHORT, **settings), ServicesWithErrors(), None,
        hazards=[parse(each) for each in hazards.split("; ")], time_max_ns=60 * SECOND,
    )  # fmt: skip
    return world.run(), world


@pytest.mark.parametrize(("message", "before", "ends_verified"), MESSAGES, ids=lambda value: str(value).strip("; "))
def test_whatever_is_lost_once_somebody_notices(message: str, before: str, ends_verified: bool) -> None:
    hazards = f"{before}lose {message}"
    if ends_verified:
        outcome, world = _play(hazards)
        assert outcome.verified
        assert world.injection is not None
        assert str(world.injection.struck[-1]) == f"lose {message}"
        return
    nodes = ServicesWithErrors()
    world = World(
        scenario(LIVELY, _SHORT), nodes, None, hazards=[parse(hazards)], time_max_ns=60 * SECOND
    )  # fmt: skip
    with pytest.raises(MigemuError):
        world.run()
    (told,) = nodes.errors
    assert told.endswith(". The guest runs on at the source, whose image is unchanged")


def test_nobody_would_without_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Due, "overdue", lambda *_: None)
    with pytest.raises(SimulationError):
        _play("lose main->source Complete 1")


def test_a_verdict_that_never_comes_is_waited_for_as_long_as_there_is_patience() -> None:
    """Each connection recovers, all is sent, and nothing is said any more: no progress, however alive it looks."""
    lost = "; ".join(f"lose main->source Complete {nth}" for nth in range(1, 30))
    with pytest.raises(MigemuError) as caught:
        _play(lost, net__idle_timeout="1s")
    assert "No progress for 20s (recovery.timeout)" in str(caught.value)


@pytest.mark.parametrize(
    ("message", "told"),
    [("Recover", r"\(recovery\.timeout\)"), ("Resume", r"\(recovery\.timeout\)|\(recovery\.errors_max\)")],
)
def test_so_is_an_answer_that_never_comes(message: str, told: str) -> None:
    lost = "; ".join(f"lose main->destination {message} {nth}" for nth in range(1, 60))
    with pytest.raises(MigemuError, match=told):
        _play(f"cut main->destination Page 3 byte 0; {lost}")


def test_that_the_guest_runs_is_known_by_what_is_here_too() -> None:
    outcome, _ = _play("lose main->source Running 1; lose main->source Running 2")
    assert outcome.verified


def test_without_recovery_a_late_answer_is_the_end() -> None:
    with pytest.raises(OverdueError, match=r"Complete has not come|Agreed has not come"):
        _play("lose main->source Complete 1", recovery__timeout=0)


def test_a_guest_that_is_held_for_long_while_nobody_waits_is_no_silence() -> None:
    outcome, _ = _play("lose main->destination Alive 1", push__hold="30s", guest__vcpus=0, recovery__timeout="5s")
    assert outcome.recovery.count == 0
