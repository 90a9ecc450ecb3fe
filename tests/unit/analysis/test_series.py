"""Series that stay small: what is dropped, what is kept, and that the same events give the same series."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.analysis.piece_map import NEVER, How, PieceMaps, spread
from migemu.analysis.series import SHARES, Bins, Percentile, Thinned, percentiles
from migemu.mm.pages import TINY
from tests.unit.trace.traces import destination

times = st.lists(st.integers(0, 10_000), max_size=80).map(sorted)


def test_of_each_step_the_last_row_is_kept() -> None:
    thin: Thinned[str] = Thinned(step_ns=10, most=4)
    for t, row in ((1, "a"), (9, "b"), (10, "c"), (35, "d")):
        thin.add(t, row)
    assert thin.rows() == [(9, "b"), (10, "c"), (35, "d")]


def test_when_there_are_too_many_the_step_doubles() -> None:
    thin: Thinned[int] = Thinned(step_ns=10, most=4)
    for t in range(0, 80, 10):
        thin.add(t, t)
    assert (thin.step_ns, thin.rows()) == (20, [(10, 10), (30, 30), (50, 50), (70, 70)])


@given(times, st.integers(2, 10))
def test_thinning_keeps_the_last_row_and_never_more_than_it_may(ts: list[int], most: int) -> None:
    thin: Thinned[int] = Thinned(step_ns=1, most=most)
    for number, t in enumerate(ts):
        thin.add(t, number)
    rows = thin.rows()
    assert len(rows) <= most
    assert rows == sorted(rows)
    assert all(ts[number] == t for t, number in rows)
    assert not ts or rows[-1] == (ts[-1], len(ts) - 1)


def test_bins_add_up_and_tell_the_empty_ones_between() -> None:
    bins = Bins(2, step_ns=10, most=8)
    for t, quantity, amount in ((5, 0, 1), (6, 0, 2), (7, 1, 4), (31, 0, 8)):
        bins.add(t, quantity, amount)
    assert bins.rows() == [(0, (3, 4)), (10, (0, 0)), (20, (0, 0)), (30, (8, 0))]
    assert Bins(1).rows() == []


@given(times, st.integers(1, 10))
def test_bins_lose_nothing(ts: list[int], most: int) -> None:
    bins = Bins(1, step_ns=1, most=most)
    for t in ts:
        bins.add(t, 0, t)
    rows = bins.rows()
    assert sum(amount for _, (amount,) in rows) == sum(ts)
    assert len(rows) <= most
    for begin, (amount,) in rows:
        assert amount == sum(t for t in ts if begin <= t < begin + bins.step_ns)


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentiles(range(1, 1001), (0.5, 0.99, 0.999)) == [
        Percentile(0.5, 500), Percentile(0.99, 990), Percentile(0.999, 999),
    ]  # fmt: skip
    assert percentiles([]) == []
    assert SHARES[-1] == 0.9999


def test_a_distribution_ends_where_its_values_do() -> None:
    """With 10 faults nothing is known of p99; the curve stops at the first percentile that is the maximum."""
    told = percentiles(range(10))
    assert told[-1].value == 9
    assert [each.value for each in told].count(9) == 1
    assert told[-1].share < 0.95


@pytest.mark.parametrize(
    ("total", "most", "chosen"),
    [(1, 4, (0,)), (4, 4, (0, 1, 2, 3)), (10, 4, (0, 3, 6, 9)), (64, 1, (0,)), (3, 2, (0, 2))],
)
def test_a_few_hugetlb_pages_are_spread_from_the_first_to_the_last(
    total: int, most: int, chosen: tuple[int, ...]
) -> None:
    assert spread(total, most) == chosen


def test_of_each_page_its_first_coming_is_told_and_that_it_came_again() -> None:
    maps = PieceMaps(TINY, (1,))
    for each in (
        destination("received", 14, 4, t=10), destination("received", 18, 1, urgent=True, t=20),
        destination("received", 19, 1, urgent=True, detail="zero", t=30), destination("dropped", 16, 1, t=40),
        destination("dropped", 25, 1, t=40), destination("continued", 26, 1, t=50),
    ):  # fmt: skip
        maps.take(each)
    (found,) = maps.maps.values()
    assert list(found.how[:5]) == [How.TWICE, How.PUSHED, How.URGENT, How.ZERO, How.NOT]
    assert list(found.arrived[:5]) == [10, 10, 20, 30, NEVER]
    assert found.how[9] == How.NOT, "what was dropped without ever having come is still not there"
