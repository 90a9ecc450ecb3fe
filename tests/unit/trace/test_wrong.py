"""Wrong on purpose: each bug is caught by the rule about it; told as it should have gone, no rule objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.mm.pages import TINY, Level
from migemu.trace.checkers import check, checkers
from migemu.trace.findings import judge_file
from migemu.trace.wrong import SCENARIOS, WrongOrder
from tests.unit.trace.traces import write_lines

PAGES = TINY.pages(Level.PUD)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@every_scenario
def test_the_bug_is_caught_by_the_rule_about_it(scenario: WrongOrder) -> None:
    """And who else objects is known."""
    found = check(scenario.events(), geometry=TINY, pages=PAGES)
    assert {violation.rule for violation in found} == {scenario.rule, *scenario.also}
    assert all(violation.reason for violation in found)
    assert all(witness.line < violation.line for violation in found for witness in violation.history)


@every_scenario
def test_the_rule_about_it_is_enough(scenario: WrongOrder) -> None:
    found = check(scenario.events(), geometry=TINY, pages=PAGES, rules=[scenario.rule])
    assert scenario.rule in {violation.rule for violation in found}


@every_scenario
def test_told_as_it_should_have_gone_no_rule_objects(scenario: WrongOrder) -> None:
    assert check(scenario.events(wrong=False), geometry=TINY, pages=PAGES) == []


@every_scenario
def test_a_scenario_is_a_trace_that_can_be_written_and_judged(scenario: WrongOrder, tmp_path: Path) -> None:
    verdict = judge_file(write_lines(tmp_path / "trace", scenario.events(), "modelled"))
    assert set(verdict.broken) == {scenario.rule, *scenario.also}


@every_scenario
def test_a_scenario_says_what_happened_and_where(scenario: WrongOrder) -> None:
    assert scenario.story.endswith(".")
    assert scenario.happened


def test_every_rule_has_a_scenario_that_it_catches() -> None:
    """A rule that nothing breaks might as well not be there."""
    assert {scenario.rule for scenario in SCENARIOS.values()} == {entry.name for entry in checkers}
