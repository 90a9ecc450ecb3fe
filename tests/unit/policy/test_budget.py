"""The collapse policy with a budget of stall: two TINY hugetlb pages (a "1G" of 4 "2M" of 4 pages)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Level, Span
from migemu.policy.budget import Budget
from migemu.policy.collapse_policy import TimedCollapsePolicy, collapse_policies
from migemu.units import MS, SECOND, parse_time
from tests.unit.policy.test_collapse_policy import Mapping, pmd, pud

PMDS = [pmd(number) for number in range(8)]


def world(costs: dict[Span, int] | int, stall: str = "10ms") -> tuple[Budget, Mapping]:
    view = Mapping()
    everything = [*PMDS, pud(0), pud(1)]
    view.costs = costs if isinstance(costs, dict) else dict.fromkeys(everything, costs)
    return Budget(TINY, stall=parse_time(stall)), view


def test_it_has_a_sense_of_time() -> None:
    assert isinstance(collapse_policies.create("budget", TINY), TimedCollapsePolicy)
    assert not isinstance(collapse_policies.create("eager", TINY), TimedCollapsePolicy)


def test_what_fits_the_budget_goes_at_once_and_the_rest_a_second_later() -> None:
    policy, view = world(4 * MS)
    view.map(0, 16)
    assert list(policy.mapped(0, 16, view)) == PMDS[:2]
    assert policy.deadline(view) == SECOND
    view.now_ns = SECOND - 1
    assert list(policy.due(view)) == []
    view.now_ns = SECOND
    assert list(policy.due(view)) == PMDS[2:4]
    assert policy.deadline(view) is None, "nothing is put off"


def test_the_budget_may_be_spent_whole() -> None:
    policy, view = world(5 * MS)
    view.map(0, 12)
    assert list(policy.mapped(0, 12, view)) == PMDS[:2]


def test_the_deadline_waits_for_as_many_to_leave_the_account_as_it_takes() -> None:
    policy, view = world(
        {**dict.fromkeys([*PMDS, pud(0), pud(1)], 3 * MS), pmd(1): 2 * MS, pmd(2): 4 * MS, pmd(3): 8 * MS}
    )
    for number in range(4):
        view.now_ns = 100 * MS * number
        view.map(4 * number, 4)
        assert list(policy.mapped(4 * number, 4, view)) == [pmd(number)] * (number < 3)
    assert policy.deadline(view) == 200 * MS + SECOND, "8 ms do not fit beside the 4 that leave last"


def test_faults_count_one_more_than_there_were_and_a_ns_is_the_least_a_span_costs() -> None:
    policy, view = world({pmd(0): 9 * MS, pmd(1): 16, pmd(2): 10, pmd(3): 2, pmd(4): 1, pmd(5): 0})
    view.faults = {pmd(1): 1}
    view.map(0, 24)
    assert list(policy.mapped(0, 24, view)) == [pmd(4), pmd(5), pmd(3), pmd(1), pmd(2), pmd(0)]


def test_the_account_is_of_any_second_not_of_whole_ones() -> None:
    policy, view = world(4 * MS)
    for number, now_ns, goes in ((0, 0, True), (1, 900 * MS, True), (2, 950 * MS, False), (3, 1100 * MS, True)):
        view.now_ns = now_ns
        view.map(4 * number, 4)
        assert bool(policy.mapped(4 * number, 4, view)) == goes, number
    assert policy.deadline(view) == 900 * MS + SECOND


def test_hot_and_cheap_spans_go_first() -> None:
    policy, view = world({pmd(0): 9 * MS, pmd(1): 9 * MS, pmd(2): 3 * MS, pmd(3): 9 * MS, pud(0): MS})
    view.faults = {pmd(1): 5}
    view.now_ns = 7
    view.map(0, 4)
    assert list(policy.mapped(0, 4, view)) == [pmd(0)]
    view.map(4, 12)
    assert list(policy.mapped(4, 12, view)) == []
    order = []
    while (deadline := policy.deadline(view)) is not None:
        view.now_ns = deadline
        order += policy.due(view)
    assert order == [pmd(1), pmd(2), pmd(3)]


def test_a_1g_comes_after_all_its_2m_and_waits_for_the_budget_too() -> None:
    policy, view = world(3 * MS)
    view.map(0, 16)
    done = []
    queue = list(policy.mapped(0, 16, view))
    while queue or policy.deadline(view) is not None:
        for span in queue:
            view.leaves.add(span)
            done.append((view.now_ns // SECOND, span))
            queue = list(policy.collapsed(span, view))
        if not queue:
            view.now_ns = policy.deadline(view) or view.now_ns
            queue = list(policy.due(view))
    assert [span for _, span in done] == [*PMDS[:4], pud(0)]
    assert [second for second, _ in done] == [0, 0, 0, 1, 1]


def test_a_span_that_costs_more_than_a_second_allows_goes_alone_and_is_paid_off() -> None:
    """The average holds: 25 ms at 10 ms a second are paid for in two and a half seconds."""
    policy, view = world(25 * MS)
    view.map(0, 8)
    assert list(policy.mapped(0, 8, view)) == [pmd(0)]
    assert policy.deadline(view) == 2500 * MS
    view.now_ns = 2500 * MS
    assert list(policy.due(view)) == [pmd(1)]


def test_the_end_changes_nothing_about_the_budget() -> None:
    policy, view = world(8 * MS)
    view.map(0, 32)
    assert list(policy.mapped(0, 32, view)) == [pmd(0)]
    assert list(policy.ended(view)) == []
    assert policy.deadline(view) == SECOND


@pytest.mark.parametrize("stall", ["0", "2s", "fast", "-1ms"])
def test_a_budget_that_is_none_is_refused(stall: str) -> None:
    with pytest.raises(ValueError, match=r"stall|time"):
        collapse_policies.create(f"budget:stall={stall}", TINY)


@settings(deadline=None, max_examples=200)
@given(
    costs=st.lists(st.integers(0, 30), min_size=10, max_size=10),
    waits=st.lists(st.integers(0, 700), min_size=8, max_size=8),
    faults=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_no_second_holds_more_than_the_budget(costs: list[int], waits: list[int], faults: list[int]) -> None:
    """Whatever arrives when: within any second, calls of at most the budget, or one dear call alone."""
    budget_ns = 10 * MS
    spans = [*PMDS, pud(0), pud(1)]
    policy, view = world({span: cost * MS for span, cost in zip(spans, costs, strict=True)})
    view.faults = dict(zip(PMDS, faults, strict=True))
    calls: list[tuple[int, Span]] = []

    def carry_out(proposed: list[Span]) -> None:
        while proposed:
            span = proposed.pop(0)
            assert span.level is Level.PMD or all(span_ in view.leaves for span_ in PMDS if pud_of(span_) == span)
            calls.append((view.now_ns, span))
            view.leaves.add(span)
            proposed += policy.collapsed(span, view)

    def run_until(now_ns: int) -> None:
        while (deadline := policy.deadline(view)) is not None and deadline <= now_ns:
            view.now_ns = max(view.now_ns, deadline)
            carry_out(list(policy.due(view)))
        view.now_ns = max(view.now_ns, now_ns)

    for number, wait in enumerate(waits):
        run_until(view.now_ns + wait * MS)
        view.map(4 * number, 4)
        carry_out(list(policy.mapped(4 * number, 4, view)))
    carry_out(list(policy.ended(view)))
    run_until(10**15)
    assert sorted(span for _, span in calls) == sorted(spans), "everything is collapsed, once"
    for begin_ns, _ in calls:
        within = [view.costs[span] for now_ns, span in calls if begin_ns <= now_ns < begin_ns + SECOND]
        dear = [cost for cost in within if cost]
        assert sum(within) <= budget_ns or len(dear) == 1


def pud_of(span: Span) -> Span:
    return Span(span.first // 16 * 16, Level.PUD)
