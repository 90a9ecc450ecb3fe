"""The page of a comparison, without a browser: settings, gates and every figure, and `migemu compare --report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migemu.cli.main import main
from migemu.experiment.comparison import compare
from migemu.experiment.gate import parse_gate
from migemu.experiment.sources import read_source
from migemu.report.comparison_page import html
from tests.unit.experiment.sweeps import run, sweep_of
from tests.unit.report.runs import result, write_run
from tests.unit.report.test_page import Words


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("sweep")
    run(sweep_of(folder), folder / "sweep.sqlite")
    return f"{folder}:policy=never", f"{folder}:policy=batched:spans=16"


def migemu(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def words(base: str, new: str, *gates: str) -> list[str]:
    told = compare(read_source(base), read_source(new), ["fault.*"], [parse_gate(gate) for gate in gates])
    said = Words(html(told, base, new))
    assert said.open == [], "every tag closes"
    return said.words


def test_it_says_settings_gates_and_every_figure(sides: tuple[str, str]) -> None:
    said = words(*sides, "fault.p50_ns > +5%", "fault.p99_ns > 1s")
    assert f"{sides[1]} against {sides[0]}" in said
    assert said.count("collapse.policy") == 1
    assert [said.count(verdict) for verdict in ("\u2717 FAILS", "\u2713 holds")] == [1, 3]
    assert said.index("\u2717 FAILS") < said.index("\u2713 holds"), "what fails comes first"
    assert said.count("piece=2M") >= 4
    assert "no ratio, the baseline is 0" in said
    assert "one pair, no interval" not in said, "there are three"
    assert "with 3 seeds a 95 % interval is too narrow to be one; take ten for a gate" in " ".join(said)


def test_two_runs_without_a_difference_have_a_page_too(tmp_path: Path) -> None:
    path = str(write_run(tmp_path / "a<b", said=result(name="<i>")))
    said = words(path, path)
    assert "No setting differs." in said
    assert f"{path} against {path}" in said
    assert "one pair, no interval" in said
    assert "one seed settles nothing" in " ".join(said)


def test_compare_writes_it_whatever_the_gates_say(sides: tuple[str, str], tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    done = migemu(*sides, "--report", page, "--fail-if", "fault.p50_ns > +5%")
    assert done.exit_code == 1
    assert f"report: {page}" in done.output
    assert "FAILS" in page.read_text(encoding="utf-8")
    quiet = migemu(*sides, "--report", page, "--json")
    assert quiet.exit_code == 0
    assert "report:" not in quiet.output


def test_the_data_of_its_figures_are_written(sides: tuple[str, str], tmp_path: Path) -> None:
    done = migemu(*sides, "--metric", "fault.p*", "--figures", tmp_path / "figures", "--format", "csv")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "forest-0-fault-p50-ns.csv" in names
    assert f"0 figures, and the data of {len(names)}" in done.output
    assert migemu(*sides, "--format", "csv").exit_code == 2


def test_a_page_that_cannot_be_written_is_told_and_changes_no_verdict(sides: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for gates, code in (((), 3), (("--fail-if", "fault.p50_ns > +5%"), 1)):
        done = migemu(*sides, "--report", tmp_path / "file" / "page.html", *gates)
        assert done.exit_code == code
        assert "cannot be written" in done.output


def test_a_page_does_not_replace_what_it_is_made_of(sides: tuple[str, str]) -> None:
    for side in sides:
        path = Path(side.partition(":")[0])
        path = path / "sweep.sqlite" if path.is_dir() else path
        before = path.read_bytes()
        done = migemu(*sides, "--report", path)
        assert done.exit_code == 3
        assert "is what is read" in " ".join(done.output.split())
        assert path.read_bytes() == before
