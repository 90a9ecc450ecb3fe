"""The history of a sweep: states in order, changes where they were made, and what cannot be one history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from migemu.errors import InputError
from migemu.experiment.history import History, read_history
from migemu.experiment.program import this_commit
from migemu.experiment.results import Results
from tests.unit.experiment.histories import slower, state, unchanged
from tests.unit.experiment.sweeps import PIECES, run, sweep_of

P99 = "fault.p99_ns"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six states: from the fourth on every fault takes a fifth longer; the last has twice the post-copy of 4K cells."""
    folder = tmp_path_factory.mktemp("history")

    def last(result: dict[str, Any]) -> None:
        slower(0.2)(result)
        if result["scenario"]["push"]["piece"] == "4K":
            result["mapping"]["access_mean_ns"] *= 2

    for number in range(6):
        change = unchanged if number < 3 else slower(0.2) if number < 5 else last
        state(folder, number, change, commit=f"{number:012x}")
    return folder


@pytest.fixture(scope="module")
def history(folder: Path) -> History:
    paths = sorted(folder.glob("*/sweep.sqlite"), reverse=True)  # the order of arguments is nothing
    return read_history(paths, [P99, "mapping.access_mean_ns"])


def changes(history: History) -> set[tuple[str, str, int, str]]:
    return {(series.cell, series.key, change.state, change.verdict) for series, change in history.changes}


CELLS = [f"piece={piece}, policy={policy}" for piece in ("4K", "2M") for policy in ("never", "batched:spans=16")]


def test_changes_are_found_at_the_state_that_brought_them(history: History) -> None:
    slow = {(cell, P99, 3, "worse") for cell in CELLS}
    dear = {(cell, "mapping.access_mean_ns", 5, "worse") for cell in CELLS if "4K" in cell}
    assert changes(history) == slow | dear
    assert [state.began[:10] for state in history.states] == [f"2026-11-0{day}" for day in range(1, 7)]
    assert [state.label for state in history.states] == [f"{number:012x}"[:10] for number in range(6)]


def test_a_change_is_told_with_its_levels_and_its_interval(history: History) -> None:
    series, change = next(each for each in history.changes if each[0].key == P99)
    assert change.relative == pytest.approx(0.2, rel=1e-3)
    assert change.after == pytest.approx(1.2 * change.before, rel=1e-3)
    assert change.interval is not None
    assert change.interval.low == pytest.approx(0.2, rel=1e-2)
    assert [(first, last) for first, last, _ in series.levels()] == [(0, 2), (3, 5)]


def test_the_newest_and_the_largest_are_told_first(history: History) -> None:
    found = [(change.state, abs(change.relative)) for _, change in history.changes]
    assert [place for place, _ in found] == sorted((place for place, _ in found), reverse=True)


def test_few_seeds_are_told_of(history: History) -> None:
    assert any("with 3 seeds" in note for note in history.notes)


def test_less_than_what_is_asked_for_is_not_told(folder: Path) -> None:
    paths = sorted(folder.glob("*/sweep.sqlite"))
    assert read_history(paths, [P99], change_min=0.25).changes == []


def test_more_is_better_for_throughput(tmp_path: Path) -> None:
    def faster(result: dict[str, Any]) -> None:
        result["throughput_bytes_per_s"] = 2e9

    def at_first(result: dict[str, Any]) -> None:
        result["throughput_bytes_per_s"] = 1e9

    paths = [state(tmp_path, 0, at_first), state(tmp_path, 1, at_first), state(tmp_path, 2, faster)]
    assert {(place, verdict) for _, _, place, verdict in changes(read_history(paths))} == {(2, "better")}


def test_one_program_is_one_state_by_commit_and_one_a_file_by_date(tmp_path: Path) -> None:
    same = "0.1+00000000000000aa"
    paths = [state(tmp_path, number, program=same) for number in range(3)]
    assert len(read_history(paths).states) == 1
    assert "there is one state alone" in read_history(paths).notes[0]
    assert len(read_history(paths, by="date").states) == 3


