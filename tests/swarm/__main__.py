"""`python -m tests.swarm SEEDS`: so many worlds with faults, and what they have covered. Exit 1 if one fails.

What fails first is shrunk to the smallest hazard list that still does, and a line is printed that replays it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from rich.console import Console
from rich.progress import track

from migemu.sim.coverage import Coverage
from migemu.sim.hazards import parse_all
from tests.swarm.drawing import Case, draw
from tests.swarm.shrinking import shrink
from tests.swarm.trial import Verdict, try_out

#: A process takes so many seeds at a time.
_CHUNK = 20


def try_seed(seed: int) -> Verdict:
    """The case of a seed."""
    return try_out(draw(seed))


def told(verdict: Verdict) -> str:
    """What is wrong with a case, shrunk, and how it is run again."""
    what = verdict.complaint.partition(":")[0]
    smallest = shrink(verdict.case, lambda case: try_out(case).complaint.startswith(what))
    return f"seed {verdict.case.seed}: {try_out(smallest).complaint}\nreplay: {smallest.replay}"


def run(verdicts: Iterable[Verdict], console: Console, *, table: bool) -> int:
    """Judge them; the exit code."""
    coverage, endings = Coverage(), Counter[str]()
    struck = recoveries = 0
    for verdict in verdicts:
        if verdict.complaint:
            console.print(told(verdict), markup=False, highlight=False, soft_wrap=True)
            return 1
        coverage.add(verdict.coverage)
        endings[verdict.ending] += 1
        struck, recoveries = struck + verdict.struck, recoveries + verdict.recoveries
    if table:
        console.print(coverage.table())
    ended = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
    console.print(
        f"{endings.total()} worlds held: {ended}; {struck} hazards struck, {recoveries} recoveries; {coverage}"
    )
    return 0


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.swarm", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=300, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--hazards", help="instead of those that the seed draws")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    if given.seed is not None:
        case: Case = draw(given.seed)
        if given.hazards is not None:
            case = replace(case, hazards=parse_all(given.hazards))
        return run([try_out(case)], console, table=False)
    seeds = range(given.first, given.first + given.seeds)
    with ProcessPoolExecutor(given.jobs) as pool:
        verdicts: Iterator[Verdict] = pool.map(try_seed, seeds, chunksize=_CHUNK)
        return run(track(verdicts, "trying", len(seeds), console=console, transient=True), console, table=True)


if __name__ == "__main__":
    sys.exit(main())
