"""What the shaper does not emulate in real time it refuses by its key."""

from __future__ import annotations

import pytest

from migemu.errors import ScenarioError
from migemu.scenario.scenario import from_mapping
from migemu.transport.shaper import check_link


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scheduling", "strict"), ("segment", "1500"), ("reorder", True), ("congestion", "reno"), ("loss", 0.01),
        ("rto_min", "1s"), ("outages", "1s-2s"),
    ],
)  # fmt: skip
def test_what_is_emulated_in_virtual_time_only_is_refused(key: str, value: object) -> None:
    link = from_mapping({"return_link": {key: value}}, "here").return_link
    with pytest.raises(ScenarioError, match=r"virtual time only .migemu sim.; leave it at its default") as error:
        check_link("return_link", link)
    assert error.value.key == f"return_link.{key}"


@pytest.mark.parametrize("distribution", ["constant", "uniform", "normal", "pareto:shape=2"])
def test_every_distribution_of_jitter_is_emulated_in_real_time(distribution: str) -> None:
    settings = {"delay": "9ms", "jitter": "9ms", "distribution": distribution}
    check_link("link", from_mapping({"link": settings}, "here").link)


def test_of_a_preset_that_real_time_cannot_hold_the_first_such_setting_is_named() -> None:
    with pytest.raises(ScenarioError) as error:
        check_link("link", from_mapping({"link": {"preset": "25G"}}, "here").link)
    assert error.value.key == "link.rate"
