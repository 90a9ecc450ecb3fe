"""A scenario through both cores, in an order drawn from a seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import migemu.ordering
import tests.plugin.wrong
from migemu.errors import ScenarioError
from migemu.mm.pages import Level
from migemu.ordering import OrderingError, run
from migemu.policy.collapse_policy import Eager
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Happening
from tests.plugin import wrong

SEEDS = range(12)


@pytest.mark.parametrize("policy", ["never", "at_end", "direct", "batched:spans=3", "eager", "budget:stall=1ms"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pull.preempt": "off"},
        {"pull.resend": "on", "push.order": "random"},
        {"push.piece": "2M", "pull.piece": "2M", "push.order": "fill_pmd"},
        {"guest.vcpus": 0, "memory.zero_share": 1},
        {"memory.size": "192K", "push.run": "8K", "guest.accesses_max": 5, "guest.workload": "sequential"},
    ],
    ids=str,
)
def test_every_policy_holds_in_any_order(policy: str, settings: dict[str, Any]) -> None:
    for seed in SEEDS:
        result = run(settings, policy=policy, seed=seed)
        assert (
            result.receiver.pages_mapped
            == result.receiver.pages_received
            == sum(count * (1, 0, 4, 0, 16)[level] for level, count in result.leaves.items())
        )
        assert (result.leaves[Level.PUD] > 0) == (policy != "never")


def test_the_same_seed_gives_the_same_trace() -> None:
    assert run(seed=3).trace == run(seed=3).trace
    assert run(seed=3).trace != run(seed=4).trace


def test_the_seed_of_the_scenario_counts_unless_another_is_given() -> None:
    assert run({"scenario.seed": 3}).trace == run(seed=3).trace
    assert run({"scenario.seed": 3}, seed=4).seed == 4


def test_the_orders_drawn_are_worth_it() -> None:
    """In a few runs there are faults, duplicates, explicit wakes, pages read and written, batches and refusals."""
    happened: dict[Happening, int] = dict.fromkeys(Happening, 0)
    for seed in SEEDS:
        for policy in (wrong.Heaping, wrong.Hasty):
            settings = {"memory.size": "64K", "pull.resend": "on", "push.piece": "2M"}
            for event in run(settings, policy=policy, seed=seed, refusals="allow").trace:
                happened[event.event] += 1
    seen = {happening for happening, times in happened.items() if times}
    assert seen >= {
        Happening.MEMORY, Happening.POLICY, Happening.STATE, Happening.SENT, Happening.REQUESTED, Happening.RECEIVED,
        Happening.DROPPED, Happening.FAULTED, Happening.WOKEN, Happening.CONTINUED, Happening.WAKE,
        Happening.COLLAPSED, Happening.REFUSED, Happening.READ, Happening.WRITTEN, Happening.ENDED,
    }  # fmt: skip


@pytest.mark.parametrize(
    "choice",
    [
        '[memory]\ngeometry = "tiny"\nsize = "64K"',
        Scenario(),
        None,
        {"memory.size": "64K"},
    ],
    ids=["text", "scenario", "nothing", "settings"],
)
def test_a_scenario_is_given_as_text_as_settings_or_as_it_is(choice: Any) -> None:
    if isinstance(choice, Scenario):
        choice = migemu.ordering.run({"memory.size": "64K"}).scenario
    assert run(choice).scenario.memory.geometry == "tiny"


def test_a_scenario_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text('[memory]\ngeometry = "tiny"\nsize = "64K"\n', encoding="utf-8")
    assert run(path).trace == run(str(path)).trace == run(path.read_text(encoding="utf-8")).trace


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"memory.sise": "64K"}, "did you mean 'size'"),
        ("[memory", "is not TOML"),
        ("nowhere.toml", "cannot be read"),
        ({"collapse.policy": "magic"}, "unknown collapse policy 'magic'"),
    ],
)
def test_what_is_no_scenario_is_refused(choice: Any, problem: str) -> None:
    with pytest.raises(ScenarioError, match=problem):
        run(choice)


def test_a_whole_gibibyte_of_4k_pages() -> None:
    result = run('[memory]\nsize = "1G"\n[guest]\nvcpus = 2\nworkload = "zipf"')
    assert result.leaves == {Level.PTE: 0, Level.PMD: 0, Level.PUD: 1}
    assert result.receiver.pages_received == 262_144


@pytest.mark.parametrize(
    ("policy", "receiver", "rule"),
    [
        (wrong.Hasty, None, "proposals_sound"),
        (wrong.Promising, None, "huge_at_the_end"),
        (wrong.Leaping, None, "smaller_before_larger"),
        (wrong.Failing, None, "no_exception"),
        (wrong.Hasty, wrong.CollapsesUnasked, "no_hole_collapsed"),
        (wrong.Heaping, wrong.NeverWakes, "sleepers_woken"),
        (Eager, wrong.WakesFirst, "mapped_before_woken"),
        (Eager, wrong.StoresAll, "writes_kept"),
        (Eager, wrong.StepsDown, "smaller_before_larger"),
        (Eager, wrong.MapsAtOnce, "counts_conserved"),
        (Eager, wrong.AsksAgain, "asked_in_need"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_the_line_replays_it(policy: Any, receiver: Any, rule: str) -> None:
    settings = {"memory.size": "64K", "pull.resend": "on", "push.piece": "2M", "memory.zero_share": 0}
    options = {} if receiver is None else {"receiver": receiver}

    def try_seeds() -> None:
        for seed in range(300):
            run(settings, policy=policy, seed=seed, **options)

    with pytest.raises(OrderingError) as found:
        try_seeds()
    assert found.value.rule == rule
    assert found.value.steps
    with pytest.raises(OrderingError) as again:
        eval(found.value.replay, {"migemu": migemu, "tests": tests})
    assert str(again.value) == str(found.value)


def test_an_error_shows_the_event_and_those_that_led_to_it() -> None:
    with pytest.raises(OrderingError) as found:
        run({"memory.size": "64K"}, policy=wrong.Leaping, seed=1)
    assert '"event":"collapsed","first":0,"level":"PUD"' in found.value.steps[-1]
    numbers = [int(step.split()[0]) for step in found.value.steps]
    assert len(numbers) > 1
    assert numbers == sorted(numbers)


def test_what_is_found_out_at_the_end_is_shown_where_it_happened() -> None:
    """A refused proposal is judged when all is over; what is shown is the refusal and what had become of its pages."""
    with pytest.raises(OrderingError) as found:
        run(policy=wrong.Hasty, seed=1)
    *before, (line, refused) = shown(found.value)
    assert refused["event"] == "refused"
    first = refused["first"]
    assert f"the PMD at page {first}; refused: not received" in found.value.reason
    assert before
    assert all(number < line for number, _ in before)
    about = [each for _, each in before if "first" in each]
    assert any(each["event"] == "continued" for each in about), "what was mapped of it"
    for each in about:
        pages = range(each["first"], each["first"] + each.get("count", 1))
        assert {*pages} & {*range(first, first + 4)}, each
    with pytest.raises(OrderingError) as whole:
        run(policy=wrong.Hasty, seed=1, receiver=wrong.CollapsesUnasked)
    assert shown(whole.value)[-1][1]["event"] == "collapsed"


def test_what_no_event_tells_is_shown_by_the_events_about_the_same_page() -> None:
    with pytest.raises(OrderingError) as found:
        run(policy=Eager, seed=1, receiver=wrong.AsksAgain)
    request = re.search(r"first=(\d+), count=(\d+)", found.value.reason)
    assert request is not None
    wanted = {*range(int(request[1]), int(request[1]) + int(request[2]))}
    *before, _last = shown(found.value)
    about = [each for _, each in before if "first" in each]
    assert about
    assert all(wanted & {*range(each["first"], each["first"] + each.get("count", 1))} for each in about)


def shown(error: OrderingError) -> list[tuple[int, dict[str, Any]]]:
    """The steps: the number of an event, and the event."""
    return [(int(number), json.loads(event)) for number, event in (step.split(maxsplit=1) for step in error.steps)]
