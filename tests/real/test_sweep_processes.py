"""Sweeps in real processes: killed and resumed, interrupted, with workers that die, and over the measured world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from migemu.experiment.results import Results
from tests.unit.experiment.sweeps import PIECES
from tests.unit.experiment.worlds import PLAIN, STAGE

WORLDS = PLAIN.partition(":")[0]
TIMEOUT_S = 60


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a sweep file, which worlds know as well."""
    (tmp_path / "pieces.toml").write_text(PIECES)
    monkeypatch.setenv(STAGE, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


def command(stage: Path, *arguments: str, world: str = "plain") -> list[str]:
    return [
        sys.executable, "-m", "migemu", "sweep", str(stage / "pieces.toml"), "--out", str(stage / "out"),
        "--world", f"{WORLDS}:{world}", *arguments,
    ]  # fmt: skip


def migemu(stage: Path, *arguments: str, world: str = "plain") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(stage, *arguments, world=world), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def at_the_ninth_run(stage: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep that has done the eight runs of seeds 1 and 2, and is in the middle of the next."""
    os.mkfifo(stage / "wait")
    os.mkfifo(stage / "told")
    process = subprocess.Popen(
        command(stage, *arguments, world="waiting"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        (stage / "told").open().close()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def statuses(stage: Path) -> list[str]:
    with Results.read(stage / "out" / "sweep.sqlite") as results:
        return [run.status for run in results.runs()]


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_sweep_that_was_killed_goes_on_where_it_was(stage: Path) -> None:
    with at_the_ninth_run(stage) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
    assert statuses(stage) == ["done"] * 8
    (stage / "wait").unlink()
    again = migemu(stage, "--resume", "--json", world="waiting")
    assert again.returncode == 0, again.stderr
    assert (summary(again)["already_done"], summary(again)["done"]) == (8, 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_what_was_finished_and_says_so(stage: Path, number: signal.Signals) -> None:
    with at_the_ninth_run(stage) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "8 runs are done and kept in" in errors
    assert "4 are left: use --resume" in errors
    assert statuses(stage) == ["done"] * 8


def test_an_interrupt_ends_the_workers_too(stage: Path) -> None:
    with at_the_ninth_run(stage, "--workers", "1") as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)  # its worker holds the pipes: this waits for both
    assert process.returncode == 130
    assert "8 runs are done and kept in" in errors


def test_workers_end_with_a_sweep_that_is_killed(stage: Path) -> None:
    with at_the_ninth_run(stage, "--workers", "1") as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=TIMEOUT_S)  # its worker holds the pipes: this waits for it
    assert statuses(stage) == ["done"] * 8


def test_a_worker_that_dies_is_told_its_run_tried_again_and_then_failed(stage: Path) -> None:
    (stage / "pieces.toml").write_text("[sweep]\nseeds = [1, 2, 3, 4]")
    done = migemu(stage, "--workers", "2", "--json", world="deadly")
    assert done.returncode == 3, done.stderr
    ((seed, error),) = [(each["seed"], each["error"]) for each in summary(done)["failed"]]
    assert (seed, summary(done)["done"]) == (3, 3)
    assert error.endswith("died: out of memory, or killed")
    again = [line for line in done.stderr.splitlines() if "it is tried again" in line]
    assert [seed in line for line, seed in zip(sorted(again), ("seed 2", "seed 3"), strict=True)] == [True, True]


def test_workers_find_what_one_process_finds(stage: Path) -> None:
    assert migemu(stage, "--workers", "2").returncode == 0
    with Results.read(stage / "out" / "sweep.sqlite") as results:
        shared = [run.result for run in results.runs()]
    (stage / "out" / "sweep.sqlite").unlink()
    assert migemu(stage).returncode == 0
    with Results.read(stage / "out" / "sweep.sqlite") as results:
        assert [run.result for run in results.runs()] == shared


def test_the_measured_world_can_be_swept_too(stage: Path) -> None:
    (stage / "pieces.toml").write_text(
        '[sweep]\nseeds = [5]\n[base.memory]\ngeometry = "tiny"\nsize = "1M"\n[base.guest]\nvcpus = 0\n'
        '[[axis]]\nsetting = "collapse.policy"\nvalues = ["never", "eager"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "migemu", "sweep", "pieces.toml", "--out", "out", "--measured", "--workers", "2"],
        cwd=stage, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Results.read(stage / "out" / "sweep.sqlite") as results:
        runs = list(results.runs())
    assert [(run.result["kind"], run.result["verified"]) for run in runs] == [("measured", True)] * 2
    assert [run.result["page_table"]["pud"] for run in runs] == [0, 16]
