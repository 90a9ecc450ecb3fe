"""A Dask cluster of a real scheduler and two workers, each a process of its own on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migemu.errors import BrokenError, InputError
from migemu.experiment.results import Results
from migemu.experiment.run_world import MODELLED
from tests.real.processes import free_port
from tests.unit.experiment.sweeps import Notes, run, sweep_of
from tests.unit.experiment.worlds import PLAIN, STAGE

pytest.importorskip("distributed", reason="the optional extra dask is not installed")
# Dask's own threads and sockets may still be closing when a test has ended.
pytestmark = pytest.mark.filterwarnings("ignore")

PATIENCE_S = 30.0


class DaskProcesses:
    """A scheduler and workers; `address` stays the same when the scheduler is started again."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._folder = folder
        self._environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]), STAGE: str(folder),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        }  # fmt: skip
        self.scheduler = self._scheduler()
        self.workers = [self._worker() for _ in range(workers)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _scheduler(self) -> subprocess.Popen[bytes]:
        return self._start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
            "--death-timeout", "30", "--local-directory", str(self._folder),
        )  # fmt: skip

    def lose_scheduler(self) -> None:
        self.scheduler.kill()
        self.scheduler.wait()

    def start_again(self) -> None:
        """A new scheduler at the old address, and a worker: the old ones end with theirs."""
        self.scheduler = self._scheduler()
        self.workers.append(self._worker())

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    processes = DaskProcesses(tmp_path)
    yield processes
    processes.close()


@pytest.fixture
def connect(cluster: DaskProcesses) -> Iterator[Any]:
    """Makes executors on the cluster, and closes them."""
    from migemu.experiment.cluster import Cluster

    made: list[Cluster] = []

    def make(**settings: Any) -> Cluster:
        made.append(Cluster(cluster.address, **{"patience_s": PATIENCE_S, **settings}))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


class LosesScheduler(Notes):
    """A watcher that kills the scheduler after some runs, and may start another when that is noticed."""

    def __init__(self, cluster: DaskProcesses, after: int, again: bool) -> None:
        super().__init__()
        self._cluster, self._after, self._again = cluster, after, again

    def ended(self, *what: Any) -> None:
        super().ended(*what)
        if len(self.ends) == self._after:
            self._cluster.lose_scheduler()

    def note(self, line: str) -> None:
        if self._again and not self.lines:
            self._cluster.start_again()
        super().note(line)


def test_a_run_that_kills_its_dask_worker_is_told_and_the_other_worker_goes_on(
    tmp_path: Path, cluster: DaskProcesses, connect: Any
) -> None:
    notes = Notes()
    sweep = sweep_of(tmp_path, "[sweep]\nseeds = [1, 2, 4, 6]")
    executor = connect()
    tally = run(sweep, tmp_path / "x", PLAIN.replace("plain", "deadly"), executor, notes)
    assert tally.done == 4
    assert any("seed 2: its worker (a Dask worker: KilledWorker) died" in line for line in notes.lines)


def test_cells_go_back_to_the_queue_when_the_scheduler_goes_away(
    tmp_path: Path, cluster: DaskProcesses, connect: Any
) -> None:
    """And in the end the cluster has found what one process finds."""
    notes = LosesScheduler(cluster, after=3, again=True)
    tally = run(sweep_of(tmp_path), tmp_path / "x", executor=connect(), notes=notes)
    assert (tally.done, tally.failed) == (12, [])
    assert any("goes back to the queue" in line for line in notes.lines)
    assert len(notes.ends) == 12
    run(sweep_of(tmp_path), tmp_path / "here")
    with Results.read(tmp_path / "x") as there, Results.read(tmp_path / "here") as here:
        assert [each.result for each in there.runs()] == [each.result for each in here.runs()]


def test_a_cluster_that_stays_away_ends_the_sweep_and_keeps_what_was_done(
    tmp_path: Path, cluster: DaskProcesses, connect: Any
) -> None:
    notes = LosesScheduler(cluster, after=3, again=False)
    sweep, path = sweep_of(tmp_path), tmp_path / "x"
    with pytest.raises(BrokenError, match="cannot be reached any more; finished runs are stored, use --resume"):
        run(sweep, path, executor=connect(reconnects_max=0), notes=notes)
    done = len(notes.ends)
    assert done >= 3
    tally = run(sweep, path, resume=True)
    assert (tally.already_done, tally.done) == (done, 12 - done)


def test_a_cluster_without_workers_is_told(tmp_path: Path) -> None:
    from migemu.experiment.cluster import Cluster

    processes = DaskProcesses(tmp_path, workers=0)
    try:
        with pytest.raises(BrokenError, match="has no workers"):
            Cluster(processes.address, patience_s=PATIENCE_S, workerless_s=0.2)
    finally:
        processes.close()


def test_a_scheduler_that_is_not_there_is_told(tmp_path: Path) -> None:
    from migemu.experiment.cluster import Cluster

    with pytest.raises(BrokenError, match="no Dask scheduler answers at tcp://127"):
        Cluster(f"tcp://127.0.0.1:{free_port()}", patience_s=0.5)


@pytest.mark.parametrize("address", ["nonsense://x", "127.0.0.1"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    from migemu.experiment.cluster import Cluster

    with pytest.raises((BrokenError, InputError), match="no Dask scheduler answers at"):
        Cluster(address, patience_s=0.5)


def test_the_name_of_the_modelled_world_is_one() -> None:
    assert MODELLED.count(":") == 1
