"""How `migemu run`, `demo` and `sim` end: the result shown, and the files that were asked for beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from migemu.process.options import RunOptions
from migemu.process.runner import Voice


def show_and_write(voice: Voice, options: RunOptions, directory: Path, result: dict[str, Any]) -> bool:
    """Print `result` as it was asked for, and write report and Perfetto file into `directory`.

    An empty `result` is a run that came to none. Answers whether all could be written; what could not is told.
    """

    from rich.console import Console

    from migemu.cli.report import write_perfetto_beside, write_report
    from migemu.report.terminal.summary import summary

    if result and options.as_json:
        click.echo(json.dumps(result, indent=2))
    elif result and result["time_ns"]["postcopy"] and not options.quiet:
        Console().print(summary(result))
        click.echo(f"\nresult: {directory}/result.json")
    choices = ((options.report, write_report), (options.perfetto, write_perfetto_beside))
    written = [write(voice, directory, options.is_silent) for wanted, write in choices if wanted]
    return all(written)
