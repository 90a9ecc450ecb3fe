"""`migemu-dest`: the destination of a migration as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import click
from rich.console import Console

from dest_node.checkpoint import opened
from dest_node.incoming import Incoming
from dest_node.service import Destination
from migemu.command import (
    CONTEXT,
    Voice,
    exit_with,
    insecure_option,
    json_option,
    load_credentials,
    load_scenario,
    parse_address,
    quiet_option,
    run_node,
    scenario_argument,
    set_option,
    stderr_console,
    supervised_option,
    trace_option,
    version_option,
)  # fmt: skip
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.link.clock import MonotonicClock
from migemu.link.credentials import Credentials
from migemu.link.shaper import Shaper, check_link
from migemu.link.tcp import TcpNetwork
from migemu.mm.pages import Geometry
from migemu.ports import GuestMemory
from migemu.report import result as results
from migemu.report.node_status import NodeStatus, answering
from migemu.report.progress import Progress
from migemu.report.status import Status
from migemu.report.summary import summary
from migemu.scenario import Scenario
from migemu.store.allocate import allocate
from migemu.store.keeper import Keeper
from migemu.store.mapped import MappedMemory
from migemu.trace.recorder import FileRecorder

_STATUS_S = 0.1


@click.command(context_settings=CONTEXT)
@scenario_argument
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:4444", show_default=True,
    help="Where to wait for the source; port 0 takes a free one.",
)  # fmt: skip
@set_option
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write DIR/result.json.")
@click.option(
    "--dump", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the memory as it arrived (without what the guest wrote since) to FILE, as long as the image was.",
)  # fmt: skip
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), metavar="DIR",
    help="Keep what arrives and what the guest writes in DIR, or go on with what a killed destination has left there.",
)  # fmt: skip
@trace_option
@insecure_option
@json_option
@quiet_option
@supervised_option
@version_option
def main(
    scenario_file: Path | None, listen: str, assignments: tuple[str, ...], out: Path | None, dump: Path | None,
    checkpoint: Path | None, trace: bool, insecure: bool, as_json: bool, quiet: bool, supervised: bool,
) -> None:  # fmt: skip
    """Wait for a source, receive its memory post-copy, run the guest meanwhile.

    Start this side first, then on the other host or in another terminal:

        migemu-source --connect HOST:PORT --image FILE

    The guest, the collapse policy, the size of urgent pieces and the return link are settings of this side; memory,
    push order and the link towards here are the source's. Exit codes: 0 verified, 2 bad input, 3 something broke
    (connection, memory, port), 4 the peer broke the protocol, 5 the memory differs, 130 interrupted.
    """
    voice = Voice(stderr_console(), supervised)
    scenario = load_scenario(voice, scenario_file, assignments)
    try:
        host, port = parse_address(listen)
        credentials = load_credentials(voice, scenario, insecure)
        check_link("return_link", scenario.return_link)
        if trace and out is None:
            raise InputError("--trace needs --out DIR to write to")
        if dump is not None:
            _check_writable(dump)
        if checkpoint is not None and scenario.memory.backing != "anonymous":
            raise InputError(f"memory.backing={scenario.memory.backing}: with --checkpoint memory is a file in its DIR")
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    result = run_node(
        voice, lambda: _serve(voice, scenario, credentials, (host, port), out, dump, checkpoint, trace, quiet)
    )  # fmt: skip
    if as_json and not supervised:
        click.echo(json.dumps(result, indent=2))
    elif not quiet and not supervised:
        Console().print(summary(result))


async def _serve(
    voice: Voice, scenario: Scenario, credentials: Credentials, address: tuple[str, int], out: Path | None,
    dump: Path | None, checkpoint: Path | None, trace: bool, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    clock = MonotonicClock()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        shaper = None
        if scenario.return_link.shaped:
            rng = Random(f"{scenario.scenario.seed} return link")
            shaper = Shaper(scenario.return_link, clock, rng, scenario.net.high_water)
            stack.callback(voice.notice_unheld, "return_link", shaper)
            stack.callback(shaper.close)
        tracer = None
        if trace and out is not None:
            tracer = stack.enter_context(FileRecorder(out / "trace.dest.jsonl", "measured"))
        progress = stack.enter_context(Progress(voice.console, scenario.scenario.name, quiet or voice.supervised))

        def notice(line: str) -> None:
            voice.tell(notice=line)
            if not voice.supervised:
                progress.note(f"migemu-dest: {line}")

        async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
            if kept is not None:
                return await kept.provide(destination.incoming)
            memory = await loop.run_in_executor(None, allocate, memory_bytes, scenario.memory.backing)
            return MappedMemory(geometry, memory_bytes, memory, scenario.memory.hgm)

        kept = None
        if checkpoint is not None:
            kept = await stack.enter_async_context(opened(checkpoint, scenario, clock, notice))
        destination = Destination(
            scenario, TcpNetwork(scenario.net, clock, shaper, credentials, scenario.limits), clock, provide,
            read_text=_read_text, notice=notice, tracer=tracer,
            keeping=kept.keeper if kept else None, left=kept.left if kept else None,
        )  # fmt: skip
        await stack.enter_async_context(
            answering("destination", out, lambda: _status(destination, kept.keeper if kept else None), notice)
        )
        listener = await destination.listen(*address)
        voice.tell(listening={"host": listener.address, "port": listener.port})
        if not voice.supervised and not quiet:
            progress.note(f"migemu-dest: listening on {listener.address}:{listener.port}")
        watch = loop.create_task(_watch(destination, voice, progress))
        try:
            await destination.serve()
            if kept is not None:
                kept.is_over = True
        except (MigemuError, asyncio.CancelledError) as error:
            status = "failed" if isinstance(error, MigemuError) else "interrupted"
            _write_result(voice, destination, scenario, out, status, str(error) or status)
            raise
        finally:
            watch.cancel()
        _show(destination, voice, progress)
        if dump is not None and destination.incoming is not None:
            _dump(destination.incoming, dump)
        return _write_result(voice, destination, scenario, out, "completed", "")


def _write_result(
    voice: Voice, destination: Destination, scenario: Scenario, out: Path | None, status: str, error: str
) -> dict[str, Any]:  # fmt: skip
    """The result of whatever has arrived, written to `out` if there is one."""
    if destination.incoming is None:
        return {}
    result = results.build(destination.incoming.outcome(), scenario, "measured", status, error)
    if out is not None:
        path = results.write(result, out)
        voice.tell(result=str(path))
    return result


async def _watch(destination: Destination, voice: Voice, progress: Progress) -> None:
    while True:
        _show(destination, voice, progress)
        await asyncio.sleep(_STATUS_S)


def _show(destination: Destination, voice: Voice, progress: Progress) -> None:
    if destination.incoming is None:
        return
    status = Status.of(destination.incoming.snapshot())
    if voice.supervised:
        voice.out.write(status.line() + "\n")
        voice.out.flush()
    else:
        progress.show(status)


def _status(destination: Destination, keeper: Keeper | None) -> NodeStatus:
    """For whoever asks."""
    incoming = destination.incoming
    if incoming is None:
        return NodeStatus("destination", os.getpid(), "", "waiting", 0, 0, "")
    snapshot = incoming.snapshot()
    receiver, page_bytes = snapshot.receiver, snapshot.geometry.page_bytes
    return NodeStatus(
        "destination", os.getpid(), incoming.migration, snapshot.stage.value, snapshot.memory_bytes,
        snapshot.recoveries, snapshot.last_error,
        received_bytes=receiver.pages_received * page_bytes if receiver else 0,
        mapped_bytes=receiver.pages_mapped * page_bytes if receiver else 0,
        faults_waiting=snapshot.pages_waited_for, vcpus_waiting=receiver.faults_open if receiver else 0,
        checkpoint=keeper.protection() if keeper else None,
    )  # fmt: skip


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _check_writable(path: Path) -> None:
    try:
        path.open("wb").close()
    except OSError as error:
        raise InputError(f"--dump {path}: cannot be written: {error.strerror}") from None


def _dump(incoming: Incoming, path: Path) -> None:
    """Write the memory as it arrived. BrokenError when the disk does not take it."""
    try:
        with path.open("wb") as file:
            file.writelines(incoming.image())
    except OSError as error:
        raise BrokenError(f"--dump {path}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
