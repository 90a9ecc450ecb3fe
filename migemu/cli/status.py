"""`migemu status`: ask running nodes how they stand."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import monotonic_ns, sleep
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
    from migemu.report.terminal.throughput import Throughput

_NODES_MAX: Final = 256
#: How long --watch waits before it asks again.
_WATCH_S: Final = 1.0


@click.command(context_settings=CONTEXT)
@click.argument("places", metavar="[DIR|SOCKET]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--watch", is_flag=True,
    help="Ask once a second until all of them have ended, and show throughput and time left too.",
)  # fmt: skip
@json_option
def status(places: tuple[Path, ...], watch: bool, as_json: bool) -> None:
    """Ask running nodes how they stand: stage, what has arrived, who waits, the last error, recoveries.

    DIR is what a node was given as --out; several may be given, and whoever is there is asked. Without any, all of your
    nodes that have no --out are asked. `--json` prints one line for each node, of a destination that serves several
    migrations one for each of them.

    \b
    Examples:
        migemu status runs/a
        migemu status runs/source runs/dest
        migemu status runs/a --watch          (throughput, time left, as of `info migrate`; Ctrl-C ends it)

    Exit codes: 0 all have answered, 2 a place where there is nobody to ask, 3 a node is gone or does not answer; of
    several the highest. With --watch a node that has ended is no error.
    """

    from rich.console import Console

    from migemu.process.status_socket import ask, runtime_directory, sweep

    voice = Voice(stderr_console())
    found, worst = _found(voice, places)
    if watch:
        _watch(voice, found, as_json)
        return
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


def _watch(voice: Voice, paths: Sequence[Path], as_json: bool) -> None:
    """Ask once a second, until nobody is there any more or Ctrl-C: a table that is redrawn, or lines."""
    from rich.console import Console
    from rich.live import Live

    from migemu.report.terminal.throughput import Throughput

    console = Console()
    is_redrawn = console.is_terminal and not console.is_dumb_terminal and not as_json
    throughputs: dict[tuple[int, str], Throughput] = {}
    remaining = list(paths)
    with Live(console=console, auto_refresh=False) if is_redrawn else nullcontext() as live:
        try:
            while remaining:
                answers = _answers(voice, remaining)
                for node in answers:
                    throughputs.setdefault((node.pid, node.migration), Throughput()).see(_moved(node), monotonic_ns())
                if live is not None:
                    live.update(table(answers, throughputs), refresh=True)
                for node in answers if live is None else ():
                    click.echo(node.line() if as_json else line(node, throughputs[node.pid, node.migration]))
                sleep(_WATCH_S)
        except KeyboardInterrupt:
            return  # the way to end it
    voice.notice("all of them have ended")


def _answers(voice: Voice, paths: list[Path]) -> list[NodeStatus]:
    """What the nodes say; those that have ended are taken out of `paths`, and told of if they were killed."""
    from migemu.process.status_socket import ask

    answers: list[NodeStatus] = []
    for path in tuple(paths):
        try:
            answers += ask(path)
        except BrokenError as error:
            paths.remove(path)
            if path.exists():
                voice.notice(one_line(error))
    return answers


def _moved(node: NodeStatus) -> int:
    return node.sent_bytes if node.role == "source" else node.received_bytes


def line(node: NodeStatus, throughput: Throughput) -> str:
    """A node in one line, for logs: what has moved, how fast, when the rest will have, and who waits."""
    from migemu.units import format_size

    moved, memory = _moved(node), node.memory_bytes
    shown = [f"{format_size(moved)} of {format_size(memory)}", *_pace(node, throughput)]
    if node.faults_waiting:
        shown.append(f"{node.faults_waiting} pages waited for")
    if node.last_error:
        shown.append(f"last error: {node.last_error}")
    return f"{node.role} {node.pid} {node.stage}: {', '.join(filter(None, shown))}"


def _pace(node: NodeStatus, throughput: Throughput | None) -> tuple[str, str]:
    """Throughput and time left in words; "" where they are not known."""
    if throughput is None or throughput.bytes_per_s is None:
        return "", ""
    left_s = throughput.remaining_s(node.memory_bytes)
    return f"{throughput.bytes_per_s / 1e6:,.0f} MB/s", "" if left_s is None else f"{left_s:,} s left"


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


def table(
    answers: list[NodeStatus], throughputs: Mapping[tuple[int, str], Throughput] | None = None
) -> Table:  # fmt: skip
    """For people: a row for each node, or for each of its migrations; fits into 80 columns.

    `throughputs`, by pid and migration, are shown in the place of recoveries.
    """

    from rich.table import Table
    from rich.text import Text

    from migemu.units import format_size

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    watched = ("throughput", "left") if throughputs is not None else ("recoveries",)
    for header in ("node", "stage", "sent / received", "mapped", "faults", *watched):
        shown.add_column(header, no_wrap=True)
    nodes = Counter(node.pid for node in answers)
    for node in answers:
        is_source = node.role == "source"
        name = f"{node.role} {node.pid}" + (f"\n{node.migration[:8]}" if nodes[node.pid] > 1 else "")
        moved = format_size(_moved(node))
        last: tuple[str, ...] = (str(node.recoveries),)
        if throughputs is not None:
            last = _pace(node, throughputs.get((node.pid, node.migration)))
        waiting = f"{node.faults_waiting} waiting" if node.faults_waiting else "0"
        shown.add_row(
            Text(name), Text(node.stage), f"{moved} of {format_size(node.memory_bytes)}",
            "" if is_source else format_size(node.mapped_bytes), "" if is_source else waiting, *last,
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
