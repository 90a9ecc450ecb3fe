"""`migemu sim`: one migration in virtual time, in this process; and the same as a function, for sweeps."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from dest_node.service import Destination
from migemu.command import (
    Voice,
    exit_with,
    json_option,
    load_scenario,
    quiet_option,
    report_option,
    scenario_argument,
    set_option,
    stderr_console,
    trace_option,
)
from migemu.errors import BrokenError, MigemuError, one_line
from migemu.pair import new_directory
from migemu.ports import Clock, Network, SourceMemory, Tracer
from migemu.report.progress import Progress
from migemu.report.result import build, write
from migemu.report.status import Status
from migemu.report.summary import summary
from migemu.reporting import write_report
from migemu.scenario import Scenario
from migemu.sim.pace import WallPace
from migemu.sim.waiting import SimulationError
from migemu.sim.world import Allocate, World
from migemu.trace.recorder import FileRecorder
from source_node.service import Source

#: Wall time between two looks at a simulation that runs.
_LOOK_S: Final = 0.1


class _Services:
    """sim.world.Nodes: the services that run in real time too."""

    def destination(
        self, scenario: Scenario, network: Network, clock: Clock, allocate: Allocate, tracer: Tracer | None
    ) -> Destination:
        return Destination(
            scenario, network, clock, allocate, read_text=lambda path: Path(path).read_text(encoding="utf-8"),
            notice=lambda _: None, tracer=tracer,
        )  # fmt: skip

    def source(
        self, scenario: Scenario, network: Network, clock: Clock, memory: SourceMemory, migration: str,
        tracer: Tracer | None,
    ) -> Source:  # fmt: skip
        return Source(scenario, network, clock, memory, migration, tracer)


class Simulation:
    """One run of a world, and what becomes of it."""

    def __init__(
        self, scenario: Scenario, directory: Path | None = None, *, trace: bool = False, pace: float = 0.0,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Files go to `directory`, if there is one. `pace`: wall time per virtual time; 0 is as fast as it goes."""
        self.error: BaseException | None = None
        self.result: dict[str, Any] = {}
        self._scenario = scenario
        self._directory = directory
        self._trace = trace and directory is not None
        self._pace = WallPace(pace) if pace else None
        self._progress = progress
        self._looked_s = 0.0
        self._world: World | None = None

    def run(self) -> dict[str, Any]:
        """Play it, write what there is to write; the result. What went wrong is in `error`, and told in the result."""
        with ExitStack() as stack:
            tracer: Tracer | None = None
            try:
                if self._directory is not None:
                    _write_scenario(self._scenario, self._directory)
                if self._trace and self._directory is not None:
                    tracer = stack.enter_context(FileRecorder(self._directory / "trace.jsonl", "modelled"))
                self._world = World(self._scenario, _Services(), tracer, pace=self._step)
                self._world.run()
                self._judge(self._world)
            except (MigemuError, SimulationError, KeyboardInterrupt) as error:
                self.error = error
        self.result = self._build()
        if self._directory is not None and self.result:
            write(self.result, self._directory)
        return self.result

    def _judge(self, world: World) -> None:
        """Every rule held, or the run is worth nothing."""
        for violation in world.watch.violations.values():
            raise BrokenError(
                f"the rule {violation.rule} of `migemu check` is broken at {violation.event}: {violation.reason}; "
                "this is a bug of migemu's, or of a policy or workload of yours"
            )

    def _step(self, from_ns: int, to_ns: int) -> None:
        """The clock is about to move."""
        if self._pace is not None:
            self._pace(from_ns, to_ns)
        if self._progress is not None and (now_s := time.monotonic()) - self._looked_s > _LOOK_S:
            self._looked_s = now_s
            destination = self._world.destination if self._world is not None else None
            if isinstance(destination, Destination) and destination.incoming is not None:
                self._progress.show(Status.of(destination.incoming.snapshot()))

    def _build(self) -> dict[str, Any]:
        world = self._world
        destination = world.destination if world is not None else None
        if world is None or not isinstance(destination, Destination) or destination.incoming is None:
            return {}
        status = "completed" if self.error is None else "failed"
        if isinstance(self.error, KeyboardInterrupt):
            status = "interrupted"
        error = one_line(self.error) or "interrupted" if self.error is not None else ""
        outcome = replace(destination.incoming.outcome(), trace_digest=world.watch.digest)
        return build(outcome, self._scenario, "modelled", status, error)


def run_cell(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """Run `scenario` in virtual time; the result. Files go to `directory`, if there is one. MigemuError as it comes."""
    simulation = Simulation(scenario, directory)
    result = simulation.run()
    if simulation.error is not None:
        raise simulation.error
    return result


def _write_scenario(scenario: Scenario, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "scenario.toml").write_text(scenario.toml(), encoding="utf-8")
    except OSError as error:
        raise BrokenError(f"{directory}: cannot be written: {error.strerror}") from None


@click.command()
@scenario_argument
@set_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The same as --set scenario.seed=N.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where result.json and the rest go. Default: runs/<time>-<name>.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 1e6),
    default=0.0,
    metavar="F",
    help="Play it: F seconds of real time for each of virtual time; 0 (the default) is as fast as it goes.",
)
@json_option
@quiet_option
@trace_option
@report_option
def sim(
    scenario_file: Path | None, assignments: tuple[str, ...], seed: int | None, out: Path | None, pace: float,
    as_json: bool, quiet: bool, trace: bool, report: bool,
) -> None:  # fmt: skip
    """Run a migration in virtual time: both services, unchanged, over an emulated link, without bytes.

    \b
    The same scenario, seed and code give the same trace, to the nanosecond. Collapses and system calls take as long as
    the cost model says ([costs]); every event is judged by the rules of `migemu check` as it happens.
    Examples:
        migemu sim --set link.preset=25G --set guest.vcpus=48 --set memory.size=16G
        migemu sim slow.toml --seed 7 --trace --out runs/slow
        migemu sim --set link.rate=1Gbit --set link.delay=1ms --pace 0.5     (watch it)

    Outputs, options and exit codes are those of `migemu run`; `kind` is "modelled".
    """
    voice = Voice(stderr_console())
    extra = (f"scenario.seed={seed}",) if seed is not None else ()
    scenario = load_scenario(voice, scenario_file, (*assignments, *extra))
    directory = out or new_directory(Path("runs"), scenario.scenario.name, datetime.now().strftime("%Y%m%d-%H%M%S"))  # noqa: DTZ005 - the user's own time
    with Progress(voice.console, scenario.scenario.name, quiet or as_json) as progress:
        simulation = Simulation(scenario, directory, trace=trace or report, pace=pace, progress=progress)
        try:
            result = simulation.run()
        except MigemuError as error:  # the result cannot be written
            exit_with(voice, error)
    if result and as_json:
        click.echo(json.dumps(result, indent=2))
    elif result and result["time_ns"]["postcopy"] and not quiet:
        Console().print(summary(result))
        click.echo(f"\nresult: {directory}/result.json")
    if report and result:
        write_report(voice, directory, quiet or as_json)
    if isinstance(simulation.error, SimulationError):
        raise simulation.error  # a bug of ours
    if simulation.error is not None:
        exit_with(voice, simulation.error)
    sys.exit(0)
