"""`migemu`: the command line. A command is imported when it is run, so that none waits for what another one needs."""

from __future__ import annotations

from migemu.process import start

if __name__ == "__main__":  # comes here again by its name, when the process is ready for all that is below
    start.migemu()

from importlib import import_module
from typing import Final, NamedTuple

import click

from migemu.process.context import CONTEXT, Commands, version_option


class _CommandPlace(NamedTuple):
    """Where a command is in this package, and what it does, in a line of at most 60 characters."""

    module: str
    name: str
    summary: str


#: Help shows them in this order.
_COMMANDS: Final = {
    "demo": _CommandPlace("run", "demo", "Migrate 1 GiB over an emulated link, and watch"),
    "run": _CommandPlace("run", "run", "Run both nodes on this machine: real bytes, real time"),
    "sim": _CommandPlace("sim", "sim", "Run a migration in virtual time"),
    "sweep": _CommandPlace("sweep", "sweep", "Run many scenarios, and keep what they came to"),
    "compare": _CommandPlace("compare", "compare", "Compare two runs or sweeps, with intervals and gates"),
    "reproduce": _CommandPlace("reproduce", "reproduce", "Run what a paper or series published, beside its figures"),
    "report": _CommandPlace("report", "report", "Write a page of runs or of a sweep, to look at"),
    "view": _CommandPlace("view", "view", "Watch a trace as a moving picture, in the browser"),
    "check": _CommandPlace("check", "check", "Judge the order of events in a trace"),
    "help": _CommandPlace("help", "help_", "Read the documentation: tutorials, how-tos, reference"),
    "list": _CommandPlace("listing", "list_", "Show choices, and every setting of a scenario"),
    "completion": _CommandPlace("completion", "completion", "Make TAB complete commands and settings in your shell"),
    "status": _CommandPlace("status", "status", "Ask running nodes how they stand"),
    "pause": _CommandPlace("control", "pause", "Break the connections of a migration until it is resumed"),
    "resume": _CommandPlace("control", "resume", "Go on after a pause"),
    "recover": _CommandPlace("control", "recover", "Have the two nodes meet at another address"),
    "cancel": _CommandPlace("control", "cancel", "End a migration"),
}


class _Commands(Commands):
    """The commands of the table, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None when there is none."""
        if cmd_name not in _COMMANDS:
            return None
        place = _COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(f"migemu.cli.{place.module}"), place.name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in help, for which none is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings=CONTEXT)
@version_option
def main() -> None:
    """Post-copy live migration of 1 GB hugetlb pages with high-granularity mapping (HGM), emulated on this machine.

    A source and a destination process stream 4K and 2M pieces of a real memory image over TCP. The destination maps
    them one by one in a model of the HGM page table and collapses them into 2M and 1G entries as they fill up, while a
    guest runs on what has arrived and faults on what has not.

    \b
    Try first:   migemu demo
    Your image:  migemu run --image vmcore --set link.rate=10Gbit --set guest.vcpus=8
    Read:        migemu help
    Two hosts:   migemu-dest --listen 0.0.0.0:4444      and      migemu-source --connect HOST:4444 --image vmcore
    Virtual:     migemu sim recommended;  migemu sim --set link.preset=25G --set guest.vcpus=48
    Choices:     migemu list;  every setting: migemu list --settings
    How is it:   migemu status runs/a --watch
    Steer it:    migemu pause runs/a;  migemu resume runs/a;  migemu recover runs/a --connect HOST:PORT;  migemu cancel
    Its trace:   migemu run --trace --out runs/a    and then    migemu check runs/a
    Many runs:   migemu sweep --list;  as a table: migemu sweep export runs/mine --csv mine.csv
    Two of them: migemu compare A B;  published ones: migemu reproduce --list
    To look at:  migemu run --report --out runs/a   and open    runs/a/report.html
    To watch:    migemu demo --live   in the browser; afterwards, with time travel:    migemu view runs/a
    """
