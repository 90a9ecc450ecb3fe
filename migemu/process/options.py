"""What all commands share: their options, how they report errors, and how a node process runs and is watched over.

A node that is **supervised** (`--supervised`, given by `migemu run`) writes JSON lines to standard output for whoever
started it - `listening`, `status`, `notice`, `error` - and takes the end of its standard input for the death of its
supervisor. On its own it shows the same things to a person.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

import migemu
from migemu.address import Address, UnixAddress, parse_address
from migemu.errors import MigemuError
from migemu.process.runner import Voice, exit_with, stderr_console
from migemu.scenario.scenario import Scenario, load
from migemu.transport.security.credentials import Credentials
from migemu.transport.security.credentials import load as load_security

F = TypeVar("F", bound=Callable[..., Any])

scenario_argument = click.argument(
    "scenario_file", metavar="[SCENARIO.toml]", required=False, type=click.Path(path_type=Path)
)
set_option = click.option(
    "--set", "assignments", metavar="SECTION.KEY=VALUE", multiple=True,
    help="Change one setting of the scenario; may be given many times. `migemu list --settings` shows them all. A "
    "comma in a value stands in quotes: 'guest.workload=replay:path=\"a,b\"'.",
)  # fmt: skip
trace_option = click.option("--trace", is_flag=True, help="Also write every event to DIR/trace.jsonl.")
report_option = click.option(
    "--report", is_flag=True, help="Also write DIR/report.html, to be opened in a browser; implies --trace."
)
perfetto_option = click.option(
    "--perfetto", is_flag=True, help="Also write DIR/perfetto.json, for https://ui.perfetto.dev; implies --trace."
)
metrics_option = click.option(
    "--metrics", metavar="127.0.0.1:PORT", default=None,
    help="Serve how the migration stands for Prometheus, at http://127.0.0.1:PORT/metrics; port 0 takes a free one. "
    "Needs: pip install -e '.[metrics]'.",
)  # fmt: skip
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress and no summary.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
insecure_option = click.option(
    "--insecure", is_flag=True, help="Talk beyond this machine without TLS or a pre-shared key, to whoever answers."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)
paired_option = click.option("--paired", is_flag=True, hidden=True)
version_option = click.version_option(migemu.__version__, prog_name="migemu")

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Logged(logging.Handler):
    """What the library logs (a plugin that cannot be used) is a notice; children leave it to whoever started them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record as a line of the program."""
        if multiprocessing.parent_process() is None and "--supervised" not in sys.argv:
            Voice(stderr_console()).notice(record.getMessage())


logging.getLogger("migemu").addHandler(_Logged())


def load_scenario(voice: Voice, path: Path | None, assignments: Sequence[str], image: str = "") -> Scenario:
    """The scenario of a file, `--set` and `--image`; leaves with one line when it is wrong."""
    extra = [f"memory.image={image}"] if image else []
    try:
        return load(path, [*assignments, *extra])
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)


def load_credentials(voice: Voice, scenario: Scenario, insecure: bool) -> Credentials:
    """What a node shows and asks to be shown; warnings are told. InputError."""
    credentials, warnings = load_security(scenario.security, os.environ, insecure)
    for line in warnings:
        voice.notice(line)
    return credentials


def address_from_here(text: str) -> Address:
    """An address that somebody has typed; a relative path is of the current directory. InputError."""
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        return UnixAddress(str(Path(address.path).absolute()))
    return address
