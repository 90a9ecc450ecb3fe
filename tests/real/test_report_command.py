"""`migemu report`, and `--report` on a run: what is written, and what is said of what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from tests.real.processes import migemu
from tests.unit.report.runs import migration, result, write_run
from tests.unit.trace.traces import whole

TINY_RUN = ("--set", "memory.geometry=tiny", "--set", "memory.size=64K", "--set", "guest.vcpus=2")


def test_a_run_with_a_report_leaves_a_page_and_a_trace_that_perfetto_reads(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = migemu("run", "--quiet", "--report", "--out", str(out), *TINY_RUN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "How did each piece come?" in page
    assert "is not complete" not in page
    done = migemu("report", str(out), "--perfetto", str(tmp_path / "p.json"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert said["otherData"]["kind"] == "measured"
    assert {"M", "X", "C", "i"} <= {entry["ph"] for entry in said["traceEvents"]}


def test_a_run_that_fails_leaves_a_page_that_says_why(tmp_path: Path) -> None:
    done = migemu("run", "--report", "--out", str(tmp_path), "--set", "limits.memory_max=64K", cwd=tmp_path)
    assert done.returncode == 2, "the report changes nothing of how the run ended"
    assert "limits.memory_max of this destination is 64K" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_several_runs_make_one_page(tmp_path: Path) -> None:
    for name, kind in (("a", "measured"), ("b", "modelled")):
        write_run(tmp_path / name, migration(faults=5), result(kind, name=name), kind)
    done = CliRunner().invoke(main, ["report", f"{tmp_path}/a", f"{tmp_path}/b", "--out", f"{tmp_path}/new/both.html"])
    assert (done.exit_code, done.output) == (0, f"report: {tmp_path}/new/both.html\n")
    assert "a, b - migemu" in (tmp_path / "new" / "both.html").read_text(encoding="utf-8")


def test_the_hugetlb_pages_to_draw_can_be_chosen(tmp_path: Path) -> None:
    """Of two, the second."""
    write_run(tmp_path, whole())
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--hugepage", "1"])
    assert done.exit_code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "page 1 by how it came" in page
    assert "page 0 by how it came" not in page


def test_a_hugetlb_page_that_one_run_of_several_has_is_drawn_and_told_of_the_others(tmp_path: Path) -> None:
    write_run(tmp_path / "small", migration(faults=5))
    write_run(tmp_path / "large", whole())
    out = str(tmp_path / "both.html")
    done = CliRunner().invoke(main, ["report", str(tmp_path / "small"), str(tmp_path / "large"), "--hugepage", "1",
                                     "--out", out])  # fmt: skip
    assert done.exit_code == 0, done.output
    page = Path(out).read_text(encoding="utf-8")
    assert "page 1 by how it came" in page
    assert "it has no hugetlb page 1: its memory is 0 to 0" in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["whole", "--hugepage", "7"], 2, "migemu: --hugepage 7: there is none; its memory is hugetlb page 0 to 1"),
        (
            ["whole", "bare", "--hugepage", "0", "--hugepage", "2"],
            2,
            "migemu: --hugepage 2: there is none; the largest memory of these runs is hugetlb page 0 to 1",
        ),
        (["bare", "--hugepage", "0"], 2, "migemu: --hugepage draws the pieces of a trace, and there is none"),
        (["nowhere"], 2, "migemu: nowhere: does not exist; give the DIR of a run"),
        (["empty"], 2, "migemu: empty: holds no run: no result.json, no scenario.toml, no trace.jsonl"),
        (["whole", "empty"], 2, "migemu: empty: holds no run"),
        (["whole/trace.jsonl"], 2, "migemu: whole/trace.jsonl: is not a directory"),
        (["whole", "--out", "empty"], 2, "migemu: empty: cannot be written: it is a directory"),
        (["bare", "--perfetto", "p.json"], 2, "migemu: bare: holds no trace; run it with --trace"),
        (["whole", "--perfetto", "empty"], 2, "migemu: empty: cannot be written: it is a directory"),
        (["whole", "--perfetto", "whole/trace.jsonl"], 2, "migemu: whole/trace.jsonl: is what is read"),
        (["whole", "--out", "whole/result.json"], 2, "migemu: whole/result.json: is what is read"),
        (["mixed"], 2, "migemu: mixed: result.json and trace.jsonl are of different runs; move one of them away"),
        (["mixed", "--perfetto", "p.json"], 2, "migemu: mixed: result.json and trace.jsonl are of different runs"),
        (["whole", "bare", "--perfetto", "p.json"], 2, "migemu: --perfetto takes one DIR"),
        (["whole", "--out", "a.html", "--perfetto", "p.json"], 2, "migemu: --perfetto takes one DIR"),
        (["old"], 2, "migemu: old/result.json: is a result of version 0; this migemu reads version 1"),
        (["damaged", "--perfetto", "p.json"], 2, "migemu: damaged/trace.jsonl: line 7: is no JSON"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(Path("whole"), whole())
    write_run(Path("bare"))
    write_run(Path("mixed"), whole())
    write_run(Path("mixed"))
    write_run(Path("old"), said=result() | {"schema_version": 0})
    trace = write_run(Path("damaged"), whole()) / "trace.jsonl"
    lines = trace.read_text(encoding="utf-8").splitlines(keepends=True)
    trace.write_text("".join([*lines[:6], "!\n", *lines[7:]]), encoding="utf-8")
    done = CliRunner().invoke(main, ["report", *arguments])
    assert done.exit_code == code
    told = " ".join(done.stderr.split())
    assert told.startswith(said)
    if Path("p.json").exists():
        assert told.endswith("p.json holds everything before that")
        assert json.loads(Path("p.json").read_text(encoding="utf-8"))["traceEvents"]
