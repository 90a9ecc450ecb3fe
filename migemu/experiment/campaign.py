"""A campaign: the runs of a sweep that are still to do, from the queue through an executor into the results.

Rules of this file
    1. Seed by seed, all cells with the first seed first: a campaign that is cut short has complete comparisons.
    2. A run whose worker died is tried again, `ATTEMPTS_MAX` times in all, then it counts as failed. One that was lost
       with the whole cluster goes back to the queue for free; the executor bounds how often that happens.
    3. Whatever ends a campaign early - Ctrl-C, a cluster that is gone, a full disk - leaves all finished runs in place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from migemu.experiment.cell import Cell
from migemu.experiment.executors import Executor
from migemu.experiment.program import this_program
from migemu.experiment.results import Results
from migemu.experiment.run_world import Job, RunAnswer
from migemu.experiment.sweep_file import Sweep

ATTEMPTS_MAX: Final = 2


class Watcher(Protocol):
    """Observes a campaign: methods are called as runs end."""

    def began(self, runs: int, already_done: int) -> None:
        """`runs` are to be done; `already_done` were done by an earlier call."""
        ...

    def ended(self, cell: Cell, seed: int, answer: RunAnswer) -> None:
        """A run has ended, and its result or error is stored."""
        ...

    def note(self, line: str) -> None:
        """A line that the user should see."""
        ...


@dataclass(slots=True)
class Tally:
    """Counts of a campaign. `failed` are (cell, seed, error)."""

    done: int = 0
    already_done: int = 0
    remaining: int = 0
    failed: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Campaign:
    """The runs of `sweep` in `world`; `cells` selects some of them, `keep` is the directory for the files of runs."""

    sweep: Sweep
    world: str
    results: Results
    watcher: Watcher
    cells: Collection[str] | None = None
    keep: Path | None = None
    tally: Tally = field(default_factory=Tally)
    _runs: dict[int, tuple[Cell, int]] = field(default_factory=dict)

    def jobs(self) -> deque[Job]:
        """The runs that are not done yet, in the order of rule 1."""
        done, program, jobs = self.results.done(), this_program(), deque[Job]()
        for seed in self.sweep.seeds:
            for position, cell in enumerate(self.sweep.cells):
                if cell.scenario is None or (self.cells is not None and cell.name not in self.cells):
                    continue
                if (cell.name, cell.digest, seed) in done:
                    self.tally.already_done += 1
                    continue
                number = len(self._runs)
                self._runs[number] = (cell, seed)
                directory = str(self.keep / f"{position:04}-seed{seed}") if self.keep else None
                jobs.append(Job(number, self.world, cell.seeded(seed).resolved(), directory, program))
        self.tally.remaining = len(jobs)
        return jobs

    def run(self, executor: Executor) -> Tally:
        """Do all remaining runs; `tally` counts them. BrokenError and KeyboardInterrupt end it early."""
        jobs, attempts = self.jobs(), Counter[int]()
        self.watcher.began(len(jobs), self.tally.already_done)
        for answer in executor.run(jobs):
            cell, seed = self._runs[answer.job.number]
            if answer.blameless:
                jobs.appendleft(answer.job)
                self.watcher.note(f"{executor.name} went away; {cell.name}, seed {seed}, goes back to the queue")
                continue
            attempts[answer.job.number] += 1
            if answer.worker_died and attempts[answer.job.number] < ATTEMPTS_MAX:
                jobs.append(answer.job)
                self.watcher.note(f"{cell.name}, seed {seed}: {answer.error}; it is tried again")
                continue
            self.results.record(cell, seed, answer, attempts[answer.job.number])
            self.tally.remaining -= 1
            if answer.error:
                self.tally.failed.append((cell.name, seed, answer.error))
            else:
                self.tally.done += 1
            self.watcher.ended(cell, seed, answer)
        return self.tally
