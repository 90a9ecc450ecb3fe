"""Figures as files for a paper, drawn by Kaleido and the Chromium of this machine, as the report draws them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from migemu.cli.main import main
from tests.browser.conftest import Browser
from tests.unit.report.runs import migration, result, write_run

SVG = "{http://www.w3.org/2000/svg}"


def test_svg_and_pdf_of_every_figure_with_its_data(chromium: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", migration(faults=20), result(name="here"))
    arguments = ["report", str(run), "--figures", str(tmp_path / "figures"), "--format", "svg", "--format", "pdf"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    files = [*(tmp_path / "figures").iterdir()]
    names = {suffix: {path.stem for path in files if path.suffix == suffix} for suffix in (".svg", ".pdf", ".csv")}
    assert names[".svg"] == names[".pdf"] == names[".csv"]
    assert len(names[".svg"]) >= 9
    for path in files:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
        elif path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert (root.tag, root.get("width")) == (f"{SVG}svg", "720")
            assert [text for text in root.iter(f"{SVG}text") if "".join(text.itertext()).strip()]
    text = (tmp_path / "figures" / "latency-0-histogram.svg").read_text()
    assert "latency [us]" in text


def test_a_machine_without_a_browser_is_told_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    run = write_run(tmp_path / "run", None, result())
    done = CliRunner().invoke(main, ["report", str(run), "--figures", str(tmp_path / "figures")])
    assert done.exit_code == 3, done.output
    assert "no Chromium or Chrome is on this machine" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "figures").exists()
