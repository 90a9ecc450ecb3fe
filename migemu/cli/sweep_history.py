"""`migemu sweep history`: one sweep over states of the code or over time, and where its figures changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from migemu.cli.report import figures_option, format_option
from migemu.errors import InputError, MigemuError
from migemu.experiment.figures import CHANGE_MIN, HISTORY_METRICS
from migemu.process.completing import figure_names
from migemu.process.context import OneOf
from migemu.process.options import json_option
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.experiment.history import History


@click.command("history")
@click.argument("places", metavar="DB|DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, shell_complete=figure_names,
    help="Look at this figure (* and ? are wildcards); may be given many times. "
    f"Default: {', '.join(HISTORY_METRICS)}.",
)  # fmt: skip
@click.option("--only", metavar="AXIS=VALUE,...", default="", help="Look at these cells alone.")
@click.option(
    "--by", type=OneOf(["commit", "date"]), default="commit", show_default=True,
    help="commit: one point for each state of the code. date: one for each file and state, for measured sweeps that "
    "the same code runs every day.",
)  # fmt: skip
@click.option(
    "--change-min", type=click.FloatRange(0, 100, max_open=True), metavar="PERCENT", default=CHANGE_MIN * 100,
    show_default=True, help="Tell of changes of this many per cent or more.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.html", help="Also write a page with figures.")
@figures_option("Also write every figure of that page as a file into DIR2, with its data as CSV.")
@format_option
@json_option
def history(
    places: tuple[Path, ...], metrics: tuple[str, ...], only: str, by: str, change_min: float, out: Path | None,
    figures: Path | None, formats: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Follow one sweep over commits or dates, and tell where its figures changed.

    \b
    Examples:
        migemu sweep history runs/v0.1 runs/v0.2 runs/main
        migemu sweep history nightly/ --by date --metric 'fault.p99*' --only collapse=budget
        migemu sweep history runs/v0.1 runs/v0.2 --out history.html

    Each place is a sweep.sqlite, a DIR with one, or a DIR whose subdirectories have them. Runs of one state of the code
    are one point, in the order in which they were first run. Every change is told with the level before and after it,
    and the 95 % interval over the seeds of what changed. Nothing is written to the files. Exit codes: 0 read, whatever
    has changed; 2 not files of one sweep; 3 the page cannot be written. A gate for CI: migemu compare --fail-if.
    """

    from rich.console import Console

    from migemu.cli.report import check_formats, say_figures
    from migemu.experiment.history import By, read_history
    from migemu.experiment.history_tables import history_tables

    voice = Voice(stderr_console())
    try:
        check_formats(figures, formats)
        files = [file for place in places for file in found(place)]
        told = read_history(files, metrics, only, cast(By, by), change_min / 100)
        if out is not None:
            _write_page(told, out, files)
        if figures is not None:
            written = _write_figures(told, figures, formats, files)
    except MigemuError as error:
        exit_with(voice, error)
    if as_json:
        click.echo(json.dumps(told.as_json(), indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in history_tables(told):
        console.print(table)
    for note in told.notes:
        voice.notice(note)
    if out is not None:
        click.echo(f"page: {out}")
    if figures is not None:
        say_figures(written, figures)


def found(place: Path) -> list[Path]:
    """The files of results that a place means, oldest name first. InputError when there are none."""
    from migemu.experiment.sources import SWEEP_FILE

    if place.is_dir():
        files = [place / SWEEP_FILE] if (place / SWEEP_FILE).is_file() else []
        files = files or sorted(path for path in place.glob(f"*/*{Path(SWEEP_FILE).suffix}") if path.is_file())
        files = files or sorted(path for path in place.glob(f"*{Path(SWEEP_FILE).suffix}") if path.is_file())
        if not files:
            raise InputError(f"{place}: neither it nor a directory in it holds a {SWEEP_FILE}")
        return files
    return [place]


def _write_page(history: History, path: Path, files: list[Path]) -> None:
    from migemu.report import history_page  # plotly takes a moment, which a table shall not wait for
    from migemu.store.output import writing

    with writing(path, inputs=files) as output:
        output.write(history_page.html(history).encode())


def _write_figures(history: History, path: Path, formats: tuple[str, ...], files: list[Path]) -> list[Path]:
    from migemu.report import figure_files, history_page

    found = figure_files.of_sections(history_page.sections(history))
    return figure_files.write_figures(found, path, formats or ("svg",), files)
