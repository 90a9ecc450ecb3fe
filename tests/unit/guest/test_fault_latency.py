"""Percentiles by the nearest-rank rule and power-of-two buckets, worked out by hand."""

from __future__ import annotations

import pytest

from migemu.guest.latency import FaultLatency, LatencySummary, merge_histograms
from migemu.units import MS, US


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], LatencySummary(1, 7, 7, 7, 7, 7, 7)),
        ([10, 20], LatencySummary(2, 15, 10, 20, 20, 20, 20)),
        # ceil(10 * 0.5) = 5th, ceil(9) = 9th, ceil(9.9) = 10th
        ([50, 15, 20, 35, 40, 1, 2, 3, 4, 9], LatencySummary(10, 17, 9, 40, 50, 50, 50)),
        # the mean is rounded down: 10 / 4
        ([1, 2, 3, 4], LatencySummary(4, 2, 2, 4, 4, 4, 4)),
        (list(range(1000, 0, -1)), LatencySummary(1000, 500, 500, 900, 990, 999, 1000)),
        (list(range(1, 1002)), LatencySummary(1001, 501, 501, 901, 991, 1000, 1001)),
    ],
)
def test_summary(values: list[int], expected: LatencySummary) -> None:
    assert FaultLatency(values).summary() == expected


@pytest.mark.parametrize(
    ("per_mille", "expected"), [(0, 15), (50, 15), (300, 20), (400, 20), (500, 35), (800, 40), (801, 50), (1000, 50)]
)
def test_percentile(per_mille: int, expected: int) -> None:
    """The textbook row 15 20 35 40 50: the 5th percentile is 15, the 30th and 40th 20, the 50th 35, the 100th 50."""
    assert FaultLatency([50, 15, 40, 20, 35]).percentile(per_mille) == expected


def test_no_faults_have_no_percentile() -> None:
    nothing = FaultLatency()
    assert (nothing.summary(), nothing.percentile(500), nothing.histogram(), len(nothing)) == (None, None, {}, 0)


@pytest.mark.parametrize(
    ("latency_ns", "bucket"),
    [
        (0, 0), (999, 0), (1 * US, 1), (2 * US - 1, 1), (2 * US, 2), (4 * US - 1, 2), (63_999, 32), (64 * US, 64),
        (128 * US - 1, 64), (128 * US, 128), (1 * MS, 512), (1024 * US, 1024), (16_777_216 * US, 16_777_216),
        (20_000_000 * US, 16_777_216), (3_600_000_000 * US, 2_147_483_648),
    ],
)  # fmt: skip
def test_bucket(latency_ns: int, bucket: int) -> None:
    assert FaultLatency([latency_ns]).histogram() == {bucket: 1}


def test_histogram_is_ascending_and_leaves_out_what_is_empty() -> None:
    histogram = FaultLatency([70 * US, 500, 90 * US, 3 * US, 64 * US]).histogram()
    assert list(histogram.items()) == [(0, 1), (2, 1), (64, 3)]


def test_merged_is_as_if_all_had_been_one_run() -> None:
    parts = [FaultLatency([5 * US, 900]), FaultLatency(), FaultLatency([7 * US, 70 * US])]
    whole = FaultLatency([5 * US, 900, 7 * US, 70 * US])
    merged = FaultLatency()
    for part in parts:
        merged.merge(part)
    assert merged.summary() == whole.summary()
    assert merged.histogram() == whole.histogram() == merge_histograms(part.histogram() for part in parts)
    assert list(merged) == list(whole)
    assert len(parts[0]) == 2


def test_refusals() -> None:
    with pytest.raises(ValueError, match="woken 5 ns before it was raised"):
        FaultLatency().add(-5)
    for per_mille in (-1, 1001):
        with pytest.raises(ValueError, match="give 0 to 1000"):
            FaultLatency([1]).percentile(per_mille)


def test_shows_itself() -> None:
    assert repr(FaultLatency([1, 2])) == "<FaultLatency of 2 faults>"
