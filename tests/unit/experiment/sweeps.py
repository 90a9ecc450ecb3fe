"""Sweep files for tests, and the shortest way from text to one that is loaded or run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from migemu.experiment.campaign import Campaign, Tally
from migemu.experiment.cell import Cell
from migemu.experiment.executors import Executor, InProcess
from migemu.experiment.results import Results
from migemu.experiment.run_world import RunAnswer
from migemu.experiment.sweep_file import Sweep, load_sweep
from tests.unit.experiment.worlds import PLAIN

PIECES: Final = """
[sweep]
name = "pieces"
seeds = [1, 2, 3]
[base.memory]
size = "2G"
[[axis]]
name = "piece"
setting = "push.piece"
values = ["4K", "2M"]
[[axis]]
name = "policy"
setting = "collapse.policy"
values = ["never", "batched:spans=16"]
"""


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.runs = self.already = 0
        self.ends: list[tuple[str, int, str]] = []
        self.lines: list[str] = []

    def began(self, runs: int, already_done: int) -> None:
        self.runs, self.already = runs, already_done

    def ended(self, cell: Cell, seed: int, answer: RunAnswer) -> None:
        self.ends.append((cell.name, seed, answer.error))

    def note(self, line: str) -> None:
        self.lines.append(line)


def sweep_of(folder: Path, text: str = PIECES, name: str = "pieces.toml") -> Sweep:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_sweep(path)


def run(
    sweep: Sweep, path: Path, world: str = PLAIN, executor: Executor | None = None, notes: Notes | None = None,
    resume: bool = False,
) -> Tally:  # fmt: skip
    """Run a sweep into `path`."""
    results = Results.resume(path, world) if resume else Results.create(path, sweep, world)
    with results:
        results.adopt(sweep)
        return Campaign(sweep, world, results, notes or Notes()).run(executor or InProcess())
