"""`migemu-dest`: the destination of a migration as a process of its own."""

from __future__ import annotations

from migemu.process import start
from migemu.wire.states import Stage

if __name__ == "__main__":  # comes here again by its name, when the process is ready for all that is below
    start.destination()

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import click
from rich.console import Console

from dest_node.checkpointing import CheckpointInUse, opened
from dest_node.ending import Endings, Files, missing
from dest_node.guest.tasks import TaskAccelerator
from dest_node.incoming import Incoming
from dest_node.resumption import may_go
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu import result as results
from migemu.address import Address, TcpAddress, parse_address
from migemu.checkpoint.writer import Keeper
from migemu.errors import BrokenError, InputError, MigemuError, one_line
from migemu.guest.workload import WorkloadFiles
from migemu.mm.pages import Geometry
from migemu.node.outcome import Snapshot
from migemu.ports import GuestMemory
from migemu.process.context import CONTEXT, version_option
from migemu.process.metrics import coroutine, metrics_address, serving
from migemu.process.options import NodeOptions, address_from_here, load_credentials, load_scenario, node_options
from migemu.process.runner import Voice, exit_with, run_node, stderr_console
from migemu.process.status_socket import NodeStatus, Order, answering
from migemu.report.terminal.pauses import Pauses
from migemu.report.terminal.progress import Progress
from migemu.report.terminal.status_line import Status
from migemu.report.terminal.summary import summary
from migemu.scenario.scenario import Scenario
from migemu.store.allocate import allocate
from migemu.store.earlier import OF_DESTINATION, set_aside
from migemu.store.mapped import MappedMemory
from migemu.store.output import named_files
from migemu.store.recordings import read_ahead
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.shaper import Shaper, check_link
from migemu.transport.tcp import TcpNetwork
from migemu.units import format_time

_STATUS_S = 0.1


@dataclass(frozen=True, slots=True)
class _DestinationPlan:
    """All that a destination serves by, checked; `files` are those of the one migration where it serves one."""

    scenario: Scenario
    credentials: Credentials
    address: Address
    files: Files | None
    checkpoint: Path | None
    migrations: int
    workload_files: WorkloadFiles
    metrics_at: TcpAddress | None


@click.command(context_settings=CONTEXT)
@node_options(out="Write DIR/result.json; what an earlier run left goes to DIR/previous-<time>.")
@click.option(
    "--listen", metavar="ADDRESS", default="127.0.0.1:4444", show_default=True,
    help="Where to wait for the source, HOST:PORT or unix:PATH; port 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--dump", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the memory as it arrived (without what the guest wrote since) to FILE, as long as the image was, with "
    "holes for zeros. What FILE was stays until all of it is there. Of a migration that fails it is written only if "
    "all memory had come and nothing else keeps it; a line says then that it is unverified.",
)  # fmt: skip
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), metavar="DIR",
    help="Keep what arrives and what the guest writes in DIR, or go on with what a killed destination has left there.",
)  # fmt: skip
@click.option(
    "--migrations", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
    help="Serve N migrations, then end; 0: until interrupted. At once at most limits.migrations_max.",
)  # fmt: skip
@version_option
def main(
    options: NodeOptions, listen: str, dump: Path | None, checkpoint: Path | None, migrations: int
) -> None:  # fmt: skip
    """Wait for a source, receive its memory post-copy, run the guest meanwhile.

    Start this side first, then on the other host or in another terminal:

        migemu-source --connect HOST:PORT --image FILE

    The guest, the collapse policy, the size of urgent pieces and the return link are settings of this side; memory,
    push order and the link towards here are the source's. Exit codes: 0 verified, 2 bad input, 3 something broke
    (connection, memory, port), 4 the peer broke the protocol, 5 the memory differs, 130 interrupted.

    With --migrations each one ends by itself, and its result goes to DIR/<first 8 digits of its name>/; the exit code
    is the highest there was.
    """
    voice = Voice(stderr_console(), options.supervised, options.paired)
    scenario = load_scenario(voice, options.scenario_file, options.assignments)
    try:
        address = address_from_here(listen)
        credentials = load_credentials(voice, scenario, options.insecure)
        check_link("return_link", scenario.return_link)
        metrics_at = metrics_address(options.metrics) if options.metrics is not None else None
        workload_files = read_ahead(scenario)
        if options.trace and options.out is None:
            raise InputError("--trace needs --out DIR to write to")
        for option, given in (("checkpoint", checkpoint), ("dump", dump), ("trace", options.trace)):
            if given and migrations != 1:
                raise InputError(f"--{option} follows one migration; leave it out, or --migrations")
        if checkpoint is not None and scenario.memory.backing != "anonymous":
            raise InputError(f"memory.backing={scenario.memory.backing}: with --checkpoint memory is a file in its DIR")
        if dump is not None and checkpoint is not None and dump.parent.resolve() == checkpoint.resolve():
            raise InputError(f"--dump {dump}: lies in --checkpoint {checkpoint}, which is for its own files alone")
        inputs = [*named_files(scenario.resolved()), *([options.scenario_file] if options.scenario_file else [])]
        if options.out is not None and not options.supervised:
            set_aside(options.out, OF_DESTINATION, inputs, voice.notice)
        files = Files(options.out, dump, options.trace, inputs, voice.notice) if migrations == 1 else None
        if options.out is not None and files is None:
            results.begin(options.out, inputs).discard()  # those of each come later: can they?
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    with files or contextlib.nullcontext():
        plan = _DestinationPlan(
            scenario, credentials, address, files, checkpoint, migrations, workload_files, metrics_at
        )  # fmt: skip
        endings = run_node(voice, lambda: _serve(voice, options, plan))
    if files is None or options.supervised:
        pass  # each has been told of when it ended
    elif options.as_json:
        click.echo(json.dumps(endings.result, indent=2))
    elif not options.quiet:
        Console().print(summary(endings.result))
    if endings.lost:
        way_back = (
            f". The guest stays in --checkpoint {checkpoint}; the same command writes dump and result"
            if checkpoint
            else ""
        )
        exit_with(voice, BrokenError(missing(endings.lost) + way_back))


