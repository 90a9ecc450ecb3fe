"""Distributions of jitter: by hand and by their moments."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import fmean, stdev

import pytest

from migemu.link.jitter import jitters
from migemu.link.model import LinkModel
from migemu.units import US

JITTER = 1000


def draws(spec: str, jitter_ns: int = JITTER, count: int = 20_000, read: Callable[[str], str] = str) -> list[int]:
    jitter = jitters.create(spec, jitter_ns, Random(7), read)
    return [jitter.draw() for _ in range(count)]


@pytest.mark.parametrize(
    ("spec", "mean", "deviation", "least", "most"),
    [
        ("constant", 1000, 0, 1000, 1000),
        ("uniform", 0, 577, -1000, 1000),
        ("normal", 0, 1000, -10_000, 10_000),
        ("pareto", 500, 866, 0, 10**9),
        ("pareto:shape=5", 250, 323, 0, 10**9),
    ],
)
def test_each_has_its_moments(spec: str, mean: float, deviation: float, least: int, most: int) -> None:
    """Pareto(a) - 1 has the mean 1/(a-1) and the deviation sqrt(a/(a-2))/(a-1)."""
    drawn = draws(spec)
    assert fmean(drawn) == pytest.approx(mean, abs=25)
    assert stdev(drawn) == pytest.approx(deviation, rel=0.2, abs=1)
    assert least <= min(drawn) <= max(drawn) <= most
    assert all(type(value) is int for value in drawn)


@pytest.mark.parametrize("spec", ["constant", "uniform", "normal", "pareto"])
def test_without_jitter_nothing_varies(spec: str) -> None:
    assert set(draws(spec, 0, 100)) == {0}


def test_samples_are_drawn_from_the_lines_of_a_file() -> None:
    drawn = draws("samples:path=a file", 0, 300, lambda path: f"# {path}\n35us\n\n 1us \n0\n")
    assert set(drawn) == {35 * US, US, 0}


@pytest.mark.parametrize(
    ("spec", "jitter_ns", "text", "told"),
    [
        ("samples", 0, "", 'give "samples:path=...'),
        ("samples:path=x", 5, "1us", "leave jitter at 0"),
        ("samples:path=x", 0, "# none", "x has 0 samples; give 1 to"),
        ("samples:path=x", 0, "1us\nlong", "'long' is not accepted here: give a time"),
        ("pareto:shape=1", 5, "", "shape: '1' is not accepted here: give a number above 1, at most 100"),
        ("lumpy", 5, "", "unknown jitter distribution 'lumpy'; known: constant, normal, pareto, samples, uniform"),
    ],
)
def test_what_makes_no_distribution_is_refused(spec: str, jitter_ns: int, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        jitters.create(spec, jitter_ns, Random(1), lambda _: text)


def test_no_frame_arrives_before_it_departed_however_early_it_is_drawn() -> None:
    model = LinkModel(0, 100, 0, 0, Random(1), jitter=jitters.create("normal", 1000, Random(1), str))
    delays = [model.propagated(0) for _ in range(1000)]
    assert min(delays) == 0
    assert max(delays) > 2000


def test_the_same_seed_draws_the_same() -> None:
    for spec in ("uniform", "normal", "pareto"):
        assert draws(spec, count=50) == draws(spec, count=50)
