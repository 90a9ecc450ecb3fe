"""One side of a comparison: runs out of a directory, a result.json, or a sweep's results.

    runs/a                              the directory of one run (with result.json) or of a sweep (with sweep.sqlite)
    runs/a/result.json                  one run
    runs/sweep/sweep.sqlite             all cells of a sweep
    runs/sweep/sweep.sqlite:piece=4K    those cells of it (the directory may stand there too)

Rules of this file
    1. Only finished runs are compared; what is left out is counted, and told.
    2. Results of another version of result.json are an error, and so is a side with both kinds in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from migemu import named
from migemu.errors import InputError
from migemu.experiment.cell import parse_selector, selected
from migemu.experiment.results import Results
from migemu.experiment.run_world import unfinished
from migemu.experiment.schema import DONE
from migemu.result import SCHEMA_VERSION

SWEEP_FILE: Final = "sweep.sqlite"


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished run: its coordinates in its sweep ({} if it is of none), its seed and its result."""

    coordinates: Mapping[str, str]
    seed: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleSource:
    """The runs of one side, read from `file`. `single`: one run by itself; `chosen`: axes that a selector fixed.

    `excluded` counts runs that did not finish.
    """

    text: str
    samples: tuple[Sample, ...]
    single: bool
    chosen: Mapping[str, str]
    excluded: int
    programs: frozenset[str]
    file: Path

    @property
    def kind(self) -> str:
        """ "measured" or "modelled"."""
        return str(self.samples[0].result["kind"])


def read_source(text: str) -> SampleSource:
    """The runs that `text` names. InputError when none can be compared, or they cannot be read."""
    path, selector = _split(text)
    source = _sweep(text, path, selector) if _is_sweep(path) else _single(text, path, selector)
    kinds = {str(sample.result.get("kind")) for sample in source.samples}
    if not source.samples:
        raise InputError(f"{text}: none of its runs is done ({source.excluded} are not)")
    if len(kinds) > 1:
        raise InputError(f"{text} holds {' and '.join(sorted(kinds))} runs; they are never compared with each other")
    return source


def _split(text: str) -> tuple[Path, str]:
    """The longest existing path that `text` begins with, up to a colon; and the selector after it."""
    parts = text.split(":")
    for count in range(len(parts), 0, -1):
        path = Path(":".join(parts[:count]))
        if path.exists():
            return (path / SWEEP_FILE if (path / SWEEP_FILE).exists() else path), ":".join(parts[count:])
    raise InputError(f"{text}: there is no such run, result or sweep")


def _is_sweep(path: Path) -> bool:
    return not path.is_dir() and path.suffix != ".json"


def _single(text: str, path: Path, selector: str) -> SampleSource:
    if selector:
        raise InputError(f"{text}: only cells of a sweep can be selected, {path} is one run")
    file = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(named.read_text(file, once=True))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or "schema_version" not in result:
        raise InputError(f"{file} is no result of a run")
    _check_version(str(file), result)
    if problem := unfinished(result):
        raise InputError(f"{file}: the run did not complete: {problem}")
    seed = result["scenario"]["scenario"]["seed"]
    return SampleSource(text, (Sample({}, seed, result),), True, {}, 0, frozenset(), file)


def _sweep(text: str, path: Path, selector: str) -> SampleSource:
    samples, excluded, programs = [], 0, set()
    with Results.read(path) as results:
        chosen = parse_selector(selector, dict.fromkeys(results.axes())) if selector else {}
        for run in results.runs():
            if not selected(chosen, run.coordinates):
                continue
            if run.status != DONE:
                excluded += 1
                continue
            _check_version(f"{path}: {run.cell}, seed {run.seed}", run.result)
            samples.append(Sample(run.coordinates, run.seed, run.result))
            programs.add(run.program)
    if chosen and not samples and not excluded:
        raise InputError(f"{text}: no cell is at {selector}")
    return SampleSource(text, tuple(samples), False, chosen, excluded, frozenset(programs), path)


def _check_version(what: str, result: dict[str, Any]) -> None:
    version = result.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"{what}: is of schema version {version}, this program reads version {SCHEMA_VERSION}")
