"""What is a directory of a run, and what is said of one that is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migemu.errors import InputError
from migemu.report.directory import RunDirectory
from migemu.scenario.scenario import Scenario
from tests.unit.report.runs import result, write_run
from tests.unit.trace.traces import whole, write_lines


def test_a_whole_run_lacks_nothing(tmp_path: Path) -> None:
    found = RunDirectory.open(write_run(tmp_path, whole()))
    assert (found.name, found.kind, found.missing) == ("made-up", "measured", ())
    assert found.trace == tmp_path / "trace.jsonl"
    assert found.scenario["guest"]["vcpus"] == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text(""), "is not a directory"),
        (lambda path: path.mkdir(), "holds no run: no result.json, no scenario.toml, no trace.jsonl"),
        (lambda path: write_run(path, said=result() | {"schema_version": 9}), "of version 9; .* reads version 1"),
        (lambda path: write_run(path, said={"schema_version": "new"}), "is a result of version 'new'"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "run"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=said) as error:
        RunDirectory.open(path)
    assert "\n" not in str(error.value)


def test_a_run_without_a_trace_says_what_that_costs(tmp_path: Path) -> None:
    found = RunDirectory.open(write_run(tmp_path))
    assert found.trace is None
    assert found.missing[0].startswith("no trace.jsonl (run with --trace)")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("failed", "the run failed: the source went away"),
        ("interrupted", "the run was interrupted: the source went away"),
    ],
)
def test_how_a_run_ended_is_said_first(tmp_path: Path, status: str, said: str) -> None:
    assert RunDirectory.open(write_run(tmp_path, whole(), result(status=status))).missing == (said,)


def test_a_run_that_was_killed_has_a_scenario_and_perhaps_half_a_trace(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(Scenario().toml())
    write_lines(tmp_path / "trace.dest.jsonl", whole())
    found = RunDirectory.open(tmp_path)
    assert (found.name, found.kind, found.result) == ("unnamed", "", {})
    assert [line.split(":")[0] for line in found.missing] == [
        "no result.json (the destination was killed, or has not finished)",
        "the nodes' traces were not merged; trace.dest.jsonl tells what the destination saw",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1}', '{"kind": 3}'])
def test_a_damaged_result_is_one_that_is_missing(tmp_path: Path, text: str) -> None:
    write_run(tmp_path, whole())
    (tmp_path / "result.json").write_text(text)
    found = RunDirectory.open(tmp_path)
    assert found.result == {}
    assert any("result.json" in line for line in found.missing)


def test_a_damaged_scenario_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text("= no toml")
    assert "a damaged scenario.toml: its settings are not known" in RunDirectory.open(tmp_path).missing


def test_a_result_whose_section_is_no_section_is_damaged(tmp_path: Path) -> None:
    write_run(tmp_path, said=json.loads(json.dumps(result())) | {"fault": 7})
    assert RunDirectory.open(tmp_path).result == {}
