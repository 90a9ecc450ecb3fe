"""A sweep's cells along their axes: which is best, which is close, and what is told of those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from migemu.errors import InputError
from migemu.report.grid import read_grid
from tests.unit.experiment.sweeps import PIECES, run, sweep_of
from tests.unit.experiment.worlds import PLAIN
from tests.unit.report.grids import P99, PLANE, grid_of


def one_axis(key: str, *values: Sequence[float]) -> tuple[str | None, list[str]]:
    """The best and the close ones of cells 0, 1, ... with these values by seed."""
    names = tuple(map(str, range(len(values))))
    grid = grid_of({(name,): {key: each} for name, each in zip(names, values, strict=True)}, {"n": names}, [key])
    best = grid.best(key)
    return best and best.removeprefix("n="), [name.removeprefix("n=") for name in grid.close(key)]


@pytest.mark.parametrize(
    ("key", "values", "best", "close"),
    [
        (P99, ([100, 110, 120], [101, 109, 121], [300, 310, 290]), "0", ["1"]),
        (P99, ([100, 200, 300], [101, 201, 301]), "0", []),  # each seed says so, however far they are apart
        ("throughput_bytes_per_s", ([1, 2, 3], [7, 8, 9]), "1", []),
        (P99, ([5], [5], [6]), "0", ["1"]),  # one seed: only what is equal is close
        (P99, ([5], [6]), "0", []),
        (P99, ([7, 7], [7, 7]), None, []),  # all alike: there is no best
    ],
)
def test_the_best_cell_and_those_that_the_data_do_not_tell_from_it(
    key: str, values: Sequence[Sequence[float]], best: str | None, close: list[str]
) -> None:
    assert one_axis(key, *values) == (best, close)


def test_a_mean_has_an_interval_with_more_than_one_seed() -> None:
    mean, interval, seeds = PLANE.estimates["piece=4K, policy=fast", P99]
    assert (mean, seeds) == (110e3, 3)
    assert interval is not None
    assert 100e3 <= interval.low < mean < interval.high <= 120e3
    assert PLANE.estimates["piece=2M, policy=fast", P99].interval == (9e6, 9e6), "all seeds agree"


def test_a_figure_that_some_cell_never_got_to_is_drawn_of_the_others() -> None:
    assert ("piece=2M, policy=slow", "mapping.to_1G_ns") not in PLANE.estimates
    assert PLANE.best("mapping.to_1G_ns") == "piece=4K, policy=fast"
    assert "mapping.to_1G_ns" in PLANE.varying


def test_a_sweep_is_read_with_its_axes_and_headlines(tmp_path: Path) -> None:
    run(sweep_of(tmp_path), tmp_path / "sweep.sqlite")
    grid = read_grid(tmp_path / "sweep.sqlite")
    assert grid.axes == {"piece": ("4K", "2M"), "policy": ("never", "batched:spans=16")}
    assert (grid.kind, len(grid.cells), len(grid.on_grid), grid.beside, grid.absent) == ("modelled", 4, 4, [], [])
    assert {len(cell.runs) for cell in grid.cells} == {3}
    assert grid.best("fault.p50_ns") == "piece=4K, policy=never"
    assert "fault.p90_ns" not in grid.keys
    assert set(read_grid(tmp_path / "sweep.sqlite", ["fault.p9*_ns"]).keys) == {
        "fault.p90_ns", "fault.p99_ns", "fault.p999_ns",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"did you mean 'fault.p99_ns'\?"):
        read_grid(tmp_path / "sweep.sqlite", ["fault.p98_ns"])


def test_what_failed_or_is_impossible_is_told_by_name(tmp_path: Path) -> None:
    text = PIECES.replace("[1, 2, 3]", "[1, 2, 4]").replace('"2M"', '"3K"')
    run(sweep_of(tmp_path, text), tmp_path / "sweep.sqlite", PLAIN.replace("plain", "failing"))
    absent = read_grid(tmp_path / "sweep.sqlite").absent
    assert [line.split(":")[0] for line in absent] == ["impossible"] * 2 + ["failed"] * 2 + [
        "2 of the 2 cells here have not run with all 3 seeds yet"
    ]
    assert "failed: piece=4K, policy=never, seed 1: the link was cut" in absent


def test_a_sweep_of_which_nothing_is_done_is_refused(tmp_path: Path) -> None:
    run(sweep_of(tmp_path), tmp_path / "sweep.sqlite", PLAIN.replace("plain", "incomplete"))
    with pytest.raises(InputError, match="none of its runs is done"):
        read_grid(tmp_path / "sweep.sqlite")
