"""The soak's own judgement, and a soak of some seconds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from migemu.units import MIB
from tests.soak.__main__ import keep
from tests.soak.curve import Sample, growths, sample
from tests.soak.soaking import Soak


def curve(*rss_mib: float, descriptors: int = 16) -> list[Sample]:
    """A sample a second."""
    return [Sample(at, "destination", int(rss * MIB), descriptors) for at, rss in enumerate(rss_mib)]


@pytest.mark.parametrize(
    ("rss_mib", "flat"),
    [
        ([50.0] * 100, True),
        ([1.0] * 10 + [50.0] * 90, True),  # a process that starts
        ([50.0, 66.0] * 50, True),  # what comes and goes
        ([50 + 0.1 * at for at in range(100)], True),  # 6 MiB
        ([50 + 0.5 * at for at in range(100)], False),
        ([50.0] * 60 + [100.0] * 40, False),  # a step that stays
    ],
)
def test_what_is_flat(rss_mib: list[float], flat: bool) -> None:
    memory, descriptors = growths(curve(*rss_mib), "destination")
    assert memory.flat is flat
    assert descriptors.flat


def test_what_is_given_back_when_the_other_process_has_ended_hides_no_growth() -> None:
    grown = curve(*[1000.0 + at for at in range(60)], *[80.0] * 40)
    source = [Sample(at, "source", 50 * MIB, 16) for at in range(60)]
    memory, _ = growths(sorted(grown + source), "destination")
    assert not memory.flat


def test_descriptors_that_are_not_closed_are_seen() -> None:
    samples = [each._replace(descriptors=16 + number // 10) for number, each in enumerate(curve(*[50.0] * 100))]
    memory, descriptors = growths(samples, "destination")
    assert memory.flat
    assert not descriptors.flat
    assert descriptors.most == 25


def test_too_few_samples_judge_nothing() -> None:
    with pytest.raises(ValueError, match="2 samples of the destination are too few"):
        growths(curve(1.0, 1.0), "destination")


def test_a_process_is_read_as_long_as_it_is_there() -> None:
    read = sample(1.0, "this", os.getpid())
    assert read is not None
    assert read.rss_bytes > 10 * MIB
    assert read.descriptors > 2
    assert sample(1.0, "nobody", 2**22 + 1) is None


async def test_a_soak_of_seconds_ends_verified_and_leaves_its_curves(tmp_path: Path) -> None:
    soaked = await Soak(4, tmp_path, 1, lambda _: None).run()
    assert soaked.problems == []
    assert soaked.verified >= 2
    assert soaked.cuts > 0
    assert soaked.recoveries + soaked.preempt_lost > 0
    keep(soaked, tmp_path, "a soak of four seconds")
    figures = json.loads((tmp_path / "soak.json").read_text())
    assert figures["verified"] == soaked.verified
    assert (tmp_path / "soak.csv").read_text().startswith("seconds,process,rss_bytes,descriptors\n")
    page = (tmp_path / "soak.html").read_text()
    assert "resident memory, MiB" in page
    assert "<script src" not in page
