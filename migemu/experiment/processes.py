"""Workers on this machine: `concurrent.futures`, one pool of one process for each worker.

One pool of N processes breaks as a whole when one of them dies, and does not say which run it died of. N pools of one
break one at a time: the run that killed its worker is known, and the others go on.

Workers are started afresh (`spawn`): a fork of a process with threads may inherit their locks. They ignore Ctrl-C
and SIGHUP, which reach them too from a terminal: the parent decides. If the parent is killed they end at once: by
itself a pool's worker would wait for ever for its next run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from migemu import stdio
from migemu.experiment.run_world import Job, RunAnswer, do, worker_died


def _prepare() -> None:
    """The first thing that a worker does: ignore signals of the terminal, and end when its parent does."""
    stdio.secure()
    logging.getLogger("migemu").addHandler(logging.NullHandler())  # whoever started it has told the same
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


class Processes:
    """An Executor with `workers` processes on this machine."""

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._pools = [self._pool() for _ in range(workers)]
        self.name = f"{workers} worker processes" if workers > 1 else "1 worker process"

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_prepare)

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs; a worker that dies is replaced, and its job gets an answer that says so."""
        idle = list(reversed(range(len(self._pools))))
        under_way: dict[Future[RunAnswer], tuple[int, Job]] = {}
        while jobs or under_way:
            while jobs and idle:
                number, job = idle.pop(), jobs.popleft()
                under_way[self._submit(number, job)] = (number, job)
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: under_way[each][1].number):
                number, job = under_way.pop(future)
                idle.append(number)
                yield self._answer(future, number, job)

    def _submit(self, number: int, job: Job) -> Future[RunAnswer]:
        try:
            return self._pools[number].submit(do, job)
        except BrokenProcessPool:  # it died while it was idle: nobody's run is lost
            self._replace(number)
            return self._pools[number].submit(do, job)

    def _answer(self, future: Future[RunAnswer], number: int, job: Job) -> RunAnswer:
        try:
            return future.result()
        except BrokenProcessPool:
            self._replace(number)
            return worker_died(job, f"worker process {number + 1}")

    def _replace(self, number: int) -> None:
        self._pools[number].shutdown(wait=False, cancel_futures=True)
        self._pools[number] = self._pool()

    def close(self) -> None:
        """Kill all workers now; a run that is under way is lost."""
        for pool in self._pools:
            # The pool itself would wait for the run to end. Its processes are ours alone; ending them is safe.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
