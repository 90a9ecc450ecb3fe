"""`migemu sim`: one migration in virtual time, in this process; and the same as a function, for sweeps."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from migemu.errors import BrokenError, InputError, MigemuError
from migemu.process.options import RunOptions, load_scenario, run_options
from migemu.process.runner import Voice, end_signals, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.worlds.modelled import Simulation

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
@run_options
@click.option("--seed", metavar="N", help="The same as --set scenario.seed=N.")
@click.option(
    "--pace",
    type=float,
    default=0.0,
    metavar="F",
    help="Play it: F seconds of virtual time in each of real time; 0 (the default) is as fast as it goes.",
)
def sim(options: RunOptions, seed: str | None, pace: float) -> None:
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

    from migemu.cli.live import watched
    from migemu.cli.run_ending import show_and_write
    from migemu.report.terminal.progress import Progress
    from migemu.sim.pace import WallPace
    from migemu.sim.waiting import SimulationError
    from migemu.worlds.modelled import Simulation
    from migemu.worlds.pair import run_directory

    voice = Voice(stderr_console())
    extra = (f"scenario.seed={seed}",) if seed is not None else ()
    scenario = load_scenario(voice, options.scenario_file, (*options.assignments, *extra))
    if pace and not _PACE_MIN <= pace <= 1 / _PACE_MIN:
        exit_with(voice, InputError(f"--pace {pace}: give {_PACE_MIN} to {1 / _PACE_MIN:.0f}, or 0 for no pace"))
    directory = options.out or run_directory(scenario.scenario.name)
    if options.live:
        click.get_current_context().with_resource(watched(voice, directory))
    with Progress(voice.console, scenario.scenario.name, options.is_silent) as progress:
        simulation = Simulation(
            scenario, directory, trace=options.traces, pace=WallPace(pace) if pace else None, progress=progress,
            inputs=[options.scenario_file] if options.scenario_file else [], notice=progress.note,
        )  # fmt: skip
        try:
            with _heard(simulation):
                result = simulation.run()
        except MigemuError as error:  # the result cannot be written
            exit_with(voice, error)
    all_written = not result or show_and_write(voice, options, directory, result)
    if isinstance(simulation.error, SimulationError):
        raise simulation.error  # a bug of ours
    if simulation.error is not None:
        exit_with(voice, simulation.error)
    sys.exit(0 if all_written else BrokenError.exit_code)
