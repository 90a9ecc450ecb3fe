"""`migemu sweep`: many runs, kept as they finish. Exit 0 all done, 2 impossible cells, 3 failed runs, 130 Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from migemu.cli.sweep_history import history
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.process.completing import sweep_names
from migemu.process.context import Commands
from migemu.process.options import json_option, quiet_option
from migemu.process.runner import Voice, end_signals, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.experiment.campaign import Tally
    from migemu.experiment.executors import Executor
    from migemu.experiment.results import Changes, Results
    from migemu.experiment.sweep_file import Sweep


class _Sweep(Commands):
    """`migemu sweep FILE` is `migemu sweep run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from migemu.experiment.shipped import shipped
        from migemu.values import unknown

        word = args[0] if args else "-"
        if len(args) > 1 and not word.startswith("-") and Path(word).suffix == "" and not Path(word).exists():
            known = [*self.commands, *shipped()]
            if word not in known:
                ctx.fail(unknown("sweep or command", word, known))
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Sweep)
def sweep() -> None:
    """Run many scenarios and keep what they came to; `migemu sweep FILE` is short for `migemu sweep run FILE`."""


@sweep.command("run")
@click.argument(
    "file", metavar="[SWEEP.toml]", required=False, shell_complete=sweep_names, type=click.Path(path_type=Path)
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR",
              help="Where sweep.sqlite goes. Default: runs/sweep-<name>.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with what DIR holds: done runs stay, failed ones are tried again.")
@click.option("--only", metavar="AXIS=VALUE,...", default="", help="Run these cells alone; the others stay to be done.")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="Use N processes. Default: this one alone.")
@click.option("--dask", metavar="tcp://HOST:PORT", help="Use the Dask cluster of this scheduler.")
@click.option("--measured", is_flag=True, help="Run each cell as `migemu run` does, in real time. Default: modelled.")
@click.option("--keep", is_flag=True, help="Keep the files of each run (trace, result) in DIR/cells too.")
@click.option("--report", is_flag=True, help="Also write DIR/report.html: every figure over the axes, all cells.")
@click.option("--list", "list_", is_flag=True, help="List the sweeps that come with migemu, and end.")
@click.option("--world", hidden=True, default="", help="Dotted name of the function that runs a cell.")
@json_option
@quiet_option
def run(
    file: Path | None, out: Path | None, resume: bool, only: str, workers: int | None, dask: str | None, measured: bool,
    keep: bool, report: bool, list_: bool, world: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run every cell of a sweep with every seed. SWEEP.toml is a file, or the name of a shipped sweep.

    \b
    Examples:
        migemu sweep hgm_question --workers 4
        migemu sweep hgm_question --only piece=4K,order=fill_pmd
        migemu sweep mine.toml --out runs/mine --resume
        migemu sweep export runs/mine --csv mine.csv

    A finished run is on disk at once: after a kill, `--resume` goes on where it was. Cells that no scenario can be made
    of are named, and the rest runs. Exit codes: 0 all done, 2 bad input or impossible cells, 3 runs failed or something
    broke, 130 interrupted.
    """

    from migemu.cli.report import write_sweep_report
    from migemu.experiment.run_world import MEASURED, MODELLED, find_world
    from migemu.experiment.shipped import find
    from migemu.experiment.sources import SWEEP_FILE
    from migemu.experiment.sweep_file import load_sweep

    if list_:
        _list()
        return
    voice = Voice(stderr_console())
    before = {number: signal.signal(number, _interrupted) for number in end_signals()}
    try:
        if file is None:
            raise InputError("give a sweep: a file, or one of those that `migemu sweep --list` shows")
        if dask is not None and (workers is not None or measured):
            raise InputError("--dask goes neither with --workers nor with --measured: give one of them")
        world = world or (MEASURED if measured else MODELLED)
        find_world(world)
        plan = load_sweep(find(file))
        chosen = _chosen(plan, only)
        directory = out or Path("runs") / f"sweep-{plan.name}"
        tally = _run(voice, plan, directory, world, chosen, resume, keep, _executor(workers, dask), quiet or as_json)
        _report(voice, plan, directory, chosen, tally, as_json, quiet)
        is_written = not report or write_sweep_report(voice, directory / SWEEP_FILE, quiet or as_json)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    broken = tally.failed or not is_written
    sys.exit(BrokenError.exit_code if broken else InputError.exit_code if plan.impossible else 0)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class _Later:
    """An executor that is made when there is something to do: it may start processes, or fail to connect."""

    def __init__(self, workers: int | None, dask: str | None) -> None:
        self._workers, self._dask = workers, dask

    def make(self, runs: int) -> Executor:
        from migemu.experiment.executors import InProcess

        if self._dask is not None:
            from migemu.experiment.cluster import Cluster

            return Cluster(self._dask)
        if self._workers is not None:
            from migemu.experiment.processes import Processes

            return Processes(max(1, min(self._workers, runs)))
        return InProcess()


def _executor(workers: int | None, dask: str | None) -> _Later:
    return _Later(workers, dask)


def _run(
    voice: Voice, plan: Sweep, directory: Path, world: str, chosen: Collection[str] | None, resume: bool, keep: bool,
    later: _Later, quiet: bool,
) -> Tally:  # fmt: skip
    from migemu.experiment.campaign import Campaign
    from migemu.experiment.campaign_progress import CampaignProgress
    from migemu.experiment.results import Results
    from migemu.experiment.sources import SWEEP_FILE
    from migemu.store.output import risk

    for cell in plan.impossible:
        voice.notice(f"{cell.name} is impossible: {cell.problem}")
    if len(plan.impossible) == len(plan.cells):
        raise InputError(f"{plan.name}: none of its {len(plan.cells)} cells is possible")
    if (reason := risk(directory)) is not None:
        voice.notice(f"--out {directory}: {reason}: what is written there may be replaced by somebody else")
    path = directory / SWEEP_FILE
    results = Results.resume(path, world) if resume and path.exists() else Results.create(path, plan, world)
    with results, CampaignProgress(voice.console, plan.name, quiet) as watch:
        if resume:
            _tell_changes(voice, results, plan)
            results.adopt(plan)
        campaign = Campaign(plan, world, results, watch, chosen, directory / "cells" if keep else None)
        executor = later.make(len(plan.cells) * len(plan.seeds))
        try:
            return campaign.run(executor)
        except (MigemuError, KeyboardInterrupt) as error:
            kept = campaign.tally.done + campaign.tally.already_done
            voice.notice(
                f"{kept:,} runs are done and kept in {path}, {campaign.tally.remaining:,} are left: use --resume"
            )
            raise error
        finally:
            executor.close()


def _chosen(plan: Sweep, only: str) -> Collection[str] | None:
    from migemu.experiment.cell import parse_selector, selected

    if not only:
        return None
    axes = dict.fromkeys(axis for cell in plan.cells for axis in cell.coordinates)
    wanted = parse_selector(only, axes)
    names = {cell.name for cell in plan.cells if selected(wanted, cell.coordinates)}
    if not names:
        raise InputError(f"--only {only}: no cell of {plan.name} is there")
    return names


def _tell_changes(voice: Voice, results: Results, plan: Sweep) -> None:
    from migemu.experiment.program import Program, this_program

    changes = results.changes(plan)
    if changes:
        voice.notice(f"the sweep file has changed since: {_changes(changes)}; their runs stay in the file")
    program = Program.parse(results.head("program"))
    if program != this_program():
        voice.notice(f"the stored runs were made by other code ({program}, now {this_program()}): each run says which")


def _changes(changes: Changes) -> str:
    from migemu.experiment.text_tables import few

    parts = [
        (changes.new, "cells are new"), (changes.gone, "cells are gone"), (changes.changed, "cells are others"),
        (tuple(map(str, changes.seeds_new)), "seeds are new"), (tuple(map(str, changes.seeds_gone)), "seeds are gone"),
    ]  # fmt: skip
    return "; ".join(f"{len(names)} {what}: {few(names)}" for names, what in parts if names)


def _report(
    voice: Voice, plan: Sweep, directory: Path, chosen: Collection[str] | None, tally: Tally, as_json: bool, quiet: bool
) -> None:  # fmt: skip
    from migemu.experiment.comparison import too_few
    from migemu.experiment.sources import SWEEP_FILE

    path = directory / SWEEP_FILE
    if as_json:
        click.echo(json.dumps(_as_json(plan, path, tally), indent=2))
    elif not quiet:
        _show(plan, directory, chosen)
        if caution := too_few(len(plan.seeds)):
            voice.notice(caution)
    if tally.failed:
        voice.notice(f"{len(tally.failed)} runs failed (named above); --resume tries them again")
    if plan.impossible:
        voice.notice(f"{len(plan.impossible)} of {len(plan.cells)} cells are impossible (named above)")


def _show(plan: Sweep, directory: Path, chosen: Collection[str] | None) -> None:
    """The table of the cells that were asked for, how many others there are, and where all of it is."""

    from rich.console import Console

    from migemu.experiment.results import Results
    from migemu.experiment.sources import SWEEP_FILE
    from migemu.experiment.text_tables import sweep_table

    path = directory / SWEEP_FILE
    with Results.read(path) as results:
        table = sweep_table(plan.name, (run for run in results.runs() if chosen is None or run.cell in chosen))
        possible = results.possible()
    if table is not None:
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    others = [name for name in possible if chosen is not None and name not in chosen]
    if others:
        click.echo(f"\nleft out by --only: {len(others)} of {len(possible)} cells")
    click.echo(f"\nresults: {path}; compare cells with migemu compare {directory}:AXIS=VALUE {directory}:AXIS=OTHER")


def _as_json(plan: Sweep, path: Path, tally: Tally) -> dict[str, Any]:
    return {
        "sweep": plan.name,
        "results": str(path),
        "cells": len(plan.cells),
        "seeds": list(plan.seeds),
        "done": tally.done,
        "already_done": tally.already_done,
        "failed": [{"cell": cell, "seed": seed, "error": error} for cell, seed, error in tally.failed],
        "impossible": [{"cell": cell.name, "problem": cell.problem} for cell in plan.impossible],
    }


def _list() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from migemu.experiment.shipped import shipped
    from migemu.experiment.sweep_file import load_sweep

    table = Table("name", "cells", "seeds", "what it asks", "axes", title="shipped sweeps", title_justify="left")
    for name, path in shipped().items():
        plan = load_sweep(path)
        axes = ", ".join(f"{axis.name} ({len(axis.values)})" for axis in plan.axes)
        table.add_row(name, str(len(plan.cells)), str(len(plan.seeds)), escape(plan.description), escape(axes))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print("Run one as in: migemu sweep hgm_question --workers 4", markup=False, highlight=False)


@sweep.command("export")
@click.argument("db", metavar="DB", type=click.Path(path_type=Path))
@click.option("--csv", "csv", type=click.Path(path_type=Path), metavar="FILE", help="Write a CSV file.")
@click.option(
    "--parquet", type=click.Path(path_type=Path), metavar="FILE", help="Write a Parquet file (needs pyarrow)."
)
def export(db: Path, csv: Path | None, parquet: Path | None) -> None:
    """Write the runs of a sweep as one flat table: a row for each run, a column for each axis and figure.

    DB is sweep.sqlite, or the directory that it is in.
    """

    from migemu.experiment.export import to_csv, to_parquet
    from migemu.experiment.results import Results
    from migemu.experiment.sources import SWEEP_FILE
    from migemu.store.output import writing

    voice = Voice(stderr_console())
    try:
        if csv is None and parquet is None:
            raise InputError("give --csv FILE, --parquet FILE or both")
        db = db / SWEEP_FILE if db.is_dir() else db
        with Results.read(db) as results, ExitStack() as stack:
            wanted = [(path, write) for path, write in ((csv, to_csv), (parquet, to_parquet)) if path is not None]
            outputs = [stack.enter_context(writing(path, inputs=[db])) for path, _ in wanted]  # all, before the first
            rows = [write(results, output) for output, (_, write) in zip(outputs, wanted, strict=True)]
        for (path, _), count in zip(wanted, rows, strict=True):
            click.echo(f"{count:,} runs in {path}")
    except MigemuError as error:
        exit_with(voice, error)


sweep.add_command(history)
