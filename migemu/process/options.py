"""What all commands share: their options, how they report errors, and how a node process runs and is watched over.

A node that is **supervised** (`--supervised`, given by `migemu run`) writes JSON lines to standard output for whoever
started it - `listening`, `status`, `notice`, `error` - and takes the end of its standard input for the death of its
supervisor. On its own it shows the same things to a person.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from migemu.errors import MigemuError
from migemu.process.completing import assignments
from migemu.process.runner import Voice, exit_with

if TYPE_CHECKING:
    from migemu.address import Address
    from migemu.scenario.scenario import Scenario
    from migemu.transport.security.credentials import Credentials

Command = Callable[..., Any]
R = TypeVar("R")

scenario_argument = click.argument(
    "scenario_file", metavar="[SCENARIO]", required=False, type=click.Path(path_type=Path)
)
set_option = click.option(
    "--set", "assignments", metavar="SECTION.KEY=VALUE", multiple=True, shell_complete=assignments,
    help="Change one setting of the scenario; may be given for many. `migemu list --settings` shows them all. A "
    "comma in a value stands in quotes: 'guest.workload=replay:path=\"a,b\"'.",
)  # fmt: skip
image_option = click.option(
    "--image", default="", metavar="FILE",
    help="The memory to migrate: any file; of an ELF core its bytes, or with --set memory.image_format=core the memory "
    "in it. Default: a seeded pattern.",
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
live_option = click.option(
    "--live", is_flag=True, help="Watch it in the browser as it runs; prints an address, implies --trace."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress and no summary.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
insecure_option = click.option(
    "--insecure", is_flag=True, help="Talk beyond this machine without TLS or a pre-shared key, to whoever answers."
)
supervised_option = click.option("--supervised", is_flag=True, hidden=True)
paired_option = click.option("--paired", is_flag=True, hidden=True)

#: Where the files of a run go; of a node the text of `--out` says what that is.
_OUT_HELP: Final = "Where result.json and the rest go. Default: runs/<time>-<name>."


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `migemu run`, `demo` and `sim` take alike.

    `trace`: events are wanted, by `--trace` or by what is made of them; `out`: None is a new directory in `runs`.
    """

    scenario_file: Path | None
    assignments: tuple[str, ...]
    out: Path | None
    as_json: bool
    quiet: bool
    trace: bool
    report: bool
    perfetto: bool
    live: bool

    @property
    def traces(self) -> bool:
        """Whether events are to be recorded: by themselves, for a report or Perfetto, or to be watched."""
        return self.trace or self.report or self.perfetto or self.live

    @property
    def is_silent(self) -> bool:
        """Whether nothing is shown for people."""
        return self.quiet or self.as_json


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What `migemu-source` and `migemu-dest` take alike.

    `metrics` is the address as it was given; `supervised`: started by `migemu run`, which reads what the node says;
    `paired`: whoever started it starts the other node too.
    """

    scenario_file: Path | None
    assignments: tuple[str, ...]
    out: Path | None
    trace: bool
    metrics: str | None
    insecure: bool
    as_json: bool
    quiet: bool
    supervised: bool
    paired: bool


def out_option(text: str = _OUT_HELP) -> Callable[[Command], Command]:
    """`--out DIR`; `text` says what is written there."""
    return click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help=text)


def run_options(command: Command) -> Command:
    """Decorator: the options of `RunOptions`, which `command` takes as its first argument; its own stand below them."""
    options = (
        scenario_argument, set_option, out_option(), json_option, quiet_option, trace_option, report_option,
        perfetto_option, live_option,
    )  # fmt: skip
    return _grouped(RunOptions, options, command)


def node_options(out: str) -> Callable[[Command], Command]:
    """Decorator: those of `NodeOptions`, as `run_options`; `out` is the help of `--out`."""
    options = (
        scenario_argument, set_option, out_option(out), trace_option, metrics_option, insecure_option, json_option,
        quiet_option, supervised_option, paired_option,
    )  # fmt: skip
    return lambda command: _grouped(NodeOptions, options, command)


def _grouped(
    record: Callable[..., R], options: Sequence[Callable[[Command], Command]], command: Callable[..., Any]
) -> Command:  # fmt: skip
    names = [field.name for field in fields(record)]  # type: ignore[arg-type]

    @wraps(command)
    def with_record(**given: Any) -> Any:
        return command(record(**{name: given.pop(name) for name in names}), **given)

    grouped: Command = with_record
    for option in reversed(options):
        grouped = option(grouped)
    return grouped


def load_scenario(
    voice: Voice, path: Path | None, assignments: Sequence[str], image: str = "", below: Sequence[str] = ()
) -> Scenario:
    """The scenario of a file, `--set` and `--image`; `below`: assignments that these stand above.

    It ends the command with one line when anything is wrong.
    """

    from migemu.scenario.scenario import load

    extra = [f"memory.image={image}"] if image else []
    try:
        return load(path, [*assignments, *extra], below)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)


def load_credentials(voice: Voice, scenario: Scenario, insecure: bool) -> Credentials:
    """What a node shows and asks to be shown; warnings are told. InputError."""

    from migemu.transport.security.credentials import load as load_security

    credentials, warnings = load_security(scenario.security, os.environ, insecure)
    for line in warnings:
        voice.notice(line)
    return credentials


def address_from_here(text: str) -> Address:
    """An address that somebody has typed; a relative path is of the current directory. InputError."""

    from migemu.address import UnixAddress, parse_address

    address = parse_address(text)
    if isinstance(address, UnixAddress):
        return UnixAddress(str(Path(address.path).absolute()))
    return address
