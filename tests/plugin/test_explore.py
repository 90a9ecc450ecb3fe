"""Every order of events, for every policy there is; and what happens to those that are wrong on purpose."""

from __future__ import annotations

from typing import Any

import pytest

import migemu.ordering
import tests.plugin.wrong
from migemu.mm.pages import TINY, Level, PieceRun
from migemu.ordering import OrderingError, TooManyStatesError, explore
from migemu.policy.collapse_policy import Eager, collapse_policies
from tests.plugin import wrong

#: Without a guest: what the order of messages alone can break.
NO_GUEST = {"accesses": 0}
#: The states of each policy within the default bounds. Fewer than these, and something is not tried any more.
STATES = {
    "never": 61200,
    "at_end": 61384,
    "direct": 61384,
    "batched": 80857,
    "batched:spans=2": 72268,
    "eager": 68200,
    "budget:stall=10ms": 77330,
}


@pytest.mark.parametrize("policy", STATES)
def test_no_order_of_events_breaks_a_rule(policy: str) -> None:
    assert explore(policy).states == STATES[policy]


def test_every_policy_is_explored() -> None:
    assert {entry.name for entry in collapse_policies} == {spec.partition(":")[0] for spec in STATES}


def test_two_vcpus_that_fault_at_once_are_tried_too() -> None:
    bounds: dict[str, Any] = {"vcpus": 2, "accesses": 1, "touched": (13, 14)}
    assert explore(wrong.Heaping, **bounds).states == 117275


@pytest.mark.parametrize("policy", ["eager", "budget:stall=3ms"])
def test_faults_may_ask_for_2m_pieces(policy: str) -> None:
    assert (
        explore(policy, urgent_piece=Level.PMD, accesses=1).states
        == {"eager": 13757, "budget:stall=3ms": 18998}[policy]
    )


# --- wrong policies ---


