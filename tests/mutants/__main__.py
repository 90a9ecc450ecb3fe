"""`python -m tests.mutants [FOLDER...] [--sample N] [--seed S] [--workers N] [--out DIR]`

Exit codes: 0 every mutant was killed or is known to change nothing; 1 not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.mutants import working_copy
from tests.mutants.folders import TESTS_OF
from tests.mutants.score import Score, known_equivalents, score_of

_TOOL = Path(__file__).with_name("tool.py")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folders", nargs=-1, type=click.Choice(list(TESTS_OF)), metavar="[FOLDER]...")
@click.option("--sample", type=click.IntRange(min=0), default=0, help="So many mutants of each folder; 0: all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Draws the sample.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Mutants at a time.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/mutants"), show_default=True, metavar="DIR")
def main(folders: tuple[str, ...], sample: int, seed: int, workers: int, out: Path) -> None:
    """Change the program a line at a time, in a copy in DIR: do the tests of that FOLDER notice?"""
    console = Console(soft_wrap=True)
    scores = [_run(folder, (sample, seed, workers), out, console) for folder in folders or TESTS_OF]
    for score in scores:
        for unnoticed in score.unnoticed:
            console.print(f"\n{unnoticed}", markup=False, highlight=False)
    console.print(_table(scores))
    sys.exit(any(score.unnoticed for score in scores))


def _run(folder: str, numbers: tuple[int, int, int], out: Path, console: Console) -> Score:
    directory = out / folder.replace("/", ".")
    working_copy.make(folder, directory)
    log = directory / "mutmut.log"
    console.print(f"{folder}: {' '.join(TESTS_OF[folder])}; the progress is in {log}", highlight=False)
    began = time.monotonic()
    with log.open("wb") as file:
        ended = subprocess.run(
            [sys.executable, "-P", _TOOL, *map(str, numbers)],
            cwd=directory, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    if ended.returncode:
        raise click.ClickException(f"mutmut ended with {ended.returncode}; the end of {log} says why")
    return score_of(folder, directory / "mutants.json", known_equivalents(), time.monotonic() - began)


def _table(scores: list[Score]) -> Table:
    table = Table("folder", "mutants", "by tests", "by mypy", "survived", "equivalent", "not covered", "minutes")
    for score in scores:
        table.add_row(*score.row())
    return table


main()
