"""The page of a sweep, without a browser: what it says, what it leaves out and tells, and where it leads."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from migemu.experiment.objective import OBJECTIVES, find_objective
from migemu.report.draw.cells import BEST, FACETS_MAX
from migemu.report.grid import CellRuns, Grid
from migemu.report.sweep_page import html, sections
from tests.unit.experiment.sweeps import PIECES, run, sweep_of
from tests.unit.experiment.worlds import PLAIN
from tests.unit.report.grids import P99, PLANE, grid_of
from tests.unit.report.test_page import Words


def words(grid: Grid) -> str:
    said = Words(html(grid, Path("x/report.html")))
    assert said.open == [], "every tag closes"
    return " ".join(said.words)


def test_it_draws_what_differs_and_plotly_knows_every_figure() -> None:
    drawn = sections(PLANE)
    assert [section.anchor for section in drawn] == ["trades", "fault-p99_ns", "time_ns-postcopy", "mapping-to_1G_ns"]
    for section in drawn:
        assert section.panels
        for panel in section.panels:
            assert panel.kind == "modelled"
            go.Figure(panel.figure)


def test_it_names_the_best_cell_of_each_figure_and_how_sure_that_is() -> None:
    said = words(PLANE)
    assert f"{BEST} piece=4K, policy=fast: decided by" in said
    assert "4K, slow" in said
    assert "with 3 seeds a 95 % interval is too narrow to be one" in said


LOST = "lost_ns.mean"
#: Where nothing is collapsed least is lost, and 1G never comes back.
TRADE = grid_of(
    {
        ("never",): {LOST: [1.0, 1.1], P99: [1.0, 1.0]},
        ("at_end",): {LOST: [9.0, 9.1], P99: [1.0, 1.0], "mapping.to_1G_ns": [2e9, 2e9]},
        ("budget",): {LOST: [5.0, 5.1], P99: [3.0, 3.0], "mapping.to_1G_ns": [3e9, 3e9]},
    },
    {"collapse": ("never", "at_end", "budget")},
    (LOST, P99, "mapping.to_1G_ns"),
)


def test_the_choice_is_the_objectives_not_what_is_fastest_by_itself() -> None:
    assert f"{BEST} collapse=budget: decided by lost_ns.mean" in words(TRADE)
    fastest = replace(TRADE, objective=find_objective("latency"))
    assert f"{BEST} collapse=never" in words(fastest)


def test_the_heat_maps_star_the_choice() -> None:
    second = grid_of(
        {(a, b): cell.runs[1] and {key: cell.values(key) for key in (LOST, P99)} | (
            {"mapping.to_1G_ns": cell.values("mapping.to_1G_ns")} if cell.has("mapping.to_1G_ns") else {})
         for cell in TRADE.cells for a in [cell.coordinates["collapse"]] for b in ("x", "y")},
        {"collapse": ("never", "at_end", "budget"), "b": ("x", "y")}, (LOST, P99),
    )  # fmt: skip
    for section in sections(second)[1:]:
        text = section.panels[0].figure["data"][0]["text"]
        starred = [row[n] for row in text for n in range(len(row)) if BEST in row[n]]
        assert len(starred) == 1, "one choice, whatever the figure"


def test_each_objective_tells_its_choice_and_what_it_costs() -> None:
    said = words(TRADE)
    for name in OBJECTIVES:
        assert name in said
    assert "never" in said


def test_one_seed_settles_nothing_and_the_page_says_so() -> None:
    """Nothing is told apart by one seed: no cell stands there as surely better than the others."""
    grid = grid_of({("x",): {P99: [1.0]}, ("y",): {P99: [2.0]}, ("z",): {P99: [9.0]}}, {"a": ("x", "y", "z")})
    said = words(grid)
    assert "one seed settles nothing" in said
    assert "any: one seed" in said


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        (replace(PLANE, absent=["failed: piece=4K, seed 1: <b>no</b>"]), "failed: piece=4K, seed 1: <b>no</b>"),
        (replace(PLANE, programs=frozenset("ab")), "its runs were made by 2 states of the code"),
        (replace(PLANE, meanings={"piece": "how much is sent as one"}), "how much is sent as one"),
        (replace(PLANE, description="<script>?"), "<script>?"),
        (grid_of({("x",): {P99: [1.0]}, ("y",): {P99: [1.0]}}, {"a": ("x", "y")}),
         "the same in all cells, and not drawn: fault.p99_ns"),
    ],
)  # fmt: skip
def test_what_has_to_be_minded_is_said(grid: Grid, line: str) -> None:
    assert line in words(grid)


def test_too_many_axes_leave_the_table_alone() -> None:
    """The cells of the first two axes share a figure; each value of the third is one more."""
    third = tuple(map(str, range(FACETS_MAX + 1)))
    at = [(a, b, c) for a in third for b in third[:2] for c in third[:2]]
    axes = {"a": third, "b": third, "c": third}
    grid = grid_of({each: {P99: [float(n)]} for n, each in enumerate(at)}, axes)
    assert sections(grid) == []
    assert "too many axes to be drawn; all cells are in the table" in words(grid)


def test_seeds_lead_to_the_page_of_a_kept_run_or_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "cells" / "a&b").mkdir(parents=True)
    (tmp_path / "cells" / "a&b" / "report.html").touch()
    cell = CellRuns("a=x", {"a": "x"}, {seed: {P99: 1} for seed in (1, 2, 3)},
                    {1: tmp_path / "cells" / "a&b", 2: tmp_path / "cells" / "c"})  # fmt: skip
    page = html(replace(grid_of({}, {"a": ("x",)}), cells=[cell]), tmp_path / "report.html")
    said = page[: page.index("<script")]
    assert re.findall(r'href="([^#"]*)"', said) == ["cells/a&amp;b/report.html", "cells/c/"]


def test_the_same_sweep_gives_the_same_page() -> None:
    assert html(PLANE, Path("x/report.html")) == html(PLANE, Path("x/report.html"))


def migemu(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_a_sweep_writes_its_page_and_the_report_of_it_does_again(tmp_path: Path) -> None:
    (tmp_path / "pieces.toml").write_text(PIECES)
    done = migemu("sweep", tmp_path / "pieces.toml", "--out", tmp_path / "out", "--world", PLAIN, "--report")
    assert done.exit_code == 0, done.output
    assert f"report: {tmp_path}/out/report.html" in done.output
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for where in (tmp_path / "out", tmp_path / "out" / "sweep.sqlite"):
        done = migemu("report", where, "--out", tmp_path / "again.html")
        assert (done.exit_code, done.output) == (0, f"report: {tmp_path}/again.html\n")
        assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    migemu("report", tmp_path / "out", "--metric", "fault.mean_ns")
    assert 'id="fault-mean_ns"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_part_of_a_sweep_says_on_its_page_how_many_cells_never_ran(tmp_path: Path) -> None:
    (tmp_path / "pieces.toml").write_text(PIECES)
    part = ("sweep", tmp_path / "pieces.toml", "--out", tmp_path / "out", "--world", PLAIN, "--report", "--only")
    assert migemu(*part, "piece=2M,policy=never").exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "3 of 4 cells never ran (--only, or cut short): piece=4K, policy=never | piece=4K, " in page
    assert migemu(*part[:-1], "--resume").exit_code == 0
    assert "never ran" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Sweeps that cannot be reported, and one that can."""
    for name in ("good", "empty", "damaged", "junk"):
        (tmp_path / name).mkdir()
    run(sweep_of(tmp_path), tmp_path / "good" / "sweep.sqlite")
    run(sweep_of(tmp_path), tmp_path / "empty" / "sweep.sqlite", PLAIN.replace("plain", "incomplete"))
    data = (tmp_path / "good" / "sweep.sqlite").read_bytes()
    (tmp_path / "damaged" / "sweep.sqlite").write_bytes(data[:4096] + bytes(len(data) - 4096))
    (tmp_path / "junk" / "sweep.sqlite").write_text("not one")
    return {name: tmp_path / name for name in ("good", "empty", "damaged", "junk", "missing")}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{empty}",), "none of its runs is done"),
        (("{damaged}",), "sweep.sqlite is damaged"),
        (("{junk}",), "cannot be read as SQLite"),
        (("{missing}",), "does not exist; give the DIR of a run"),
        (("{good}", "{good}"), "a sweep has a page of its own"),
        (("{good}", "--hugepage", "1"), "a sweep has a page of its own"),
        (("{good}", "--metric", "fault.p98_ns"), "did you mean 'fault.p99_ns'?"),
    ],
)
def test_what_cannot_be_reported_is_one_line_and_exits_with_2(
    places: dict[str, Path], arguments: tuple[str, ...], told: str
) -> None:
    done = migemu("report", *(each.format(**places) for each in arguments))
    assert done.exit_code == 2, done.output
    assert told in done.output
    assert len(done.output.splitlines()) == 1
