"""The data of figures as CSV: every mark of every figure, by its own value; names of files; what is not there."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from migemu.cli.report import FIGURE_FORMATS
from migemu.report.draw import cells
from migemu.report.figure_files import FORMATS, as_csv, of_runs, of_sweep
from tests.unit.experiment.sweeps import run, sweep_of
from tests.unit.report.grids import P99, PLANE
from tests.unit.report.runs import migration, result, write_run
from tests.unit.report.test_page import loaded


def rows(text: str) -> list[dict[str, str]]:
    return [*csv.DictReader(text.splitlines())]


def test_the_command_offers_what_can_be_written() -> None:
    assert FIGURE_FORMATS == FORMATS


def test_every_figure_of_a_run_has_its_data_and_a_name_of_its_own(tmp_path: Path) -> None:
    found = of_runs(loaded(write_run(tmp_path, migration(faults=30), result(name="a b/c"))))
    names = [each.name for each in found]
    assert len(names) == len(set(names)) >= 9
    assert all(name.replace("-", "").isalnum() for name in names)
    for each in found:
        marks = sum(len(trace["x"]) if "z" not in trace else sum(map(len, trace["z"])) for trace in each.figure["data"])
        assert len(rows(as_csv(each.figure))) == marks > 0


def test_a_map_has_a_row_for_each_piece(tmp_path: Path) -> None:
    found = of_runs(loaded(write_run(tmp_path, migration(faults=30), result())))
    by_time = next(each for each in found if "by-time-of-arrival" in each.name)
    values = rows(as_csv(by_time.figure))
    assert len(values) == 512 * 512
    assert float(values[0]["value"]) > 0


def test_a_heat_map_on_a_log_scale_gives_its_own_values() -> None:
    panel = cells.heat_maps(PLANE, P99)
    assert panel is not None
    assert panel.figure is not None
    found = {(row["policy"], row["piece"]): row for row in rows(as_csv(panel.figure))}
    assert float(found["fast", "2M"]["value"]) == pytest.approx(9e6)
    assert "3 seeds" in found["fast", "2M"]["note"]


def test_an_interval_has_two_ends() -> None:
    panel = cells.intervals(PLANE, P99)
    assert panel.figure is not None
    for row in rows(as_csv(panel.figure)):
        mean = float(row["fault.p99_ns, log scale"])
        assert float(row["low"]) <= mean <= float(row["high"])


def test_a_sweep_has_a_file_for_each_panel() -> None:
    assert {each.name.split("-")[0] for each in of_sweep(PLANE)} == {"trades", "fault", "time_ns", "mapping"}


def migemu(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_csv_alone_needs_neither_kaleido_nor_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    write_run(tmp_path / "run", migration(faults=9), result())
    done = migemu(tmp_path / "run", "--figures", tmp_path / "figures", "--format", "csv")
    assert done.exit_code == 0, done.output
    written = [*(tmp_path / "figures").iterdir()]
    assert {path.suffix for path in written} == {".csv"}
    assert f"0 figures, and the data of {len(written)}" in done.output
    assert not (tmp_path / "run" / "report.html").exists(), "the page is for --out"


def test_without_kaleido_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    run(sweep_of(tmp_path), tmp_path / "sweep.sqlite")
    done = migemu(tmp_path, "--figures", tmp_path / "figures")
    assert done.exit_code == 2
    assert "pip install -e '.[figures]'; --format csv does not" in done.output
    assert not (tmp_path / "figures").exists()


def test_a_format_without_figures_is_refused(tmp_path: Path) -> None:
    done = migemu(tmp_path, "--format", "svg")
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1)
