"""What all commands share: their options, how they report errors, and how a node process runs and is watched over.

A node that is **supervised** (`--supervised`, given by `migemu run`) writes JSON lines to standard output for whoever
started it - `listening`, `status`, `notice`, `error` - and takes the end of its standard input for the death of its
supervisor. On its own it shows the same things to a person.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import uvloop
from rich.console import Console

import migemu
from migemu import stdio
from migemu.address import Address, UnixAddress, parse_address
from migemu.errors import EXIT_INTERRUPTED, BrokenError, GaveUpError, MigemuError, one_line
from migemu.link.credentials import Credentials
from migemu.link.credentials import load as load_security
from migemu.link.shaper import Shaper
from migemu.scenario import Scenario, load

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

scenario_argument = click.argument(
    "scenario_file", metavar="[SCENARIO.toml]", required=False, type=click.Path(path_type=Path)
)
set_option = click.option(
    "--set", "assignments", metavar="SECTION.KEY=VALUE", multiple=True,
    help="Change one setting of the scenario; may be given many times. `migemu list --settings` shows them all. A "
    "comma in a value stands in quotes: 'guest.workload=replay:path=\"a,b\"'.",
)  # fmt: skip
trace_option = click.option("--trace", is_flag=True, help="Also write every event to DIR/trace.jsonl.")
report_option = click.option(
    "--report", is_flag=True, help="Also write DIR/report.html, to be opened in a browser; implies --trace."
)
perfetto_option = click.option(
    "--perfetto", is_flag=True, help="Also write DIR/perfetto.json, for https://ui.perfetto.dev; implies --trace."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress and no summary.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
insecure_option = click.option(
    "--insecure", is_flag=True, help="Talk beyond this machine without TLS or a pre-shared key, to whoever answers."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)
paired_option = click.option("--paired", is_flag=True, hidden=True)
version_option = click.version_option(migemu.__version__, prog_name="migemu")

_STDIN: Final = 0
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@dataclass(slots=True)
class Voice:
    """Where a command speaks: to a person, or in JSON lines to its supervisor."""

    console: Console
    supervised: bool = False
    #: Whoever started this node starts the other one too: there is nothing to type to go on after a kill.
    paired: bool = False

    def __post_init__(self) -> None:
        """Whoever supervises is told things, and printed no results."""
        if self.supervised:
            stdio.speak_to_supervisor()

    def tell(self, **what: Any) -> None:
        """A JSON line for the supervisor; nothing for a person."""
        if self.supervised:
            self.tell_line(json.dumps(what, separators=(",", ":")))

    def tell_line(self, line: str) -> None:
        """The same, where it is a line of JSON already."""
        if self.supervised:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def notice(self, line: str) -> None:
        """A line that is worth knowing, whoever listens."""
        if self.supervised:
            self.tell(notice=line)
        else:
            self.console.print(f"migemu: {line}", markup=False, highlight=False, soft_wrap=True)

    def notice_unheld(self, section: str, shaper: Shaper) -> None:
        """Say so if the emulated link of `section` was not what it was set to."""
        if shaper.unheld:
            self.notice(f"{section}: {shaper.unheld}")

    def error(self, error: BaseException, exit_code: int) -> None:
        """One line saying what went wrong."""
        line = one_line(error) or "interrupted"
        if self.supervised:
            self.tell(error=line, exit=exit_code, relayed=isinstance(error, GaveUpError))
        else:
            self.console.print(f"migemu: {line}", style=None, markup=False, highlight=False, soft_wrap=True)


class _Logged(logging.Handler):
    """What the library logs (a plugin that cannot be used) is a notice; children leave it to whoever started them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if multiprocessing.parent_process() is None and "--supervised" not in sys.argv:
            Voice(stderr_console()).notice(record.getMessage())


logging.getLogger("migemu").addHandler(_Logged())


def stderr_console(quiet: bool = False) -> Console:
    """The console for people; results go to standard output, everything else here."""
    return Console(stderr=True, quiet=quiet)


def exit_with(voice: Voice, error: BaseException) -> NoReturn:
    """Report an error in one line and leave with its exit code."""
    code = error.exit_code if isinstance(error, MigemuError) else EXIT_INTERRUPTED
    voice.error(error, code)
    sys.exit(code)


def run_node(voice: Voice, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a node's coroutine on uvloop until it is done, interrupted, or orphaned; errors become exit codes."""
    # With its default handler in place asyncio would cancel on SIGINT too, and a second cancellation cuts the goodbye.
    for number in end_signals():
        signal.signal(number, _interrupted_early)
    ends: list[T | MigemuError] = []
    try:
        return uvloop.run(_guarded(voice, main, ends))
    except MigemuError as error:
        exit_with(voice, error)
    except (OSError, RuntimeError):  # a loop that cannot be closed without descriptors hides how it all ended
        if not ends:
            raise
        if isinstance(ends[0], MigemuError):
            exit_with(voice, ends[0])
        return ends[0]
    except MemoryError:
        exit_with(voice, BrokenError("no memory left; free some, or migrate less memory"))
    except (asyncio.CancelledError, KeyboardInterrupt):
        exit_with(voice, KeyboardInterrupt("interrupted"))


def end_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a process in order: Ctrl-C, SIGTERM, and the end of its terminal (not under nohup)."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


def _interrupted_early(*_: object) -> NoReturn:
    raise KeyboardInterrupt


async def _guarded(voice: Voice, main: Callable[[], Coroutine[Any, Any, T]], ends: list[T | MigemuError]) -> T:
    """`ends` has the result or the error, where it came to one."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(main())
    for number in end_signals():
        loop.add_signal_handler(number, _cancel_once, task)
    if voice.supervised:
        loop.add_reader(_STDIN, _supervisor_spoke, task)
    try:
        result = await task
    except MigemuError as error:
        ends.append(error)
        raise
    ends.append(result)
    return result


def _cancel_once(task: asyncio.Task[Any]) -> None:
    """The first signal ends it in order; a second one does not wait for that."""
    if task.cancelling():
        sys.exit(EXIT_INTERRUPTED)
    task.cancel()


def _supervisor_spoke(task: asyncio.Task[Any]) -> None:
    try:
        is_there = bool(os.read(_STDIN, 4096))
    except OSError:
        is_there = False
    if not is_there:  # end of file: the supervisor is gone
        asyncio.get_running_loop().remove_reader(_STDIN)
        if not task.cancelling():
            task.cancel()


def load_scenario(voice: Voice, path: Path | None, assignments: Sequence[str], image: str = "") -> Scenario:
    """The scenario of a file, `--set` and `--image`; leaves with one line when it is wrong."""
    extra = [f"memory.image={image}"] if image else []
    try:
        return load(path, [*assignments, *extra])
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)


def load_credentials(voice: Voice, scenario: Scenario, insecure: bool) -> Credentials:
    """What a node shows and asks to be shown; warnings are told. InputError."""
    credentials, warnings = load_security(scenario.security, os.environ, insecure)
    for line in warnings:
        voice.notice(line)
    return credentials


def address_from_here(text: str) -> Address:
    """An address that somebody has typed; a relative path is of the current directory. InputError."""
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        return UnixAddress(str(Path(address.path).absolute()))
    return address
