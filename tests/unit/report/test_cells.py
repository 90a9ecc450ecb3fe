"""Figures of a sweep: what lies along which axis, what a cell says, and one scale for all small multiples."""

from __future__ import annotations

import itertools
from math import log10
from typing import Any

import plotly.graph_objects as go
import pytest

from migemu.report.draw.cells import BEST, CLOSE, Place, beside, facets, heat_maps, intervals, short, trades
from migemu.report.draw.style import Panel
from migemu.report.grid import Grid
from tests.unit.report.grids import P99, PLANE, TOTAL, grid_of

AXES = {"a": ("1", "2", "3"), "b": ("x", "y"), "c": ("on", "off"), "d": ("p", "q"), "only": ("one",)}
#: Every cell of five axes, one of them of one value.
WIDE = grid_of(
    {at: {P99: [100.0 + n, 101.0 + n]} for n, at in enumerate(itertools.product(*AXES.values()))}, AXES
)  # fmt: skip
LINE = grid_of({(at,): {P99: [10.0 * n, 11.0 * n]} for n, at in enumerate("xyz")}, {"a": ("x", "y", "z")})
POINT = grid_of({("x",): {P99: [1.0]}}, {"a": ("x",)})


def figure(panel: Panel | None) -> dict[str, Any]:
    assert panel is not None
    assert panel.figure is not None
    go.Figure(panel.figure)
    return panel.figure


@pytest.mark.parametrize(
    ("grid", "place", "multiples"),
    [
        (WIDE, Place("a", "b", "c", ("d",)), 4),
        (PLANE, Place("piece", "policy", "", ()), 1),
        (LINE, Place("a", "", "", ()), 1),
        (POINT, Place("", "", "", ()), 1),
    ],
)
def test_the_longest_axis_lies_along_x_and_those_of_one_value_nowhere(grid: Grid, place: Place, multiples: int) -> None:
    assert Place.of(grid.axes) == place
    assert facets(grid) == multiples


def test_every_cell_of_a_heat_map_says_its_value_and_what_it_is_worth() -> None:
    (drawn,) = figure(heat_maps(PLANE, P99))["data"]
    assert (drawn["x"], drawn["y"]) == (["4K", "2M"], ["fast", "slow"])
    assert drawn["text"] == [[f"110us {BEST}", "9ms"], [f"110us {CLOSE}", "8ms"]]
    assert drawn["z"] == [[pytest.approx(log10(value)) for value in row] for row in ([110e3, 9e6], [331e3 / 3, 8e6])]
    assert "piece=4K, policy=fast<br>110us (" in drawn["customdata"][0][0]
    assert drawn["customdata"][0][0].endswith(", 3 seeds")


def test_a_cell_without_the_figure_is_left_blank_and_that_is_said() -> None:
    panel = heat_maps(PLANE, "mapping.to_1G_ns")
    (drawn,) = figure(panel)["data"]
    assert drawn["text"][1][1] == ""
    assert drawn["z"][1][1] is None
    assert panel is not None
    assert "Left blank: cells with a run that has no such figure" in panel.note
    assert sum(len(trace["x"]) for trace in figure(intervals(PLANE, "mapping.to_1G_ns"))["data"]) == 3


def test_bright_is_better() -> None:
    more = grid_of(
        {(a, b): {"throughput_bytes_per_s": [float(n)]} for n, (a, b) in enumerate(itertools.product("12", "xy"), 1)},
        {"a": ("1", "2"), "b": ("x", "y")}, ["throughput_bytes_per_s"],
    )  # fmt: skip
    scales = [figure(heat_maps(each, key))["layout"]["coloraxis"]["reversescale"]
              for each, key in ((PLANE, P99), (more, "throughput_bytes_per_s"))]  # fmt: skip
    assert scales == [True, False]


@pytest.mark.parametrize("grid", [LINE, POINT])
def test_fewer_than_two_axes_make_no_heat_map(grid: Grid) -> None:
    assert heat_maps(grid, P99) is None


