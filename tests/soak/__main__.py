"""`python -m tests.soak [--minutes 30] [--out DIR] [--seed N]`

Exit codes: 0 every migration verified and every curve flat; 1 not.
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from migemu.units import MIB
from tests.soak import picture
from tests.soak.curve import Growth, Sample, growths
from tests.soak.soaking import Soak, Soaked


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.05), default=30.0, show_default=True, help="How long.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/soak"), show_default=True, metavar="DIR",
    help="Where curves and results go.",
)  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Of the memories and the cuts.")
def main(minutes: float, out: Path, seed: int) -> None:
    """Migrate for MINUTES through connections that are cut every few seconds; is what the processes hold flat?"""
    console = Console()
    soaked = asyncio.run(Soak(minutes * 60, out, seed, console.print).run())
    judged = keep(soaked, out, f"soak of {minutes:g} minutes")
    console.print(_table(judged))
    console.print(
        f"{soaked.verified} migrations verified, {soaked.cuts} connections cut, {soaked.recoveries} recoveries, "
        f"{soaked.preempt_lost} preempt channels lost alone, {soaked.before_switch} attempts cut before the switch; "
        f"curves: {out / 'soak.html'}"
    )
    for problem in soaked.problems:
        console.print(problem, markup=False)
    sys.exit(0 if not soaked.problems and soaked.recoveries and all(each.flat for each in judged) else 1)


def keep(soaked: Soaked, out: Path, title: str) -> list[Growth]:
    """Write all three files; how flat the curves are."""
    judged = [each for process in ("destination", "source") for each in growths(soaked.samples, process)]
    with (out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Sample._fields)
        rows.writerows(soaked.samples)
    figures = {key: value for key, value in asdict(soaked).items() if key != "samples"}
    figures["growth"] = [{**each._asdict(), "flat": each.flat} for each in judged]
    (out / "soak.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    picture.write(soaked.samples, title, out / "soak.html")
    return judged


def _table(judged: list[Growth]) -> Table:
    shown = Table("process", "figure", "first third", "last third", "most", "allowed growth", "")
    for process, figure, *values, allowed in judged:
        unit = MIB if figure == "rss_bytes" else 1
        texts = [f"{value / unit:.1f}" for value in (*values, allowed)]
        flat = Growth(process, figure, *values, allowed).flat
        shown.add_row(process, "MiB" if unit == MIB else figure, *texts, "flat" if flat else "GROWS")
    return shown


if __name__ == "__main__":
    main()
