"""Several migrations on a screen, and in a log."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from migemu.report.terminal.progress import Progress
from migemu.report.terminal.several import line_of, panel_of
from migemu.report.terminal.status_line import Status
from migemu.units import MIB, SECOND
from migemu.wire.states import Stage

STATUSES = {
    name: Status(Stage.RUNNING, 2 * SECOND, 8 * MIB, received * MIB, 0, 0, 0, 0, 1234, 3, "")
    for name, received in (("0a1b2c3d", 2), ("4e5f6a7b", 8))
}


def test_each_has_a_row_with_its_name() -> None:
    out = StringIO()
    Console(file=out, width=140).print(panel_of(STATUSES, "test"))
    rows = [line for line in out.getvalue().splitlines() if "run" in line]
    assert "0a1b2c3d" in rows[0]
    assert "25 % of 8M" in rows[0]
    assert "4e5f6a7b" in rows[1]
    assert "1,234 faults, 3 waiting" in rows[1]
    assert "test: 2 migrations" in out.getvalue()


def test_a_log_gets_one_line_for_all_of_them_once_a_second_and_none_while_there_are_none() -> None:
    assert line_of(STATUSES) == "2 migrations: 0a1b2c3d run 25 %, 4e5f6a7b run 100 %"
    out = StringIO()
    with Progress(Console(file=out, width=140), "test") as progress:
        progress.show_all({}, 0)
        for tenth in range(21):
            progress.show_all(STATUSES, tenth * SECOND // 10)
    assert out.getvalue().splitlines() == [line_of(STATUSES)] * 3
