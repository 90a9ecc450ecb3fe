"""How sure a mean of paired figures is: bootstrap confidence intervals, the same for the same data.

Rules of this file
    1. What is drawn anew are pairs (one seed in one cell, before and after), never figures by themselves: the two
       sides of a pair share their seed, and with it most of their noise.
    2. BCa, bias-corrected and accelerated (B. Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987): it needs
       no symmetry, which latencies do not have. The acceleration comes from the jackknife.
    3. One pair has no interval. Pairs that all agree have one of width zero, which is the truth of a deterministic
       world: another seed would have to be run to learn more.
    4. The generator is seeded with a constant: the same figures give the same interval, in CI and at home.

What it cannot do
    With few pairs any bootstrap is too narrow: of normal differences, the 95 % interval of 3 pairs covers the truth in
    73 % of all cases, of 5 in 83 %, of 10 in 90 %, of 20 in 93 % (measured over 1500 samples each; the tests measure
    it with fewer). Take ten seeds or more for a figure that somebody will quote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL: Final = 0.95
RESAMPLES: Final = 9_999
_SEED: Final = 20230218
_NORMAL: Final = NormalDist()

Matrix = npt.NDArray[np.float64]
#: Baseline and new, pairs along the last axis -> one number for each row.
Statistic = Callable[[Matrix, Matrix], Any]


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`, in the unit of its statistic."""

    low: float
    high: float


def difference(base: Matrix, new: Matrix) -> Any:
    """The mean of the paired differences."""
    return (new - base).mean(axis=-1)


def relative(base: Matrix, new: Matrix) -> Any:
    """The mean paired difference divided by the baseline's mean, which must not be zero."""
    return (new - base).mean(axis=-1) / base.mean(axis=-1)


def log_ratio(base: Matrix, new: Matrix) -> Any:
    """Mean of log(new / baseline); exp of it is the geometric mean of the ratios. All figures must be above zero."""
    return np.log(new / base).mean(axis=-1)


def interval(
    base: Sequence[float], new: Sequence[float], statistic: Statistic, groups: Sequence[int] | None = None
) -> Interval | None:
    """The BCa interval of `statistic` at LEVEL; None for one pair. Pairs are resampled within their group, if any."""
    before, after = np.asarray(base, dtype=np.float64), np.asarray(new, dtype=np.float64)
    pairs = len(before)
    if pairs < 2:
        return None
    point = float(statistic(before, after))
    drawn = _draws(pairs, None if groups is None else tuple(groups))
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold zero baselines only
        values = np.asarray(statistic(before[drawn], after[drawn]))
        excluded = ~np.eye(pairs, dtype=bool)
        jackknife = np.array([float(statistic(before[keep], after[keep])) for keep in excluded])
    values = np.sort(values[np.isfinite(values)])
    if not len(values) or values[0] == values[-1]:
        return Interval(point, point)
    below = (np.count_nonzero(values < point) + np.count_nonzero(values == point) / 2) / len(values)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(values)), 1 - 0.5 / len(values)))
    gaps = jackknife[np.isfinite(jackknife)]
    gaps = gaps.mean() - gaps
    spread = float((gaps**2).sum()) ** 1.5
    acceleration = float((gaps**3).sum()) / (6 * spread) if spread > 0 else 0.0
    tails = [_corrected(tail, bias, acceleration) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    low, high = np.quantile(values, tails)
    return Interval(float(low), float(high))


def _corrected(tail: float, bias: float, acceleration: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(tail)
    return _NORMAL.cdf(bias + shifted / (1 - acceleration * shifted))


@lru_cache(maxsize=8)
def _draws(pairs: int, groups: tuple[int, ...] | None) -> npt.NDArray[np.int64]:
    """RESAMPLES rows of indices of pairs. RandomState, because its numbers are the same in every numpy (NEP 19)."""
    random = np.random.RandomState(_SEED)
    if groups is None:
        return random.randint(0, pairs, (RESAMPLES, pairs), dtype=np.int64)
    labels = np.asarray(groups)
    drawn = np.empty((RESAMPLES, pairs), dtype=np.int64)
    for group in np.unique(labels):
        members = np.flatnonzero(labels == group)
        drawn[:, members] = members[random.randint(0, len(members), (RESAMPLES, len(members)))]
    return drawn
