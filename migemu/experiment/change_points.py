"""Where a series of figures changed its level: the fewest steps that explain it, found exactly.

Rules of this file
    1. A series has a row for each state (of the code, or in time) and a column for each seed. Every seed has its own
       level between two changes, its median there; states change, seeds do not, so that what differs between seeds is
       no noise.
    2. For each number of segments the best cut is found by dynamic programming over the sum of absolute deviations,
       each seed in units of its own median (I. E. Auger and C. E. Lawrence, "Algorithms for the optimal identification
       of segment neighborhoods", Bull. Math. Biol. 51, 1989). Absolute, not squared: one bad state moves no level.
    3. How many segments: the least of log(s0 + deviation per point) + 4 ln(n)/n x changes, the measure by which asv
       chooses (airspeed velocity, step_detect.py: "solve_potts_autogamma"). `s0`, `RESOLUTION` of a level, is what a
       deterministic series, which has no noise, is held to: less than that is never a change.
    4. States without the figure are left out before; a series of one state has no change.

Sources of the idea: asv; D. Daly et al., "The Use of Change Point Detection to Identify Software Performance
Regressions in a Continuous Integration System", ICPE 2020. Their libraries need SciPy (100 MB); this needs numpy.
"""

from __future__ import annotations

from math import log
from typing import Final

import numpy as np
import numpy.typing as npt

#: Share of a level.
RESOLUTION: Final = 0.001
#: More segments than this are noise, or a plot to look at.
SEGMENTS_MAX: Final = 20
#: A longer history is cut to its newest states: the work grows with the cube (0.1 s a series at this many).
STATES_MAX: Final = 200

Series = npt.NDArray[np.float64]


def change_points(series: Series) -> list[int]:
    """The states (rows) at which a new level begins, ascending; empty where there is none. See the rules above."""
    states, seeds = series.shape
    if states < 2 or (series == series[0]).all():
        return []
    scale = np.median(np.abs(series), axis=0)
    scaled = series / np.where(scale > 0, scale, 1.0)
    costs = _segment_costs(scaled)
    most = min(SEGMENTS_MAX, states)
    best = np.full((most + 1, states + 1), np.inf)
    came = np.zeros((most + 1, states + 1), dtype=int)
    best[0, 0] = 0.0
    for count in range(1, most + 1):
        for end in range(count, states + 1):
            through = best[count - 1, :end] + costs[:end, end]
            came[count, end] = int(np.argmin(through))
            best[count, end] = through[came[count, end]]
    weight = 4 * log(states) / states
    measures = [log(RESOLUTION + best[count, states] / (states * seeds)) + weight * count
                for count in range(1, most + 1)]  # fmt: skip
    return _cuts(came, int(np.argmin(measures)) + 1, states)


def _cuts(came: npt.NDArray[np.int_], count: int, end: int) -> list[int]:
    found: list[int] = []
    for number in range(count, 1, -1):
        end = int(came[number, end])
        found.append(end)
    return found[::-1]


def _segment_costs(scaled: Series) -> Series:
    """[first, end] -> the sum of absolute deviations of rows first..end-1 from their medians, seed by seed."""
    states = len(scaled)
    costs = np.zeros((states + 1, states + 1))
    for length in range(2, states + 1):
        windows = np.lib.stride_tricks.sliding_window_view(scaled, length, axis=0)  # (first, seed, row)
        deviations = np.abs(windows - np.median(windows, axis=-1, keepdims=True)).sum(axis=(1, 2))
        firsts = np.arange(states - length + 1)
        costs[firsts, firsts + length] = deviations
    return costs
