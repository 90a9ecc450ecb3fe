"""The scenarios that come with the program: each can be read, is called after its file, and is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.errors import ScenarioError
from migemu.experiment.sweep_file import load_sweep
from migemu.scenario.scenario import load
from migemu.scenario.shipped_scenarios import shipped


@pytest.mark.parametrize("name", shipped())
def test_each_can_be_read_and_is_called_after_its_file(name: str) -> None:
    assert load(Path(name)).scenario.name == name
    assert shipped()[name].read_text(encoding="utf-8").startswith("# ")


def test_what_is_recommended_and_what_is_compared_with_it_differ_in_what_they_say() -> None:
    def differing(name: str) -> set[str]:
        one, other = load(Path("recommended")).resolved(), load(Path(name)).resolved()
        keys = {
            f"{section}.{key}" for section in one for key in one[section] if one[section][key] != other[section][key]
        }
        return keys - {"scenario.name"}

    for name in ("early_collapse", "late_collapse", "no_collapse"):
        assert differing(name) == {"collapse.policy"}
    assert differing("large_pieces") == {"push.piece", "pull.piece"}


def test_a_setting_stands_above_it_and_a_file_of_the_same_name_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(Path("recommended"), ["guest.vcpus=2"]).guest.vcpus == 2
    Path("recommended").write_text('[scenario]\nname = "mine"\n', encoding="utf-8")
    assert load(Path("recommended")).scenario.name == "mine"


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match="unknown scenario 'recomended'; did you mean 'recommended'"):
        load(Path("recomended"))
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(Path("recomended.toml"))


def test_a_sweep_may_begin_with_one(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    axis = '[[axis]]\nname = "policy"\nsetting = "collapse.policy"\nvalues = ["never", "eager"]\n'
    file.write_text(f'[sweep]\nscenario = "recommended"\n{axis}', encoding="utf-8")
    scenarios = [cell.scenario for cell in load_sweep(file).cells]
    assert [each.push.order for each in scenarios if each] == ["fill_pmd", "fill_pmd"]