@pytest.mark.parametrize(
    ("policy", "bounds", "rule", "reason"),
    [
        (wrong.Hasty, {}, "proposals_sound", "the 2M at base page 0; refused: not received (base page 1)"),
        (wrong.Forgetful, NO_GUEST, "huge_at_the_end", "promises to collapse, and base page 0 stays mapped by 2M"),
        (wrong.Promising, NO_GUEST, "huge_at_the_end", "promises to collapse, and base page 0 stays mapped by 2M"),
        (wrong.Leaping, NO_GUEST, "smaller_before_larger", "while 4K entries map base pages 0-11"),
        (
            wrong.Backward,
            NO_GUEST,
            "smaller_before_larger",
            "the 2M at base page 0 is collapsed after the 1G around it",
        ),
        (wrong.Failing, {}, "no_exception", "ZeroDivisionError: no faults on the last 2M in mapped, "),
        (wrong.Repeating, {}, "proposals_sound", "the 2M at base page 4 is collapsed for the second time"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_policy_is_found(policy: type, bounds: dict[str, Any], rule: str, reason: str) -> None:
    with pytest.raises(OrderingError) as found:
        explore(policy, **bounds)
    assert found.value.rule == rule
    assert reason in found.value.reason


def test_the_steps_to_it_are_told_and_are_the_fewest() -> None:
    with pytest.raises(OrderingError) as found:
        explore(wrong.Hasty)
    assert str(found.value).splitlines() == [
        "proposals_sound: the policy proposed to collapse the 2M at base page 0; refused: not received (base page 1)",
        "  in 5 steps, the fewest there are; 561 states seen:",
        "    1. the push brings base page 0",
        "    2. UFFDIO_CONTINUE of base page 0",
        "    3. the push brings base pages 2-3",
        "    4. UFFDIO_CONTINUE of base pages 2-3",
        "    5. the receiver refuses to collapse the 2M at base page 0: not received",
        "replay: migemu.ordering.explore(tests.plugin.wrong.Hasty)",
    ]


def test_a_policy_may_be_allowed_to_propose_what_is_refused() -> None:
    assert explore(wrong.Hasty, refusals="allow", **NO_GUEST).states == 725


def test_an_exception_in_a_policy_keeps_its_cause() -> None:
    with pytest.raises(OrderingError) as found:
        explore(wrong.Failing)
    assert isinstance(found.value.__cause__, ZeroDivisionError)


# --- wrong receivers ---


@pytest.mark.parametrize(
    ("policy", "receiver", "bounds", "rule"),
    [
        (wrong.Hasty, wrong.CollapsesUnasked, NO_GUEST, "no_hole_collapsed"),
        (wrong.Heaping, wrong.NeverWakes, {}, "sleepers_woken"),
        ("eager", wrong.WakesFirst, {}, "mapped_before_woken"),
        ("eager", wrong.StoresAll, {}, "writes_kept"),
        ("eager", wrong.StepsDown, NO_GUEST, "smaller_before_larger"),
        ("eager", wrong.MapsAtOnce, NO_GUEST, "mapped_within_received"),
        ("eager", wrong.MapsTooLittle, NO_GUEST, "table_known"),
        ("eager", wrong.AsksAgain, NO_GUEST, "asked_in_need"),
        ("eager", wrong.NeverFinishes, NO_GUEST, "completion_is_told"),
        ("eager", wrong.FinishesEarly, NO_GUEST, "completion_is_told"),
        ("eager", wrong.MapsBeyond, NO_GUEST, "calls_accepted"),
    ],
)
def test_a_wrong_receiver_is_found(policy: Any, receiver: type, bounds: dict[str, Any], rule: str) -> None:
    with pytest.raises(OrderingError) as found:
        explore(policy, receiver=receiver, **bounds)
    assert found.value.rule == rule


def test_a_sleeper_on_a_hole_that_a_collapse_filled_is_told_step_by_step() -> None:
    with pytest.raises(OrderingError) as found:
        explore(wrong.Heaping, receiver=wrong.NeverWakes)
    assert found.value.steps[1:] == (
        "  1. vCPU 0 writes to base page 13: not mapped, it sleeps",
        "  2. the fault of vCPU 0 is read: base page 13",
        "  3. the source is asked for base page 13",
        "  4. an urgent answer brings base page 13",
        "  5. UFFDIO_CONTINUE of base page 13; vCPU 0 wakes",
        "  6. vCPU 0 writes to base page 13",
        "  7. vCPU 0 writes to base page 14: not mapped, it sleeps",
        "  8. the push brings base pages 12-15 (1 x 2M); dropped, as received before: base page 13",
        "  9. the fault of vCPU 0 is read: base page 14",
        " 10. UFFDIO_CONTINUE of base page 12",
        " 11. MADV_COLLAPSE of the 2M at base page 12",
        " 12. UFFDIO_CONTINUE of base pages 14-15",
    )


def test_the_line_that_replays_it_does() -> None:
    with pytest.raises(OrderingError) as found:
        explore("eager", receiver=wrong.StoresAll, accesses=1)
    line = found.value.replay.removeprefix("migemu.ordering.")
    assert line == "explore('eager', receiver=tests.plugin.wrong.StoresAll, accesses=1)"
    with pytest.raises(OrderingError) as again:
        eval(line, {"explore": migemu.ordering.explore, "tests": tests})
    assert str(again.value) == str(found.value)


# --- bounds and choices ---


def test_more_states_than_allowed_are_an_error() -> None:
    with pytest.raises(TooManyStatesError, match=r"^more than 999 states.*ignore="):
        explore("eager", states_max=999)


def test_a_deadline_that_is_always_to_come_is_no_end() -> None:
    with pytest.raises(TooManyStatesError):
        explore(wrong.Waiting, states_max=2_000, **NO_GUEST)


def test_a_counter_makes_states_of_its_own_unless_it_is_ignored() -> None:
    plain = explore(Eager, accesses=1)
    assert explore(wrong.Counting, accesses=1).states > plain.states
    assert explore(wrong.Counting, accesses=1, ignore={"calls"}).states == plain.states


def test_a_policy_is_a_spec_a_class_a_function_or_an_object() -> None:
    made = Eager(TINY)
    several = [explore(each, **NO_GUEST) for each in ("eager", Eager, lambda geometry: Eager(geometry), made)]
    assert len({(each.states, each.transitions) for each in several}) == 1
    assert several[0].policy == "eager"
    assert several[1].policy == several[3].policy == "migemu.policy.collapse_policy.Eager"
    assert not made._proposed, "it was tried on a clone"


@pytest.mark.parametrize(
    ("bounds", "problem"),
    [
        ({"messages": (PieceRun(0, 15, Level.PTE),)}, "give a partition of the 16 of TINY"),
        ({"messages": (PieceRun(0, 4, Level.PMD), PieceRun(3, 1, Level.PTE))}, "give a partition"),
        ({"touched": (16,)}, "the base pages of TINY are 0 to 15"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        explore("eager", **bounds)


def test_other_messages_are_other_states() -> None:
    pieces = tuple(PieceRun(first, 1, Level.PMD) for first in range(0, 16, 4))
    assert explore("eager", messages=pieces, **NO_GUEST).states == 51
