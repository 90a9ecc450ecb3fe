"""Comparisons: who is paired with whom, what is refused, and `migemu compare` as CI sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from migemu.errors import InputError
from migemu.experiment.comparison import compare
from migemu.experiment.gate import GateVerdict, parse_gate
from migemu.experiment.sources import read_source
from migemu.result import begin, write
from migemu.scenario.scenario import Scenario, replace
from tests.unit.experiment.sweeps import PIECES, run, sweep_of
from tests.unit.experiment.worlds import plain


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a sweep that ran to its end."""
    folder = tmp_path_factory.mktemp("sweep")
    run(sweep_of(folder), folder / "sweep.sqlite")
    return folder


def single(folder: Path, name: str, **changes: Any) -> str:
    """A run directory; `changes` are settings, `section__key=value`, or keys of the result in capitals."""
    settings = {key: value for key, value in changes.items() if "__" in key}
    scenario = replace(Scenario(), **settings)
    scenario = attrs.evolve(scenario, scenario=attrs.evolve(scenario.scenario, seed=changes.get("seed", 1)))
    result = plain(scenario, None) | {key.lower(): value for key, value in changes.items() if key.isupper()}
    write(result, begin(folder / name))
    return str(folder / name)


def migemu(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def test_cells_of_a_sweep_are_paired_by_what_the_selectors_leave_open(swept: Path) -> None:
    comparison = compare(
        read_source(f"{swept}:policy=never"), read_source(f"{swept}:policy=batched:spans=16"), ["fault.p50_ns"]
    )
    small, large = comparison.rows
    assert (small.cell, small.pairs, small.difference) == ("piece=4K", 3, 50_000)
    assert (large.cell, large.pairs, large.difference) == ("piece=2M", 3, 50_000)
    assert small.difference_interval == (50_000, 50_000)
    assert small.relative == pytest.approx(50_000 / small.base)
    assert comparison.settings == {"collapse.policy": ("never", "batched:spans=16")}


def test_over_all_cells_each_pair_weighs_the_same(swept: Path) -> None:
    comparison = compare(
        read_source(f"{swept}:policy=never"), read_source(f"{swept}:policy=batched:spans=16"), ["fault.p50_ns"]
    )
    (overall,) = comparison.overall
    small, large = comparison.rows
    assert overall.pairs == 6
    assert large.relative < overall.relative < small.relative
    assert overall.interval is not None
    assert overall.interval.low <= overall.relative <= overall.interval.high


def test_two_sweeps_are_paired_cell_by_cell_and_seed_by_seed(swept: Path, tmp_path: Path) -> None:
    run(sweep_of(tmp_path, PIECES.replace("[1, 2, 3]", "[2, 3, 4]")), tmp_path / "sweep.sqlite")
    comparison = compare(read_source(str(swept)), read_source(str(tmp_path)), ["fault.mean_ns"])
    assert [row.pairs for row in comparison.rows] == [2, 2, 2, 2]
    assert {row.difference for row in comparison.rows} == {0.0}
    assert comparison.notes == (
        f"{swept}: 4 runs have no counterpart and are left out",
        f"{tmp_path}: 4 runs have no counterpart and are left out",
        "with 2 seeds a 95 % interval is too narrow to be one; take ten for a gate, or a figure to quote",
    )


def test_a_run_stands_against_one_cell(swept: Path, tmp_path: Path) -> None:
    alone = single(tmp_path, "a", collapse__policy="never", seed=2)
    comparison = compare(read_source(f"{swept}:piece=4K,policy=never"), read_source(alone), ["fault.p50_ns"])
    (row,) = comparison.rows
    assert (row.cell, row.pairs, row.difference, row.difference_interval) == ("", 1, 0.0, None)
    with pytest.raises(InputError, match="has 2 cells, the other side is one run"):
        compare(read_source(f"{swept}:piece=4K"), read_source(alone))


def test_metrics_are_chosen_by_pattern(swept: Path) -> None:
    source = read_source(f"{swept}:piece=4K,policy=never")
    keys = {row.key for row in compare(source, source, ["fault.p9*_ns"]).rows}
    assert keys == {"fault.p90_ns", "fault.p99_ns", "fault.p999_ns"}
    with pytest.raises(InputError, match=r"did you mean 'fault.p99_ns'\?"):
        compare(source, source, ["fault.p98_ns"])


def test_buckets_that_are_missing_are_empty(swept: Path) -> None:
    base, new = read_source(f"{swept}:piece=4K,policy=never"), read_source(f"{swept}:piece=2M,policy=never")
    rows = compare(base, new, ["fault.log2_us.*"]).rows
    assert {(row.key, row.base, row.new) for row in rows} == {
        ("fault.log2_us.64", 100, 0),
        ("fault.log2_us.8192", 0, 100),
    }


def test_a_baseline_of_zero_has_no_share(tmp_path: Path) -> None:
    base = single(tmp_path, "a", TIME_NS={"total": 0, "downtime": 0})
    new = single(tmp_path, "b", TIME_NS={"total": 5, "downtime": 0})
    gates = [parse_gate("time_ns.total > +5%"), parse_gate("time_ns.downtime > +5%")]
    comparison = compare(read_source(base), read_source(new), ["time_ns.*"], gates)
    assert [(ruling.row.key, ruling.verdict) for ruling in comparison.rulings] == [
        ("time_ns.total", GateVerdict.FAILS), ("time_ns.downtime", GateVerdict.HOLDS),
    ]  # fmt: skip


def test_runs_that_did_not_finish_are_left_out_and_counted(tmp_path: Path) -> None:
    run(sweep_of(tmp_path, "[sweep]\nseeds = [1, 2, 4]"), tmp_path / "x", "tests.unit.experiment.worlds:failing")
    source = read_source(str(tmp_path / "x"))
    assert source.excluded == 1
    assert compare(source, source).notes[0] == f"{tmp_path}/x: 1 runs did not finish and are left out"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"KIND": "measured"}, "measured and modelled figures are never compared"),
        ({"seed": 2}, "have no cell and seed in common: 1 and 1 cells, seeds 1 and 2"),
        ({"STATUS": "failed", "ERROR": "no memory"}, "the run did not complete: no memory"),
        ({"SCHEMA_VERSION": 99}, "is of schema version 99, this program reads version"),
    ],
)
def test_what_cannot_be_compared_is_told_and_exits_with_2(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    result = migemu(single(tmp_path, "a"), single(tmp_path, "b", **changes))
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{a}", "none"), "none: there is no such run, result or sweep"),
        (("{a}", "{junk}"), "is no result of a run"),
        (("{a}", "{a}:piece=4K"), "only cells of a sweep can be selected"),
        (("{a}", "{a}", "--fail-if", "fault.p99_ns > lots"), "is not a gate"),
        (("{a}", "{a}", "--fail-if", "fault.p98_ns > +5%"), "did you mean 'fault.p99_ns'?"),
        (("{s}:piece=4K", "{s}:peice=2M"), "selects no cell: write AXIS=VALUE,...; axes: piece, policy"),
        (("{s}:piece=4K", "{s}:piece=1G"), "no cell is at piece=1G"),
        (("{s}:piece=4K", "{s}:policy=never"), "select on both sides by the same axes"),
    ],
)
def test_bad_input_exits_with_2(swept: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "junk.json").write_text('{"a": 1}')
    places = {"a": single(tmp_path, "a"), "junk": str(tmp_path / "junk.json"), "s": str(swept)}
    result = migemu(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_a_gate_that_fails_exits_with_1_and_one_that_holds_with_0(swept: Path) -> None:
    sides = (f"{swept}:policy=never", f"{swept}:policy=batched:spans=16")
    assert migemu(*sides, "--fail-if", "fault.p50_ns > +90%").exit_code == 0
    failed = migemu(*sides, "--fail-if", "fault.p50_ns > +5%")
    assert failed.exit_code == 1
    assert "1 of 2 gates failed" in failed.output
    assert "with 3 seeds a 95 % interval is too narrow to be one" in failed.output
    assert migemu(*sides, "--fail-if", "fault.p50_ns > 1s").exit_code == 0
    assert migemu(*sides, "--fail-if", "fault.p50_ns > 1ms").exit_code == 1


def test_an_unsettled_gate_is_told_and_fails_only_when_strict(tmp_path: Path) -> None:
    text = PIECES.replace("[1, 2, 3]", "[1, 2, 3, 4, 5]")
    run(sweep_of(tmp_path, text), tmp_path / "sweep.sqlite")
    sides = (f"{tmp_path}:policy=never,piece=4K", f"{tmp_path}:policy=batched:spans=16,piece=4K")
    gate = ("--fail-if", "fault.p50_ns > +45%")
    unsure = migemu(*sides, *gate)
    assert unsure.exit_code == 0
    assert "not settled by these data: fault.p50_ns > +45%" in unsure.output
    assert migemu(*sides, *gate, "--strict").exit_code == 1


def test_json_says_the_same(swept: Path) -> None:
    sides = (f"{swept}:policy=never", f"{swept}:policy=batched:spans=16")
    result = CliRunner().invoke(main, ["compare", *sides, "--json", "--fail-if", "fault.p50_ns > +5%"])
    said = json.loads(result.stdout)
    assert said["kind"] == "modelled"
    assert [gate["verdict"] for gate in said["gates"]] == ["fails", "holds"]
    assert {"cell", "key", "n", "base", "new", "difference", "relative_interval"} <= set(said["rows"][0])
