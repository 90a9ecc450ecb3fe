"""`migemu-source`: the source of a migration as a process of its own."""

from __future__ import annotations

from migemu.process import start

if __name__ == "__main__":  # comes here again by its name, when the process is ready for all that is below
    start.source()

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import click

from migemu.address import Address, TcpAddress, parse_address
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.node.outcome import Whereabouts
from migemu.process.context import CONTEXT, version_option
from migemu.process.metrics import coroutine, metrics_address, serving
from migemu.process.options import (
    NodeOptions,
    address_from_here,
    image_option,
    load_credentials,
    load_scenario,
    node_options,
)
from migemu.process.runner import Voice, exit_with, run_node, stderr_console
from migemu.process.status_socket import NodeStatus, Order, answering
from migemu.report.terminal.pauses import Pauses
from migemu.scenario.scenario import Scenario
from migemu.store.earlier import OF_SOURCE, set_aside
from migemu.store.image import ImageMemory, image_advice, open_image, pattern
from migemu.store.output import named_files
from migemu.store.trace_file import FileRecorder
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.shaper import Shaper, check_link
from migemu.transport.tcp import TcpNetwork
from migemu.units import format_size, format_time
from source_node.record import Migration, Record, load
from source_node.service import Source
from source_node.source_outcome import Advice, SourceOutcome

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class _SourcePlan:
    """All that a migration is run by, checked; `out`, `tracer`, `record` and `metrics_at` where they were asked for."""

    scenario: Scenario
    credentials: Credentials
    memory: ImageMemory
    address: Address
    out: Path | None
    tracer: FileRecorder | None
    migration: Migration
    record: Record | None
    metrics_at: TcpAddress | None