def test_cells_are_chosen_as_in_a_comparison(folder: Path) -> None:
    paths = sorted(folder.glob("*/sweep.sqlite"))
    assert {each.cell for each in read_history(paths, [P99], "piece=4K").series} == set(CELLS[:2])
    with pytest.raises(InputError, match="--only piece=64K"):
        read_history(paths, [P99], "piece=64K")


def test_a_cell_that_was_set_otherwise_begins_where_it_is_what_it_is_now(tmp_path: Path) -> None:
    other = PIECES.replace('size = "2G"', 'size = "1G"')
    paths = [state(tmp_path, 0, slower(1), text=other), *(state(tmp_path, number) for number in (1, 2))]
    told = read_history(paths, [P99])
    assert told.changes == []
    assert {each.places for each in told.series} == {(1, 2)}
    assert any("4 cells had other settings before" in note for note in told.notes)


def test_a_setting_that_is_new_is_no_other_one(tmp_path: Path) -> None:
    def older(result: dict[str, Any]) -> None:
        del result["scenario"]["net"]
        result["scenario"]["guest"]["long_gone"] = 7

    paths = [state(tmp_path, 0, older), state(tmp_path, 1)]
    assert {each.places for each in read_history(paths, [P99]).series} == {(0, 1)}


def test_states_without_a_figure_are_left_out_of_its_series(tmp_path: Path) -> None:
    def never(result: dict[str, Any]) -> None:
        result["mapping"]["to_1G_ns"] = None

    paths = [state(tmp_path, 0), state(tmp_path, 1, never), state(tmp_path, 2)]
    told = read_history(paths, ["mapping.to_1G_ns"])
    assert {each.places for each in told.series} == {(0, 2)}


def test_two_sweeps_are_no_history(tmp_path: Path) -> None:
    one = state(tmp_path, 0)
    other = state(tmp_path, 1, text=PIECES.replace('name = "pieces"', 'name = "others"'))
    with pytest.raises(InputError, match=r"these are of different sweeps: pieces .*, others"):
        read_history([one, other])


def test_an_unknown_figure_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'fault\.p99_ns'\?"):
        read_history(sorted(folder.glob("*/sweep.sqlite")), ["fault.p98_ns"])


def typed(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["sweep", "history", *arguments], env={"COLUMNS": "150"})


def test_the_command_takes_a_directory_of_directories_and_prints_tables(folder: Path) -> None:
    done = typed(str(folder), "--metric", P99)
    assert done.exit_code == 0, done.output
    assert "pieces: 6 states, modelled" in done.output
    assert "4 worse, 0 better" in done.output
    assert "+20.0 %" in done.output
    assert "with 3 seeds a 95 % interval is too narrow" in done.output


def test_json_is_one_document(folder: Path) -> None:
    done = typed(str(folder), "--metric", P99, "--json")
    said = json.loads(done.stdout)
    assert [state["commit"] for state in said["states"]] == [f"{number:012x}" for number in range(6)]
    assert {change["state"] for series in said["series"] for change in series["changes"]} == {3}
    assert len(said["series"]) == 4
    assert all(len(series["values"]) == 6 for series in said["series"])


def test_its_page_and_the_data_of_its_figures_are_written(folder: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    done = typed(str(folder), "--metric", P99, "--out", str(page), "--figures", str(figures), "--format", "csv")
    assert done.exit_code == 0, done.output
    assert f"page: {page}" in done.output
    assert "Where did figures change?" in page.read_text(encoding="utf-8")
    (data,) = figures.iterdir()
    assert data.name == "fault-p99_ns-0-fault-p99-ns.csv"
    assert data.read_text().splitlines()[0].startswith('series,"state of the code, by time"')


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "neither it nor a directory in it holds a sweep.sqlite"), (("--only", "nonsense"), "nonsense")],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, folder: Path, arguments: tuple[str, ...], told: str) -> None:
    done = typed(str(folder if arguments else tmp_path), *arguments)
    assert done.exit_code == 2
    assert told in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_sweep_remembers_the_commit_that_ran_it(tmp_path: Path) -> None:
    run(sweep_of(tmp_path), tmp_path / "sweep.sqlite")
    with Results.read(tmp_path / "sweep.sqlite") as results:
        assert results.commit(next(results.runs()).program) == this_commit()
