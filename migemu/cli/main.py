"""`migemu`: the command line."""

from __future__ import annotations

from migemu.process import start

if __name__ == "__main__":  # comes here again by its name, when the process is ready for all that is below
    start.migemu()

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from migemu import named
from migemu.address import TcpAddress
from migemu.cli import report as reporting
from migemu.cli.check import check
from migemu.cli.compare import compare
from migemu.cli.control import cancel, pause, recover, resume
from migemu.cli.reproduce import reproduce
from migemu.cli.sim import sim
from migemu.cli.status import status
from migemu.cli.sweep import sweep
from migemu.cli.view import view
from migemu.errors import BrokenError, MigemuError
from migemu.guest.workload import workloads
from migemu.link.jitter import jitters
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.process.metrics import metrics_address, of_directory, serving
from migemu.process.options import (
    CONTEXT,
    json_option,
    load_scenario,
    metrics_option,
    perfetto_option,
    quiet_option,
    report_option,
    scenario_argument,
    set_option,
    trace_option,
    version_option,
)
from migemu.process.runner import Voice, exit_with, stderr_console
from migemu.registry import Registry
from migemu.report.terminal.progress import Progress
from migemu.report.terminal.summary import summary
from migemu.scenario.scenario import describe
from migemu.store.image import open_image
from migemu.store.output import named_files
from migemu.transport.shaper import check_link
from migemu.worlds.pair import Pair, PairOutcome, new_directory

#: What `migemu demo` runs unless told otherwise: slow enough to watch, fast enough not to bore.
DEMO = (
    "scenario.name=demo", "push.order=fill_pmd", "guest.workload=zipf:scatter=off", "link.rate=1Gbit",
    "link.delay=1ms", "return_link.delay=1ms",
)  # fmt: skip

image_option = click.option(
    "--image", default="", metavar="FILE",
    help="The memory to migrate: any file; of an ELF core its bytes, or with --set memory.image_format=core the memory "
    "in it. Default: a seeded pattern.",
)  # fmt: skip
out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR",
    help="Where result.json and the rest go. Default: runs/<time>-<name>.",
)  # fmt: skip


@click.group(context_settings=CONTEXT)
@version_option
def main() -> None:
    """Post-copy live migration of 1 GB hugetlb pages with high-granularity mapping (HGM), emulated on this machine.

    A source and a destination process stream 4K and 2M pieces of a real memory image over TCP. The destination maps
    them one by one in a model of the HGM page table and collapses them into 2M and 1G entries as they fill up, while a
    guest runs on what has arrived and faults on what has not.

    \b
    Try first:   migemu demo
    Your image:  migemu run --image vmcore --set link.rate=10Gbit --set guest.vcpus=8
    Two hosts:   migemu-dest --listen 0.0.0.0:4444      and      migemu-source --connect HOST:4444 --image vmcore
    Virtual:     migemu sim --set link.preset=25G --set guest.vcpus=48
    Choices:     migemu list;  every setting: migemu list --settings
    How is it:   migemu status runs/a
    Steer it:    migemu pause runs/a;  migemu resume runs/a;  migemu recover runs/a --connect HOST:PORT;  migemu cancel
    Its trace:   migemu run --trace --out runs/a    and then    migemu check runs/a/trace.jsonl
    Many runs:   migemu sweep --list;  two of them: migemu compare A B;  published ones: migemu reproduce --list
    To look at:  migemu run --report --out runs/a   and open    runs/a/report.html
    To watch:    migemu view runs/a  (a moving picture of its trace, in the browser)
    """


for command in (check, sim, sweep, compare, reproduce, reporting.report, view, status, pause, resume, recover, cancel):
    main.add_command(command)


@main.command()
@scenario_argument
@set_option
@image_option
@out_option
@json_option
@quiet_option
@trace_option
@report_option
@perfetto_option
@metrics_option
def run(
    scenario_file: Path | None, assignments: tuple[str, ...], image: str, out: Path | None, as_json: bool, quiet: bool,
    trace: bool, report: bool, perfetto: bool, metrics: str | None,
) -> None:  # fmt: skip
    """Run both nodes on this machine, watch over them, and show what happened.

    \b
    Examples:
        migemu run --set push.piece=2M --set collapse.policy=direct
        migemu run --set pull.preempt=off --set link.rate=1Gbit --set link.delay=5ms
        migemu run slow.toml --image disk.img --out runs/slow --trace

    A scenario file has the sections and keys that `migemu list --settings` shows. DIR/scenario.toml is the scenario as
    it was run. Exit codes: 0 verified, 2 bad input, 3 something broke, 4 a node broke the protocol, 5 memory differs,
    130 interrupted.
    """
    _run(scenario_file, assignments, image, out, as_json, quiet, trace, report, perfetto, metrics)


