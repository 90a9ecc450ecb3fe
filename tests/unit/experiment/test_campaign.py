"""A campaign: in which order, what is tried again, and what is kept when it ends early."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from migemu.errors import BrokenError, InputError
from migemu.experiment.campaign_progress import CampaignProgress, remaining_time
from migemu.experiment.executors import InProcess
from migemu.experiment.program import Program, this_program
from migemu.experiment.results import Results
from migemu.experiment.run_world import Job, RunAnswer, do, find_world, worker_died
from migemu.scenario.scenario import Scenario
from migemu.units import SECOND
from tests.unit.experiment import worlds
from tests.unit.experiment.sweeps import PIECES, Notes, run, sweep_of
from tests.unit.experiment.worlds import PLAIN

FAILING = "tests.unit.experiment.worlds:failing"


class Scripted:
    """An executor that does runs in process, but for what the script says of the n-th job it takes."""

    name = "a script"

    def __init__(self, **script: str) -> None:
        self.script = {int(number.removeprefix("at")): what for number, what in script.items()}
        self.taken: list[int] = []

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        while jobs:
            job = jobs.popleft()
            what = self.script.get(len(self.taken), "")
            self.taken.append(job.number)
            if what == "broken":
                raise BrokenError("the cluster went away")
            if what == "interrupted":
                raise KeyboardInterrupt
            yield worker_died(job, "worker 1", blameless=what == "blameless") if what else do(job)

    def close(self) -> None:
        """Nothing."""


def test_seeds_go_round_before_cells_do(tmp_path: Path) -> None:
    notes = Notes()
    run(sweep_of(tmp_path), tmp_path / "x.sqlite", notes=notes)
    assert [seed for _, seed, _ in notes.ends] == [1] * 4 + [2] * 4 + [3] * 4
    assert len({cell for cell, _, _ in notes.ends[:4]}) == 4


def test_a_run_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    tally = run(sweep_of(tmp_path), path := tmp_path / "x.sqlite", FAILING)
    assert (tally.done, len(tally.failed)) == (4, 8)
    assert {error for _, _, error in tally.failed} == {
        "the link was cut", "a bug in the world: ZeroDivisionError: division by zero",
    }  # fmt: skip
    with Results.read(path) as results:
        assert [each.status for each in results.runs()].count("failed") == 8


def test_failed_runs_are_tried_again_when_it_is_resumed(tmp_path: Path) -> None:
    sweep, path = sweep_of(tmp_path), tmp_path / "x.sqlite"
    run(sweep, path, FAILING)
    tally = run(sweep, path, FAILING, resume=True)
    assert (tally.already_done, tally.done, len(tally.failed)) == (4, 0, 8)
    with Results.read(path) as results:
        assert len(list(results.runs())) == 12


def test_a_lost_run_is_tried_once_more_and_then_failed(tmp_path: Path) -> None:
    notes, sweep = Notes(), sweep_of(tmp_path, "[sweep]\nseeds = [1, 2]")
    assert run(sweep, tmp_path / "a", executor=Scripted(at0="lost"), notes=notes).done == 2
    assert "its worker (worker 1) died" in notes.lines[0]
    assert "tried again" in notes.lines[0]
    executor = Scripted(at0="lost", at2="lost")
    tally = run(sweep, tmp_path / "b", executor=executor)
    assert executor.taken == [0, 1, 0]
    assert [seed for _, seed, _ in tally.failed] == [1]


def test_a_run_lost_with_its_cluster_goes_back_for_free(tmp_path: Path) -> None:
    executor = Scripted(at0="blameless", at1="blameless", at2="lost")
    notes = Notes()
    tally = run(sweep_of(tmp_path, ""), tmp_path / "a", executor=executor, notes=notes)
    assert (tally.done, tally.failed, executor.taken) == (1, [], [0, 0, 0, 0])
    assert "goes back to the queue" in notes.lines[0]


@pytest.mark.parametrize(("end", "error"), [("broken", BrokenError), ("interrupted", KeyboardInterrupt)])
def test_what_was_finished_stays_however_it_ends(tmp_path: Path, end: str, error: type[BaseException]) -> None:
    sweep, path = sweep_of(tmp_path), tmp_path / "x.sqlite"
    with pytest.raises(error):
        run(sweep, path, executor=Scripted(at5=end))
    tally = run(sweep, path, resume=True)
    assert (tally.already_done, tally.done) == (5, 7)


@pytest.mark.parametrize(
    ("world", "told"),
    [
        ("incomplete", "gave up"),
        ("older", "the result is of schema version 99, this program reads version"),
    ],
)
def test_a_result_that_is_none_is_never_done(tmp_path: Path, world: str, told: str) -> None:
    tally = run(sweep_of(tmp_path, ""), tmp_path / "a", f"tests.unit.experiment.worlds:{world}")
    ((_, _, error),) = tally.failed
    assert error.startswith(told)


@pytest.mark.parametrize("name", ["none.at.all:run", "migemu.units:none", "migemu.units", "migemu.units:GIB"])
def test_a_world_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(InputError, match=name):
        find_world(name)


def test_a_worker_with_other_code_refuses() -> None:
    job = Job(0, PLAIN, Scenario().resolved(), None, Program("0.0.1", "abc"))
    assert "install the same there" in do(job).error


def test_a_program_is_known_by_its_text() -> None:
    program = this_program()
    assert Program.parse(str(program)) == program
    assert len(program.code) == 16


def test_each_run_can_keep_its_files(tmp_path: Path) -> None:
    job = Job(0, PLAIN, Scenario().resolved(), str(tmp_path / "kept"), this_program())
    assert do(job).error == ""
    assert (tmp_path / "kept" / "result.json").exists()


def test_the_same_job_gives_the_same_answer_anywhere() -> None:
    job = Job(0, PLAIN, Scenario().resolved(), None, this_program())
    assert do(job).result == next(InProcess().run(deque([job]))).result == worlds.plain(Scenario(), None)


@pytest.mark.parametrize(
    ("elapsed_s", "done", "runs", "told"),
    [(10, 0, 5, ""), (10, 5, 5, ""), (10, 1, 5, "40 s left"), (60, 1, 11, "10 min left"), (3600, 1, 3, "2.0 h left")],
)
def test_the_time_left_is_that_of_the_mean_run(elapsed_s: int, done: int, runs: int, told: str) -> None:
    assert remaining_time(elapsed_s * SECOND, done, runs) == told


def test_a_log_gets_plain_lines(tmp_path: Path) -> None:
    text = StringIO()
    sweep, path = sweep_of(tmp_path, PIECES), tmp_path / "x.sqlite"
    with (
        Results.create(path, sweep, FAILING) as results,
        CampaignProgress(Console(file=text, width=200), "pieces") as watch,
    ):
        from migemu.experiment.campaign import Campaign

        Campaign(sweep, FAILING, results, watch).run(InProcess())
    lines = text.getvalue().splitlines()
    assert "migemu: piece=4K, policy=never, seed 1: the link was cut" in lines
    assert lines[-1] == "pieces: 12 of 12 runs, 8 failed"
