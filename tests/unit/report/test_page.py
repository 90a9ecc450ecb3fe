"""The page without a browser: that its figures are valid, each of one kind, and that it says what is missing."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from migemu.analysis.reducer import TraceFigures
from migemu.analysis.series import Bins
from migemu.costs.access import UNIFORM, Pattern
from migemu.errors import InputError
from migemu.mm.pages import TINY
from migemu.report.directory import RunDirectory
from migemu.report.draw.memory_figures import filled, pictures
from migemu.report.draw.style import Scale, ShownRun, marks
from migemu.report.page import html, load, pattern_of, sections
from tests.unit.report.runs import migration, result, write_run
from tests.unit.trace.traces import destination, memory, whole


def loaded(*directories: Path) -> list[ShownRun]:
    return load([RunDirectory.open(each) for each in directories])


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    return {
        "measured": write_run(base / "a", migration(), result(name="here")),
        "another": write_run(base / "b", migration(seed=2), result(name="there")),
        "modelled": write_run(base / "c", migration(wire=True), result("modelled", name="sim"), "modelled"),
        "tiny": write_run(base / "d", migration(TINY, faults=3), result(name="tiny")),
        "traceless": write_run(base / "e", None, result(name="bare")),
        "failed": write_run(base / "f", [memory("source"), memory()], result(status="failed", name="gone")),
    }


@pytest.fixture(scope="module")
def runs(directories: dict[str, Path]) -> list[ShownRun]:
    return loaded(*directories.values())


def panels(runs: list[ShownRun]) -> dict[str, list[Any]]:
    return {section.anchor: section.panels for section in sections(runs)}


def test_every_figure_is_one_that_plotly_knows(runs: list[ShownRun]) -> None:
    """plotly refuses unknown or impossible attributes, which the browser would pass over in silence."""
    figures = [panel.figure for each in panels(runs).values() for panel in each]
    for picture, by_time, by_how in pictures(runs):
        figures += [by_time.figure, by_how.figure, filled(by_how.figure, picture), filled(by_time.figure, picture)]
    assert len(figures) > 30
    for figure in figures:
        go.Figure(figure)


def test_measured_and_modelled_share_no_figure(runs: list[ShownRun]) -> None:
    kinds = {run.label: run.kind for run in runs}
    for anchor, each in panels(runs).items():
        for panel in each:
            names = {trace.get("name") for trace in panel.figure["data"]} | {panel.title}
            found = {kinds[name] for name in names if name in kinds}
            assert found <= {panel.kind} or anchor == "access", panel.title
    assert [panel.kind for panel in panels(runs)["latency"]] == ["measured", "modelled"] * 2


def test_what_the_cost_model_says_is_modelled_in_any_run(runs: list[ShownRun]) -> None:
    assert {panel.kind for panel in panels(runs)["access"]} == {"modelled"}


def test_runs_side_by_side_have_the_same_axes(directories: dict[str, Path]) -> None:
    for anchor, each in panels(loaded(directories["measured"], directories["another"])).items():
        if len(each) > 1 and anchor != "latency":
            ranges = [(panel.figure["layout"]["xaxis"].get("range"), panel.figure["layout"]["yaxis"].get("range"))
                      for panel in each]  # fmt: skip
            assert ranges[0] == ranges[1], anchor


def test_stages_that_lie_close_share_their_words() -> None:
    told = TraceFigures(TINY, 32)
    for t, detail in ((0, "run"), (50, "end"), (52, "completed")):
        told.take(destination("state", detail=detail, t=t))
    close, apart = (marks(told, Scale("us", 1), {"range": [0, most]}) for most in (100, 56))
    assert [each["text"] for each in close["annotations"]] == ["end, completed"]
    assert [each["text"] for each in apart["annotations"]] == ["end", "completed"]
    assert len(close["shapes"]) == 2


def test_throughput_of_runs_side_by_side_is_summed_over_the_same_times(directories: dict[str, Path]) -> None:
    short, long = loaded(directories["measured"], directories["tiny"])
    assert short.trace
    assert long.trace
    bins = Bins(3, step_ns=8 * long.trace.received.step_ns)
    for t, sums in long.trace.received.rows():
        for quantity, amount in enumerate(sums):
            bins.add(t, quantity, amount)
    long.trace.received = bins
    drawn = panels([short, long])["throughput"]
    assert {re.sub(r" Pages.*", "", panel.note) for panel in drawn} == {"Sums over 8ms each."}
    moved = sum(sum(trace["y"]) for trace in drawn[0].figure["data"] if trace["name"] != "came again (dropped)")
    assert moved * 1e6 * 0.008 == pytest.approx(sum(sum(sums[:2]) for _, sums in short.trace.received.rows()), rel=1e-3)


def test_a_measured_fault_has_fewer_parts_than_a_modelled_one(runs: list[ShownRun]) -> None:
    parts = {panel.title: [trace["name"] for trace in panel.figure["data"]] for panel in panels(runs)["attribution"]}
    assert parts["sim"] == ["detect", "request", "uplink", "queue", "serialisation", "downlink", "install", "wake"]
    assert parts["here"] == [
        "detect", "request (until the source has it)", "reply (source, link, reading)", "install", "wake",
    ]  # fmt: skip


def test_the_stacked_parts_are_as_long_as_the_latency(runs: list[ShownRun]) -> None:
    for panel in panels(runs)["attribution"]:
        run = next(run for run in runs if run.label == panel.title)
        assert run.trace
        for place, row in enumerate(run.trace.faults.attribution()):
            scale = 1_000_000 if "[ms]" in panel.figure["layout"]["xaxis"]["title"]["text"] else 1_000
            assert sum(trace["x"][place] for trace in panel.figure["data"]) * scale == pytest.approx(
                row.latency_ns, rel=0.01
            )


def test_points_are_bounded(tmp_path: Path) -> None:
    """However long the run; here some thousand faults and some ten thousand changes."""
    found = panels(loaded(write_run(tmp_path, migration(faults=4000))))
    for anchor, each in found.items():
        for panel in each:
            assert sum(len(trace["x"]) for trace in panel.figure["data"]) < 4000, anchor
    assert "faults: the slowest" in found["faults"][0].note


def test_a_run_without_a_trace_has_its_figures_and_no_more(directories: dict[str, Path]) -> None:
    found = panels(loaded(directories["traceless"]))
    assert {anchor for anchor, each in found.items() if each} == {"latency", "lost"}


class Words(HTMLParser):
    """All that a person reads, and whether tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def test_the_page_is_whole_and_asks_for_nothing(runs: list[ShownRun]) -> None:
    page = html(runs)
    said = Words(page)
    assert said.open == []
    assert "default-src 'none'" in unescape(page)
    ours = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", ours)
    for line in ("no trace.jsonl (run with --trace)", "the run failed: the source went away"):
        assert any(line in words for words in said.words)


