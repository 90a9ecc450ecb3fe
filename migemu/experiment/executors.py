"""Executor: who does the runs. One method; a process of this machine and a cluster differ in nothing else.

Rules of this file
    1. `run(jobs)` takes jobs from the left of the queue and yields answers as they come, in any order. Whoever calls
       may append to the queue between answers: that is how a lost run is tried again. It ends when the queue is empty
       and nothing is under way.
    2. Each job that was taken gives exactly one answer, unless an error is raised: then what was under way is lost, and
       all that was yielded stands.
    3. An executor decides nothing about trying again, and keeps no results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from migemu.experiment.run_world import Job, RunAnswer, do


class Executor(Protocol):
    """Rules 1 to 3. `close` ends whatever it has started; it may be called more than once."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs. BrokenError when it cannot go on."""
        ...

    def close(self) -> None:
        """Let go of processes and connections."""
        ...


class InProcess:
    """One run after the other, here."""

    name = "this process"

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs."""
        while jobs:
            yield do(jobs.popleft())

    def close(self) -> None:
        """There is nothing to let go of."""
