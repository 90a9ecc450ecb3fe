"""Results: the file in which a sweep keeps what has finished (`schema` has its tables).

Rules of this file
    1. A run is committed when it has finished, to the disk (WAL, synchronous=FULL): a kill at any moment costs what is
       under way, never what is done.
    2. One writer at a time, held by a lock beside the file; readers are welcome while it writes.
    3. A file that is damaged, of another program or another version is told in one line and never written to.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from migemu import named
from migemu.errors import BrokenError, InputError, one_line
from migemu.experiment import schema
from migemu.experiment.cell import Cell, differing
from migemu.experiment.figures import figures
from migemu.experiment.program import Program, this_commit, this_program
from migemu.experiment.run_world import RunAnswer
from migemu.experiment.sweep_file import Sweep

_BUSY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One row of the file: the run of one cell with one seed. `result` is {} if the run has none."""

    cell: str
    coordinates: Mapping[str, str]
    seed: int
    status: str
    error: str
    program: str
    #: When it ended, UTC, ISO 8601.
    finished: str
    wall_ns: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Changes:
    """How a sweep file differs from the stored results: names of cells, and seeds."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]
    seeds_new: tuple[int, ...]
    seeds_gone: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.changed or self.seeds_new or self.seeds_gone)


class Results:
    """An open file of results: open it with `create`, `resume` or `read`, and close it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Any = None) -> None:
        self.path, self._db, self._lock = path, connection, lock

    # ---------------------------------------------------------------------------------------------------- opening

    @classmethod
    def create(cls, path: Path, sweep: Sweep, world: str) -> Self:
        """Create a file for `sweep`. InputError when `path` exists; BrokenError when it cannot be created."""
        lock = _lock(path)
        if os.path.lexists(path):
            lock.close()
            raise InputError(f"{path} holds results already; continue them with --resume, or give another --out")
        with _broken_if_sqlite_fails(path):
            connection = _connect(path, "rwc")
            with connection:
                connection.executescript(f"BEGIN;{schema.TABLES}")
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {schema.VERSION}")
                head = {"world": world, "created": _now(), "program": str(this_program())}
                connection.executemany("INSERT INTO sweep VALUES (?, ?)", head.items())
            connection.execute(
                "PRAGMA journal_mode = WAL"
            )  # only now, so that even a killed start leaves one whole file
        results = cls(path, connection, lock)
        results.adopt(sweep)
        return results

    @classmethod
    def resume(cls, path: Path, world: str) -> Self:
        """Open a file of an earlier call to write to it. InputError as `read`, or if world or version differ."""
        lock = _lock(path)
        try:
            with cls.read(path) as before:
                there, program = before.head("world"), Program.parse(before.head("program"))
            if there != world:
                raise InputError(f"{path} holds runs of {there}, not of {world}; give another --out")
            if program.version != this_program().version:
                raise InputError(
                    f"{path} was made by migemu {program.version}, this is {this_program().version}: their figures do "
                    "not belong in one sweep; give another --out, or resume it with that version"
                )
            with _broken_if_sqlite_fails(path):
                connection = _connect(path, "rw")
                connection.execute("PRAGMA journal_mode = WAL")
                return cls(path, connection, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open a file to read it. InputError when it is no file of results, is damaged, or of another version."""
        if not path.exists():
            raise InputError(f"{path}: there is no such file of results")
        try:
            named.opened(path).close()  # SQLite itself would wait for whoever writes to a pipe
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            connection = _connect(path, "ro")
            number = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            raise InputError(
                f"{path} cannot be read as SQLite ({one_line(error)}): it is damaged or something else; it was left as "
                "it is, give another --out"
            ) from None
        problem = ""
        if number != schema.APPLICATION_ID:
            problem = "is an SQLite file, but not of results of a sweep"
        elif version != schema.VERSION:
            problem = f"has tables of version {version}, this program reads version {schema.VERSION}"
        elif verdict != "ok":
            problem = f"is damaged ({one_line(ValueError(verdict))}); it was not changed; give another --out"
        if problem:
            connection.close()
            raise InputError(f"{path} {problem}")
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up the lock. After writing, it is a single file that can be copied."""
        if self._lock is not None:
            try:
                self._db.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.Error:
                pass  # somebody reads it: the next writer will do it
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    # ---------------------------------------------------------------------------------------------------- the sweep

    def head(self, key: str) -> str:
        """The value that the table `sweep` has under `key`; "" if none."""
        row = self._db.execute("SELECT value FROM sweep WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def commit(self, program: str) -> str:
        """The git commit at which `program` has written here; "" where that is not known."""
        return self.head(f"commit {program}")

    def changes(self, sweep: Sweep) -> Changes:
        """How `sweep` differs from the sweep that the file was written for."""
        rows = self._db.execute("SELECT name, digest, settings FROM cell WHERE in_sweep ORDER BY position")
        known = {name: (digest, json.loads(settings)) for name, digest, settings in rows}
        now = {cell.name: cell for cell in sweep.cells}
        changed = [
            f"{name} ({_difference(known[name][1], cell)})"
            for name, cell in now.items()
            if name in known and known[name][0] != cell.digest
        ]
        seeds = json.loads(self.head("seeds"))
        return Changes(
            tuple(name for name in now if name not in known), tuple(name for name in known if name not in now),
            tuple(changed), tuple(seed for seed in sweep.seeds if seed not in seeds),
            tuple(seed for seed in seeds if seed not in sweep.seeds),
        )  # fmt: skip

    def adopt(self, sweep: Sweep) -> None:
        """Make the file that of `sweep`: cells of it are marked `in_sweep`; runs of other cells stay, unmarked."""
        head = {
            "name": sweep.name, "description": sweep.description, "file": sweep.text, "seeds": json.dumps(sweep.seeds),
            "axes": json.dumps({axis.name: axis.description for axis in sweep.axes}), "program": str(this_program()),
            f"commit {this_program()}": this_commit(),
        }  # fmt: skip
        with _broken_if_sqlite_fails(self.path), self._db:
            self._db.executemany("INSERT OR REPLACE INTO sweep VALUES (?, ?)", head.items())
            self._db.execute("UPDATE cell SET in_sweep = 0")
            for position, cell in enumerate(sweep.cells):
                settings = {} if cell.scenario is None else cell.scenario.resolved()
                (number,) = self._db.execute(
                    "INSERT INTO cell (name, digest, in_sweep, position, problem, settings) VALUES (?, ?, 1, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET in_sweep = 1, position = excluded.position, problem = excluded.problem "
                    "RETURNING id", (cell.name, cell.digest, position, cell.problem, json.dumps(settings)),
                ).fetchone()  # fmt: skip
                self._db.executemany(
                    "INSERT OR REPLACE INTO coordinate VALUES (?, ?, ?, ?)",
                    [(number, axis, place, value) for place, (axis, value) in enumerate(cell.coordinates.items())],
                )

    # ----------------------------------------------------------------------------------------------------- the runs

    def record(self, cell: Cell, seed: int, answer: RunAnswer, attempts: int) -> None:
        """Store one run that has ended, in one transaction. BrokenError when the disk refuses it."""
        result = answer.result or {}
        status = schema.FAILED if answer.error else schema.DONE
        with _broken_if_sqlite_fails(self.path), self._db:
            (number,) = self._db.execute(
                "SELECT id FROM cell WHERE name = ? AND digest = ?", (cell.name, cell.digest)
            ).fetchone()
            self._db.execute("DELETE FROM run WHERE cell = ? AND seed = ? AND status = 'failed'", (number, seed))
            run = self._db.execute(
                "INSERT INTO run (cell, seed, status, error, traceback, attempts, kind, program, worker, finished, "
                "wall_ns, result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, seed, status, answer.error, answer.traceback, attempts, str(result.get("kind", "")),
                 str(answer.job.program), answer.worker, _now(), answer.wall_ns, json.dumps(result) if result else ""),
            ).lastrowid  # fmt: skip
            rows = [(run, key, value) for key, value in figures(result).items()]
            self._db.executemany("INSERT INTO figure VALUES (?, ?, ?)", rows)

    def done(self) -> set[tuple[str, str, int]]:
        """(cell, digest, seed) of every run that is done."""
        rows = self._db.execute(
            "SELECT name, digest, seed FROM run JOIN cell ON cell.id = run.cell WHERE status = 'done'"
        )
        return {(name, digest, seed) for name, digest, seed in rows}

    def axes(self) -> list[str]:
        """The names of the axes; the last is `cell` if there are cells beside the grid."""
        rows = self._db.execute("SELECT axis, min(position) FROM coordinate GROUP BY axis ORDER BY 2, 1")
        return [axis for axis, _ in rows]

    def possible(self) -> list[str]:
        """The names of the cells that can run, in the order of the sweep, whether they have run or not."""
        rows = self._db.execute("SELECT name FROM cell WHERE in_sweep AND problem = '' ORDER BY position")
        return [name for (name,) in rows]

    def impossible(self) -> list[tuple[str, str]]:
        """(cell, problem) of each impossible cell of the sweep."""
        rows = self._db.execute("SELECT name, problem FROM cell WHERE in_sweep AND problem != '' ORDER BY position")
        return [(name, problem) for name, problem in rows]

    def runs(self) -> Iterator[StoredRun]:
        """All runs of the present sweep, in the order of its file, by seed."""
        coordinates: dict[int, dict[str, str]] = {}
        for cell, axis, value in self._db.execute("SELECT cell, axis, value FROM coordinate ORDER BY cell, position"):
            coordinates.setdefault(cell, {})[axis] = value
        rows = self._db.execute(
            "SELECT cell.id, name, seed, status, error, program, finished, wall_ns, result FROM run JOIN cell "
            "ON cell.id = run.cell WHERE in_sweep ORDER BY cell.position, seed"
        )
        for number, name, seed, status, error, program, finished, wall_ns, result in rows:
            there = json.loads(result) if result else {}
            at = coordinates.get(number, {})
            yield StoredRun(name, at, seed, status, error, program, finished, wall_ns, there)


def _difference(before: dict[str, Any], cell: Cell) -> str:
    if cell.scenario is None or not before:
        return "impossible now" if cell.scenario is None else "impossible before"
    settings = differing(before, cell.scenario.resolved())
    return ", ".join(f"{key} {old} -> {new}" for key, (old, new) in settings.items())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S)
    if mode != "ro":
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _lock(path: Path) -> Any:
    """Lock the file as long as this process lives. InputError when another sweep has locked it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path.with_name(f"{path.name}.lock"), flags, 0o666), "a")
    except OSError as error:
        raise BrokenError(f"{path} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"another sweep writes to {path} at this moment; wait for it, or give another --out") from None
    return file


@contextmanager
def _broken_if_sqlite_fails(path: Path) -> Iterator[None]:
    """A context manager: an error of SQLite becomes a BrokenError of one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise BrokenError(f"{path} cannot be written: {one_line(error)}; runs that finished before are in it") from None
