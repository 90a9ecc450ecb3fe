"""Every setting says what it is: a sentence, and its values or its unit; what the code knows is what is listed."""

from __future__ import annotations

from typing import get_args

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from migemu.costs.collapse_cost import LockScheme, NotifierScheme
from migemu.costs.fault_cost import Handler, Place
from migemu.errors import InputError
from migemu.link.congestion import CONGESTION
from migemu.link.scheduler import Scheduling
from migemu.mm.mapcount import MapcountScheme
from migemu.scenario.fields import SpecKind
from migemu.scenario.presets import PRESETS
from migemu.scenario.scenario import Described, describe, find_settings

SETTINGS = list(describe())
#: What a quantity says of its own unit, in `accepted`.
UNITS = ("units: ns us ms s min", "units: K M G T", "bits per second")
#: Where the code has the values of a setting, or a type of them.
KNOWN = {
    "costs.mapcount": get_args(MapcountScheme), "costs.lock": get_args(LockScheme), "costs.handler": get_args(Handler),
    "costs.notifier": get_args(NotifierScheme), "costs.place": get_args(Place), "link.congestion": tuple(CONGESTION),
    "link.preset": ("", *PRESETS),
    "link.scheduling": tuple(each.value for each in Scheduling),
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_every_setting_has_a_sentence_and_its_values_or_a_unit(setting: Described) -> None:
    assert len(setting.doc.split()) >= 2
    assert setting.kind.words or setting.kind.unit or any(unit in setting.accepted for unit in UNITS)
    is_switch = "on" in setting.kind.words
    assert is_switch or all(len(meaning) >= 4 for meaning in setting.kind.words.values())


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_list_shows_all_that_is_known_of_a_setting(setting: Described) -> None:
    shown = CliRunner().invoke(main, ["list", setting.name])
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert setting.name in text
    assert setting.doc in text
    if not isinstance(setting.kind, SpecKind) and any(setting.kind.words.values()):
        assert all(word in text for word in setting.kind.words)
    elif not isinstance(setting.kind, SpecKind):
        assert setting.accepted in text


@pytest.mark.parametrize(
    ("setting", "name"),
    [(each, word) for each in SETTINGS if isinstance(each.kind, SpecKind) for word in each.kind.words],
    ids=lambda each: getattr(each, "name", each),
)
def test_list_shows_a_choice_with_its_own_settings_each_with_a_unit_or_its_values(
    setting: Described, name: str
) -> None:
    assert isinstance(setting.kind, SpecKind)
    shown = CliRunner().invoke(main, ["list", setting.name, name])
    assert shown.exit_code == 0
    entry = next(entry for entry in setting.kind.registry if entry.name == name)
    for each in entry.settings:
        assert f"{each.name}=" in shown.output
        assert each.kind.words or each.kind.unit or any(unit in each.kind.accepted for unit in UNITS)


@pytest.mark.parametrize("name", KNOWN)
def test_the_listed_values_are_those_of_the_code(name: str) -> None:
    (setting,) = find_settings(name)
    assert sorted(setting.kind.words) == sorted(KNOWN[name])


def test_a_name_may_be_a_key_or_a_section() -> None:
    assert [each.name for each in find_settings("mapcount")] == ["costs.mapcount"]
    assert [each.name for each in find_settings("rate")] == ["push.rate", "guest.rate", "link.rate", "return_link.rate"]
    assert {each.section for each in find_settings("costs")} == {"costs"}
    with pytest.raises(InputError, match="did you mean 'mapcount'"):
        find_settings("mapcuont")
