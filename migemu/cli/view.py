"""`migemu view`: a run, or two side by side, as a moving picture in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from migemu.errors import InputError, MigemuError
from migemu.process.runner import Voice, exit_with, stderr_console

#: Runs that one picture shows.
RUNS_MAX: Final = 2
port_option = click.option(
    "--port", default=0, metavar="N", type=click.IntRange(0, 65535), help="Listen on this port. Default: a free one."
)


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@port_option
@click.option("--open", "launch", is_flag=True, help="Open it in the browser at once.")
@click.option("--follow", is_flag=True, hidden=True)
def view(directories: tuple[Path, ...], port: int, launch: bool, follow: bool) -> None:
    """Show a run as a moving picture in the browser, with time travel; or two runs side by side on one bar of time.

    \b
    Examples:
        migemu sim --set guest.vcpus=8 --trace --out runs/a  &&  migemu view runs/a
        migemu view runs/eager runs/at_end            (the same time in both)

    Each hugetlb page is a picture of its 4K pieces, coloured by state; vCPUs are lanes that run, sleep or are held up
    by a collapse. Play, slow down to single events, step by fault or by collapse; click a page for all that ever
    happened to it, a sleep for its parts and what stood in front. Keys are told on the page (?).

    The first time, an index is written beside the trace (trace.jsonl.view), so that a trace of any length opens at
    once afterwards. It serves this machine alone, under an address that nobody can guess; Ctrl-C ends it.
    Exit codes: 0 it was ended, 2 no run or no trace in DIR, 3 the port is taken.
    """

    from migemu.cli.live import serve_live

    voice = Voice(stderr_console())
    try:
        if follow:
            serve_live(directories[0], port)
        else:
            serve(voice, directories, port, launch)
    except MigemuError as error:
        exit_with(voice, error)
    except KeyboardInterrupt:
        pass  # the way to end it


def serve(voice: Voice, directories: tuple[Path, ...], port: int, launch: bool) -> None:
    """Serve these runs until Ctrl-C. InputError, BrokenError."""

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from migemu.cli.live import MISSING_LIBRARY

    if len(directories) > RUNS_MAX:
        raise InputError(f"{len(directories)} runs: the picture shows one, or {RUNS_MAX} side by side")
    try:
        from migemu.view.opened_run import open_run
        from migemu.view.view_server import ViewServer
    except ModuleNotFoundError as error:
        raise InputError(f"{MISSING_LIBRARY} ({error.name} is not there)") from None
    runs = []
    for directory in directories:
        columns = ("reading {task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=voice.console, transient=True, disable=not voice.console.is_terminal) as bar:
            size = sum(each.stat().st_size for each in directory.glob("trace.jsonl")) if directory.is_dir() else None
            task = bar.add_task(str(directory), total=size)
            runs.append(open_run(directory, lambda done, task=task: bar.update(task, completed=done), voice.notice))  # type: ignore[misc]
    for run in runs:
        if run.index.problem:
            voice.notice(f"{run.index.problem}; what is before that is shown")
    server = ViewServer(runs, port)
    Console(soft_wrap=True).print(f"view: {server.url}   (Ctrl-C ends it)", highlight=False, markup=False)
    if launch:
        click.launch(server.url)
    server.run()
