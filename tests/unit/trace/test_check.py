"""`migemu check`: what it says and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from migemu.trace.checkers import checkers
from migemu.trace.events import event_line, header_line
from migemu.trace.wrong import SCENARIOS
from tests.unit.trace.traces import PMD, destination, memory, whole, write_lines


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "good.jsonl", whole())


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    events = [memory(), destination("received", 0, 3), destination("collapsed", 0, level=PMD)]
    return write_lines(tmp_path / "bad.jsonl", [*events, events[-1]])


def test_a_good_trace_is_told_in_one_line_with_what_was_not_judged(good: Path) -> None:
    result = run(good)
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith(f"{good}: {len(whole())} events, 32 base pages of tiny: 12 rules hold; nothing to ")
    for rule in ("dropped_stays_dropped (no `zapped` or `removed`)", "poison_unreadable (no `poisoned`)"):
        assert rule in result.stdout


def test_a_bad_trace_is_told_with_the_rule_the_event_and_what_led_to_it(bad: Path) -> None:
    result = run(bad)
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == f"no_hole_collapsed is broken at {bad}:4 and 1 more"
    assert lines[1] == "one PMD entry maps pages 0 to 3, of which 1 have not arrived, page 3 first"
    assert lines[2] == event_line(destination("collapsed", 0, level=PMD))
    assert "3 destination received pages 0 +3, PTE" in lines
    assert "4 destination collapsed page 0, PMD" in lines
    assert "No entry larger than a piece covers anything that has not arrived." in lines
    assert "1 broken, 2 hold; nothing to judge for" in lines[-1]


def test_the_same_as_json(bad: Path, good: Path) -> None:
    result = run(bad, "--json")
    assert result.exit_code == 1
    said: dict[str, Any] = json.loads(result.stdout)
    (violation,) = said["violations"]
    assert (violation["rule"], violation["line"], violation["times"]) == ("no_hole_collapsed", 4, 2)
    assert violation["event"] == json.loads(event_line(destination("collapsed", 0, level=PMD)))
    assert [step["line"] for step in violation["history"]] == [3]
    assert (said["trace"], said["kind"], said["geometry"], said["pages"]) == (str(bad), "measured", "tiny", 32)
    result = run(good, "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert said["violations"] == []
    assert sorted([*said["judged"], *said["unjudged"]]) == [entry.name for entry in checkers]


def test_only_the_rules_that_were_asked_for_judge(bad: Path) -> None:
    result = run(bad, "--rule", "writes_kept", "--rule", "counts_conserved")
    assert result.exit_code == 0
    assert "1 rules hold; nothing to judge for writes_kept (no `written`)" in result.stdout
    assert run(bad, "--rule", "no_hole_collapsed").exit_code == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty, no trace"),
        ("words\n", "is not a trace"),
        (header_line("measured").replace("2", "1") + "\n", "version 1; this migemu reads version 2"),
        (header_line("measured") + "\n", "no `memory` event"),
        (header_line("measured") + "\n" + event_line(memory()) + "\n{}\n", "line 3: has no 'event'"),
        (header_line("measured") + "\n" + event_line(memory()) + '\n{"t":1', "line 3 is cut off"),
    ],
    ids=["empty", "foreign", "version", "no memory", "damaged", "cut"],
)
def test_what_is_no_trace_is_told_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(content, encoding="utf-8")
    result = run(path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"migemu: {path}")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.dest.jsonl", "trace.dest.jsonl.partial"])
def test_the_trace_of_a_run_is_found_by_its_directory(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / name, whole())
    result = run(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: {len(whole())} events")


def test_a_directory_without_a_trace_is_told(tmp_path: Path) -> None:
    assert "holds no run" in run(tmp_path).stderr
    (tmp_path / "scenario.toml").write_text("", encoding="utf-8")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"migemu: {tmp_path}: holds no trace; run it with --trace\n"


def test_a_file_a_rule_and_a_scenario_that_are_not_there(good: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path / "none"], "the trace cannot be read: No such file or directory"),
        ([good, "--rule", "nonsense"], "unknown checker 'nonsense'; known: completion_is_told, "),
        (["--wrong", "nonsense"], "unknown bug 'nonsense'; known: collapse_before_received, "),
        ([], "give one trace to judge: a file, the DIR of a run, or --wrong NAME"),
        ([good, "--wrong", "step_skipped"], "give one trace to judge"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert said in result.stderr


def test_the_list_names_every_rule_and_everything_wrong() -> None:
    result = run("--list")
    assert result.exit_code == 0
    for name in (*(entry.name for entry in checkers), *SCENARIOS):
        assert name in result.stdout


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_is_wrong_on_purpose_is_shown(name: str) -> None:
    result = run("--wrong", name)
    assert result.exit_code == 1
    assert f"{SCENARIOS[name].rule} is broken at {name}:" in result.stdout
    assert json.loads(run("--wrong", name, "--json").stdout)["kind"] == "modelled"