@pytest.mark.parametrize("grid", [WIDE, PLANE, LINE, POINT], ids=["wide", "plane", "line", "point"])
def test_every_cell_is_a_mark_with_its_interval(grid: Grid) -> None:
    drawn = sorted(
        (mean, mean - below, mean + above)
        for trace in figure(intervals(grid, P99))["data"]
        for mean, below, above in zip(
            trace["y"], trace["error_y"]["arrayminus"], trace["error_y"]["array"], strict=True
        )
    )
    found = [grid.estimates[cell.name, P99] for cell in grid.cells]
    wanted = sorted((each.mean, *(each.interval or (each.mean, each.mean))) for each in found)
    assert [pytest.approx(each) for each in wanted] == drawn


def test_small_multiples_share_their_axes_and_do_not_overlap() -> None:
    layout = figure(intervals(WIDE, P99))["layout"]
    assert layout["yaxis"]["range"] == layout["yaxis2"]["range"]
    for one, other in (("xaxis", "xaxis2"), ("yaxis2", "yaxis")):
        assert layout[one]["domain"][1] < layout[other]["domain"][0]
    assert {each["text"] for each in layout["annotations"]} == {"c=on", "c=off", "<i>d=p</i>", "<i>d=q</i>"}


def test_series_differ_by_mark_as_well_as_by_colour() -> None:
    looks = {(trace["name"], trace["marker"]["color"], trace["marker"]["symbol"])
             for trace in figure(intervals(PLANE, P99))["data"]}  # fmt: skip
    assert {len({look[n] for look in looks}) for n in range(3)} == {2}


def test_a_series_that_is_missing_in_the_first_multiple_is_named_by_the_next() -> None:
    at = [each for each in itertools.product("12", "xy", "pq") if each[1:] != ("x", "p")]
    grid = grid_of({each: {P99: [float(n)]} for n, each in enumerate(at, 1)},
                   {"a": ("1", "2"), "b": ("x", "y"), "c": ("p", "q")})  # fmt: skip
    data = figure(intervals(grid, P99))["data"]
    assert [trace["name"] for trace in data if trace["showlegend"]] == ["b=y", "b=x"]
    assert all(trace["x"] for trace in data)


def test_the_front_is_what_no_other_cell_beats_in_both() -> None:
    """4K slow beats 4K fast by far in time and is hardly worse; 2M slow is beaten by 2M fast in time alone."""
    (panel,) = trades(PLANE)
    front = figure(panel)["data"][0]
    assert panel.title == f"{TOTAL} against {P99}"
    assert list(zip(front["x"], front["y"], strict=True)) == [
        (110e3, 5e9), (331e3 / 3, 4e9), (9e6, 3e9),
    ]  # fmt: skip
    assert trades(LINE) == []


def test_cells_beside_the_grid_stand_by_themselves() -> None:
    alone = {"stop": {P99: [5.0, 6.0]}, "go": {P99: [7.0, 9.0]}}
    both = grid_of({("x",): {P99: [1.0, 2.0]}}, {"a": ("x",)}, beside=alone)
    (drawn,) = figure(beside(both, P99))["data"]
    assert (drawn["y"], drawn["x"]) == (["cell=stop", "cell=go"], [5.5, 8.0])
    assert beside(grid_of({}, {}, beside={"stop": {P99: [5.0]}}), P99) is None


def test_a_name_is_text_in_what_hovering_shows() -> None:
    odd = grid_of({("<b>%{x}",): {P99: [1.0]}}, {"a": ("<b>%{x}",)})
    (drawn,) = figure(intervals(odd, P99))["data"]
    assert drawn["customdata"][0].startswith("a=&lt;b>% {x}<br>")


@pytest.mark.parametrize(
    ("text", "short_text"),
    [("23.479ms", "23.5ms"), ("1.23456s", "1.23s"), ("500us", "500us"), ("3,123.7 MB/s", "3,124 MB/s"),
     ("-2.345ms", "-2.35ms"), ("1,291.333", "1,291"), ("0ns", "0ns")],
)  # fmt: skip
def test_three_digits_are_shown(text: str, short_text: str) -> None:
    assert short(text) == short_text
