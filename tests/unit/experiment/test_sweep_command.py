"""`migemu sweep` as a user types it: what it says, its exit codes, and that nothing is lost by a mistake."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from tests.unit.experiment.sweeps import PIECES
from tests.unit.experiment.worlds import PLAIN

PYPROJECT: Final = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pieces.toml").write_text(PIECES)


def migemu(*arguments: str, world: str = PLAIN) -> Result:
    return CliRunner().invoke(main, ["sweep", "pieces.toml", "--out", "out", "--world", world, *arguments])


def summary(result: Result) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def test_it_ends_with_a_table_and_where_the_results_are() -> None:
    result = migemu()
    assert result.exit_code == 0, result.output
    assert "pieces: means over seeds" in result.stdout
    assert "results: out/sweep.sqlite" in result.stdout


def test_the_table_has_what_never_came_as_a_dash() -> None:
    """A run that leaves its memory at 4K has no time until 90 % of it were mapped at 1G."""
    table = migemu().stdout
    assert all(title in table for title in ("90 % at 1G", "access", "tables", "sent twice"))
    rows = {line.split("│")[1].strip(): line for line in table.splitlines() if "policy=" in line}
    assert " - " in rows["piece=4K, policy=never"]
    assert " - " not in rows["piece=4K, policy=batched:spans=16"]
    assert "8.95ns" in rows["piece=4K, policy=batched:spans=16"]


def test_results_go_by_default_where_resume_finds_them() -> None:
    result = CliRunner().invoke(main, ["sweep", "pieces.toml", "--world", PLAIN, "-q"])
    assert (result.exit_code, result.output) == (0, "")
    assert Path("runs/sweep-pieces/sweep.sqlite").exists()
    again = CliRunner().invoke(main, ["sweep", "pieces.toml", "--world", PLAIN, "--resume", "--json"])
    assert summary(again)["already_done"] == 12


def test_failed_runs_exit_with_3_and_are_named() -> None:
    result = migemu("--json", world=PLAIN.replace("plain", "failing"))
    assert result.exit_code == 3
    assert len(summary(result)["failed"]) == 8
    assert "migemu: piece=4K, policy=never, seed 1: the link was cut" in result.stderr


def test_impossible_cells_are_named_and_the_rest_runs() -> None:
    text = PIECES.replace('"2G"', '"1G"') + '[[axis]]\nsetting = "memory.size"\nvalues = ["1G", "0", "1536M"]\n'
    Path("pieces.toml").write_text(text)
    result = migemu("--json")
    assert result.exit_code == 2
    assert (summary(result)["done"], len(summary(result)["impossible"])) == (12, 8)
    assert "piece=4K, policy=never, memory.size=1536M is impossible: memory: size: 1.5G are not whole" in result.stderr
    Path("pieces.toml").write_text(text.replace('"1G", "0"', '"0"'))
    none = migemu("--resume")
    assert none.exit_code == 2
    assert "none of its 8 cells is possible" in none.stderr


def test_a_part_may_be_run_first() -> None:
    assert summary(migemu("--only", "piece=4K", "--json"))["done"] == 6
    rest = summary(migemu("--resume", "--json"))
    assert (rest["already_done"], rest["done"]) == (6, 6)


def test_the_table_of_a_part_has_the_cells_that_were_asked_for() -> None:
    migemu("--only", "piece=2M")
    part = migemu("--resume", "--only", "piece=4K").stdout
    assert "piece=4K, policy=never" in part
    assert "piece=2M" not in part
    assert "left out by --only: 2 of 4 cells" in part
    whole = migemu("--resume").stdout
    assert "piece=2M, policy=never" in whole
    assert "left out" not in whole


@pytest.mark.parametrize(
    ("seeds", "said"),
    [("[7]", "one seed settles nothing"), ("[1, 2, 3]", "with 3 seeds"), ("[1, 2, 3, 4, 5]", "")],
)
def test_a_table_over_too_few_seeds_says_what_that_is_worth(seeds: str, said: str) -> None:
    Path("pieces.toml").write_text(PIECES.replace("[1, 2, 3]", seeds))
    told = migemu().stderr
    assert (said in told) if said else "seed" not in told


def test_a_changed_file_is_told_when_it_is_resumed() -> None:
    migemu("--only", "piece=4K")
    Path("pieces.toml").write_text(PIECES.replace('"4K", "2M"', '"4K"').replace('"never"', '"eager"'))
    again = migemu("--resume", "--json")
    assert again.exit_code == 0
    assert "the sweep file has changed since: 1 cells are new: piece=4K, policy=eager" in again.stderr
    assert "3 cells are gone: piece=4K, policy=never | piece=2M, policy=never" in again.stderr
    assert (summary(again)["already_done"], summary(again)["done"]) == (3, 3)


def test_a_damaged_file_is_one_line_and_stays_as_it_is() -> None:
    file = Path("out/sweep.sqlite")
    file.parent.mkdir()
    file.write_bytes(junk := b"SQLite format 3\0" + b"\xff" * 5000)
    for arguments in ((), ("--resume",)):
        result = migemu(*arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert str(file) in result.stderr
        assert file.read_bytes() == junk


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--world", "none:none"), "the world none:none cannot be loaded"),
        (("--dask", "tcp://127.0.0.1:1", "--workers", "2"), "--dask goes neither with"),
        (("--only", "size=4K"), "selects no cell: write AXIS=VALUE,...; axes: piece, policy"),
        (("--only", "piece=1G"), "no cell of pieces is there"),
        (("--seeds", "3"), "No such option"),
        (("--workers", "0"), "0 is not in the range"),
    ],
)
def test_bad_options_exit_with_2_and_make_nothing(arguments: tuple[str, ...], told: str) -> None:
    result = migemu(*arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a sweep"),
        (("none.toml", "--world", PLAIN), "none.toml: cannot be read"),
        (("export", "none", "--csv", "x.csv"), "there is no such file of results"),
        (("export", "pieces.toml", "--csv", "x.csv"), "cannot be read as SQLite"),
        (("export", "pieces.toml"), "give --csv FILE, --parquet FILE or both"),
    ],
)
def test_what_is_not_there_is_told(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert result.exit_code == 2
    assert told in result.output
    assert len(result.output.splitlines()) == 1


def test_export_takes_the_directory_or_the_file() -> None:
    migemu("--only", "piece=4K")
    for place in ("out", "out/sweep.sqlite"):
        result = CliRunner().invoke(main, ["sweep", "export", place, "--csv", "x.csv"])
        assert (result.exit_code, result.output) == (0, "6 runs in x.csv\n")
    assert len(Path("x.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("library", "extra", "arguments"),
    [
        ("pyarrow", "parquet", ("export", "out", "--parquet", "x.parquet")),
        ("distributed", "dask", ("pieces.toml", "--out", "new", "--world", PLAIN, "--dask", "tcp://127.0.0.1:1")),
    ],
)
def test_what_needs_an_optional_library_says_how_to_install_it(
    library: str, extra: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where it is: the checkout. No package index has migemu."""
    migemu("--only", "piece=4K")
    monkeypatch.setitem(sys.modules, library, None)
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert result.exit_code == 2
    assert f"install it, in the checkout of migemu: pip install -e '.[{extra}]'" in result.stderr
    assert extra in PYPROJECT["project"]["optional-dependencies"]


def test_the_list_shows_shipped_sweeps() -> None:
    result = CliRunner().invoke(main, ["sweep", "--list"])
    assert result.exit_code == 0
    assert "hgm_question" in result.output


def test_each_run_can_keep_its_files() -> None:
    assert migemu("--keep", "--only", "piece=4K,policy=never").exit_code == 0
    kept = sorted(str(path) for path in Path("out/cells").rglob("result.json"))
    assert kept == [f"out/cells/0000-seed{seed}/result.json" for seed in (1, 2, 3)]
