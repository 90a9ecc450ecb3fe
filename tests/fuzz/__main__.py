"""`python -m tests.fuzz [--frames N] [--seconds S] [--seed TEXT] [--guided auto|off] [INPUT ...]`

Without inputs: guided by atheris for half of the time, if it is installed, then our own campaign. With inputs: each is
judged once. Exit 1 when something was found.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from tests.fuzz import campaign
from tests.fuzz.tally import Tally


@click.command()
@click.option("--frames", default=0, help="Go on until so many frames were judged.")
@click.option("--seconds", default=60.0, help="Stop after so many seconds; 0: never.")
@click.option("--seed", default="1", help="Another seed makes other inputs.")
@click.option("--guided", type=click.Choice(["auto", "off"]), default="auto", help="Use atheris if it is there.")
@click.argument("inputs", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(frames: int, seconds: float, seed: str, guided: str, inputs: tuple[Path, ...]) -> None:
    """Fuzz the protocol, or judge INPUTS."""
    tally = Tally()
    for path in inputs:
        campaign.replay(path.read_bytes(), tally)  # what it shows is shown with its traceback
        click.echo(f"{path.name}: nothing is wrong")
    if inputs:
        return
    if guided == "auto" and seconds:
        if find_spec("atheris") is None:
            click.echo("atheris is not installed (extra `fuzz`): our own mutations alone, not guided by coverage")
        else:
            seconds /= 2
            _guided(seconds, seed)
    try:
        took = campaign.run(seed, frames, seconds, tally, click.echo)
    except campaign.FoundError as error:
        click.echo(error)
        raise SystemExit(1) from None
    click.echo("\n".join(tally.table()))
    shown = ", ".join(f"{name} {number}" for name, number in tally.inputs.most_common())
    click.echo(f"inputs: {shown}")
    click.echo(
        f"seed {seed}: {tally.frames} frames in {took:.1f} s, {tally.frames / took:.0f} a second; "
        f"{campaign.memory_kib() // 1024} MiB at most; nothing found"
    )


def _guided(seconds: float, seed: str) -> None:
    """Atheris, in a process of its own; what libFuzzer says is shown when it has found something."""
    click.echo(f"guided by coverage, for {seconds:.0f} s")
    with tempfile.TemporaryDirectory(prefix="migemu-fuzz-") as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", f"{seconds:.0f}", seed, folder],
            env=os.environ | {"TMPDIR": folder}, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    if ended.returncode:
        click.echo(ended.stderr + ended.stdout)
        raise SystemExit(1)
    said = dict(line.removeprefix("stat::").split(":") for line in ended.stderr.splitlines() if line[:6] == "stat::")
    click.echo(
        f"{int(said['number_of_executed_units'])} inputs, {int(said['new_units_added'])} of which came somewhere new; "
        f"{int(said['peak_rss_mb'])} MiB at most; nothing found"
    )


if __name__ == "__main__":
    main()
