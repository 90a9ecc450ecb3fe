"""Forest plots of a comparison: which side of nothing a difference is on, and whether these pairs settle it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import plotly.graph_objects as go
import pytest

from migemu.experiment.bootstrap import Interval
from migemu.experiment.comparison import Comparison, Overall, Row, rule
from migemu.experiment.gate import parse_gate
from migemu.report.draw.forest import ALL_CELLS, forests, judged

P99: Final = "fault.p99_ns"


def row(cell: str, relative: float, low: float | None = None, high: float = 0.0, key: str = P99) -> Row:
    """One figure with a baseline of 1 ms; one pair where there is no interval."""
    interval = None if low is None else Interval(low, high)
    return Row(cell, key, 1 if low is None else 9, 1e6, 1e6 * (1 + relative), 1e6 * relative, None, relative, interval,
               None)  # fmt: skip


def comparison(*rows: Row, gates: tuple[str, ...] = (), overall: tuple[Overall, ...] = ()) -> Comparison:
    rulings = tuple(rule(parse_gate(gate), each) for gate in gates for each in rows)
    return Comparison("modelled", rows, overall, rulings, {}, ())


CELLS: Final = comparison(
    row("a", 0.5, 0.4, 0.6), row("b", -0.5, -0.6, -0.4), row("c", 0.01, -0.1, 0.1), row("d", 2.0),
    overall=(Overall(P99, 28, 0.1, Interval(0.05, 0.2)),),
)  # fmt: skip


def figure(told: Comparison, number: int = 0) -> dict[str, Any]:
    drawn = forests(told)[number].figure
    assert drawn is not None
    go.Figure(drawn)
    return drawn


@pytest.mark.parametrize(
    ("key", "interval", "verdict"),
    [
        (P99, (0.1, 0.2), "worse"), (P99, (-0.2, -0.1), "better"), (P99, (-0.1, 0.2), "unsure"),
        (P99, (0.0, 0.2), "unsure"), (P99, None, "single"),
        ("throughput_bytes_per_s", (0.1, 0.2), "better"), ("throughput_bytes_per_s", (-0.2, -0.1), "worse"),
    ],
)  # fmt: skip
def test_a_difference_is_judged_by_its_interval(key: str, interval: tuple[float, float] | None, verdict: str) -> None:
    assert judged(key, None if interval is None else Interval(*interval)) == verdict


def test_each_cell_is_a_mark_of_its_own_shape_at_its_ratio() -> None:
    found = {(trace["name"], trace["marker"]["symbol"]): dict(zip(trace["y"], trace["x"], strict=True))
             for trace in figure(CELLS)["data"]}  # fmt: skip
    assert found == {
        ("better", "circle"): {"b": 0.5}, ("worse", "square"): {"a": 1.5, ALL_CELLS: 1.1},
        ("no difference shown", "diamond-open"): {"c": 1.01}, ("one pair, no interval", "circle-open"): {"d": 3.0},
    }  # fmt: skip


def test_an_interval_reaches_as_far_as_it_does() -> None:
    (better,) = (trace for trace in figure(CELLS)["data"] if trace["name"] == "better")
    assert better["error_x"]["array"] == [pytest.approx(0.1)]
    assert better["error_x"]["arrayminus"] == [pytest.approx(0.1)]


def test_the_axis_holds_everything_and_no_difference() -> None:
    axis = figure(CELLS)["layout"]["xaxis"]
    low, high = (10**edge for edge in axis["range"])
    assert low < 0.4
    assert high > 3.0
    assert dict(zip(axis["ticktext"], axis["tickvals"], strict=True))["0"] == 1
    assert len(axis["tickvals"]) >= 3


def test_a_gate_is_a_line_and_a_verdict_beside_each_cell() -> None:
    told = comparison(row("a", 0.5, 0.4, 0.6), row("b", 0.01, 0.0, 0.02), row("c", 0.05, 0.0, 0.1),
                      gates=(f"{P99} > +5%",))  # fmt: skip
    layout = figure(told)["layout"]
    assert {line["x0"] for line in layout["shapes"]} == {1.0, 1.05}
    said = {each["y"]: each["text"] for each in layout["annotations"] if isinstance(each["y"], str)}
    assert said == {"a": "\u2717 FAILS", "b": "\u2713 holds", "c": "? unsure"}
    plot = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    assert (layout["legend"]["y"] - 1) * plot > 16, "the limit is written below the legend"


def test_one_cell_puts_all_its_figures_in_one_plot() -> None:
    told = comparison(row("", 0.5, 0.4, 0.6), row("", 0.1, -0.4, 0.6, "time_ns.total"))
    (panel,) = forests(told)
    assert panel.title == "All figures"
    assert {label for trace in figure(told)["data"] for label in trace["y"]} == {P99, "time_ns.total"}


def test_what_has_no_ratio_is_left_to_the_table() -> None:
    nothing = replace(row("b", 0.0), relative=float("inf"))
    (panel,) = forests(comparison(row("a", 0.5, 0.4, 0.6), nothing))
    assert "1 without a ratio (zero on one side) stand in the table alone" in panel.note
    assert forests(comparison(nothing)) == []
