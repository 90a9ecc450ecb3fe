"""`migemu sim` as a user types it: its files, its options, its mistakes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from migemu.cli.check import check
from migemu.cli.sim import sim
from migemu.policy.collapse_policy import collapse_policies
from tests.plugin import wrong

SMALL = (
    "--set", "memory.geometry=tiny", "--set", "memory.size=256K", "--set", "device.state=4K",
    "--set", "link.preset=10G", "--set", "return_link.preset=10G", "--set", "guest.rate=1000000",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(sim, [*SMALL, *arguments])


def result_of(directory: str) -> dict[str, Any]:
    return json.loads((Path(directory) / "result.json").read_text())


def one_line(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    assert "Traceback" not in lines[0]
    return lines[0]


# --- what comes out ---


def test_a_run_leaves_its_result_and_its_scenario_and_shows_a_summary() -> None:
    done = invoke("--out", "a")
    assert done.exit_code == 0, done.output
    assert "unnamed (modelled)" in done.stdout
    assert "result: a/result.json" in done.stdout
    assert {path.name for path in Path("a").iterdir()} == {"result.json", "scenario.toml"}
    assert result_of("a")["kind"] == "modelled"
    assert result_of("a")["status"] == "completed"
    again = CliRunner().invoke(sim, ["a/scenario.toml", "--out", "b", "--quiet"])
    assert again.exit_code == 0, again.output
    assert result_of("b") == result_of("a"), "the scenario that was written is the one that was run"


def test_without_a_directory_it_makes_one_under_runs() -> None:
    assert invoke("--quiet", "--set", "scenario.name=mine").exit_code == 0
    (made,) = Path("runs").iterdir()
    assert made.name.endswith("-mine")
    assert (made / "result.json").exists()


def test_json_is_the_result_and_nothing_else() -> None:
    done = invoke("--out", "a", "--json")
    assert json.loads(done.stdout) == result_of("a")
    assert not done.stderr


def test_quiet_says_nothing() -> None:
    done = invoke("--out", "a", "--quiet")
    assert (done.exit_code, done.output) == (0, "")


def test_a_seed_is_the_scenarios_seed() -> None:
    for out, seed in (("a", ("--seed", "7")), ("b", ("--set", "scenario.seed=7")), ("c", ())):
        assert invoke("--quiet", "--out", out, *seed).exit_code == 0
    assert result_of("a")["scenario"]["scenario"]["seed"] == 7
    assert result_of("a") == result_of("b")
    assert result_of("a")["trace_digest"] != result_of("c")["trace_digest"]


def test_its_trace_is_one_that_can_be_checked() -> None:
    assert invoke("--quiet", "--out", "a", "--trace").exit_code == 0
    done = CliRunner().invoke(check, ["a/trace.jsonl", "--json"])
    assert done.exit_code == 0, done.output
    verdict = json.loads(done.stdout)
    assert verdict["kind"] == "modelled"
    assert verdict["violations"] == []
    assert {"mapped_within_received", "writes_kept", "faults_resolved", "completion_is_told"} <= set(verdict["judged"])


def test_its_report_is_written_beside_it() -> None:
    done = invoke("--out", "a", "--report", "--quiet")
    assert done.exit_code == 0, done.output
    assert {path.name for path in Path("a").iterdir()} >= {"report.html", "trace.jsonl", "result.json"}


def test_at_a_pace_it_is_the_same_run() -> None:
    """A thousand times faster than it would be: no test waits for it."""
    assert invoke("--quiet", "--out", "a").exit_code == 0
    assert invoke("--quiet", "--out", "b", "--pace", "1000").exit_code == 0
    assert result_of("a") == result_of("b")


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--set", "memory.image=x"], 2, "memory.image: a migration in virtual time has no bytes"),
        (["--set", "guest.rate=0"], 2, "guest.rate: as fast as it can (0) never ends in virtual time"),
        (["--set", "memory.size=0"], 2, "memory.size"),
        (["--set", "memory.size=100K"], 2, "are not whole hugetlb pages"),
        (["--set", "link.rate=-1Gbit"], 2, "link.rate: '-1Gbit' is not accepted"),
        (["--set", "guest.rate=-1"], 2, "guest.rate: '-1' is not accepted"),
        (["--set", "link.distribution=samples:path=/no/such"], 2, "link.distribution=samples:path=/no/such"),
        (["--set", "guest.workload=replay:path=/no/such"], 2, "guest.workload=replay:path=/no/such"),
        (["--set", "return_link.preset=carrier-pigeon"], 2, "return_link.preset"),
        (["--seed", "-1"], 2, "scenario.seed: '-1' is not accepted"),
        (["--seed", str(2**63)], 2, f"scenario.seed: '{2**63}' is not accepted"),
        (["--seed", "seven"], 2, "scenario.seed"),
        (["--pace", "-1"], 2, "--pace -1.0: give 1e-06 to 1000000"),
        (["--pace", "nan"], 2, "--pace nan: give"),
        (["--pace", "1e-300"], 2, "--pace 1e-300: give"),
        (["nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["--out", "file/below"], 3, "file/below/scenario.toml cannot be written: Not a directory"),
        (["--set", "limits.memory_max=64K"], 2, "limits.memory_max of this destination is 64K"),
        (["--set", "link.outages=0-60s"], 3, "nobody answers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], code: int, told: str) -> None:
    Path("file").touch()
    done = invoke("--quiet", *arguments)
    assert told in one_line(done)
    assert done.exit_code == code
    assert not done.stdout


def test_a_policy_that_breaks_a_rule_fails_in_one_line_with_a_result() -> None:
    with collapse_policies.lent("leaping", wrong.Leaping):
        done = invoke("--quiet", "--out", "a", "--set", "collapse.policy=leaping", "--trace")
    assert done.exit_code == 1
    assert "the rule smaller_before_larger of `migemu check` is broken by" in one_line(done)
    assert result_of("a")["status"] == "failed"
    assert CliRunner().invoke(check, ["a/trace.jsonl"]).exit_code == 1, "and the trace shows it"


# --- Ctrl-C ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_it_at_once_and_leaves_the_result(number: signal.Signals, tmp_path: Path) -> None:
    """At this pace a run of a second takes hours, and between two moves of its clock it sleeps."""
    process = subprocess.Popen(
        [sys.executable, "-m", "migemu", "sim", "--set", "link.rate=1Gbit", "--out", "a", "--trace",
         "--pace", "0.0001", "--set", "device.state=0", "--set", "push.hold=1s", "--set", "guest.tick=0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:  # it is under way once it shows progress
        if line.startswith("run:"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "migemu: interrupted" in err
    assert "Traceback" not in err
    assert result_of("a")["status"] == "interrupted"
    assert (tmp_path / "a" / "trace.jsonl").stat().st_size > 0
