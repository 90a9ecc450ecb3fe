"""Workers of a Dask cluster that runs already (`pip install -e '.[dask]'`).

Dask's scheduler places the runs, notices dead workers and tries a run elsewhere (its `allowed-failures`, 3 by
default). What this file adds is patience with the cluster itself:

    the scheduler goes away       what was under way goes back to the queue, blameless; the client calls again until
                                  `patience_s` is over, `reconnects_max` times in one sweep
    no worker is left             others may come for `workerless_s`, then the sweep ends; finished runs are kept
    a worker has other code       refused when it connects, and again with each run (`migemu.experiment.program`)

The connection is as safe as the cluster's: plain `tcp://` runs pickled code of whoever can reach it.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from migemu.errors import BrokenError, ExtraError, InputError, one_line
from migemu.experiment.program import Program, this_program
from migemu.experiment.run_world import Job, RunAnswer, do, worker_died

_LOOK_S: Final = 1.0
#: Runs submitted per thread of the cluster: one at work, one waiting beside it.
_AHEAD: Final = 2


class Cluster:
    """An Executor on the Dask cluster whose scheduler listens at `address`. BrokenError when it is unreachable."""

    def __init__(
        self, address: str, *, patience_s: float = 60.0, workerless_s: float = 60.0, reconnects_max: int = 3
    ) -> None:
        self.name = f"the Dask cluster at {address}"
        self._patience_s, self._workerless_s, self._reconnects_remaining = patience_s, workerless_s, reconnects_max
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._client = _connect(address, patience_s)
        try:
            self._check_workers()
        except BaseException:
            self.close()
            raise

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs on the cluster. BrokenError when the cluster is gone for too long or has no worker."""
        under_way: dict[str, Job] = {}
        width, looked = 1, -_LOOK_S
        while jobs or under_way:
            if time.monotonic() - looked >= _LOOK_S:
                width, looked = max(1, _AHEAD * self._threads()), time.monotonic()
            while jobs and len(under_way) < width:
                job = jobs.popleft()
                future = self._client.submit(do, job, pure=False)
                under_way[future.key] = job
                future.add_done_callback(self._done.put)
            try:
                future = self._done.get(timeout=_LOOK_S)
            except queue.Empty:
                self._wait_for_scheduler()
                self._wait_for_workers()
                continue
            answer = self._answer(future, under_way.pop(future.key))
            yield answer
            if answer.blameless:
                self._wait_for_scheduler()

    def _answer(self, future: Any, job: Job) -> RunAnswer:
        if future.status == "cancelled":
            return worker_died(job, "the Dask cluster", blameless=True)
        try:
            answer: RunAnswer = future.result(timeout=self._patience_s)
        except Exception as error:  # KilledWorker, CommClosedError, a timeout: whatever Dask has to say
            return worker_died(job, f"a Dask worker: {type(error).__name__}")
        finally:
            future.release()
        return answer

    def _threads(self) -> int:
        """How many runs the cluster does at once; 0 while the scheduler does not answer."""
        if self._client.status != "running":
            return 0
        try:
            return int(sum(self._client.nthreads().values()))
        except OSError:  # it went away just now; its futures will tell
            return 0

    def _wait_for_scheduler(self) -> None:
        if self._client.status == "running":
            return
        self._reconnects_remaining -= 1
        until = time.monotonic() + self._patience_s
        while self._reconnects_remaining >= 0 and self._client.status == "connecting" and time.monotonic() < until:
            time.sleep(_LOOK_S / 10)
        if self._client.status != "running":
            raise BrokenError(f"{self.name} cannot be reached any more; finished runs are stored, use --resume")
        self._check_workers()

    def _wait_for_workers(self) -> None:
        until = time.monotonic() + self._workerless_s
        while self._client.status == "running" and not self._threads():
            if time.monotonic() > until:
                raise BrokenError(f"{self.name} has no workers; finished runs are stored, use --resume")
            time.sleep(_LOOK_S / 10)

    def _check_workers(self) -> None:
        """BrokenError when a worker runs another version of this program."""
        self._wait_for_workers()
        try:
            answers: dict[str, Any] = self._client.run(this_program, on_error="return")
        except OSError as error:
            raise BrokenError(f"{self.name} cannot be reached any more: {one_line(error)}") from None
        for worker, answer in answers.items():
            if not isinstance(answer, Program):
                raise InputError(f"the Dask worker {worker} cannot run migemu: {one_line(answer)}")
            this_program().compare(answer)

    def close(self) -> None:
        """Cancel what is under way and disconnect; the cluster itself goes on."""
        self._client.close(timeout=5)


def _connect(address: str, patience_s: float) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ExtraError("--dask", "dask.distributed", "dask") from None
    # Its loggers tell of each lost connection at length; what matters is told in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=min(patience_s, 10.0), set_as_default=False)
    except (OSError, ValueError) as error:  # a time-out is an OSError too
        raise BrokenError(f"no Dask scheduler answers at {address}: {one_line(error)}") from None
