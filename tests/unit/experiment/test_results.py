"""The file of results: what survives, what is refused, what changes are told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from migemu.errors import BrokenError, InputError
from migemu.experiment import schema
from migemu.experiment.campaign import Campaign
from migemu.experiment.executors import InProcess
from migemu.experiment.export import table, to_csv, to_parquet
from migemu.experiment.results import Results
from migemu.experiment.sweep_file import Sweep
from migemu.store.output import writing
from tests.unit.experiment.sweeps import PIECES, Notes, run, sweep_of
from tests.unit.experiment.worlds import PLAIN


@pytest.fixture
def done(tmp_path: Path) -> tuple[Sweep, Path]:
    """A sweep that ran to its end."""
    sweep, path = sweep_of(tmp_path), tmp_path / "out" / "sweep.sqlite"
    run(sweep, path)
    return sweep, path


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    with connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_every_figure_of_every_run_is_there_for_sql(done: tuple[Sweep, Path]) -> None:
    _, path = done
    rows = sql(
        path,
        "SELECT c.value, min(f.value), count(*) FROM figures f JOIN coordinate c ON c.cell = f.cell_id "
        "WHERE c.axis = 'piece' AND f.key = 'fault.p50_ns' GROUP BY c.value",
    )
    assert [(piece, count) for piece, _, count in rows] == [("2M", 6), ("4K", 6)]
    results = [json.loads(str(text)) for (text,) in sql(path, "SELECT result FROM run")]
    assert sorted(result["fault"]["p50_ns"] for result in results) == sorted(
        value for (value,) in sql(path, "SELECT value FROM figures WHERE key = 'fault.p50_ns'")
    )


def test_when_it_is_closed_it_is_one_plain_file(done: tuple[Sweep, Path]) -> None:
    _, path = done
    assert sorted(file.name for file in path.parent.iterdir()) == ["sweep.sqlite", "sweep.sqlite.lock"]
    path.chmod(0o444)
    with Results.read(path) as results:
        assert len(list(results.runs())) == 12


def test_without_resume_nothing_is_overwritten(done: tuple[Sweep, Path]) -> None:
    sweep, path = done
    before = path.read_bytes()
    with pytest.raises(InputError, match="holds results already; continue them with --resume"):
        Results.create(path, sweep, PLAIN)
    assert path.read_bytes() == before


def test_resuming_runs_only_what_is_left(done: tuple[Sweep, Path]) -> None:
    sweep, path = done
    sql(path, "DELETE FROM run WHERE seed = 3")
    notes = Notes()
    tally = run(sweep, path, notes=notes, resume=True)
    assert (tally.done, tally.already_done, tally.remaining, notes.runs, notes.already) == (4, 8, 0, 4, 8)
    assert {seed for _, seed, _ in notes.ends} == {3}


def test_a_changed_sweep_file_is_told_cell_by_cell(done: tuple[Sweep, Path], tmp_path: Path) -> None:
    _, path = done
    text = PIECES.replace('"never", ', '"never", "eager", ').replace("[1, 2, 3]", "[2, 3, 4]")
    text = text.replace('["4K", "2M"]', '["4K"]').replace('"2G"', '"3G"')
    changed = sweep_of(tmp_path, text)
    with Results.read(path) as results:
        changes = results.changes(changed)
    assert changes.new == ("piece=4K, policy=eager",)
    assert changes.gone == ("piece=2M, policy=never", "piece=2M, policy=batched:spans=16")
    assert changes.changed == (
        "piece=4K, policy=never (memory.size 2G -> 3G)", "piece=4K, policy=batched:spans=16 (memory.size 2G -> 3G)",
    )  # fmt: skip
    assert (changes.seeds_new, changes.seeds_gone) == ((4,), (1,))


def test_what_a_sweep_no_longer_has_is_kept_aside_and_comes_back(done: tuple[Sweep, Path], tmp_path: Path) -> None:
    sweep, path = done
    smaller = sweep_of(tmp_path, PIECES.replace('["4K", "2M"]', '["4K"]'))
    run(smaller, path, resume=True)
    with Results.read(path) as results:
        assert {each.coordinates["piece"] for each in results.runs()} == {"4K"}
    assert sql(path, "SELECT count(*) FROM run") == [(12,)]
    tally = run(sweep, path, resume=True)
    assert (tally.done, tally.already_done) == (0, 12)


def test_the_same_sweep_has_not_changed(done: tuple[Sweep, Path]) -> None:
    sweep, path = done
    with Results.read(path) as results:
        assert not results.changes(sweep)


def break_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "is damaged or something else"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged"),
        (break_page, "damaged"),
        (lambda path: sql(path, "PRAGMA application_id = 1"), "not of results of a sweep"),
        (lambda path: sql(path, "PRAGMA user_version = 7"), "has tables of version 7, this program reads version 1"),
        (lambda path: sql(path, "UPDATE sweep SET value = '9.9+x' WHERE key = 'program'"), "was made by migemu 9.9"),
        (lambda path: sql(path, "UPDATE sweep SET value = 'other:world' WHERE key = 'world'"), "runs of other:world"),
        (lambda path: path.write_bytes(b""), "not of results of a sweep"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line_and_left_as_it_is(
    done: tuple[Sweep, Path], harm: Callable[[Path], object], told: str
) -> None:
    _, path = done
    harm(path)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        Results.resume(path, PLAIN)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_two_sweeps_do_not_write_to_one_file(done: tuple[Sweep, Path]) -> None:
    _, path = done
    with Results.resume(path, PLAIN), pytest.raises(InputError, match="another sweep writes to"):
        Results.resume(path, PLAIN)
    Results.resume(path, PLAIN).close()


def test_a_place_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokenError, match="cannot be written"):
        Results.create(tmp_path / "file" / "sweep.sqlite", sweep_of(tmp_path), PLAIN)


def test_a_full_disk_ends_the_sweep_and_keeps_what_was_finished(tmp_path: Path) -> None:
    sweep, path = sweep_of(tmp_path), tmp_path / "sweep.sqlite"
    with Results.create(path, sweep, PLAIN) as results:
        (pages,) = results._db.execute("PRAGMA page_count").fetchone()
        results._db.execute(f"PRAGMA max_page_count = {pages + 6}")  # where SQLite finds the disk full
        campaign = Campaign(sweep, PLAIN, results, Notes())
        with pytest.raises(BrokenError, match="disk is full; runs that finished before are in it"):
            campaign.run(InProcess())
    assert 0 < campaign.tally.done < 12
    assert run(sweep, path, resume=True).already_done == campaign.tally.done


def test_the_schema_that_is_documented_is_the_one_that_is_made(done: tuple[Sweep, Path]) -> None:
    _, path = done
    assert sql(path, "PRAGMA application_id") == [(schema.APPLICATION_ID,)]
    assert sql(path, "PRAGMA user_version") == [(schema.VERSION,)]


def test_csv_has_a_row_for_each_run(done: tuple[Sweep, Path], tmp_path: Path) -> None:
    _, path = done
    with Results.read(path) as results, writing(tmp_path / "x.csv") as output:
        assert to_csv(results, output) == 12
        columns, rows = table(results)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0].startswith("cell,axis.piece,axis.policy,seed,status,error,program,wall_ns,")
    assert (len(lines), len(rows)) == (13, 12)
    assert {"fault.p99_ns", "bytes.wire"} <= set(columns)


def test_parquet_has_the_same_table(done: tuple[Sweep, Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the optional extra is not installed")
    _, path = done
    with Results.read(path) as results, writing(tmp_path / "x.parquet") as output:
        assert to_parquet(results, output) == 12
        _, rows = table(results)
    back = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["fault.p99_ns"] for row in back] == [row["fault.p99_ns"] for row in rows]


def test_an_export_that_cannot_be_written_is_told(done: tuple[Sweep, Path], tmp_path: Path) -> None:
    _, path = done
    (tmp_path / "file").touch()
    told = CliRunner().invoke(main, ["sweep", "export", str(path), "--csv", str(tmp_path / "file" / "x.csv")])
    assert told.exit_code == 3
    assert "x.csv cannot be written: Not a directory" in " ".join(told.output.split())


@pytest.mark.parametrize("link", [False, True])
def test_an_export_does_not_replace_what_it_reads(link: bool, done: tuple[Sweep, Path], tmp_path: Path) -> None:
    _, path = done
    target = path
    if link:
        target = tmp_path / "link.csv"
        target.hardlink_to(path)
    before = path.read_bytes()
    for option in ("--csv", "--parquet"):
        told = CliRunner().invoke(main, ["sweep", "export", str(path), option, str(target)])
        assert told.exit_code == 2
        assert "is what is read" in " ".join(told.output.split())
    assert path.read_bytes() == before
    same = str(tmp_path / "x")
    told = CliRunner().invoke(main, ["sweep", "export", str(path), "--csv", same, "--parquet", same])
    assert told.exit_code == 2
    assert "is being written by another run" in " ".join(told.output.split())
    assert not (tmp_path / "x").exists()
