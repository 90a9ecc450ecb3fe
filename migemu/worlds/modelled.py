"""A whole migration in virtual time: both services, unchanged, in one process on a clock that jumps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dest_node.core.receiver import Receiver
from dest_node.guest.tasks import TaskAccelerator
from dest_node.resumption import CheckpointSink
from dest_node.service import Destination, NoObserver
from dest_node.setup import DestinationSetup
from migemu.analysis.mapping_figures import MappingTracer, pattern_of
from migemu.errors import BrokenError, MigemuError, VerificationError, one_line
from migemu.ports import Clock, Network, SourceMemory, Tracer
from migemu.report.terminal.progress import Progress
from migemu.report.terminal.status_line import Status
from migemu.result import begin, build, write
from migemu.scenario.scenario import Scenario
from migemu.sim.incarnation import SourceRecord
from migemu.sim.loop import Pace
from migemu.sim.waiting import SimulationError
from migemu.sim.world import Allocate, Nodes, World
from migemu.store.earlier import OF_RUN, set_aside
from migemu.store.output import Output, named_files, write_text
from migemu.store.recordings import NamedFiles
from migemu.store.trace_file import FileRecorder
from migemu.trace.events import event_line
from migemu.trace.tee import Tee
from source_node.service import Source

#: Wall time between two looks at a simulation that runs.
_LOOK_S: Final = 0.1


class Services:
    """sim.world.Nodes: the services that run in real time too."""

    def __init__(self, make_receiver: Callable[..., Receiver] = Receiver) -> None:
        """Another receiver than the destination's own is for those who try it."""
        self._make_receiver = make_receiver

    def destination(
        self, scenario: Scenario, network: Network, clock: Clock, allocate: Allocate, tracer: Tracer | None,
        keeping: CheckpointSink | None = None,
    ) -> Destination:  # fmt: skip
        """The destination's service; `keeping` is its checkpoint, if it has one."""
        vcpus = TaskAccelerator(scenario, clock, NamedFiles())
        setup = DestinationSetup(
            scenario=scenario, clock=clock, allocate=allocate, accelerator=vcpus,
            tracer=tracer, make_receiver=self._make_receiver, checkpoint=keeping,
        )  # fmt: skip
        return Destination(network, setup, NoObserver())

    def source(
        self, scenario: Scenario, network: Network, clock: Clock, memory: SourceMemory, migration: str,
        tracer: Tracer | None, record: SourceRecord,
    ) -> Source:  # fmt: skip
        """The service of the source, on these seams."""
        return Source(scenario, network, clock, memory, migration, tracer, journal=record)


class Simulation:
    """One run of a world, and what becomes of it."""

    def __init__(
        self, scenario: Scenario, directory: Path | None = None, *, trace: bool = False, pace: Pace | None = None,
        progress: Progress | None = None, nodes: Nodes | None = None, inputs: Iterable[Path] = (),
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Files go to `directory`, if there is one; what an earlier run left there is set aside, `notice` is told.

        `pace` is called before each move of the clock, and may block. `inputs` are files that none of them may replace.
        """
        self.error: BaseException | None = None
        self._inputs = (*named_files(scenario.resolved()), *inputs)
        self._notice = notice
        self._nodes = nodes or Services()
        self.result: dict[str, Any] = {}
        self._scenario = scenario
        self._directory = directory
        self._trace = trace and directory is not None
        self._pace = pace
        self._progress = progress
        self._looked_s = 0.0
        self._interrupted = self._between = False
        self._world: World | None = None
        self._mapping_tracer: MappingTracer | None = None

    @property
    def events(self) -> int:
        """How many events its trace has so far."""
        return self._world.watch.events if self._world is not None else 0

    def run(self) -> dict[str, Any]:
        """Play it, write what there is to write; the result. What went wrong is in `error`, and told in the result."""
        with ExitStack() as stack:
            output: Output | None = None
            tracer: FileRecorder | None = None
            try:
                with ExitStack() as files:
                    if self._directory is not None:
                        output = self._begin(self._directory)
                        stack.callback(output.discard)
                    if self._trace and self._directory is not None:
                        path = self._directory / "trace.jsonl"
                        tracer = files.enter_context(FileRecorder(path, "modelled", self._notice, self._inputs))
                    self._mapping_tracer = self._watch_mapping()
                    self._world = World(self._scenario, self._nodes, Tee(self._mapping_tracer, tracer), pace=self._step)
                    self._play(self._world)
            except (MigemuError, SimulationError, KeyboardInterrupt) as error:
                self.error = error
            if tracer is not None and tracer.failure and self.error is None:
                self.error = BrokenError(f"the run is complete, but not every file could be written: {tracer.failure}")
            self.result = self._build()
            if self.result and tracer is not None and tracer.failure:
                self.result["lost"] = [tracer.failure]
            if self.result and output is not None:
                write(self.result, output)
        return self.result

    def _begin(self, directory: Path) -> Output:
        """The directory, made ready; its result.json. InputError and BrokenError when it cannot be."""
        set_aside(directory, OF_RUN, self._inputs, self._notice)
        write_text(directory / "scenario.toml", self._scenario.toml(), inputs=self._inputs)
        return begin(directory, self._inputs)

    def interrupt(self) -> None:
        """End the run when the clock next moves, and at once if it is about to: then nothing is half done.

        A second time: at once, wherever that is.
        """
        if self._interrupted or self._between:
            self._interrupted = True
            raise KeyboardInterrupt
        self._interrupted = True

    def _watch_mapping(self) -> MappingTracer:
        scenario = self._scenario
        pages = scenario.memory.size // scenario.geometry.page_bytes
        return MappingTracer(scenario.geometry, pages, pattern_of(scenario.guest.workload))

    def _play(self, world: World) -> None:
        """Run it. Every rule held, or it is worth nothing: MigemuError with the exit code of `migemu check`."""
        failed: VerificationError | None = None
        try:
            world.run()
        except VerificationError as error:
            failed = error  # what led to it says more
        for violation in world.watch.violations.values():
            raise MigemuError(
                f"the rule {violation.rule} of `migemu check` is broken by {event_line(violation.event)}: "
                f"{violation.reason}; this is a bug of migemu's, or of a policy or workload of yours"
            ) from failed
        if failed is not None:
            raise failed

    def _step(self, from_ns: int, to_ns: int) -> None:
        """The clock is about to move."""
        if self._pace is None and self._progress is None and not self._interrupted:
            return
        self._between = True
        try:
            if self._interrupted:
                raise KeyboardInterrupt
            self._look(from_ns, to_ns)
        except KeyboardInterrupt:
            self._interrupted = False  # it has been heard; what is left to do takes no wall time
            self._pace = None
            raise
        finally:
            self._between = False

    def _look(self, from_ns: int, to_ns: int) -> None:
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
        if self._mapping_tracer is not None:
            outcome = replace(outcome, mapping=self._mapping_tracer.figures())
        return build(outcome, self._scenario, "modelled", status, error)


def run_cell(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """Run `scenario` in virtual time; the result. Files go to `directory`, if there is one. MigemuError as it comes."""
    simulation = Simulation(scenario, directory)
    result = simulation.run()
    if simulation.error is not None:
        raise simulation.error
    return result
