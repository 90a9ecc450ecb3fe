"""The sweep file: what it means, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.errors import ScenarioError
from migemu.experiment.cell import parse_selector, selected
from migemu.experiment.shipped import find, shipped
from migemu.experiment.sweep_file import load_sweep
from migemu.units import GIB
from tests.unit.experiment.sweeps import PIECES, sweep_of


def test_the_grid_is_the_product_of_the_axes_in_their_order(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    assert [cell.name for cell in sweep.cells] == [
        "piece=4K, policy=never", "piece=4K, policy=batched:spans=16",
        "piece=2M, policy=never", "piece=2M, policy=batched:spans=16",
    ]  # fmt: skip
    assert sweep.seeds == (1, 2, 3)
    last = sweep.cells[-1].seeded(3)
    assert (last.collapse.policy, last.memory.size, last.scenario.seed) == ("batched:spans=16", 2 * GIB, 3)


def test_base_stands_on_a_file_and_axes_on_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('[guest]\nvcpus = 7\n[link]\nrate = "1Gbit"\ndelay = "3ms"\n')
    text = '[sweep]\nscenario = "base.toml"\n[base.link]\nrate = "2Gbit"\n'
    text += '[[axis]]\nsetting = "link.delay"\nvalues = ["9ms"]'
    (cell,) = sweep_of(tmp_path, text).cells
    scenario = cell.seeded(1)
    assert (scenario.guest.vcpus, scenario.link.rate, scenario.link.delay) == (7, 2 * 10**9, 9_000_000)


def test_a_value_may_set_several_settings(tmp_path: Path) -> None:
    text = (
        '[[axis]]\nname = "distance"\n'
        'values = [{name = "far", set = {"link.delay" = "5ms", "return_link.delay" = "6ms"}},\n'
        '          {name = "near", set = {link.delay = "1us"}}]'
    )
    far, near = sweep_of(tmp_path, text).cells
    assert far.coordinates == {"distance": "far"}
    assert (far.seeded(1).link.delay, far.seeded(1).return_link.delay) == (5_000_000, 6_000_000)
    assert near.seeded(1).link.delay == 1000


def test_cells_may_stand_beside_the_grid_or_alone(tmp_path: Path) -> None:
    lone = '[[cell]]\nname = "no guest"\nset = {"guest.vcpus" = 0}\n'
    assert [cell.name for cell in sweep_of(tmp_path, lone).cells] == ["no guest"]
    assert [cell.name for cell in sweep_of(tmp_path, PIECES + lone).cells][-1] == "no guest"
    assert [cell.name for cell in sweep_of(tmp_path, "").cells] == ["base"]


@pytest.mark.parametrize(
    ("axis", "values", "reason"),
    [
        ("memory.size", '["1G", "0"]', "memory.size: '0"),
        ("memory.size", '["1G", "1536M"]', "memory: size: 1.5G are not whole hugetlb pages"),
        ("link.rate", '["1Gbit", "-1Gbit"]', "link.rate: '-1Gbit' is not accepted here"),
        ("guest.vcpus", "[1, -1]", "guest.vcpus: -1 is not accepted here"),
        ("collapse.policy", '["eager", "sometimes"]', "collapse.policy: unknown collapse policy 'sometimes'"),
    ],
)
def test_an_impossible_cell_is_kept_with_its_reason_and_the_rest_can_run(
    tmp_path: Path, axis: str, values: str, reason: str
) -> None:
    sweep = sweep_of(tmp_path, f'[[axis]]\nsetting = "{axis}"\nvalues = {values}')
    good, bad = sweep.cells
    assert good.scenario is not None
    assert sweep.impossible == [bad]
    assert bad.problem.startswith(reason)
    assert bad.digest == ""


def test_neighbours_can_make_a_cell_impossible(tmp_path: Path) -> None:
    text = (
        '[[axis]]\nsetting = "link.delay"\nvalues = ["1ms", "10ms"]\n'
        '[[axis]]\nsetting = "link.jitter"\nvalues = ["5ms"]'
    )
    sweep = sweep_of(tmp_path, text)
    assert [cell.name for cell in sweep.impossible] == ["link.delay=1ms, link.jitter=5ms"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sweep", "is not TOML"),
        ("[sweeps]", "unknown key 'sweeps'; did you mean 'sweep'?"),
        ("[sweep]\nseed = [1]", "sweep: unknown key 'seed'; did you mean 'seeds'?"),
        ("[sweep]\nseeds = 3", "sweep.seeds: 3 is not accepted here: give a list"),
        ("[sweep]\nseeds = []", "sweep.seeds: [] is not accepted here"),
        ("[sweep]\nseeds = [-1]", "sweep.seeds: -1 is not accepted here: give a whole number from 0"),
        ("[sweep]\nseeds = [9223372036854775808]", "sweep.seeds: 9223372036854775808 is not accepted here"),
        ("[sweep]\nseeds = [1, 2, 1]", "sweep.seeds: 1 is there twice"),
        ("[sweep]\nseeds = [1.5]", "sweep.seeds: 1.5 is not accepted here"),
        ('[sweep]\nscenario = "none.toml"', "none.toml: cannot be read: No such file"),
        ('[base.memory]\nsize = "0"', "base: memory.size: '0"),
        ('[base.link]\nrate = "-1Gbit"', "base: link.rate: '-1Gbit' is not accepted here"),
        ("[base.scenario]\nseed = 3", "scenario.seed: seeds stand in sweep.seeds"),
        ("[base.gest]\nvcpus = 3", "unknown setting 'gest.vcpus'; did you mean 'guest.vcpus'?"),
        ("base = 3", "base: 3 is not a table"),
        ('[axis]\nsetting = "push.piece"', "axis: write [[axis]], once for each"),
        ("[[axis]]\nvalues = [1]", "axis 1: give it a setting, or a name"),
        (
            '[[axis]]\nsetting = "push.peice"\nvalues = ["4K"]',
            "unknown setting 'push.peice'; did you mean 'push.piece'?",
        ),
        ('[[axis]]\nsetting = "scenario.seed"\nvalues = [1]', "seeds stand in sweep.seeds"),
        ('[[axis]]\nsetting = "push.piece"\nvalues = []', "values: give a list"),
        ('[[axis]]\nsetting = "push.piece"\nvalues = ["4K", "4K"]', "the same one is there twice"),
        ('[[axis]]\nname = "a=b"\nsetting = "push.piece"\nvalues = ["4K"]', "no = and no comma"),
        ('[[axis]]\nname = "x"\nvalues = ["4K"]', "without a setting, a value is {name = ..., set = {...}}"),
        ('[[axis]]\nname = "x"\nvalues = [{name = "y"}]', "None is not a table"),
        ('[[cell]]\nname = "a"\n[[cell]]\nname = "a"', "there are two cells 'a'"),
        ("[[cell]]\nset = {}", "cell 1.name: '' is not accepted here: give a text"),
    ],
)
def test_a_wrong_file_is_told_in_one_line_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        sweep_of(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_sweep(tmp_path / "none.toml")


def test_too_many_cells_are_refused_before_they_are_made(tmp_path: Path) -> None:
    values = ", ".join(map(str, range(1, 101)))
    axes = "".join(
        f'[[axis]]\nsetting = "{setting}"\nvalues = [{values}]\n'
        for setting in ("guest.vcpus", "guest.rate", "guest.accesses_max", "limits.written_words_max")
    )
    with pytest.raises(ScenarioError, match="100,000,000 cells, more than 10,000"):
        sweep_of(tmp_path, axes)


def test_a_selector_takes_values_with_commas() -> None:
    axes = {"policy": "", "piece": ""}
    chosen = parse_selector("policy=batched:spans=16,dirty=no,piece=4K", axes)
    assert chosen == {"policy": "batched:spans=16,dirty=no", "piece": "4K"}
    assert selected(chosen, {"policy": "batched:spans=16,dirty=no", "piece": "4K", "other": "1"})
    assert not selected(chosen, {"policy": "batched:spans=16,dirty=no", "piece": "2M"})


def test_every_shipped_sweep_is_right_and_says_what_it_asks() -> None:
    assert "hgm_question" in shipped()
    for name, path in shipped().items():
        sweep = load_sweep(path)
        assert (sweep.name, sweep.impossible) == (name, [])
        assert sweep.description
        assert all(axis.description for axis in sweep.axes)


def test_the_shipped_question_is_as_large_as_it_says() -> None:
    sweep = load_sweep(find(Path("hgm_question")))
    assert [len(axis.values) for axis in sweep.axes] == [3, 3, 6, 2]
    assert {axis.name for axis in sweep.axes} == {"piece", "order", "collapse", "mapcount"}
    for scenario in (cell.seeded(1) for cell in sweep.cells):
        assert (scenario.guest.vcpus, scenario.link.rate, scenario.memory.size) == (48, 25 * 10**9, 2 * GIB)
    assert len({cell.digest for cell in sweep.cells}) == len(sweep.cells) == 108 + 5


def test_a_file_stands_before_a_shipped_sweep_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hgm_question").write_text("[sweep]\nname = 'mine'")
    assert load_sweep(find(Path("hgm_question"))).name == "mine"
