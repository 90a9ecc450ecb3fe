"""`python -m tests.swarm SEEDS`: so many worlds with faults, and what they have covered. Exit 1 if one fails.

Worlds are drawn; then every fault hits every message in every state by itself (`directed`). What fails is shrunk
to the smallest hazard list that still does, and a line is printed that replays it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console
from rich.progress import track

from migemu.sim.coverage import Coverage
from migemu.sim.hazards import parse_all
from tests.swarm.directed import BASES, base, combinations, directed
from tests.swarm.drawing import Case, draw
from tests.swarm.shrinking import shrink
from tests.swarm.trial import Verdict, try_out

#: A process takes so many cases at a time.
_CHUNK = 20
#: More failures tell no more; each takes its time to shrink.
_FAILURES_MAX = 5
#: The table's.
_COLUMNS = 130


def try_seed(seed: int) -> Verdict:
    """The case of a seed."""
    return try_out(draw(seed))


def try_combination(index: int) -> Verdict:
    """The case of one of all `combinations`."""
    return try_out(directed(*combinations()[index]))


def told(verdict: Verdict) -> str:
    """What is wrong with a case, shrunk, and how it is run again."""
    what = verdict.complaint.partition(":")[0]
    smallest = shrink(verdict.case, lambda case: try_out(case).complaint.startswith(what))
    return f"{verdict.case.given}: {try_out(smallest).complaint}\nreplay: {smallest.replay}"


class Tally:
    """What has been tried, and how it went."""

    def __init__(self, console: Console) -> None:
        self.coverage = Coverage()
        self.failures = 0
        self._console = console
        self._endings = Counter[str]()
        self._struck = self._recoveries = self._replaced = 0

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Count them; print those that fail. Stops at the last failure that is of interest."""
        for verdict in verdicts:
            self.coverage.add(verdict.coverage)
            self._struck += verdict.struck
            self._recoveries += verdict.recoveries
            self._replaced += verdict.replaced
            if verdict.ending is not None:
                self._endings[verdict.ending.value] += 1
                continue
            self.failures += 1
            self._console.print(told(verdict), markup=False, highlight=False, soft_wrap=True)
            if self.failures == _FAILURES_MAX:
                return

    def __str__(self) -> str:
        ended = ", ".join(f"{count} {ending}" for ending, count in self._endings.most_common())
        return (
            f"{self._endings.total()} worlds held ({ended}), {self.failures} did not; {self._struck} hazards struck, "
            f"{self._recoveries} recoveries, and {self._replaced} of the preempt channel alone"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.swarm", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=300, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--base", choices=BASES, help="one of the worlds that directed faults hit, alone")
    parser.add_argument("--hazards", help="instead of those of the --seed or --base")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    console = Console()
    console.width = max(_COLUMNS, console.width)
    tally = Tally(console)
    if given.seed is not None or given.base is not None:
        case: Case = draw(given.seed) if given.seed is not None else base(given.base)
        if given.hazards is not None:
            case = case.with_hazards(*parse_all(given.hazards))
        tally.add([try_out(case)])
        console.print(tally, highlight=False, soft_wrap=True)
        return min(1, tally.failures)
    seeds = range(given.first, given.first + given.seeds)
    pool = ProcessPoolExecutor(given.jobs)
    try:
        drawn = pool.map(try_seed, seeds, chunksize=_CHUNK)
        tally.add(track(drawn, "drawn worlds", len(seeds), console=console, transient=True))
        alone = str(tally.coverage).partition(" ")[0]
        if tally.failures < _FAILURES_MAX:
            each = range(len(combinations()))
            aimed = pool.map(try_combination, each, chunksize=_CHUNK)
            tally.add(track(aimed, "directed faults", len(each), console=console, transient=True))
    finally:
        pool.shutdown(cancel_futures=True)
    console.print(tally.coverage.table())
    console.print(f"{tally}; {alone} combinations reached by drawn worlds alone", highlight=False, soft_wrap=True)
    return min(1, tally.failures)


if __name__ == "__main__":
    sys.exit(main())
