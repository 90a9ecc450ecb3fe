"""Both nodes as child processes of this one: `migemu run` and `migemu demo`.

The parent starts the destination, waits until it listens, starts the source, and watches over both: it shows what they
tell (JSON lines, see command.py), passes Ctrl-C on, and when one of them dies it gives the other a few seconds to end
cleanly by itself (its connection breaks, so it knows) before it is terminated and, at last, killed. If the parent
dies, the children notice by the end of their standard input.

The error that is shown is the cause: of the two nodes' errors, the one that was not merely passed on by the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from asyncio import FIRST_COMPLETED
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from migemu import named
from migemu import result as results
from migemu.errors import EXIT_INTERRUPTED, BrokenError, MigemuError
from migemu.process import start
from migemu.process.runner import end_signals
from migemu.report.terminal.progress import Progress
from migemu.report.terminal.status_line import Status
from migemu.scenario.scenario import Scenario
from migemu.store.earlier import OF_RUN, set_aside
from migemu.store.output import PARTIAL, write_text
from migemu.store.trace_file import merge

_GRACE_S: Final = 5.0
#: So that its result says that it was interrupted, not that the source was.
_HEAD_START_S: Final = 0.5
_LINE_BYTES_MAX: Final = 1 << 20


@dataclass(slots=True)
class NodeProcess:
    """A child process, and what it has said."""

    name: str
    process: asyncio.subprocess.Process
    error: str = ""
    relayed: bool = False
    #: Why a destination has refused a source, and the exit code that goes with it.
    refused: tuple[str, int] | None = None
    ended_by_us: bool = False
    listening: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.returncode is None

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, if it is still there."""
        if self.running:
            try:
                self.process.send_signal(number)
            except ProcessLookupError:
                pass


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """How both ended. `error` is "" when the migration was verified."""

    exit_code: int
    error: str