@main.command()
@scenario_argument
@set_option
@image_option
@out_option
@json_option
@quiet_option
@trace_option
@report_option
@perfetto_option
@metrics_option
def demo(
    scenario_file: Path | None, assignments: tuple[str, ...], image: str, out: Path | None, as_json: bool, quiet: bool,
    trace: bool, report: bool, perfetto: bool, metrics: str | None,
) -> None:  # fmt: skip
    """Migrate 1 GiB between two processes over an emulated 1 Gbit/s, 1 ms link, slowly enough to watch.

    The same as `migemu run` with a few settings made beforehand; all its options apply.
    """
    _run(
        scenario_file,
        (*(() if scenario_file else DEMO), *assignments),
        image,
        out,
        as_json,
        quiet,
        trace,
        report,
        perfetto,
        metrics,
    )


@main.command("list")
@click.option("--settings", is_flag=True, help="Every setting of a scenario: its section, key, default and meaning.")
def list_(settings: bool) -> None:
    """List every push order, collapse policy and workload with its settings; or every setting of a scenario."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if settings:
        table = Table("setting", "default", "meaning", "values", title="settings of a scenario", title_justify="left")
        for each in describe():
            table.add_row(f"{each.section}.{each.key}", each.default or '""', each.doc, each.accepted)
        console.print(table)
        return
    registries: tuple[tuple[str, Registry[Any]], ...] = (
        ("push.order", push_orders), ("collapse.policy", collapse_policies), ("guest.workload", workloads),
        ("link.distribution", jitters),
    )  # fmt: skip
    for key, registry in registries:
        table = Table("name", "what it does", "settings", title=f"{key} - {registry.kind}", title_justify="left")
        for entry in registry:
            accepted = "\n".join(f"{setting}: {setting.kind.accepted}" for setting in entry.settings)
            table.add_row(entry.name, entry.summary, accepted)
        console.print(table)
    console.print(
        "Use one as in --set push.order=random or --set guest.workload=zipf:exponent=1.2,scatter=off; a value with a "
        'comma in double quotes, replay:path="a,b"',
        markup=False,
    )


def _run(
    scenario_file: Path | None, assignments: tuple[str, ...], image: str, out: Path | None, as_json: bool, quiet: bool,
    trace: bool, report: bool, perfetto: bool, metrics: str | None,
) -> None:  # fmt: skip
    voice = Voice(stderr_console())
    scenario = load_scenario(voice, scenario_file, assignments, image)
    directory = out or new_directory(Path("runs"), scenario.scenario.name, datetime.now().strftime("%Y%m%d-%H%M%S"))  # noqa: DTZ005 - the user's own time
    try:
        metrics_at = metrics_address(metrics) if metrics is not None else None
        check_link("link", scenario.link)
        check_link("return_link", scenario.return_link)
        if scenario.memory.image:
            open_image(scenario.memory.image, scenario.geometry, scenario.memory.image_format)
        with Progress(voice.console, scenario.scenario.name, quiet or as_json) as progress:
            inputs = [*named_files(scenario.resolved()), *([scenario_file] if scenario_file else [])]
            pair = Pair(scenario, directory, progress, trace or report or perfetto, inputs)
            outcome = asyncio.run(_watched(pair, metrics_at, directory, progress))
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    result = _result(directory)
    if result and as_json:
        click.echo(json.dumps(result, indent=2))
    elif result and result["time_ns"]["postcopy"] and not quiet:
        Console().print(summary(result))
        click.echo(f"\nresult: {directory}/result.json")
    choices = ((report, reporting.write_report), (perfetto, reporting.write_perfetto_beside))
    written = [write(voice, directory, quiet or as_json) for wanted, write in choices if wanted]
    if outcome.error:
        voice.console.print(f"migemu: {outcome.error}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(outcome.exit_code or (0 if all(written) else BrokenError.exit_code))


async def _watched(pair: Pair, metrics_at: TcpAddress | None, directory: Path, progress: Progress) -> PairOutcome:
    """Run the pair, with metrics of both nodes meanwhile where they are wanted."""
    async with serving(metrics_at, of_directory(directory), progress.note):
        return await pair.run()


def _result(directory: Path) -> dict[str, Any]:
    """The result that the destination wrote, if it came to that."""
    try:
        result: dict[str, Any] = json.loads(named.read_text(directory / "result.json"))
    except (OSError, ValueError):
        return {}
    return result
