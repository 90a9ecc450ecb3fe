"""Intervals: known ones, their coverage, and that they do not change from call to call."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from migemu.experiment import bootstrap
from migemu.experiment.bootstrap import Interval, difference, interval, log_ratio, relative


def test_one_pair_has_no_interval() -> None:
    assert interval([1.0], [2.0], difference) is None


def test_pairs_that_agree_have_an_interval_without_width() -> None:
    assert interval([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], difference) == Interval(1.0, 1.0)


def test_the_same_figures_give_the_same_interval() -> None:
    base, new = [3.0, 5.0, 4.0, 7.0], [4.0, 5.5, 4.5, 9.0]
    assert interval(base, new, relative) == interval(base, new, relative)


def test_pairing_takes_out_what_the_seeds_have_in_common() -> None:
    """Baselines that differ a hundredfold, and a difference of one to two each time."""
    random = Random(1)
    base = [10.0 ** random.uniform(1, 3) for _ in range(20)]
    new = [value + random.uniform(1, 2) for value in base]
    found = interval(base, new, difference)
    assert found is not None
    assert 1 < found.low < found.high < 2


def test_a_skewed_sample_has_a_skewed_interval() -> None:
    """What percentiles alone would not give: BCa reaches further to the side of the tail (Efron 1987)."""
    new = [1.0, 1.1, 1.2, 1.2, 1.3, 1.4, 1.5, 9.0]
    found, mean = interval([0.0] * 8, new, difference), sum(new) / 8
    assert found is not None
    assert found.high - mean > 2 * (mean - found.low)
    drawn = np.array(new)[bootstrap._draws(8, None)].mean(axis=-1)
    assert found.high > np.quantile(drawn, 0.975)


def test_the_interval_of_a_textbook_example() -> None:
    """Law school data (Efron & Tibshirani 1993, table 3.1), mean LSAT, n = 15.

    scipy.stats.bootstrap(method="BCa", n_resamples=99999) gives 581.5 to 622.4 with one seed, 581.4 to 622.2 with
    another.
    """
    lsat = [576.0, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
    found = interval([0.0] * 15, lsat, difference)
    assert found is not None
    assert found.low == pytest.approx(581.4, abs=0.5)
    assert found.high == pytest.approx(622.3, abs=0.5)


@pytest.mark.parametrize(("pairs", "least", "most"), [(5, 0.75, 0.92), (10, 0.83, 0.96), (20, 0.88, 0.98)])
def test_coverage_is_what_the_module_says(pairs: int, least: float, most: float) -> None:
    random, inside, rounds = Random(pairs), 0, 150
    for _ in range(rounds):
        found = interval([0.0] * pairs, [random.gauss(10, 3) for _ in range(pairs)], difference)
        assert found is not None
        inside += found.low <= 10 <= found.high
    assert least <= inside / rounds <= most


def test_draws_stay_within_their_group() -> None:
    """Two cells with constant ratios 2 and 8: only the cells differ, so nothing is left to chance."""
    found = interval([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 8.0, 8.0], log_ratio, [0, 0, 1, 1])
    assert found == Interval(pytest.approx(math.log(4)), pytest.approx(math.log(4)))
    assert interval([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 8.0, 8.0], log_ratio) != found


def test_baselines_of_zero_in_a_draw_do_no_harm() -> None:
    found = interval([0.0, 1.0], [1.0, 2.0], relative)
    assert found is not None
    assert all(map(math.isfinite, found))
