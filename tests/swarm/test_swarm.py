"""Worlds drawn from seeds, with faults: all that is said of them in `trial` holds."""

from __future__ import annotations

from functools import cache

import pytest

from migemu.node.patience import Patience
from migemu.sim.coverage import Coverage
from migemu.sim.hazards import parse_all
from tests.swarm.__main__ import told, try_seed
from tests.swarm.directed import DARK, darkened
from tests.swarm.drawing import draw
from tests.swarm.trial import Ending, Verdict, try_out

SEEDS = 300
#: Of one test.
CHUNK = 30
_tried = cache(try_seed)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_world_with_faults_holds_what_was_promised(first: int) -> None:
    failed = [verdict for verdict in map(_tried, range(first, first + CHUNK)) if verdict.complaint]
    assert not failed, "\n".join(map(told, failed))


def _all() -> list[Verdict]:
    return [_tried(seed) for seed in range(SEEDS)]


#: Worlds that did not hold once.
ONCE = (
    (1005571, "crash destination main->source Complete 1 for 20000000ns; corrupt main->destination Page 2 byte 20"),
    (1006108, "corrupt main->destination Page 1 byte 16; crash destination at 1165000ns for 100000ns"),
)


@pytest.mark.parametrize(("seed", "hazards"), ONCE)
def test_a_world_that_did_not_hold_once_holds(seed: int, hazards: str) -> None:
    """A destination that says that the memory differs, and is killed: the source says that, and where the guest is."""
    verdict = try_out(draw(seed).with_hazards(*parse_all(hazards)))
    assert not verdict.complaint
    assert verdict.ending is Ending.DAMAGE_FOUND


#: What each side says in the end, where the network went dark as that message came.
KNOWN = {
    ("nothing goes wrong", "main->destination Hello 1"): ("source", None),
    ("nothing goes wrong", "main->source Ready 1"): ("source", "in doubt"),
    ("nothing goes wrong", "main->destination Run 1"): ("in doubt", "in doubt"),
    ("nothing goes wrong", "main->source Running 1"): ("in doubt", "destination"),
    ("nothing goes wrong", "main->destination Page 1"): ("verdict in doubt", "destination"),  # all is under way
    ("nothing goes wrong", "main->source Complete 1"): ("verdict in doubt", "verified"),
    ("nothing goes wrong", "main->destination Agreed 1"): ("verified", "verified"),
    ("Run is not heard", "main->destination Recover 1"): ("in doubt", "in doubt"),
    ("Run is not heard", "main->destination Run 2"): ("in doubt", "in doubt"),
    ("Running is not heard", "main->destination Recover 1"): ("in doubt", "destination"),
    ("Running is not heard", "main->destination Resume 1"): ("destination", "destination"),
}


@pytest.mark.parametrize("keeps", [True, False], ids=["checkpoint", "none"])
@pytest.mark.parametrize(("name", "at"), [(name, at) for name, places in DARK.items() for at in places])
def test_wherever_it_goes_dark_for_good_no_guest_is_lost_by_both_and_none_runs_twice(
    name: str, at: str, keeps: bool
) -> None:
    verdict = try_out(darkened(name, at, keeps))
    assert not verdict.complaint
    assert verdict.struck == len(verdict.case.hazards) - (name == "nothing goes wrong"), "or it was not dark"
    if (known := KNOWN.get((name, at))) is not None:
        here, there = known
        lost = there == "destination" and not keeps
        assert verdict.told == (here, "lost" if lost else there)


def test_a_node_that_does_not_come_to_an_end_in_the_dark_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "over", lambda *_: None)
    verdict = try_out(darkened("nothing goes wrong", "main->destination Run 1", False))
    assert verdict.complaint.startswith(("LimitError", "hung"))


def test_most_of_them_go_wrong_and_recover() -> None:
    """Or the seeds would prove little."""
    verdicts = _all()
    assert sum(verdict.struck for verdict in verdicts) > SEEDS
    assert sum(verdict.recoveries for verdict in verdicts) > SEEDS / 2
    assert sum(verdict.replaced for verdict in verdicts) > SEEDS / 40
    assert sum(verdict.ending is Ending.VERIFIED for verdict in verdicts) > SEEDS * 2 / 3


def test_they_reach_a_third_of_what_can_be_by_themselves() -> None:
    """The rest is rare; whoever wants it all goes there (`test_every_combination`)."""
    coverage = Coverage()
    for verdict in _all():
        coverage.add(verdict.coverage)
    assert len(coverage.missing()) < 462 * 2 / 3


def test_a_seed_is_the_same_world_each_time() -> None:
    for seed in range(10):
        again = try_out(draw(seed))
        assert again.case == _tried(seed).case
        assert again.coverage.counts == _tried(seed).coverage.counts
        assert (again.ending, again.struck) == (_tried(seed).ending, _tried(seed).struck)