def test_the_same_runs_give_the_same_page(directories: dict[str, Path]) -> None:
    assert html(loaded(directories["tiny"])) == html(loaded(directories["tiny"]))


def test_a_name_is_text_wherever_it_stands(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script><b>%{x}"
    page = html(loaded(write_run(tmp_path, whole(), result(name=name))))
    assert "<script>alert" not in page
    assert any(name in words for words in Words(page).words)
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    assert name in {trace.get("name") for text in figures for trace in json.loads(text).get("data", [])}


def test_a_damaged_trace_is_said_to_be(tmp_path: Path) -> None:
    directory = write_run(tmp_path, migration(faults=20))
    trace = directory / "trace.jsonl"
    trace.write_bytes(trace.read_bytes()[:-40])
    (run,) = loaded(directory)
    assert "the trace is damaged; shown is what stands before that" in run.directory.missing[0]
    assert run.trace
    assert len(run.trace.faults)
    trace.write_text("nothing")
    (run,) = loaded(directory)
    assert "the trace cannot be used" in run.directory.missing[0]


def test_a_trace_of_another_kind_than_the_result_is_not_drawn(tmp_path: Path) -> None:
    """Where it is damaged; a whole one is held to its digest."""
    trace = write_run(tmp_path, migration(faults=5), result("modelled"), "measured") / "trace.jsonl"
    trace.write_bytes(trace.read_bytes()[:-1])
    (run,) = loaded(tmp_path)
    assert run.trace is None
    assert "the trace is of another run: it is measured, the result modelled" in run.directory.missing


def test_the_figures_of_one_run_are_not_drawn_over_the_trace_of_another(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    (tmp_path / "result.json").write_text(json.dumps(result()))  # of a run without --trace, for one
    with pytest.raises(InputError, match=r"result\.json and trace\.jsonl are of different runs; move one of them away"):
        loaded(tmp_path)


def test_a_hugetlb_page_that_no_run_has_is_refused(directories: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="--hugepage 7: there is none; its memory is hugetlb page 0 to 0"):
        load([RunDirectory.open(directories["measured"])], [0, 7])


def test_the_page_leads_with_what_it_cost_the_guest(runs: list[ShownRun]) -> None:
    """The two vCPUs of the runs slept for 5.2 ms and for 0.3 ms."""
    said = " ".join(" ".join(Words(html(runs)).words).split())
    first = said[: said.index("How long did faults take? From the access")]
    for words in ("a vCPU lost, in the mean", "2.75ms", "5.2ms", "longest silence", "90 % of memory at 1G again after",
                  "an access to memory meanwhile", "One seed settles nothing"):  # fmt: skip
        assert words in first, words


def test_the_trade_has_a_mark_for_each_modelled_run_also_where_1g_never_came_back(tmp_path: Path) -> None:
    made = []
    for name, at_1g_ns in (("soon", 2_000_000_000), ("never", None)):
        told = result("modelled", name=name)
        told["mapping"]["to_1G_ns"] = at_1g_ns
        made.append(write_run(tmp_path / name, None, told, "modelled"))
    panel = panels(loaded(*made))["lost"][0]
    soon, never = panel.figure["data"]
    assert (soon["x"], soon["y"]) == ([2.0], [2.75])
    assert never["x"][0] > 2
    assert panel.figure["layout"]["annotations"][0]["text"] == "never"
    go.Figure(panel.figure)


def test_a_page_of_six_runs_stays_below_a_megabyte_and_a_half(runs: list[ShownRun]) -> None:
    assert len(html(runs).encode()) < 1_500_000


def test_maps_of_all_runs_of_a_kind_have_one_scale(directories: dict[str, Path]) -> None:
    made = pictures(loaded(directories["measured"], directories["tiny"]))
    scales = {by_time.figure["data"][0]["zmax"] for _, by_time, _ in made}
    assert len(made) == 2
    assert len(scales) == 1


def test_a_run_that_nobody_named_is_called_as_its_directory(tmp_path: Path) -> None:
    write_run(tmp_path / "monday", None, result(name="unnamed"))
    assert [run.label for run in loaded(tmp_path / "monday")] == ["monday"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = loaded(write_run(tmp_path / "x", whole()), write_run(tmp_path / "y", whole()))
    assert [run.label for run in runs] == [f"made-up ({tmp_path / 'x'})", f"made-up ({tmp_path / 'y'})"]


@pytest.mark.parametrize(
    ("workload", "pattern"),
    [
        ("zipf:exponent=1.1,scatter=off", Pattern("zipf", 1.1, False)),
        ("sequential:stride=4", Pattern("sequential", stride=4)),
        ("pointer_chase", Pattern("pointer_chase")),
        ("replay:path=/nowhere", UNIFORM),
        ("somebody's own", UNIFORM),
    ],
)
def test_the_cost_of_an_access_is_that_of_the_guests_pattern(workload: str, pattern: Pattern) -> None:
    assert pattern_of({"guest": {"workload": workload}}) == pattern
    assert pattern_of({}) == UNIFORM