class Pair:
    """One run of both nodes as child processes; `run` plays it to its end."""

    def __init__(
        self, scenario: Scenario, directory: Path, progress: Progress, trace: bool, inputs: Iterable[Path] = ()
    ) -> None:  # fmt: skip
        """The nodes read their scenario from DIR/scenario.toml, which is written here.

        What an earlier run has left in DIR is set aside. `inputs` are files that are read, which none may replace.
        InputError and BrokenError if it cannot be.
        """
        self._scenario = scenario
        self._directory = directory
        self._progress = progress
        self._trace = trace
        self._interrupted = False
        self._served = False  # whether the destination has had a source
        self._nodes: list[NodeProcess] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refused = asyncio.Event()
        set_aside(directory, OF_RUN, inputs, progress.note)
        write_text(directory / "scenario.toml", scenario.toml(), inputs=inputs)

    async def run(self) -> PairOutcome:
        """Run both to the end; never raises for what becomes of them.

        In the main thread Ctrl-C and its like end it in order; in another one, whoever started it calls `interrupt`.
        """
        loop = self._loop = asyncio.get_running_loop()
        in_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in end_signals()} if in_main else {}
        for number in before:
            loop.add_signal_handler(number, self._interrupt)
        try:
            destination = await self._start("destination", "dest_node", "--listen", "127.0.0.1:0")
            readers = [loop.create_task(self._read(destination))]
            try:
                address = await destination.listening
            except BrokenError:
                pass  # it ended before it listened; it says why itself
            else:
                if not self._interrupted:
                    source = await self._start("source", "source_node", "--connect", address)
                    readers.append(loop.create_task(self._read(source)))
            await self._watch_over(readers)
        finally:
            await self._end_all()
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
        outcome = self._outcome()
        digest = self._merge_traces() if self._trace else ""
        unwritten = self._settle(outcome, digest)
        if unwritten and not outcome.exit_code:
            return PairOutcome(BrokenError.exit_code, unwritten)
        return outcome

    def interrupt(self) -> None:
        """End the run in order, from another thread; a second time, at once. Without effect where it does not run."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._interrupt)

    async def _start(self, name: str, package: str, *arguments: str) -> NodeProcess:
        trace = ["--trace"] if self._trace else []
        process = await asyncio.create_subprocess_exec(
            *start.child(package), str(self._directory / "scenario.toml"), *arguments,
            "--supervised", "--paired", "--out", str(self._directory), *trace,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES_MAX,
            start_new_session=True,  # so that Ctrl-C reaches them through us, once
        )  # fmt: skip
        node = NodeProcess(name, process)
        self._nodes.append(node)
        return node

    async def _read(self, node: NodeProcess) -> None:
        """Take in what a node says, until it has ended and everything it said has been read."""
        assert node.process.stdout is not None
        async for line in node.process.stdout:
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                self._progress.note(f"{node.name}: {line.decode(errors='replace').rstrip()}")
                continue
            if "status" in said:
                self._served = True
                self._progress.show(Status.parse(said["status"]))
            elif "listening" in said:
                node.listening.set_result(said["listening"])
            elif "notice" in said:
                self._progress.note(f"{node.name}: {said['notice']}")
            elif "refused" in said:
                node.refused = (said["refused"], said["exit"])
                self._refused.set()
            elif "error" in said and not node.error:
                node.error, node.relayed = said["error"], said["relayed"]
                self._served = self._served or node.relayed  # the other one has spoken to it
        await node.process.wait()
        if not node.listening.done():
            node.listening.set_exception(BrokenError(f"the {node.name} ended"))
            node.listening.exception()  # it is looked at only where somebody waits for it

    async def _watch_over(self, ends: list[asyncio.Task[None]]) -> None:
        """Until both have ended: when one fails, the other gets `_GRACE_S` to end by itself."""
        first_end = asyncio.Event()
        for end in ends:
            end.add_done_callback(lambda _: first_end.set())
        await first_end.wait()
        if all(node.running or node.process.returncode == 0 for node in self._nodes) and not self._interrupted:
            # One is done and the other follows: it has its own timeouts should the end not reach it.
            await asyncio.gather(*ends)
            return
        stages = (None, signal.SIGTERM, signal.SIGKILL) if self._served else (signal.SIGTERM, signal.SIGKILL)
        for number in stages:
            for node in self._nodes:
                if number is not None and node.running:
                    node.ended_by_us = True
                    node.send_signal(number)
            if await self._have_ended(ends, patient=number is None):
                return

    async def _have_ended(self, ends: list[asyncio.Task[None]], patient: bool) -> bool:
        """Wait `_GRACE_S` for both.

        `patient`: only as long as it may be of use; a destination that has refused the source waits for another one.
        """
        both = asyncio.ensure_future(asyncio.wait(ends))
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait((both, refused) if patient else (both,), timeout=_GRACE_S, return_when=FIRST_COMPLETED)
            return both.done() and all(end.result() is None for end in ends)  # raises what went wrong there
        finally:
            refused.cancel()
            both.cancel()

    def _interrupt(self) -> None:
        """Ctrl-C: both are told, the destination first, which writes the result; a second one kills."""
        for number, node in enumerate(self._nodes):
            if self._interrupted:
                node.send_signal(signal.SIGKILL)
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(number * _HEAD_START_S, node.send_signal, signal.SIGINT)
        self._interrupted = True

    async def _end_all(self) -> None:
        for node in self._nodes:
            node.send_signal(signal.SIGKILL)
            await node.process.wait()

    def _merge_traces(self) -> str:
        """DIR/trace.jsonl of what both have left, half written or not; its digest, empty when there is none."""
        parts = [self._directory / f"trace.{name}.jsonl" for name in ("source", "dest")]
        there = [each for part in parts for each in (part, part.with_name(part.name + PARTIAL)) if each.exists()]
        try:
            if there:
                digest = merge(there, self._directory / "trace.jsonl")
                for part in there:
                    part.unlink()
                return digest
        except (MigemuError, OSError) as error:  # what became of the migration is more important
            self._progress.note(f"the nodes' traces stay apart: {error}")
        return ""

    def _settle(self, outcome: PairOutcome, trace_digest: str) -> str:
        """The result says what the screen says: the destination's, or one for a destination that left none.

        Why it cannot be written; empty if it can.
        """
        path = self._directory / results.NAME
        try:
            result = json.loads(named.read_text(path))
        except (OSError, ValueError):
            if not outcome.error:
                return f"{path}: the destination left no result"
            result = results.empty(self._scenario, "measured")
        before = dict(result)
        if trace_digest:
            result["trace_digest"] = trace_digest
        if outcome.error:
            result["error"] = outcome.error
        if outcome.error and not result["verified"]:
            result["status"] = "interrupted" if outcome.exit_code == EXIT_INTERRUPTED else "failed"
        try:
            if result != before:
                results.write(result, results.begin(self._directory))
        except MigemuError as error:
            return str(error)
        return ""

    def _outcome(self) -> PairOutcome:
        if self._interrupted:
            return PairOutcome(EXIT_INTERRUPTED, f"interrupted; what had arrived is told in {self._directory}")
        failed = [node for node in self._nodes if node.process.returncode != 0 and not node.ended_by_us]
        if not failed:
            stuck = next((node.name for node in self._nodes if node.ended_by_us), "")
            return (
                PairOutcome(BrokenError.exit_code, f"the {stuck} did not end by itself")
                if stuck
                else PairOutcome(0, "")
            )
        for node in failed:  # a killed process cannot say what happened to it
            code = node.process.returncode or 0
            if code < 0:
                return PairOutcome(
                    BrokenError.exit_code,
                    f"the {node.name} process was killed by {signal.Signals(-code).name}, and the other one was "
                    "ended; run it again",
                )
        cause = next((node for node in failed if node.error and not node.relayed), failed[0])
        refused = next((node.refused for node in self._nodes if node.refused is not None), None)
        if cause.relayed and refused is not None:
            return PairOutcome(refused[1], f"destination: {refused[0]}")
        reason = cause.error or f"it ended with exit code {cause.process.returncode} without a reason (see above)"
        return PairOutcome(cause.process.returncode or 1, f"{cause.name}: {reason}")


def run_directory(name: str) -> Path:
    """`runs/<now>-<name>`, where a run goes that was given no `--out`; with a number behind it where that exists."""
    base, now = Path("runs"), datetime.now().strftime("%Y%m%d-%H%M%S")  # noqa: DTZ005 - the user's own time
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name) or "run"
    directory = base / f"{now}-{safe}"
    number = 2
    while os.path.lexists(directory):
        directory = base / f"{now}-{safe}-{number}"
        number += 1
    return directory
