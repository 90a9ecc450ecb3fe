"""A command as a process: how it speaks, how it is interrupted, how its errors become exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from migemu import stdio
from migemu.errors import EXIT_INTERRUPTED, BrokenError, GaveUpError, MigemuError, one_line

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console

    from migemu.transport.shaper import Shaper

T = TypeVar("T")


_STDIN: Final = 0


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


class LogNotices(logging.Handler):
    """What the library logs (a plugin that cannot be used) is a notice; children leave it to whoever started them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record as a line of the program."""
        import multiprocessing

        if multiprocessing.parent_process() is None and "--supervised" not in sys.argv:
            Voice(stderr_console()).notice(record.getMessage())


def stderr_console(quiet: bool = False) -> Console:
    """The console for people; results go to standard output, everything else here."""

    from rich.console import Console

    return Console(stderr=True, quiet=quiet)


def exit_with(voice: Voice, error: BaseException) -> NoReturn:
    """Report an error in one line and leave with its exit code."""
    code = error.exit_code if isinstance(error, MigemuError) else EXIT_INTERRUPTED
    voice.error(error, code)
    sys.exit(code)


def run_node(voice: Voice, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a node's coroutine on uvloop until it is done, interrupted, or orphaned; errors become exit codes."""

    import asyncio

    import uvloop

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

    import asyncio

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
    import asyncio

    try:
        is_there = bool(os.read(_STDIN, 4096))
    except OSError:
        is_there = False
    if not is_there:  # end of file: the supervisor is gone
        asyncio.get_running_loop().remove_reader(_STDIN)
        if not task.cancelling():
            task.cancel()
