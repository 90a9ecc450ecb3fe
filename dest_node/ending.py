"""What is left of a migration that has ended: its trace, its memory as it arrived, its result, in files.

one migration    DIR/trace.dest.jsonl, the --dump FILE and DIR/result.json, begun before the door opens
several          DIR/<first 8 digits of its name>/result.json; one line tells how it ended

Rule: a file that cannot be written is lost, and nothing else is: the migration ends as it would have, its source has
heard so, and the other files are written. `lost` says which, for the result, for the last line, and for the exit code.

A dump is of memory that was compared with the source's, with one exception: a guest that ran here and whose source went
for good when all of its memory had come, before its digests did. Nothing but the dump keeps that guest, so it is
written, and said to be unverified.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click

from dest_node.incoming import Incoming
from migemu import result as results
from migemu.errors import BrokenError, MigemuError, StoppedError, one_line
from migemu.process.runner import Voice
from migemu.scenario.scenario import Scenario
from migemu.store.output import PRIVATE, Output, broken_if_refused
from migemu.store.trace_file import FileRecorder
from migemu.units import format_size

_INTERRUPTED: Final = "interrupted before all of it was written"


class Files:
    """The files of the only migration there is to be, begun. A context manager: what was not written is given up."""

    def __init__(
        self, out: Path | None, dump: Path | None, trace: bool, inputs: Iterable[Path], notice: Callable[[str], None]
    ) -> None:  # fmt: skip
        """InputError and BrokenError when one cannot be written; `notice` is told of what is lost on the way."""
        self.result: Output | None = None
        self.dump: Output | None = None
        self.tracer: FileRecorder | None = None
        self._notice = notice
        self._interrupted = False
        with ExitStack() as stack:
            if dump is not None:
                self.dump = Output(dump, mode=PRIVATE, inputs=inputs)
                stack.callback(self.dump.discard)
            if out is not None:
                self.result = results.begin(out, inputs)
                stack.callback(self.result.discard)
            if out is not None and trace:
                self.tracer = stack.enter_context(
                    FileRecorder(out / "trace.dest.jsonl", "measured", notice, inputs)
                )  # fmt: skip
            self._open = stack.pop_all()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def arriving(self, image_bytes: int) -> None:
        """A source has announced its image. InputError when that, or somebody else's, is where the dump would go."""
        if self.dump is None:
            return
        self.dump.check()
        if (room := self.dump.room_bytes()) < image_bytes:
            self._notice(
                f"--dump {self.dump.path}: {format_size(image_bytes)} will come, and {format_size(room)} are free: "
                "it fits only if the rest is zeros"
            )

    def write_dump(self, incoming: Incoming, is_verified: bool) -> None:
        """Write the memory as it arrived, with holes where it is zeros, and say whether it was compared.

        MigemuError when it cannot be written.
        """
        output = self.dump
        assert output is not None
        try:
            with broken_if_refused(output.path):
                for part in incoming.image():
                    if self._interrupted:
                        raise BrokenError(f"{output.path}: {_INTERRUPTED}")
                    output.write_sparse(part)
                on_disk = output.disk_bytes
            output.commit()
        except BaseException:
            output.discard()
            raise
        compared = "" if is_verified else "; unverified: all of it came, and was not compared with the source's"
        self._notice(
            f"--dump {output.path}: {format_size(output.written_bytes)}, which take {format_size(on_disk)} on the disk"
            f"{compared}"
        )

    def interrupt(self) -> None:
        """Whatever takes long now ends soon."""
        self._interrupted = True


class Endings:
    """How all the migrations of one destination have ended: their results, and what could not be written."""

    def __init__(
        self, voice: Voice, scenario: Scenario, notice: Callable[[str], None], out: Path | None, files: Files | None,
        lines: bool,
    ) -> None:  # fmt: skip
        """`files` are those of the only migration. Of several, `notice` is told how each ended, and with `lines` its
        result is a line of JSON.
        """  # fmt: skip
        #: The result of the only migration.
        self.result: dict[str, Any] = {}
        #: What could not be written, of all of them.
        self.lost: list[str] = []
        self._voice = voice
        self._scenario = scenario
        self._notice = notice
        self._out = out
        self._files = files
        self._lines = lines

    async def add(self, incoming: Incoming, error: BaseException | None) -> None:
        """`incoming` has ended, with `error` or verified: write its files, and say so. What fails is in `lost`."""
        lost: list[str] = []
        digest = ""
        if self._files is not None:
            digest = await self._finish(self._files, incoming, error is None, lost)
        failed = isinstance(error, MigemuError) and not isinstance(error, StoppedError)
        status = "completed" if error is None else "failed" if failed else "interrupted"
        said = (str(error) or status) if error is not None else missing(lost) if lost else ""
        result = results.build(incoming.outcome(), self._scenario, "measured", status, said)
        result |= {"trace_digest": digest, "lost": lost}
        if self._files is None:
            self._tell(incoming, result, error)
        else:
            self.result = result
        try:
            if (output := await self._output(incoming.migration)) is not None:
                path = await self._apart(lambda: results.write(result, output))
                self._voice.tell(result=str(path))
        except MigemuError as unwritten:
            lost.append(str(unwritten))
        if error is None:
            self.lost += lost
        if error is not None or self._files is None:  # else the last line tells
            for each in lost:
                self._notice(each)

    async def _finish(self, files: Files, incoming: Incoming, is_verified: bool, lost: list[str]) -> str:
        """Trace and dump, which take as long as the disk takes; the digest of the trace."""
        if files.dump is not None and (is_verified or incoming.is_whole_unverified):
            try:
                await self._apart(lambda: files.write_dump(incoming, is_verified))
            except MigemuError as error:
                lost.append(str(error))
        if files.tracer is None:
            return ""
        await self._apart(files.tracer.close)
        if files.tracer.failure:
            lost.append(files.tracer.failure)
        return files.tracer.digest

    async def _apart(self, work: Callable[[], Any]) -> Any:
        """Do it in a thread, so that nobody waits for the disk. Who is interrupted meanwhile waits for its end."""
        working = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            if self._files is not None:
                self._files.interrupt()
            return await working

    async def _output(self, migration: str) -> Output | None:
        """result.json, in a directory of its own among several; two whose names begin alike do not share one."""
        if self._files is not None:
            return self._files.result
        if self._out is None:
            return None
        short = self._out / migration[:8]
        directory = self._out / migration if (short / results.NAME).exists() else short
        output: Output = await self._apart(lambda: results.begin(directory))
        return output

    def _tell(self, incoming: Incoming, result: dict[str, Any], error: BaseException | None) -> None:
        how = f"verified, {format_size(result['bytes']['memory'])}"
        if error is not None:
            how = f"{result['status']}: {one_line(error) or type(error).__name__}"
        self._notice(f"migration {incoming.migration[:8]}: {how}")
        if self._lines:
            click.echo(json.dumps(result))

    def __repr__(self) -> str:
        return f"<Endings in {self._out}>"


def missing(lost: Iterable[str]) -> str:
    """The line for a migration that is verified, and whose files are not all there."""
    return f"verified, but not every file could be written: {'; '.join(lost)}"