async def _serve(voice: Voice, options: NodeOptions, plan: _DestinationPlan) -> Endings:
    scenario, files, checkpoint, out = plan.scenario, plan.files, plan.checkpoint, options.out
    clock = MonotonicClock()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        shaper = None
        if scenario.return_link.shaped:
            rng = Random(f"{scenario.scenario.seed} return link")
            shaper = Shaper(scenario.return_link, clock, rng, scenario.net.high_water)
            stack.callback(voice.notice_unheld, "return_link", shaper)
            stack.callback(shaper.close)
        progress = stack.enter_context(
            Progress(voice.console, scenario.scenario.name, options.quiet or voice.supervised)
        )

        in_use = None
        observer = _Observer(voice, progress)
        if checkpoint is not None:
            in_use = await stack.enter_async_context(opened(checkpoint, scenario, clock, observer.tell))
        endings = Endings(voice, scenario, observer.tell, out, files, options.as_json and not options.supervised)

        async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
            if files is not None and destination.incoming is not None and destination.incoming.advise is not None:
                files.arriving(destination.incoming.advise.image_bytes)
            if in_use is not None:
                return await in_use.provide(destination.incoming)
            memory = await loop.run_in_executor(None, allocate, memory_bytes, scenario.memory.backing)
            return GuestMemory.of(MappedMemory(geometry, memory_bytes, memory, scenario.memory.hgm))

        setup = DestinationSetup(
            scenario=scenario, clock=clock, allocate=provide,
            accelerator=TaskAccelerator(scenario, clock, plan.workload_files), tracer=files.tracer if files else None,
            checkpoint=in_use.keeper if in_use else None, restored=in_use.restored if in_use else None,
        )  # fmt: skip
        network = TcpNetwork(scenario.net, clock, shaper, plan.credentials, scenario.limits)
        destination = Destination(network, setup, observer, migrations=plan.migrations)
        observer.follow(destination, endings, in_use)
        status = partial(_statuses, destination, in_use.keeper if in_use else None)
        await stack.enter_async_context(serving(plan.metrics_at, coroutine(status), observer.tell))
        await stack.enter_async_context(
            answering("destination", out, status, lambda order: _obey(destination, order), observer.tell)
        )
        listener = await destination.listen(plan.address)
        voice.tell(listening=str(listener.address))
        if not voice.supervised and not options.quiet:
            progress.note(f"migemu-dest: listening on {listener.address}")
        watch = loop.create_task(observer.watch())
        try:
            await destination.serve_all()
        finally:
            watch.cancel()
        return endings


