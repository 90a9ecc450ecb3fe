"""The directory of a run (--out): what an earlier run has left there is set aside before the first file of a new one.

    DIR/result.json, DIR/trace.jsonl ...     ->  DIR/previous-<time>/...

Rules
    1. The files of a run are known by name (`OF_RUN`; of one node `OF_DESTINATION`, `OF_SOURCE`), with what was left of
       them half written. All of them go, so that whatever stands beside a result is of that run. Nothing else is
       touched: a checkpoint is a guest, not a trace of it.
    2. A file that another run writes at this moment is refused (InputError): the directory is in use. So is one that
       this run reads: it would not be there any more for the next one.
    3. A directory that others can write is told of, once: what lies there may be replaced by them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from migemu.errors import InputError
from migemu.store.output import PARTIAL, broken_if_refused, is_held, risk

#: What a source, a destination, and whoever runs both leave in their --out DIR.
OF_SOURCE: Final = ("migration.json", "trace.source.jsonl")
OF_DESTINATION: Final = (
    "result.json", "trace.dest.jsonl", "trace.jsonl", "scenario.toml", "report.html", "perfetto.json",
)  # fmt: skip
OF_RUN: Final = OF_SOURCE + OF_DESTINATION
#: What can be read half written: the trace of a node that was killed. The rest goes when its file is written anew.
_READABLE: Final = ".jsonl" + PARTIAL


def set_aside(
    directory: Path, names: Iterable[str], inputs: Iterable[Path], notice: Callable[[str], None]
) -> Path | None:  # fmt: skip
    """Move the files called `names`, if `directory` has any, to a new directory in it; its path, or None.

    InputError by rule 2, BrokenError when they cannot be moved.
    """
    if (reason := risk(directory)) is not None:
        notice(f"--out {directory}: {reason}: what is written there may be replaced by somebody else")
    there = [each for name in names for each in (name, name + PARTIAL) if os.path.lexists(directory / each)]
    for name in there:
        path = directory / name
        for each in inputs:
            with contextlib.suppress(OSError):
                if path.samefile(each):
                    raise InputError(f"--out {directory}: {name} there is what is read ({each}); give another --out")
        if is_held(path):
            raise InputError(f"--out {directory}: another run writes {name} there at this moment; give another --out")
    found = [name for name in there if not name.endswith(PARTIAL) or name.endswith(_READABLE)]
    if not found:
        return None
    aside = _new(directory)
    with broken_if_refused(aside):
        aside.mkdir()
        for name in found:
            (directory / name).rename(aside / name)
    notice(f"--out {directory}: the files of an earlier run were moved to {aside}")
    return aside


def _new(directory: Path) -> Path:
    name = f"previous-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - the user's own time
    number, aside = 2, directory / name
    while os.path.lexists(aside):
        number, aside = number + 1, directory / f"{name}-{number}"
    return aside
