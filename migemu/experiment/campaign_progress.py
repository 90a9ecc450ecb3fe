"""What a person watches while a sweep runs: a bar and the time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from migemu.experiment.cell import Cell
from migemu.experiment.run_world import RunAnswer
from migemu.units import SECOND

#: A plain line at most this often: it may go to a log that somebody has to read.
_LINE_NS: Final = 2 * SECOND
#: After so many runs it is said how long all of them will take.
_PILOT_RUNS: Final = 3


class CampaignProgress:
    """A campaign's `Watcher` that prints to `console`. Notes are printed even when `quiet`."""

    def __init__(self, console: Console, title: str, quiet: bool = False) -> None:
        self._console, self._title, self._quiet = console, title, quiet
        self._live = console.is_terminal and not quiet
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TextColumn("{task.fields[remaining]}"))  # fmt: skip
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(title, total=None, remaining="")
        self._runs = self._done = self._failed = 0
        self._began_ns = self._printed_ns = time.monotonic_ns()

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def began(self, runs: int, already_done: int) -> None:
        """Begin the bar with the number of runs."""
        self._runs, self._began_ns = runs, time.monotonic_ns()
        self._progress.update(self._task, total=runs)
        if already_done and not self._quiet:
            self.note(f"{already_done:,} runs were done before, {runs:,} are left")

    def ended(self, cell: Cell, seed: int, answer: RunAnswer) -> None:
        """Advance the bar by one run, or print a line if there is no terminal."""
        self._done += 1
        if answer.error:
            self._failed += 1
            self.note(f"{cell.name}, seed {seed}: {answer.error}")
        now = time.monotonic_ns()
        if self._done == _PILOT_RUNS and self._runs > 2 * _PILOT_RUNS and not self._quiet:
            whole = remaining_time(now - self._began_ns, self._done, self._done + self._runs).removesuffix(" left")
            self.note(f"all {self._runs:,} runs will take about {whole}, by the first {_PILOT_RUNS}; cells differ")
        remaining = remaining_time((now - self._began_ns), self._done, self._runs)
        self._progress.update(self._task, completed=self._done, remaining=remaining)
        if not (self._live or self._quiet) and (now - self._printed_ns >= _LINE_NS or self._done == self._runs):
            self._printed_ns = now
            failed = f", {self._failed} failed" if self._failed else ""
            self._print(
                f"{self._title}: {self._done:,} of {self._runs:,} runs{failed}{', ' if remaining else ''}{remaining}"
            )

    def note(self, line: str) -> None:
        """Print a line above the bar; it stays."""
        self._print(f"migemu: {line}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def remaining_time(elapsed_ns: int, done: int, runs: int) -> str:
    """ "4 min left", from the mean time of the runs so far; "" when no run is done, or all are."""
    if not done or done >= runs:
        return ""
    seconds = elapsed_ns / done * (runs - done) / SECOND
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
