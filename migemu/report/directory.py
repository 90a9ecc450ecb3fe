"""A directory of a run: what of it is there, and what is missing.

Rules
    1. A directory is one of a run when it holds result.json, scenario.toml or a trace; else InputError.
    2. A run may have failed, been interrupted or been killed: what it has left is told, and what is missing is named.
    3. A result of another schema version is refused (InputError): its keys may mean something else.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from migemu import named
from migemu.errors import InputError
from migemu.report.result import SCHEMA_VERSION
from migemu.trace.events import KINDS

_TRACES: Final = ("trace.jsonl", "trace.dest.jsonl")
_SECTIONS: Final = (
    "scenario", "pieces", "bytes", "time_ns", "fault", "blocktime_ns", "guest", "page_table", "collapse", "modelled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """What was found. `result` is that of result.json or empty; `scenario` is {section: {key: value}}."""

    path: Path
    name: str
    result: dict[str, Any]
    scenario: dict[str, dict[str, Any]]
    trace: Path | None
    missing: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Look at `path`. InputError in one line when it is not a run's."""
        if not path.is_dir():
            raise InputError(
                f"{path}: {'is not a directory' if path.exists() else 'does not exist'}; give the DIR of a run"
            )
        trace = next((path / name for name in _TRACES if (path / name).is_file()), None)
        if trace is None and not any((path / name).is_file() for name in ("result.json", "scenario.toml")):
            raise InputError(f"{path}: holds no run: no result.json, no scenario.toml, no trace.jsonl")
        missing: list[str] = []
        result = _result(path / "result.json", missing)
        scenario = result.get("scenario") or _scenario(path / "scenario.toml", missing)
        status = result.get("status", "")
        if status not in ("", "completed"):
            missing.insert(
                0, f"the run {'was interrupted' if status == 'interrupted' else status}: {result.get('error')}"
            )
        if trace is None:
            missing.append(
                "no trace.jsonl (run with --trace): nothing over time, no causes of faults, no maps of pieces"
            )
        elif trace.name != _TRACES[0]:
            missing.append(f"the nodes' traces were not merged; {trace.name} tells what the destination saw")
        name = scenario.get("scenario", {}).get("name", "") if scenario else ""
        return cls(path, str(name) or path.name, result, scenario, trace, tuple(missing))

    def lacking(self, what: str) -> RunDirectory:
        """The same, with one more thing that is missing."""
        return replace(self, missing=(*self.missing, what))

    @property
    def kind(self) -> str:
        """ "measured" or "modelled", or "" where no result says so."""
        return str(self.result.get("kind", ""))


def _result(path: Path, missing: list[str]) -> dict[str, Any]:
    text = _text(path)
    if text is None:
        missing.append("no result.json (the destination was killed, or has not finished): no figures of the run")
        return {}
    try:
        result = json.loads(text)
        version = result["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        result, version = {}, SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: is a result of version {version!r}; this migemu reads version {SCHEMA_VERSION}")
    if result.get("kind") not in KINDS or not all(isinstance(result.get(section), dict) for section in _SECTIONS):
        missing.append("result.json is damaged: no figures of the run")
        return {}
    return dict(result)


def _scenario(path: Path, missing: list[str]) -> dict[str, dict[str, Any]]:
    text = _text(path)
    try:
        scenario = tomllib.loads(text or "")
    except (ValueError, RecursionError):
        scenario = {}
    if not scenario or not all(isinstance(section, dict) for section in scenario.values()):
        missing.append(f"{'no' if text is None else 'a damaged'} scenario.toml: its settings are not known")
        return {}
    return scenario


def _text(path: Path) -> str | None:
    """The text of a file; None when there is none. InputError when it is there and cannot be read."""
    try:
        return named.read(path, named.TEXT_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
