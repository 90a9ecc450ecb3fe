"""The panel that is watched: it fits the terminal, has a legend, and is drawn in what the terminal can show."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from migemu.report.terminal import progress
from migemu.report.terminal.progress import Progress, Rate, panel
from migemu.report.terminal.status_line import Status
from migemu.units import GIB, MIB, SECOND
from migemu.wire.states import Stage

CELLS = "".join("012345678mg"[number % 11] for number in range(128))
STATUS = Status(Stage.RUNNING, 2 * SECOND, GIB, 314 * MIB, 280 * MIB, 30 * MIB, 0, 0, 1904, 4, CELLS)
RATE = Rate(155e6, 849, 5 * SECOND)


class _AsciiConsole(Console):
    @property
    def encoding(self) -> str:
        return "ascii"


def drawn(width: int, kind: Callable[..., Console] = Console) -> list[str]:
    console = kind(width=width, file=StringIO(), force_terminal=True, color_system=None)
    console.print(panel(STATUS, RATE, "demo"))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 50, 80, 100, 200])
def test_it_fits_and_loses_nothing(width: int) -> None:
    lines = drawn(width)
    assert all(len(line) <= width for line in lines)
    text = " ".join(" ".join(line.strip("│╭╮╰╯─ ") for line in lines).split())
    for said in ("5 s left", "31 %", "314M of 1G", "2M 3 %", "1,904", "155 MB/s", "a cell is 8M", "its share by 4K"):
        assert said in text
    cells = len(re.sub(r"[^▁▂▃▄▅▆▇▓█]", "", "".join(lines)))
    assert cells == sum(cell != "0" for cell in CELLS) + len("▁▄▇▓█"), "every cell, and the legend"


def test_what_maps_a_cell_is_told_apart_without_colour() -> None:
    for glyphs in (progress._UNICODE, progress._ASCII):
        assert len({*glyphs.small[1:], glyphs.pmd, glyphs.pud}) == len({*glyphs.small[1:]}) + 2


def test_in_a_locale_without_the_glyphs_it_is_drawn_in_ascii() -> None:
    text = "\n".join(drawn(60, _AsciiConsole))
    assert text.isascii()
    assert "a cell is 8M: .:= its share by 4K, M 2M, G 1G" in text


def _all(descriptor: int) -> str:
    """What was written to the terminal whose other end is closed."""
    written = b""
    try:
        while part := os.read(descriptor, 65536):
            written += part
    except OSError:
        pass  # EIO: nobody holds the other end any more
    return written.decode()


@pytest.mark.parametrize(("terminal", "is_redrawn"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_cannot_be_redrawn_gets_lines(
    terminal: str, is_redrawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    here, there = pty.openpty()
    try:
        with os.fdopen(there, "w", encoding="utf-8") as file, Progress(Console(file=file, width=80), "demo") as shown:
            shown.show(STATUS)
        written = _all(here)
    finally:
        os.close(here)
    assert ("\x1b[" in written) is is_redrawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-9];?[0-9;]*m", written), "NO_COLOR"
    assert ("a cell is 8M" in written) is is_redrawn
    assert ("run: received 31 %" in written) is not is_redrawn


def test_what_is_left_is_told_by_the_clock_of_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in virtual time passes its seconds faster, or more slowly, than those of a person."""
    now = iter((0, 10 * SECOND))
    monkeypatch.setattr(progress.time, "monotonic_ns", lambda: next(now))
    out = StringIO()
    with Progress(Console(file=out, width=200), "demo") as shown:
        shown.show(Status(Stage.RUNNING, 0, GIB, 0, 0, 0, 0, 0, 0, 0, ""))
        shown.show(Status(Stage.RUNNING, 2 * SECOND, GIB, GIB // 2, 0, 0, 0, 0, 0, 0, ""))
    assert "268 MB/s, 10 s left" in out.getvalue()
