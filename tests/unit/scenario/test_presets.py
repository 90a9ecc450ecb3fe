"""Presets: each is a valid link with a source, and yields to what is set beside it."""

from __future__ import annotations

import pytest

from migemu.scenario.presets import PRESETS
from migemu.scenario.scenario import Scenario, from_mapping, load, replace
from migemu.units import MS, US

GBIT = 10**9
each = pytest.mark.parametrize("name", PRESETS)


@each
@pytest.mark.parametrize("section", ["link", "return_link"])
def test_each_is_a_valid_link_and_comes_back(name: str, section: str) -> None:
    scenario = from_mapping({section: {"preset": name}}, "here")
    link = getattr(scenario, section)
    assert link.rate
    assert link.delay
    assert from_mapping(scenario.resolved(), "again") == scenario
    assert replace(Scenario(), **{f"{section}__preset": name}) == scenario
    assert load(None, [f"{section}.preset={name}"]) == scenario


@each
def test_each_tells_its_source_and_what_is_assumed(name: str) -> None:
    source = PRESETS[name].source
    assert len(source) > 40
    assert any(word in source for word in ("SIGCOMM", "measured", "re:Invent", "statistics"))


def test_what_they_are() -> None:
    links = {name: from_mapping({"link": {"preset": name}}, "here").link for name in PRESETS}
    assert {name: (link.rate // GBIT, link.delay) for name, link in links.items()} == {
        "loopback": (32, 6 * US), "10G": (10, 50 * US), "25G": (25, 25 * US), "100G": (100, 6_500),
        "cross-zone": (10, 500 * US), "WAN": (1, 35 * MS),
    }  # fmt: skip
    assert links["WAN"].loss == 0.00001
    assert links["25G"].congestion == "cubic"


def test_an_explicit_setting_stands_above_the_presets_wherever_it_comes_from() -> None:
    """Also when it is the default of the setting."""
    for scenario in (
        from_mapping({"link": {"delay": "1ms", "preset": "WAN", "loss": 0}}, "here"),
        load(None, ["link.loss=0", "link.preset=WAN", "link.delay=1ms"]),
        replace(Scenario(), link__delay="1ms", link__preset="WAN", link__loss=0),
    ):
        link = scenario.link
        assert (link.rate, link.delay, link.loss, link.congestion) == (GBIT, MS, 0, "cubic")
        assert from_mapping(scenario.resolved(), "again") == scenario


def test_a_preset_replaces_what_was_set_before() -> None:
    before = from_mapping({"link": {"loss": 0.1, "rate": "1Gbit"}}, "here")
    assert replace(before, link__preset="25G") == from_mapping({"link": {"preset": "25G"}}, "here")
    assert replace(before, link__rate="2Gbit").link.loss == 0.1
