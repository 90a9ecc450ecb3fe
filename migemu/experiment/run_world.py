"""The seam to the worlds: a function that runs one scenario and answers with its result.

`RunCell` is all that experiments know of a world. It is named by text (`"migemu.worlds.modelled:run_cell"`), as the
process that calls it may be another one on another machine: what travels is the name and the resolved settings, and
what comes back is the result (`migemu.result`) as a dictionary.

Rules of this file
    1. A run that fails is an answer, not an exception: one line that says why, and for a bug of ours the traceback.
    2. Ctrl-C is nobody's answer; it passes through.
    3. A result that is of another version, or did not complete, is never taken for a finished run.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from migemu.errors import InputError, MigemuError, one_line
from migemu.experiment.program import Program, this_program
from migemu.result import SCHEMA_VERSION
from migemu.scenario.scenario import Scenario, from_mapping

#: A scenario, and the directory for its trace and result (or None) -> what result.json would hold.
RunCell = Callable[[Scenario, Path | None], dict[str, Any]]

MODELLED: Final = "migemu.worlds.modelled:run_cell"
MEASURED: Final = "migemu.worlds.measured:run_cell"


@dataclass(frozen=True, slots=True)
class Job:
    """One run to do. `world` is the dotted name of a RunCell, `settings` a resolved scenario."""

    number: int
    world: str
    settings: dict[str, dict[str, Any]]
    directory: str | None
    program: Program


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """How a run ended: with a result; with an error (and perhaps a result); or without an answer, as its worker died.

    `blameless`: the whole cluster was lost, which says nothing about this run.
    """

    job: Job
    result: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    wall_ns: int = 0
    worker: str = ""
    worker_died: bool = False
    blameless: bool = False


def find_world(name: str) -> RunCell:
    """The function with the dotted `name`. InputError when there is none."""
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the world {name} cannot be loaded: {one_line(error)}") from None
    if not callable(found):
        raise InputError(f"{name!r} is not a world; write package.module:function")
    return cast("RunCell", found)


def do(job: Job) -> RunAnswer:
    """Do one run in this process. Never raises, except for Ctrl-C: an error is part of the answer."""
    began = time.monotonic_ns()
    result: dict[str, Any] | None = None
    error = trace = ""
    try:
        job.program.compare(this_program())
        scenario = from_mapping(job.settings, "the sweep's scenario")
        result = find_world(job.world)(scenario, Path(job.directory) if job.directory else None)
        error = unfinished(result) or ""
    except MigemuError as problem:
        error = one_line(problem)
    except MemoryError:
        error = "no memory left; run fewer at once, or less memory each"
    except Exception as problem:
        error = f"a bug in the world: {type(problem).__name__}: {one_line(problem)}"
        trace = traceback.format_exc()
    worker = f"{platform.node()}:{os.getpid()}"
    return RunAnswer(job, result, error, trace, time.monotonic_ns() - began, worker)


def unfinished(result: dict[str, Any]) -> str | None:
    """Why `result` is not that of a finished run, in one line; None when it is."""
    version = result.get("schema_version")
    if version != SCHEMA_VERSION:
        return f"the result is of schema version {version}, this program reads version {SCHEMA_VERSION}"
    status = result.get("status")
    return None if status == "completed" else str(result.get("error") or f"the run ended as {status}")


def worker_died(job: Job, worker: str, blameless: bool = False) -> RunAnswer:
    """The answer of a run whose worker died."""
    error = f"its worker ({worker}) died: out of memory, or killed"
    return RunAnswer(job, error=error, worker=worker, worker_died=True, blameless=blameless)
