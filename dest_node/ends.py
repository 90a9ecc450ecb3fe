"""What is left of a migration that has ended: its result, and its memory as it arrived, in files.

one migration    DIR/result.json, and the --dump FILE
several          DIR/<first 8 digits of its name>/result.json; one line tells how it ended
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dest_node.incoming import Incoming
from migemu.command import Voice
from migemu.errors import BrokenError, InputError, MigemuError, one_line
from migemu.report import result as results
from migemu.scenario import Scenario
from migemu.units import format_size


class Ends:
    """Of all the migrations of one destination."""

    def __init__(
        self, voice: Voice, scenario: Scenario, notice: Callable[[str], None], out: Path | None, dump: Path | None,
        several: bool, lines: bool,
    ) -> None:  # fmt: skip
        """Of `several`, `notice` is told how each ended, and with `lines` its result is a line of JSON."""
        #: That of the only migration.
        self.result: dict[str, Any] = {}
        self._voice = voice
        self._scenario = scenario
        self._notice = notice
        self._out = out
        self._dump = dump
        self._several = several
        self._lines = lines

    def of(self, incoming: Incoming, error: BaseException | None) -> None:
        """`incoming` has ended, with `error` or verified. BrokenError when something cannot be written."""
        if error is None and self._dump is not None:
            write_image(incoming, self._dump)
        status = "completed" if error is None else "failed" if isinstance(error, MigemuError) else "interrupted"
        told = "" if error is None else str(error) or status
        result = results.build(incoming.outcome(), self._scenario, "measured", status, told)
        if self._several:
            how = (
                f"verified, {format_size(result['bytes']['memory'])}" if error is None else f"{status}: {_line(error)}"
            )
            self._notice(f"migration {incoming.migration[:8]}: {how}")
            if self._lines:
                click.echo(json.dumps(result))
        else:
            self.result = result
        if self._out is not None:
            try:
                self._voice.tell(result=str(results.write(result, self._directory(self._out, incoming.migration))))
            except BrokenError as unwritten:
                if error is None:
                    raise
                self._notice(str(unwritten))  # what it failed of comes first

    def _directory(self, out: Path, migration: str) -> Path:
        """A directory of its own among several; two migrations whose names begin alike do not share one."""
        if not self._several:
            return out
        short = out / migration[:8]
        return out / migration if (short / "result.json").exists() else short

    def __repr__(self) -> str:
        return f"<Ends in {self._out}>"


def _line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__


def check_writable(path: Path) -> None:
    """InputError when --dump cannot write there."""
    try:
        path.open("wb").close()
    except OSError as error:
        raise InputError(f"--dump {path}: cannot be written: {error.strerror}") from None


def write_image(incoming: Incoming, path: Path) -> None:
    """Write the memory as it arrived. BrokenError when the disk does not take it."""
    try:
        with path.open("wb") as file:
            file.writelines(incoming.image())
    except OSError as error:
        raise BrokenError(f"--dump {path}: cannot be written: {error.strerror}") from None
