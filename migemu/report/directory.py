"""A directory of a run: what of it is there, and what is missing.

Rules
    1. A directory is one of a run when it holds result.json, scenario.toml or a trace; else InputError.
    2. A run may have failed, been interrupted or been killed: what it has left is told, and what is missing is named.
    3. A result of another schema version is refused (InputError): its keys may mean something else.
    4. A result names its trace by digest; one beside the trace of another run is refused (InputError).
    5. A run that was killed has no result; what it has left of a trace (NAME.partial) is read as far as it goes.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from migemu import named
from migemu.errors import InputError
from migemu.result import SCHEMA_VERSION
from migemu.store.output import PARTIAL
from migemu.trace.events import KINDS

_TRACES: Final = ("trace.jsonl", "trace.dest.jsonl")
_CUT: Final = tuple(name + PARTIAL for name in _TRACES)
_SECTIONS: Final = (
    "scenario", "pieces", "bytes", "time_ns", "fault", "blocktime_ns", "guest", "page_table", "collapse", "modelled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run. `result` is that of result.json, or {}; `scenario` is {section: {key: value}}."""

    path: Path
    name: str
    result: dict[str, Any]
    scenario: dict[str, dict[str, Any]]
    trace: Path | None
    missing: tuple[str, ...]
    #: What of it is read.
    files: tuple[Path, ...] = ()

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Examine `path`. InputError in one line when it is not the directory of a run."""
        if not path.is_dir():
            raise InputError(
                f"{path}: {'is not a directory' if path.exists() else 'does not exist'}; give the DIR of a run"
            )
        has_result = (path / "result.json").is_file()
        traces = _TRACES if has_result else _TRACES + _CUT
        trace = next((path / name for name in traces if (path / name).is_file()), None)
        if trace is None and not has_result and not (path / "scenario.toml").is_file():
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
        elif trace.name in _CUT:
            missing.append(f"{trace.name} ends where its node was killed, or has come so far")
        elif trace.name != _TRACES[0]:
            missing.append(f"the nodes' traces were not merged; {trace.name} tells what the destination saw")
        name = scenario.get("scenario", {}).get("name", "") if scenario else ""
        files = tuple(path / name for name in ("result.json", "scenario.toml", *traces))
        return cls(path, str(name) or path.name, result, scenario, trace, tuple(missing), files)

    def check(self, trace_digest: str) -> None:
        """InputError when `digest`, that of a trace, is not the one that result.json names (rule 4)."""
        if self.result and self.result.get("trace_digest") != trace_digest:
            raise InputError(
                f"{self.path}: result.json and {self.trace.name if self.trace else 'the trace'} are of different runs; "
                "move one of them away, or run it again with --trace"
            )

    def lacking(self, what: str) -> RunDirectory:
        """A copy with `what` added to the list of what is missing."""
        return replace(self, missing=(*self.missing, what))

    @property
    def kind(self) -> str:
        """ "measured" or "modelled"; "" without a result."""
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
    """The text of a file; None when there is no such file. InputError when it cannot be read."""
    try:
        return named.read(path, named.TEXT_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
