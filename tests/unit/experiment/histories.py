"""Histories of a sweep for tests: files of results as states of the code would have left them, with known changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.experiment.sweeps import PIECES, run, sweep_of

Change = Callable[[dict[str, Any]], None]


def unchanged(result: dict[str, Any]) -> None:
    """Leaves a result as it is."""


def slower(share: float) -> Change:
    """Every fault takes that much longer."""

    def change(result: dict[str, Any]) -> None:
        fault = result["fault"]
        fault |= {key: round(value * (1 + share)) for key, value in fault.items() if key.endswith("_ns")}

    return change


def state(
    folder: Path, number: int, change: Change = unchanged, *, program: str = "", commit: str = "", text: str = PIECES
) -> Path:
    """A file of results of the sweep, made on day `number` by a program of that number, each result changed."""
    directory = folder / f"state-{number}"
    directory.mkdir(parents=True)
    path = directory / "sweep.sqlite"
    run(sweep_of(directory, text), path)
    program = program or f"0.1+{number:016x}"
    database = sqlite3.connect(path)
    with database:
        for run_id, text in database.execute("SELECT id, result FROM run").fetchall():
            result = json.loads(text)
            change(result)
            when = f"2026-11-{number + 1:02}T12:00:{run_id:02}.000+00:00"
            database.execute("UPDATE run SET result = ?, program = ?, finished = ? WHERE id = ?",
                             (json.dumps(result), program, when, run_id))  # fmt: skip
        database.execute("DELETE FROM sweep WHERE key LIKE 'commit %'")
        database.execute("INSERT INTO sweep VALUES (?, ?)", (f"commit {program}", commit))
    database.close()
    return path
