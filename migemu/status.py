"""`migemu status`: ask running nodes how they stand."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from migemu.command import CONTEXT, Voice, exit_with, json_option, stderr_console
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.report.node_status import SUFFIX, NodeStatus, ask, runtime_directory
from migemu.store.keeper import Protection
from migemu.units import format_size, format_time

_NODES_MAX: Final = 256


@click.command(context_settings=CONTEXT)
@click.argument("where", metavar="[DIR|SOCKET]", required=False, type=click.Path(path_type=Path))
@json_option
def status(where: Path | None, as_json: bool) -> None:
    """Ask running nodes how they stand: stage, what has arrived, who waits, the last error, recoveries.

    DIR is what a node was given as --out; without it, all of your nodes that have none are asked. `--json` prints one
    line for each node. Exit codes: 0 all have answered, 2 nobody to ask, 3 a node is gone or does not answer.
    """
    voice = Voice(stderr_console())
    try:
        found = _sockets(where)
    except MigemuError as error:
        exit_with(voice, error)
    answers: list[NodeStatus] = []
    failure: BrokenError | None = None
    for path in found:
        try:
            answers.append(ask(path))
        except BrokenError as error:
            failure = error
            voice.notice(str(error))
    if as_json:
        for answer in answers:
            click.echo(answer.line())
    elif answers:
        Console().print(table(answers))
        for answer in answers:
            if answer.last_error:
                click.echo(f"{answer.role} {answer.pid}, last error: {answer.last_error}")
    if failure is not None:
        raise SystemExit(failure.exit_code)


def _sockets(where: Path | None) -> list[Path]:
    """The sockets to ask. InputError when there are none."""
    path = where or runtime_directory()
    try:
        kind = path.stat().st_mode
        if stat.S_ISSOCK(kind):
            return [path]
        if not stat.S_ISDIR(kind):
            raise InputError(f"{path}: is neither a directory nor a socket; give the --out DIR of a node")
        found = sorted(each for each in path.iterdir() if each.suffix == SUFFIX and each.is_socket())[:_NODES_MAX]
    except OSError as error:
        raise InputError(f"{path}: cannot be asked: {error.strerror}") from None
    if not found and where is None:
        raise InputError("no node of yours runs without --out; give the DIR of one that has it")
    if not found:
        raise InputError(f"{path}: no node runs with this --out; has it ended?")
    return found


def table(answers: list[NodeStatus]) -> Table:
    """For people: a node a row."""
    shown = Table("node", "stage", "memory", "sent / received", "mapped", "waiting", "recoveries", "checkpoint")
    for node in answers:
        is_source = node.role == "source"
        waiting = f"{node.vcpus_waiting} vCPUs, {node.faults_waiting} faults"
        shown.add_row(
            f"{node.role} {node.pid}", node.stage, format_size(node.memory_bytes),
            format_size(node.sent_bytes if is_source else node.received_bytes),
            "" if is_source else format_size(node.mapped_bytes), "" if is_source else waiting,
            str(node.recoveries), _protection(node.checkpoint),
        )  # fmt: skip
    return shown


def _protection(checkpoint: Protection | None) -> str:
    if checkpoint is None:
        return ""
    if checkpoint.lost:
        return f"LOST: {checkpoint.lost}"
    return f"{checkpoint.generation}, {format_time(checkpoint.age_ns // 1_000_000 * 1_000_000)} old"
