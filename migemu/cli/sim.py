"""`migemu sim`: one migration in virtual time, in this process; and the same as a function, for sweeps."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from migemu.cli.report import write_perfetto_beside, write_report
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.process.options import (
    json_option,
    load_scenario,
    perfetto_option,
    quiet_option,
    report_option,
    scenario_argument,
    set_option,
    trace_option,
)
from migemu.process.runner import Voice, end_signals, exit_with, stderr_console
from migemu.report.terminal.progress import Progress
from migemu.report.terminal.summary import summary
from migemu.sim.pace import WallPace
from migemu.sim.waiting import SimulationError
from migemu.worlds.modelled import Simulation
from migemu.worlds.pair import new_directory

#: The slowest `--pace`: a virtual microsecond takes a second. Its inverse is the fastest.
_PACE_MIN: Final = 1e-6


@contextmanager
def _heard(simulation: Simulation) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP interrupt it meanwhile."""
    numbers = end_signals()
    before = [signal.signal(number, lambda *_: simulation.interrupt()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@click.command()
@scenario_argument
@set_option
@click.option("--seed", metavar="N", help="The same as --set scenario.seed=N.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where result.json and the rest go. Default: runs/<time>-<name>.",
)
@click.option(
    "--pace",
    type=float,
    default=0.0,
    metavar="F",
    help="Play it: F seconds of virtual time in each of real time; 0 (the default) is as fast as it goes.",
)
@json_option
@quiet_option
@trace_option
@report_option
@perfetto_option
def sim(
    scenario_file: Path | None, assignments: tuple[str, ...], seed: str | None, out: Path | None, pace: float,
    as_json: bool, quiet: bool, trace: bool, report: bool, perfetto: bool,
) -> None:  # fmt: skip
    """Run a migration in virtual time: both services, unchanged, over an emulated link, without bytes.

    \b
    The same scenario, seed and code give the same trace, to the nanosecond. Collapses and system calls take as long as
    the cost model says ([costs]); every event is judged by the rules of `migemu check` as it happens.
    Examples:
        migemu sim --set link.preset=25G --set guest.vcpus=48 --set memory.size=16G
        migemu sim slow.toml --seed 7 --trace --out runs/slow
        migemu sim --set link.rate=1Gbit --set link.delay=1ms --pace 0.5     (watch it at half speed)

    Outputs, options and exit codes are those of `migemu run`; `kind` is "modelled". Exit code 1: a rule is broken.
    """
    voice = Voice(stderr_console())
    extra = (f"scenario.seed={seed}",) if seed is not None else ()
    scenario = load_scenario(voice, scenario_file, (*assignments, *extra))
    if pace and not _PACE_MIN <= pace <= 1 / _PACE_MIN:
        exit_with(voice, InputError(f"--pace {pace}: give {_PACE_MIN} to {1 / _PACE_MIN:.0f}, or 0 for no pace"))
    directory = out or new_directory(Path("runs"), scenario.scenario.name, datetime.now().strftime("%Y%m%d-%H%M%S"))  # noqa: DTZ005 - the user's own time
    with Progress(voice.console, scenario.scenario.name, quiet or as_json) as progress:
        simulation = Simulation(
            scenario, directory, trace=trace or report or perfetto, pace=WallPace(pace) if pace else None,
            progress=progress, inputs=[scenario_file] if scenario_file else [], notice=progress.note,
        )  # fmt: skip
        try:
            with _heard(simulation):
                result = simulation.run()
        except MigemuError as error:  # the result cannot be written
            exit_with(voice, error)
    if result and as_json:
        click.echo(json.dumps(result, indent=2))
    elif result and result["time_ns"]["postcopy"] and not quiet:
        Console().print(summary(result))
        click.echo(f"\nresult: {directory}/result.json")
    choices = ((report, write_report), (perfetto, write_perfetto_beside))
    written = [write(voice, directory, quiet or as_json) for wanted, write in choices if wanted and result]
    if isinstance(simulation.error, SimulationError):
        raise simulation.error  # a bug of ours
    if simulation.error is not None:
        exit_with(voice, simulation.error)
    sys.exit(0 if all(written) else BrokenError.exit_code)
