"""The tables of a sweep's results, as SQL: what `results` writes and anybody with an SQLite shell may read.

    sqlite3 sweep.sqlite "SELECT cell, seed, value FROM figures WHERE key = 'fault.p99_ns' ORDER BY value"
    sqlite3 sweep.sqlite "SELECT c.value AS piece, avg(f.value) FROM figures f JOIN coordinate c ON c.cell = f.cell_id
                          WHERE c.axis = 'piece' AND f.key = 'fault.p99_ns' GROUP BY c.value"

Rules of this file
    1. `PRAGMA application_id` says that a file is ours, `user_version` which of these tables it has. A change of the
       tables raises VERSION; files of another version are named, never guessed at.
    2. A finished run is one row of `run` and its rows of `figure`, written in one transaction: all or nothing.
    3. Nothing that was measured is ever deleted. A cell that the sweep file no longer has keeps its runs, with
       `in_sweep` = 0; a run that is done again takes the place of one that failed.
"""

from __future__ import annotations

from typing import Final

#: "mgmu" in ASCII.
APPLICATION_ID: Final = 0x6D676D75
VERSION: Final = 1

#: Statuses of a run. An impossible cell has no run; its problem stands in `cell`.
DONE: Final = "done"
FAILED: Final = "failed"

TABLES: Final = """
CREATE TABLE sweep (                -- name, description, file, seeds, world, program, created; "commit PROGRAM": of git
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE cell (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,           -- of the resolved settings; '' for an impossible cell
    in_sweep INTEGER NOT NULL,      -- 1 while the sweep file has it
    position INTEGER NOT NULL,      -- its place in the sweep file
    problem TEXT NOT NULL,          -- why it is impossible, or ''
    settings TEXT NOT NULL,         -- JSON: the resolved scenario, with the base's seed; '{}' for an impossible cell
    UNIQUE (name, digest)
);

CREATE TABLE coordinate (
    cell INTEGER NOT NULL REFERENCES cell (id),
    axis TEXT NOT NULL,
    position INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (cell, axis)
) WITHOUT ROWID;

CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice, whatever somebody deletes by hand
    cell INTEGER NOT NULL REFERENCES cell (id),
    seed INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    error TEXT NOT NULL,            -- one line, or ''
    traceback TEXT NOT NULL,        -- of a bug, or ''
    attempts INTEGER NOT NULL,      -- how often a worker was given it
    kind TEXT NOT NULL,             -- 'modelled', 'measured', or '' without a result
    program TEXT NOT NULL,          -- version and digest of the code that made it
    worker TEXT NOT NULL,           -- host:pid
    finished TEXT NOT NULL,         -- UTC, ISO 8601
    wall_ns INTEGER NOT NULL,       -- how long the worker took
    result TEXT NOT NULL,           -- JSON: result.json as it is, or ''
    UNIQUE (cell, seed)
);

CREATE TABLE figure (
    run INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    key TEXT NOT NULL,              -- dotted path into result.json
    value NUMERIC NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;

CREATE INDEX figure_by_key ON figure (key);

CREATE VIEW figures AS
    SELECT cell.id AS cell_id, cell.name AS cell, run.seed, run.kind, figure.key, figure.value
    FROM figure JOIN run ON run.id = figure.run JOIN cell ON cell.id = run.cell
    WHERE run.status = 'done' AND cell.in_sweep;
"""
