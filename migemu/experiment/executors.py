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
    """The seam to whatever does the runs (rules 1 to 3). `close` may be called more than once."""

    @property
    def name(self) -> str:
        """What it is, for people: "2 processes", for example."""
        ...

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs in the queue and yield an answer for each (rule 1). BrokenError when it cannot go on."""
        ...

    def close(self) -> None:
        """End what it has started: processes, connections."""
        ...


class InProcess:
    """Does one run after the other in this process."""

    name = "this process"

    def run(self, jobs: deque[Job]) -> Iterator[RunAnswer]:
        """Do the jobs of the queue in order; yield an answer for each."""
        while jobs:
            yield do(jobs.popleft())

    def close(self) -> None:
        """Nothing to end: all is done in this process."""
