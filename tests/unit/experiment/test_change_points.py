"""Change points: steps that are there are found where they are, and noise has none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from migemu.experiment.change_points import RESOLUTION, SEGMENTS_MAX, change_points


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float).reshape(-1, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([5], []),
        ([5, 5], []),
        ([5, 6], [1]),
        ([5, 5, 5, 6], [3]),
        ([6, 5, 5, 5], [1]),
        ([5, 5, 5, 6, 6, 6], [3]),
        ([5, 5, 9, 9, 9, 5, 5, 5], [2, 5]),
        ([5, 5, 5, 9, 5, 5, 5, 5], [3, 4]),
        ([0, 0, 0, 3, 3, 3], [3]),
        ([0, 0, 0, 0], []),
        ([1, 2, 4, 8], [1, 2, 3]),
    ],
)
def test_a_series_without_noise_is_cut_at_every_change(values: list[float], expected: list[int]) -> None:
    """As a deterministic world gives it: the same code, the same figure."""
    assert change_points(column(*values)) == expected


def test_less_than_the_resolution_is_no_change() -> None:
    assert change_points(column(*[1.0] * 5, *[1.0 + RESOLUTION / 10] * 5)) == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("at", [7, 15, 24])
def test_a_step_in_noise_is_found_where_it_is(seed: int, at: int) -> None:
    noise = np.random.RandomState(seed).normal(0, 0.02, (30, 3))
    series = 100 * (1 + noise)
    series[at:] *= 1.15
    found = change_points(series)
    assert len(found) == 1
    assert abs(found[0] - at) <= 1


def test_noise_alone_seldom_has_a_change() -> None:
    false = sum(bool(change_points(100 + np.random.RandomState(seed).normal(0, 3, (25, 1)))) for seed in range(200))
    assert false <= 2  # of 200


def test_one_bad_state_is_a_segment_of_its_own_and_moves_no_level() -> None:
    series = np.full((12, 5), 10.0)
    series[6, 2] = 500.0
    assert change_points(series) == [6, 7]


def test_seeds_that_differ_are_no_noise() -> None:
    """Levels of 1 and of 1000, each of which grows by a tenth: nothing hides in the larger one."""
    series = np.array([[1.0, 1000.0]] * 4 + [[1.1, 1100.0]] * 4)
    assert change_points(series) == [4]
    opposite = np.array([[1.0, 1000.0]] * 4 + [[1.1, 900.0]] * 4)
    assert change_points(opposite) == [4]


def test_it_is_the_best_cut_of_all() -> None:
    """Against every way to cut a short series."""
    from itertools import combinations

    def deviation(series: np.ndarray, cuts: tuple[int, ...]) -> float:
        edges = [0, *cuts, len(series)]
        parts = [series[a:b] for a, b in itertools.pairwise(edges)]
        return float(sum(np.abs(part - np.median(part, axis=0)).sum() for part in parts))

    for seed in range(20):
        random = np.random.RandomState(seed)
        series = random.choice([1.0, 2.0, 3.0], (9, 1)) + random.normal(0, 0.05, (9, 1))
        found = tuple(change_points(series))
        best = min(deviation(series, cuts) for cuts in combinations(range(1, 9), len(found)))
        assert deviation(series, found) == pytest.approx(best)


def test_segments_are_bounded() -> None:
    saw = column(*([1.0, 50.0] * 40))
    assert len(change_points(saw)) < SEGMENTS_MAX
