"""Several migrations at once, while they run: a row for each on a terminal, one line for all of them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from migemu.report.terminal.status_line import Status
from migemu.units import SECOND, format_size


def panel_of(statuses: Mapping[str, Status], title: str) -> RenderableType:
    """The panel for several migrations, by name, in the order in which they came."""
    rows = Table.grid(padding=(0, 2), expand=False)
    for name, status in statuses.items():
        total = max(1, status.memory_bytes)
        rows.add_row(
            name, status.stage.value, f"{status.elapsed_ns / SECOND:.1f} s",
            ProgressBar(total=total, completed=status.received_bytes, width=30),
            f"{100 * status.received_bytes / total:3.0f} % of {format_size(status.memory_bytes)}",
            f"{status.faults:,} faults, {status.faults_open} waiting",
        )  # fmt: skip
    return Panel(rows, title=f"{title}: {len(statuses)} migrations", title_align="left", expand=False)


def line_of(statuses: Mapping[str, Status]) -> str:
    """The same as `panel_of` in one line, for logs."""
    each = (
        f"{name} {status.stage.value} {100 * status.received_bytes / max(1, status.memory_bytes):.0f} %"
        for name, status in statuses.items()
    )
    return f"{len(statuses)} migrations: {', '.join(each)}"