@click.command(context_settings=CONTEXT)
@node_options(out="Keep what --recover needs in DIR/migration.json; --trace writes there too.")
@click.option(
    "--connect", metavar="ADDRESS", default=None, show_default="127.0.0.1:4444",
    help="Where the destination listens, HOST:PORT or unix:PATH; tried for net.connect_timeout.",
)  # fmt: skip
@image_option
@click.option(
    "--recover", type=click.Path(path_type=Path), metavar="DIR",
    help="Go on with the migration whose source was killed: DIR was its --out. All but --connect is taken from there.",
)  # fmt: skip
@click.option(
    "--take-back", is_flag=True,
    help="With --recover: have the guest again that left and never ran at the destination, which has to be gone.",
)  # fmt: skip
@version_option
def main(options: NodeOptions, connect: str | None, image: str, recover: Path | None, take_back: bool) -> None:
    """Migrate a memory image to a destination that listens (migemu-dest), post-copy.

    Memory, push order, piece size, the preempt channel and the link towards the destination are settings of this side.
    The image is only read. Exit codes: 0 verified, 2 bad input, 3 something broke (connection, memory), 4 the peer
    broke the protocol, 5 the memory differs, 130 interrupted.
    """
    voice = Voice(stderr_console(), options.supervised, options.paired)
    scenario = load_scenario(voice, options.scenario_file, options.assignments, image)
    migration: Migration | None = None
    out = options.out
    try:
        if take_back:
            _take_back(voice, recover)
            return
        if recover is not None:
            migration, out = load(recover), recover
            scenario = migration.resumable()
            connect = connect or migration.address
        address = address_from_here(connect or "127.0.0.1:4444")
        credentials = load_credentials(voice, scenario, options.insecure)
        check_link("link", scenario.link)
        if options.trace and out is None:
            raise InputError("--trace needs --out DIR to write to")
        metrics_at = metrics_address(options.metrics) if options.metrics is not None else None
        memory = _memory(scenario)
        if scenario.memory.image and scenario.memory.image_format == "raw" and (line := image_advice(memory.name)):
            voice.notice(line)
        begun = migration or Migration.of(secrets.token_hex(16), address, scenario)
        record = Record(out, begun) if out is not None else None
        if record is not None:
            record.claim()
        inputs = [*named_files(scenario.resolved()), *([options.scenario_file] if options.scenario_file else [])]
        if out is not None and not options.supervised:
            set_aside(out, OF_SOURCE if recover is None else OF_SOURCE[1:], inputs, voice.notice)
        tracer = None
        if out is not None and options.trace:
            tracer = FileRecorder(out / OF_SOURCE[1], "measured", voice.notice, inputs)
        plan = _SourcePlan(scenario, credentials, memory, address, out, tracer, begun, record, metrics_at)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    with tracer or contextlib.nullcontext():
        outcome = run_node(voice, lambda: _migrate(voice, plan))
    if options.as_json and not options.supervised:
        click.echo(json.dumps(asdict(outcome) | {"sender": outcome.sender._asdict()}, indent=2))
    elif not options.quiet and not options.supervised:
        voice.console.print(
            f"migemu-source: verified, {format_size(memory.memory_bytes)} of memory, "
            f"{format_size(outcome.wire_bytes)} on the wire, downtime {format_time(outcome.downtime_ns)}, "
            f"digest {outcome.digest}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    lost = [each for each in (tracer.failure if tracer else None, record.problem if record else None) if each]
    if lost:
        exit_with(voice, BrokenError(f"verified, but not every file could be written: {'; '.join(lost)}"))


def _take_back(voice: Voice, directory: Path | None) -> None:
    """The guest is the source's, whether it had left or not. InputError when it is known to have run elsewhere."""
    if directory is None:
        raise InputError("--take-back needs --recover DIR: the --out of the source whose guest it is")
    migration = load(directory)
    record = Record(directory, migration)
    record.claim()
    migration.check_take_back()
    record.save(switched=False, taken_back=True)
    whose = "is the source's again" if migration.switched else "is the source's, which it never left"
    voice.console.print(
        f"migemu-source: the guest of migration {migration.migration[:8]} {whose}, and its image is unchanged. Do not "
        "start its destination again with the --checkpoint of that migration: it waits for a guest that does not come",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _memory(scenario: Scenario) -> ImageMemory:
    if scenario.memory.image:
        settings = scenario.memory
        memory = open_image(settings.image, scenario.geometry, settings.image_format, copy=settings.image_copy)
        if memory.memory_bytes > scenario.limits.memory_max:
            raise InputError(
                f"{scenario.memory.image}: {format_size(memory.memory_bytes)} are more than limits.memory_max allows "
                f"({format_size(scenario.limits.memory_max)})"
            )
        return memory
    return pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)


class _Journal:
    """SourceJournal in DIR/migration.json, or nowhere where there is no DIR."""

    def __init__(self, record: Record | None, notice: Callable[[str], None]) -> None:
        self._record = record
        self._notice = notice

    def keep(self, **changes: Any) -> None:
        """Make `changes` (fields of `Migration`) durable. InputError and BrokenError when that cannot be done."""
        if self._record is not None:
            self._record.save(**changes)

    def note(self, **changes: Any) -> None:
        """As `keep`, but what cannot be written is only reported: no migration is stopped for it."""
        try:
            self.keep(**changes)
        except MigemuError as error:
            self._notice(f"{error}; the migration goes on, and the file is behind")

    def switch(self) -> None:
        """Write that the guest may be running at the destination from now on, before Run is said."""
        self.keep(switched=True)

    def learned(self, *, ran: bool = False, downtime_ns: int = 0, all_sent: bool = False) -> None:
        """Write what is known now; a file that cannot be written is a notice, and the migration goes on."""
        changes = {"ran": ran, "downtime_ns": downtime_ns, "all_sent": all_sent}
        self.note(**{name: value for name, value in changes.items() if value})


async def _migrate(voice: Voice, plan: _SourcePlan) -> SourceOutcome:
    """Run it, or go on with it if its guest has left; DIR/migration.json is kept where there is a DIR."""
    scenario, memory, migration, record, out = plan.scenario, plan.memory, plan.migration, plan.record, plan.out
    clock = MonotonicClock()
    with contextlib.ExitStack() as stack:
        shaper = None
        if scenario.link.shaped:
            shaper = Shaper(scenario.link, clock, Random(f"{scenario.scenario.seed} link"), scenario.net.high_water)
            stack.callback(voice.notice_unheld, "link", shaper)
            stack.callback(shaper.close)
        network = TcpNetwork(scenario.net, clock, shaper, plan.credentials, scenario.limits)

        journal = _Journal(record, voice.notice)
        journal.keep()
        source = Source(
            scenario, network, clock, memory, migration.migration, plan.tracer,
            journal=journal, advice=Advice.of(out, voice.paired),
        )  # fmt: skip

        def status() -> list[NodeStatus]:
            seen = source.status()
            return [NodeStatus(
                "source", os.getpid(), migration.migration, seen.stage.value, memory.memory_bytes, seen.recoveries,
                seen.last_error, sent_bytes=seen.pages_sent * memory.geometry.page_bytes,
                whereabouts=seen.whereabouts.value,
            )]  # fmt: skip

        obey = partial(_obey, source, network, migration.migration, journal)
        watch = asyncio.get_running_loop().create_task(_watch(source, voice, scenario))
        try:
            metrics = serving(plan.metrics_at, coroutine(status), voice.notice)
            async with metrics, answering("source", out, status, obey, voice.notice):
                if migration.switched:
                    outcome = await source.recover(
                        plan.address, migration.downtime_ns, migration.ran, migration.all_sent
                    )
                else:
                    outcome = await source.run(plan.address)
        except asyncio.CancelledError:
            if source.whereabouts is Whereabouts.SOURCE or voice.paired:
                pass
            elif source.whereabouts is Whereabouts.DESTINATION:
                go_on = Advice.of(out, paired=False).go_on
                voice.notice(f"the guest had left; as long as the destination has it, {go_on}")
            else:
                voice.notice(source.guest_is)
            raise
        finally:
            watch.cancel()
            if source.whereabouts is Whereabouts.SOURCE:
                journal.note(switched=False)
            elif source.whereabouts is not Whereabouts.IN_DOUBT:
                journal.note(ran=True)
        journal.note(completed=True)
        return outcome


async def _obey(
    source: Source, network: TcpNetwork, migration: str, journal: _Journal, order: Order
) -> str:  # fmt: skip
    """What its operator orders."""
    if not migration.startswith(order.migration):
        raise InputError(f"no migration's name begins with {order.migration!r}: say {migration[:8]}")
    if order.order == "pause":
        return source.pause()
    if order.order == "resume":
        return source.resume()
    if order.order == "cancel":
        return source.cancel(order.sure)
    if order.order != "connect":
        raise InputError("a source does not listen: give --connect, where its destination listens now")
    address = parse_address(order.address)
    await network.allows(address)
    answer = source.recover_at(address)
    journal.note(address=str(address))
    return answer


async def _watch(source: Source, voice: Voice, scenario: Scenario) -> None:
    """Tell of pauses, until cancelled."""
    tried = (
        f"The guest has left for the destination, which is tried for {format_time(scenario.recovery.timeout)} "
        "(recovery.timeout)"
    )
    again = "; if it was killed, start it again with the same --checkpoint DIR"
    advice = tried if voice.paired else tried + again
    pauses = Pauses()
    while True:
        seen = source.status()
        if line := pauses.see(seen.stage, seen.recoveries, seen.last_error, advice, seen.held):
            voice.notice(line)
        await asyncio.sleep(_LOOK_S)
