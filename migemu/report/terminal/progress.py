"""What a person watches while it runs: a live panel on a terminal, one plain line a second elsewhere.

Rendering is pure: `panel(status, rate)` and `plain_line(status, rate)` turn values into something to print. `Progress`
keeps the little that rates need (where things stood about a second ago) and writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from migemu.report.terminal.several import line_of, panel_of
from migemu.report.terminal.status_line import Status
from migemu.units import SECOND, format_size

_WINDOW_NS: Final = SECOND
_MAP_WIDTH: Final = 64
#: The stages worth a line in a log: before them nothing moves.
_PRINTED_STAGES: Final = ("run", "end", "completed")
_FILL: Final = " ▁▂▃▄▅▆▇█"
#: Blue, orange, green of the Okabe-Ito palette: told apart by the colour-blind, and by shape besides.
_STYLES: Final = {"4K": "#56b4e9", "2M": "#e69f00", "1G": "#009e73"}


class Rate(NamedTuple):
    """Rates per second, over the last second; `remaining_ns` is None when it cannot be estimated."""

    received_bytes: float
    faults: float
    remaining_ns: int | None


def panel(status: Status, rate: Rate, title: str) -> RenderableType:
    """The panel that is redrawn on a terminal."""
    grid = Table.grid(padding=(0, 2), expand=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(no_wrap=True)
    total = max(1, status.memory_bytes)
    grid.add_row("stage", f"{status.stage}   {status.elapsed_ns / SECOND:.1f} s{_remaining(rate)}")
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=total, completed=status.received_bytes, width=40),
        f"{_percent(status.received_bytes, total)}  {format_size(status.received_bytes)} of {format_size(total)}",
    )
    grid.add_row("received", bar)
    grid.add_row("mapped", _mapped(status, total))
    grid.add_row(
        "faults", f"{status.faults:,} ({rate.faults:,.0f}/s), {status.faults_open} waiting   "
        f"{rate.received_bytes / 1e6:,.0f} MB/s"
    )  # fmt: skip
    return Panel(Group(grid, Text(), _map(status.cells)), title=title, title_align="left", expand=False)


def plain_line(status: Status, rate: Rate) -> str:
    """The same as `panel` in one line, for logs."""
    total = max(1, status.memory_bytes)
    mapped = " ".join(
        f"{name} {_percent(size, total)}"
        for name, size in (
            ("4K", status.mapped_4k_bytes), ("2M", status.mapped_2m_bytes), ("1G", status.mapped_1g_bytes),
        )
    )  # fmt: skip
    return (
        f"{status.stage}: received {_percent(status.received_bytes, total)} "
        f"({format_size(status.received_bytes)} of {format_size(total)}), mapped {mapped}, "
        f"{status.faults} faults ({rate.faults:.0f}/s), {rate.received_bytes / 1e6:.0f} MB/s{_remaining(rate)}"
    )


def _remaining(rate: Rate) -> str:
    return "" if rate.remaining_ns is None else f", {rate.remaining_ns / SECOND:.0f} s left"


def _percent(part: int, total: int) -> str:
    return f"{100 * part / total:.0f} %"


def _mapped(status: Status, total: int) -> Text:
    text = Text()
    for name, size in (
        ("4K", status.mapped_4k_bytes), ("2M", status.mapped_2m_bytes), ("1G", status.mapped_1g_bytes),
    ):  # fmt: skip
        text.append("■ ", _STYLES[name]).append(f"{name} {_percent(size, total):<7}")
    return text


def _map(cells: str) -> RenderableType:
    """A line with one character for each cell: its share mapped in 4K pieces, or the larger entry that maps it."""
    text = Text()
    for number, cell in enumerate(cells):
        if number and number % _MAP_WIDTH == 0:
            text.append("\n")
        if cell == "g":
            text.append("█", _STYLES["1G"])
        elif cell == "m":
            text.append("▓", _STYLES["2M"])
        else:
            text.append(_FILL[int(cell)], _STYLES["4K"])
    return text


class Progress:
    """Shows each status on a terminal, as lines, or not at all. A context manager."""

    def __init__(self, console: Console, title: str, quiet: bool = False) -> None:
        """A panel if `console` is a terminal, one line a second if it is not, nothing when `quiet`."""
        self._console = console
        self._title = title
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal and not quiet else None
        self._plain = not console.is_terminal and not quiet
        self._past: deque[Status] = deque()
        self._last_line_ns = -SECOND
        self._last: Status | None = None
        self._printed: Status | None = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, where)
        elif (
            self._plain
            and self._last is not None
            and self._last.stage in _PRINTED_STAGES
            and self._last is not self._printed
        ):
            self._print(self._last)

    def show(self, status: Status) -> None:
        """Show the latest status of the one migration."""
        self._last = status
        while self._past and (status.stage != self._past[0].stage or self._too_old(status)):
            self._past.popleft()
        self._past.append(status)
        if self._live is not None:
            self._live.update(panel(status, self._rate(status), self._title), refresh=True)
        elif (
            self._plain
            and status.stage in _PRINTED_STAGES
            and (status.elapsed_ns - self._last_line_ns >= SECOND or status.elapsed_ns < self._last_line_ns)
        ):
            self._last_line_ns = status.elapsed_ns
            self._print(status)

    def show_all(self, statuses: Mapping[str, Status], now_ns: int) -> None:
        """Show the latest status of each of several migrations, by name."""
        if self._live is not None:
            self._live.update(panel_of(statuses, self._title), refresh=True)
        elif self._plain and statuses and now_ns - self._last_line_ns >= SECOND:
            self._last_line_ns = now_ns
            self._console.print(line_of(statuses), highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a line above the panel; it stays."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def _too_old(self, status: Status) -> bool:
        return len(self._past) > 1 and status.elapsed_ns - self._past[0].elapsed_ns > _WINDOW_NS

    def _print(self, status: Status) -> None:
        self._printed = status
        self._console.print(plain_line(status, self._rate(status)), highlight=False, soft_wrap=True)

    def _rate(self, status: Status) -> Rate:
        then = self._past[0] if self._past else status
        span_ns = status.elapsed_ns - then.elapsed_ns
        if span_ns <= 0:
            return Rate(0.0, 0.0, None)
        per_s = (status.received_bytes - then.received_bytes) * SECOND / span_ns
        remaining = status.memory_bytes - status.received_bytes
        remaining_ns = int(remaining / per_s * SECOND) if per_s > 0 and remaining > 0 else None
        return Rate(per_s, (status.faults - then.faults) * SECOND / span_ns, remaining_ns)
