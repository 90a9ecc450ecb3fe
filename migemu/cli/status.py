"""`migemu status`: ask running nodes how they stand."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from migemu.errors import BrokenError, InputError, MigemuError, one_line
from migemu.process.context import CONTEXT
from migemu.process.options import json_option
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from rich.table import Table

    from migemu.checkpoint.writer import Protection
    from migemu.process.status_socket import NodeStatus

_NODES_MAX: Final = 256


@click.command(context_settings=CONTEXT)
@click.argument("places", metavar="[DIR|SOCKET]...", nargs=-1, type=click.Path(path_type=Path))
@json_option
def status(places: tuple[Path, ...], as_json: bool) -> None:
    """Ask running nodes how they stand: stage, what has arrived, who waits, the last error, recoveries.

    DIR is what a node was given as --out; several may be given, and whoever is there is asked. Without any, all of your
    nodes that have no --out are asked. `--json` prints one line for each node, of a destination that serves several
    migrations one for each of them. Exit codes: 0 all have answered, 2 a place where there is nobody to ask, 3 a node
    is gone or does not answer; of several the highest.
    """

    from rich.console import Console

    from migemu.process.status_socket import ask, runtime_directory, sweep

    voice = Voice(stderr_console())
    found, worst = _found(voice, places)
    answers: list[NodeStatus] = []
    for path in found:
        try:
            answers += ask(path)
        except BrokenError as error:
            worst = max(worst, error.exit_code)
            voice.notice(one_line(error))
    if not places:
        sweep(runtime_directory())  # who is gone has been told of, once
    if as_json:
        for answer in answers:
            click.echo(answer.line())
    elif answers:
        Console().print(table(answers))
        for line in remarks(answers):
            click.echo(line)
    if worst:
        raise SystemExit(worst)


def _found(voice: Voice, places: Sequence[Path]) -> tuple[list[Path], int]:
    """The sockets of all places, each once, and the exit code of the worst place; nobody anywhere ends the command."""
    found: dict[Path, None] = {}
    failures: list[MigemuError] = []
    for place in places or (None,):
        try:
            found |= dict.fromkeys(sockets(place))
        except MigemuError as error:
            failures.append(error)
    for failure in failures if found else failures[:-1]:
        voice.notice(one_line(failure))
    if not found:
        exit_with(voice, failures[-1])
    return list(found), max((failure.exit_code for failure in failures), default=0)


def sockets(where: Path | None) -> list[Path]:
    """The sockets to ask. InputError when there are none."""

    from migemu.process.status_socket import SUFFIX, runtime_directory

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
    """For people: a row for each node, or for each of its migrations; fits into 80 columns."""

    from rich.table import Table
    from rich.text import Text

    from migemu.units import format_size

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("node", "stage", "sent / received", "mapped", "faults", "recoveries"):
        shown.add_column(header, no_wrap=True)
    nodes = Counter(node.pid for node in answers)
    for node in answers:
        is_source = node.role == "source"
        name = f"{node.role} {node.pid}" + (f"\n{node.migration[:8]}" if nodes[node.pid] > 1 else "")
        moved = format_size(node.sent_bytes if is_source else node.received_bytes)
        waiting = f"{node.faults_waiting} waiting" if node.faults_waiting else "0"
        shown.add_row(
            Text(name), Text(node.stage), f"{moved} of {format_size(node.memory_bytes)}",
            "" if is_source else format_size(node.mapped_bytes), "" if is_source else waiting, str(node.recoveries),
        )  # fmt: skip
    return shown


def remarks(answers: list[NodeStatus]) -> Iterator[str]:
    """Below the table: who waits, what took the last connection, how old the checkpoint is."""
    for node in answers:
        name = f"{node.role} {node.pid} {node.migration[:8]}".rstrip()
        if node.faults_waiting:
            yield f"{name}: {node.vcpus_waiting} vCPUs wait for {node.faults_waiting} pages"
        if node.last_error:
            yield f"{name}, last error: {node.last_error}"
        if node.turned_away:
            yield f"{name}: {node.turned_away} were turned away"
        if node.checkpoint is not None:
            yield f"{name}, checkpoint: {_protection(node.checkpoint)}"


def _protection(checkpoint: Protection) -> str:
    from migemu.units import format_time

    if checkpoint.lost:
        return f"LOST: {checkpoint.lost}"
    return f"generation {checkpoint.generation}, {format_time(checkpoint.age_ns // 1_000_000 * 1_000_000)} old"
