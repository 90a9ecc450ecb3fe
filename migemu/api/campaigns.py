"""`migemu.sweep`: many runs from a program, over a grid of settings or from a sweep file."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final

from migemu.api import own_loop
from migemu.api.given_settings import WHERE, Settings, layered, make_scenario
from migemu.errors import ExtraError, InputError, ScenarioError
from migemu.experiment.campaign import Campaign
from migemu.experiment.cell import Cell, parse_selector, selected
from migemu.experiment.executors import Executor, InProcess
from migemu.experiment.export import table
from migemu.experiment.results import Results
from migemu.experiment.run_world import MEASURED, MODELLED, RunAnswer
from migemu.experiment.shipped import find
from migemu.experiment.sources import SWEEP_FILE
from migemu.experiment.sweep_file import Sweep, load_sweep
from migemu.values import refusal

_LOG: Final = logging.getLogger("migemu")


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep. `rows` has one for each run: its cell, axes, seed, status, and every figure by its key."""

    name: str
    rows: list[dict[str, Any]]
    failed: list[tuple[str, int, str]]
    """(cell, seed, error) of each run that failed."""
    impossible: dict[str, str]
    """Cells of which no scenario can be made, and why."""
    path: Path | None
    """The file sweep.sqlite, for `migemu compare` and `migemu report`; None without `out`."""

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of `rows`. ExtraError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ExtraError("to_pandas()", "pandas", "notebook") from None
        return pandas.DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<SweepResult {self.name}: {len(self.rows)} runs, {len(self.failed)} failed>"


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is carried out; as the options of `migemu sweep run` of these names."""

    resume: bool = False
    only: str = ""
    workers: int | None = None
    measured: bool = False


def sweep(
    plan: Mapping[str, Sequence[Any]] | str | PathLike[str], *settings: Settings, seeds: Iterable[int] = (1,),
    out: str | PathLike[str] | None = None, options: SweepOptions = SweepOptions(),
) -> SweepResult:  # fmt: skip
    """Run every cell of a sweep with every seed.

    `plan` is a mapping of settings to the values that each takes (`{"push.piece": ["4K", "2M"]}`), with `settings` for
    all cells as of `migemu.simulate`; or a sweep file, or the name of a shipped sweep, which bring settings and seeds
    of their own. `out` is a directory where finished runs are kept, so that `SweepOptions(resume=True)` goes on after
    an interruption.

    With `workers` the runs go to so many processes; a script that asks for them needs `if __name__ == "__main__":`, as
    with multiprocessing. A run that fails is in `failed`, and the others go on. Ctrl-C where an event loop is running
    (a notebook) ends the sweep after the run that is under way.

    ScenarioError: the sweep or a setting is wrong. InputError: `out` holds results already, or no cell is possible.
    BrokenError: a disk that is full.

    >>> import migemu
    >>> small = {"memory.geometry": "tiny", "memory.size": "64K", "guest.vcpus": 1}
    >>> found = migemu.sweep({"collapse.policy": ["never", "eager"]}, small, seeds=[1, 2])
    >>> [(row["axis.collapse.policy"], row["seed"], row["page_table.pud"]) for row in found.rows]
    [('never', 1, 0), ('never', 2, 0), ('eager', 1, 1), ('eager', 2, 1)]
    """
    with tempfile.TemporaryDirectory(prefix="migemu-") as temporary:
        planned = _planned(plan, settings, seeds, Path(temporary))
        if len(planned.impossible) == len(planned.cells):
            raise InputError(f"{planned.name}: none of its {len(planned.cells)} cells is possible: "
                             f"{planned.impossible[0].problem}")  # fmt: skip
        path = Path(temporary if out is None else out) / SWEEP_FILE
        watch = _Stoppable()
        found = own_loop.do(partial(_carry_out, planned, path, watch, options), watch.interrupt)
    impossible = {cell.name: cell.problem for cell in planned.impossible}
    return SweepResult(planned.name, *found, impossible, None if out is None else path)


def _planned(
    plan: Mapping[str, Sequence[Any]] | str | PathLike[str], settings: Sequence[Settings], seeds: Iterable[int],
    temporary: Path,
) -> Sweep:  # fmt: skip
    if not isinstance(plan, Mapping):
        if settings or tuple(seeds) != (1,):
            raise InputError("a sweep file brings its own settings and seeds; leave them out, or give axes")
        return load_sweep(find(Path(plan)))
    make_scenario(settings)  # so that a mistake is told of the settings, not of a file that nobody has written
    lines = ["[sweep]", 'name = "sweep"', f"seeds = {json.dumps([*seeds])}"]
    base = layered(settings)
    base.pop("scenario", None)  # a run of a sweep is called after its cell, and has a seed of the sweep
    for section, values in base.items():
        lines += [f"[base.{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    for setting, axis in plan.items():
        if isinstance(axis, str) or not isinstance(axis, Iterable):
            raise ScenarioError(WHERE, str(setting), refusal(axis, 'a list such as ["4K", "2M"]'))
        lines += ["[[axis]]", f"setting = {json.dumps(setting)}", f"values = {json.dumps([*axis])}"]
    file = temporary / "sweep.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_sweep(file)


class _Stoppable:
    """A campaign's Watcher that can be asked to end it, and otherwise puts what is worth knowing into the log."""

    def __init__(self) -> None:
        self._asked = False

    def interrupt(self) -> None:
        """End the campaign when the next run has ended; a second time, at once."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def began(self, runs: int, already_done: int) -> None:
        """As of `Watcher`; the number of runs is not shown to a program."""

    def ended(self, cell: Cell, seed: int, answer: RunAnswer) -> None:
        """Say what failed, and end the campaign if that was asked for."""
        if answer.error:
            self.note(f"{cell.name}, seed {seed}: {answer.error}")
        if self._asked:
            raise KeyboardInterrupt

    def note(self, line: str) -> None:
        """Put a line into the log."""
        _LOG.warning(line)


def _carry_out(
    plan: Sweep, path: Path, watch: _Stoppable, options: SweepOptions
) -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    """The rows of all runs, and those that failed."""
    world = MEASURED if options.measured else MODELLED
    chosen = _chosen(plan, options.only)
    is_there = options.resume and path.exists()
    with Results.resume(path, world) if is_there else Results.create(path, plan, world) as results:
        if is_there:
            results.adopt(plan)
        executor = _executor(options.workers)
        try:
            tally = Campaign(plan, world, results, watch, chosen).run(executor)
        finally:
            executor.close()
        return table(results)[1], tally.failed


def _executor(workers: int | None) -> Executor:
    if workers is None:
        return InProcess()
    from migemu.experiment.processes import Processes

    return Processes(workers)


def _chosen(plan: Sweep, only: str) -> Collection[str] | None:
    if not only:
        return None
    wanted = parse_selector(only, dict.fromkeys(axis for cell in plan.cells for axis in cell.coordinates))
    names = {cell.name for cell in plan.cells if selected(wanted, cell.coordinates)}
    if not names:
        raise InputError(f"only={only!r}: no cell of {plan.name} is there")
    return names
