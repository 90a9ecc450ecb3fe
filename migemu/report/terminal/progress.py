"""What a person watches while it runs: a live panel on a terminal, one plain line a second elsewhere.

Rendering is pure: `panel(status, rate)` and `plain_line(status, rate)` turn values into something to print. `Progress`
keeps the little that rates need (where things stood about a second ago) and writes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from migemu.report.terminal.several import line_of, panel_of
from migemu.report.terminal.status_line import Status
from migemu.units import SECOND, format_size
from migemu.wire.states import Stage

_WINDOW_NS: Final = SECOND
_MAP_WIDTH: Final = 64
_BAR_WIDTH: Final = 40
_BAR_WIDTH_MIN: Final = 8
#: What the frame, the first column and the figures beside the bar take.
_BESIDE_BAR: Final = 46
#: The frame and its margins.
_FRAME_WIDTH: Final = 4
#: The stages worth a line in a log: before them nothing moves.
_PRINTED_STAGES: Final = (Stage.RUNNING, Stage.END, Stage.COMPLETED)
#: Blue, orange, green of the Okabe-Ito palette: told apart by the colour-blind, and by shape besides.
_STYLES: Final = {"4K": "#56b4e9", "2M": "#e69f00", "1G": "#009e73"}


class _Glyphs(NamedTuple):
    """How a cell of the map is drawn: by its share that 4K pieces map, in ninths; or the larger entry that maps it."""

    small: str
    pmd: str
    pud: str
    square: str

    def drawn(self, cell: str) -> tuple[str, str]:
        """The glyph of a cell of `Status.cells`, and the level that gives it its colour."""
        if cell == "g":
            return self.pud, "1G"
        return (self.pmd, "2M") if cell == "m" else (self.small[int(cell)], "4K")


_UNICODE: Final = _Glyphs(" ▁▂▃▄▅▆▇▇", "▓", "█", "■")
_ASCII: Final = _Glyphs(" ..::--==", "M", "G", "*")


class Rate(NamedTuple):
    """Rates per second, over the last second; `remaining_ns` is None when it cannot be estimated."""

    received_bytes: float
    faults: float
    remaining_ns: int | None


@dataclass(frozen=True, slots=True)
class _Panel:
    """The panel of a moment, as wide as the console allows, and in the characters that it can show."""

    status: Status
    rate: Rate
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        status, total = self.status, max(1, self.status.memory_bytes)
        glyphs = _ASCII if options.ascii_only else _UNICODE
        width = options.max_width - _FRAME_WIDTH
        grid = Table.grid(padding=(0, 2), expand=False)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        grid.add_row("stage", f"{status.stage.value}   {status.elapsed_ns / SECOND:.1f} s{_remaining(self.rate)}")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=total, completed=status.received_bytes, width=_bar_width(options.max_width)),
            f"{_percent(status.received_bytes, total)}  {format_size(status.received_bytes)} of {format_size(total)}",
        )
        grid.add_row("received", bar)
        grid.add_row("mapped", _mapped(status, total, glyphs))
        grid.add_row(
            "faults", f"{status.faults:,} ({self.rate.faults:,.0f}/s), {status.faults_open} waiting   "
            f"{self.rate.received_bytes / 1e6:,.0f} MB/s"
        )  # fmt: skip
        shown: list[RenderableType] = [grid]
        if status.cells:
            shown += [Text(), _map(status.cells, min(_MAP_WIDTH, width), glyphs), _legend(status, glyphs)]
        yield Panel(Group(*shown), title=self.title, title_align="left", expand=False)


def panel(status: Status, rate: Rate, title: str) -> RenderableType:
    """The panel that is redrawn on a terminal."""
    return _Panel(status, rate, title)


def _bar_width(columns: int) -> int:
    return max(_BAR_WIDTH_MIN, min(_BAR_WIDTH, columns - _BESIDE_BAR))


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
        f"{status.stage.value}: received {_percent(status.received_bytes, total)} "
        f"({format_size(status.received_bytes)} of {format_size(total)}), mapped {mapped}, "
        f"{status.faults} faults ({rate.faults:.0f}/s), {rate.received_bytes / 1e6:.0f} MB/s{_remaining(rate)}"
    )


def _remaining(rate: Rate) -> str:
    return "" if rate.remaining_ns is None else f", {rate.remaining_ns / SECOND:.0f} s left"


def _percent(part: int, total: int) -> str:
    return f"{100 * part / total:.0f} %"


def _mapped(status: Status, total: int, glyphs: _Glyphs) -> Text:
    text = Text()
    for name, size in (
        ("4K", status.mapped_4k_bytes), ("2M", status.mapped_2m_bytes), ("1G", status.mapped_1g_bytes),
    ):  # fmt: skip
        text.append(f"{glyphs.square} ", _STYLES[name]).append(f"{name} {_percent(size, total):<7}")
    return text


def _map(cells: str, width: int, glyphs: _Glyphs) -> Text:
    """Rows of `width` cells, a character each."""
    text = Text(no_wrap=True)
    for number, cell in enumerate(cells):
        if number and number % width == 0:
            text.append("\n")
        glyph, level = glyphs.drawn(cell)
        text.append(glyph, _STYLES[level])
    return text


def _legend(status: Status, glyphs: _Glyphs) -> Text:
    """What the characters of the map mean."""
    size = format_size(max(1, status.memory_bytes // len(status.cells)))
    text = Text(f"a cell is {size}: ", style="dim")
    for glyph, meaning, level in (
        (f"{glyphs.small[1]}{glyphs.small[4]}{glyphs.small[8]}", "its share by 4K", "4K"), (glyphs.pmd, "2M", "2M"),
        (glyphs.pud, "1G", "1G"),
    ):  # fmt: skip
        text.append(glyph, _STYLES[level]).append(f" {meaning}" + ("" if level == "1G" else ", "))
    return text


class Progress:
    """Shows each status on a terminal, as lines, or not at all. A context manager."""

    def __init__(self, console: Console, title: str, quiet: bool = False) -> None:
        """A panel on a terminal that can be redrawn, else (a file, TERM=dumb) a line a second; nothing when `quiet`."""
        self._console = console
        self._title = title
        is_redrawn = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if is_redrawn and not quiet else None
        self._plain = not is_redrawn and not quiet
        self._past: deque[tuple[int, Status]] = deque()
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
        while self._past and (status.stage != self._past[0][1].stage or self._too_old(status)):
            self._past.popleft()
        self._past.append((time.monotonic_ns(), status))
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
        return len(self._past) > 1 and status.elapsed_ns - self._past[0][1].elapsed_ns > _WINDOW_NS

    def _print(self, status: Status) -> None:
        self._printed = status
        self._console.print(plain_line(status, self._rate(status)), highlight=False, soft_wrap=True)

    def _rate(self, status: Status) -> Rate:
        """Rates by the clock of the migration; what remains by the clock of whoever watches, virtual time or not."""
        now_ns, _ = self._past[-1] if self._past else (0, status)
        then_ns, then = self._past[0] if self._past else (0, status)
        span_ns = status.elapsed_ns - then.elapsed_ns
        if span_ns <= 0:
            return Rate(0.0, 0.0, None)
        moved, remaining = status.received_bytes - then.received_bytes, status.memory_bytes - status.received_bytes
        remaining_ns = remaining * (now_ns - then_ns) // moved if moved > 0 and remaining > 0 else None
        return Rate(moved * SECOND / span_ns, (status.faults - then.faults) * SECOND / span_ns, remaining_ns)