class _Observer:
    """DestinationObserver of this process: shows what happens, writes results, lets the checkpoint go at the end."""

    def __init__(self, voice: Voice, progress: Progress) -> None:
        self._voice = voice
        self._progress = progress
        self._destination: Destination | None = None
        self._endings: Endings | None = None
        self._checkpoint: CheckpointInUse | None = None

    def follow(self, destination: Destination, endings: Endings, in_use: CheckpointInUse | None) -> None:
        """What is followed from now on: its migrations' results go to `endings`; `in_use` is the checkpoint of one."""
        self._destination, self._endings, self._checkpoint = destination, endings, in_use

    def tell(self, line: str) -> None:
        """Show a line, or tell it whoever supervises this process."""
        self._voice.tell(notice=line)
        if not self._voice.supervised:
            self._progress.note(f"migemu-dest: {line}")

    def notice(self, line: str) -> None:
        """See DestinationObserver. Who was turned away is nothing to a pair: its own source's refusal is its error."""
        if not self._voice.paired:
            self.tell(line)

    def refused(self, error: MigemuError) -> None:
        """Report to whoever supervises this node that its source was refused, and with which exit code."""
        self._voice.tell(refused=one_line(error), exit=error.exit_code)

    async def ended(self, incoming: Incoming, error: BaseException | None) -> None:
        """Show the end, write what the migration's outputs are, and let its checkpoint go where that is safe."""
        assert self._destination is not None
        assert self._endings is not None
        self._show(self._destination)
        if (line := _last_word(incoming, error, self._checkpoint)) is not None:
            self.tell(line)
        await self._endings.add(incoming, error)
        done = may_go(incoming.whereabouts, incoming.countersigned)
        if self._checkpoint is not None and done and not self._endings.lost:  # else what was asked for is not safe
            self._checkpoint.may_go()

    async def watch(self) -> None:
        """Show how far it is, every now and then, and each pause, until cancelled."""
        destination, pauses = self._destination, dict[str, Pauses]()
        assert destination is not None
        while True:
            snapshots = self._show(destination)
            pauses = {name: pauses.get(name) or Pauses() for name in snapshots}
            for name, seen in snapshots.items():
                advice = _advice(destination, seen, self._voice.paired)
                if line := pauses[name].see(seen.stage, seen.recoveries, seen.last_error, advice, seen.held):
                    self.tell(line if destination.is_for_one else f"migration {name[:8]}: {line}")
            await asyncio.sleep(_STATUS_S)

    def _show(self, destination: Destination) -> dict[str, Snapshot]:
        snapshots = {name: incoming.snapshot() for name, incoming in destination.serving.items()}
        statuses = {name[:8]: Status.of(snapshot) for name, snapshot in snapshots.items()}
        if not destination.is_for_one:
            self._voice.tell(migrations={name: status.fields() for name, status in statuses.items()})
            self._progress.show_all(statuses, time.monotonic_ns())
            return snapshots
        for status in statuses.values():
            if self._voice.supervised:
                self._voice.tell_line(status.line())
            else:
                self._progress.show(status)
        return snapshots


def _last_word(incoming: Incoming, error: BaseException | None, in_use: CheckpointInUse | None) -> str | None:
    """Where the guest is, if the line that tells of the end does not say it; else None."""
    if error is None and not incoming.countersigned:
        line = "verified; the source may not have heard it, and may come again (--recover)"
        if in_use is None:
            return line
        stays = f"--checkpoint {in_use.directory} is kept, and the same command answers it: remove it when that is done"
        return f"{line}; {stays}"
    return None if error is None or isinstance(error, MigemuError) else incoming.waiting


def _advice(destination: Destination, seen: Snapshot, paired: bool) -> str:
    has_run = "vCPUs run on where their pages are here" if seen.times.run else "No vCPU has run here yet"
    waits = (
        f"{has_run}, and the source is waited for, for "
        f"{format_time(destination.scenario.recovery.timeout)} (recovery.timeout)"
    )
    return waits if paired else f"{waits}; if it was killed, start it again: migemu-source --recover DIR, its --out"


async def _obey(destination: Destination, order: Order) -> str:
    """What its operator orders."""
    if order.order == "connect":
        raise InputError("a destination does not connect: give --listen, where it is to listen too")
    if order.order == "listen":
        return await destination.listen_at(parse_address(order.address))
    incoming = destination.chosen(order.migration)
    if order.order == "pause":
        return incoming.pause()
    return incoming.resume() if order.order == "resume" else incoming.cancel(order.sure)


def _statuses(destination: Destination, keeper: Keeper | None) -> list[NodeStatus]:
    """For whoever asks."""
    if not destination.serving:
        away = destination.turned_away_count
        return [NodeStatus("destination", os.getpid(), "", Stage.WAITING.value, 0, 0, "", turned_away=away)]
    return [_status(incoming, keeper, destination.turned_away_count) for incoming in destination.serving.values()]


def _status(incoming: Incoming, keeper: Keeper | None, turned_away: int) -> NodeStatus:
    snapshot = incoming.snapshot()
    receiver, page_bytes = snapshot.receiver, snapshot.geometry.page_bytes
    return NodeStatus(
        "destination", os.getpid(), incoming.migration, snapshot.stage.value, snapshot.memory_bytes,
        snapshot.recoveries, snapshot.last_error,
        received_bytes=receiver.pages_received * page_bytes,
        mapped_bytes=receiver.pages_mapped * page_bytes,
        faults_waiting=snapshot.pages_waited_for, vcpus_waiting=receiver.faults_open,
        turned_away=turned_away, whereabouts=incoming.whereabouts.value,
        checkpoint=keeper.protection() if keeper else None,
    )  # fmt: skip
