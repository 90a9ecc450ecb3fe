"""`python -m tests.chaos ROUNDS`: so many rounds of real processes under random harm. Exit 1 if one fails.

A round that fails is told with its plan, what was seen, and the line that replays it; its directory is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from migemu.errors import EXIT_INTERRUPTED
from tests.chaos.drawing import Plan, draw
from tests.chaos.harm import in_one_line, parse_all
from tests.chaos.round import Round, Trial, slowness

#: Kinds of failure; each is counted, and has to be 0.
FAILURES = ("CONTRADICTORY", "HUNG", "STUCK", "TRACEBACK", "CRASHED")
#: How a migration may end.
ENDINGS = ("verified", "recovered", "unheard", "at the source", "lost", "damage found")


class Tally:
    """What has been tried, and how it went."""

    def __init__(self, console: Console) -> None:
        self.failed = 0
        self.endings = Counter[str]()
        self.struck = Counter[str]()
        self.failures = Counter[str]()
        self.rounds = self.restarts = 0
        self._sentences = Counter[str]()
        self._console = console

    def add(self, trial: Trial, folder: Path) -> None:
        """Count one; tell of it if it failed."""
        self.rounds += 1
        self.endings.update(trial.endings)
        self.struck.update(trial.struck)
        self.restarts += trial.restarts
        self._sentences.update(_in_general(sentence) for sentence in trial.sentences)
        if not trial.failures:
            return
        self.failed += 1
        self.failures.update({failure.partition(":")[0] for failure in trial.failures})
        what = [f"seed {trial.plan.seed}: {trial.plan}", *trial.failures]
        text = "\n".join([*what, f"kept: {folder}", f"replay: {replay(trial.plan)}"])
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Endings and failures, harms that struck."""
        shown = Table("ended", "migrations", "harm that struck", "times", title=f"{self.rounds} rounds")
        ended = [(name, str(self.endings[name])) for name in ENDINGS]
        ended += [(name.lower(), str(self.failures[name])) for name in FAILURES]
        struck = [(name, str(count)) for name, count in self.struck.most_common()]
        for row in range(max(len(ended), len(struck))):
            shown.add_row(*(ended[row] if row < len(ended) else ("", "")), *(struck[row] if row < len(struck) else ()))
        return shown

    def sentences(self) -> str:
        """Those that told of what was not verified; numbers and names left out."""
        return "\n".join(f"{count:4} {sentence}" for sentence, count in self._sentences.most_common())

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.endings.total()} migrations ended well, {self.failed} rounds failed; "
            f"{self.struck.total()} harms struck, {self.restarts} restarts"
        )


def _in_general(sentence: str) -> str:
    """Without what differs from round to round."""
    how, _, text = sentence.partition(": ")
    text = re.sub(r"^(source|destination) \d+: (?:(?:exit \d+|killed .*?): )?(?:migemu: )?", r"\1: ", text)
    text = re.sub(r"/\S+/(?=[\w-]+)", "", text)
    text = re.sub(r"\b[0-9a-f]{8,32}\b", "NAME", text)
    return f"{how}: {re.sub(r'[0-9][0-9.]*', 'N', text)}"


def replay(plan: Plan) -> str:
    """The line that runs it again."""
    harms = f' --harms "{in_one_line(plan.harms)}"' if plan.harms != draw(plan.seed).harms else ""
    return f"python -m tests.chaos --seed {plan.seed}{harms}"


async def shrunk(plan: Plan, kind: str, root: Path, slow: float) -> Plan:
    """The same with fewer harms, as long as it fails in the same way: timing is real, so that each is tried twice."""
    index = 0
    while index < len(plan.harms):
        smaller = plan.with_harms(plan.harms[:index] + plan.harms[index + 1 :])
        for _ in range(2):
            with tempfile.TemporaryDirectory(dir=root, prefix="shrink-") as folder:
                trial = await Round(smaller, Path(folder), slow).run()
            if any(failure.startswith(kind) for failure in trial.failures):
                plan, index = smaller, 0
                break
        else:
            index += 1
    return plan


async def campaign(plans: list[Plan], root: Path, jobs: int, slow: float, tally: Tally, progress: Progress) -> None:
    """All of them, `jobs` at a time."""
    shown = progress.add_task("rounds", total=len(plans), told="")
    left = iter(plans)

    async def work() -> None:
        for plan in left:
            folder = root / f"seed-{plan.seed}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            trial = await Round(plan, folder, slow or slowness()).run()
            tally.add(trial, folder)
            if not trial.failures:
                shutil.rmtree(folder)
            endings = ", ".join(f"{count} {name}" for name, count in tally.endings.most_common(3))
            progress.update(shown, advance=1, told=f"{tally.failed} failed; {endings}")

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(work())


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=300, help="how many, one a seed, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--harms", help="instead of those of the --seed")
    parser.add_argument("--plan", action="store_true", help="print the plans and do nothing")
    parser.add_argument("--shrink", action="store_true", help="find the fewest harms with which the --seed fails")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="rounds at a time; most wait")
    parser.add_argument("--slowness", type=float, default=0, help="of this machine, 1 is idle; default: by its load")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="where rounds that fail are kept")
    given = parser.parse_args(arguments)
    console = Console()
    seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.rounds)
    plans = [draw(seed) for seed in seeds]
    if given.harms is not None:
        plans = [plan.with_harms(parse_all(given.harms)) for plan in plans]
    if given.plan:
        for plan in plans:
            print(f"{plan.seed}: {plan}")
        return 0
    tally, root = Tally(console), given.out.absolute()
    root.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[told]}"))  # fmt: skip
    interrupted = False
    with Progress(*columns, console=console, transient=True) as progress:
        try:
            asyncio.run(campaign(plans, root, given.jobs, given.slowness, tally, progress))
        except KeyboardInterrupt:
            interrupted = True
        if given.shrink and tally.failed:
            kind = next(iter(tally.failures))
            smallest = asyncio.run(shrunk(plans[0], kind, root, given.slowness or slowness()))
            console.print(f"smallest: {replay(smallest)}", markup=False, highlight=False, soft_wrap=True)
    console.print(tally.table())
    console.print(tally.sentences(), markup=False, highlight=False, soft_wrap=True)
    console.print(tally, highlight=False, soft_wrap=True)
    return EXIT_INTERRUPTED if interrupted else min(1, tally.failed)


if __name__ == "__main__":
    sys.exit(main())
