"""A comparison on a narrow terminal shows every figure whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from migemu.cli.main import main


def test_every_figure_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, piece in (("a", "4K"), ("b", "2M")):
        words = ["sim", "-q", "--out", str(tmp_path / name), "--set", f"push.piece={piece}"]
        words += ["--set", "memory.geometry=tiny", "--set", "memory.size=64K"]
        assert CliRunner().invoke(main, words).exit_code == 0
    monkeypatch.setattr("migemu.cli.compare._TABLE_WIDTH_MIN", 1000)
    shown = CliRunner().invoke(main, ["compare", str(tmp_path / "a"), str(tmp_path / "b")]).stdout
    lines = shown.splitlines()
    assert "guest.longest_silence_ns" in lines
    assert "…" not in shown
    assert all(" -> " in lines[number + 1] for number, line in enumerate(lines) if line.startswith("fault."))
    assert all(len(line) <= 60 for line in lines if not line.startswith("settings"))
