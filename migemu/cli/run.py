"""`migemu run` and `migemu demo`: both nodes as processes on this machine, watched over."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from migemu.errors import BrokenError, MigemuError
from migemu.process.options import RunOptions, image_option, load_scenario, metrics_option, run_options
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.address import TcpAddress
    from migemu.report.terminal.progress import Progress
    from migemu.worlds.pair import Pair, PairOutcome

#: What `migemu demo` runs unless told otherwise: slow enough to watch, fast enough not to bore.
DEMO: Final = (
    "scenario.name=demo", "push.order=fill_pmd", "guest.workload=zipf:scatter=off", "link.rate=1Gbit",
    "link.delay=1ms", "return_link.delay=1ms",
)  # fmt: skip


@click.command()
@run_options
@image_option
@metrics_option
def run(options: RunOptions, image: str, metrics: str | None) -> None:
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
    _run(options, image, metrics)


@click.command()
@run_options
@image_option
@metrics_option
def demo(options: RunOptions, image: str, metrics: str | None) -> None:
    """Migrate 1 GiB between two processes over an emulated 1 Gbit/s, 1 ms link, slowly enough to watch.

    The same as `migemu run` with a few settings made beforehand; all its options apply.
    """
    _run(options, image, metrics, () if options.scenario_file else DEMO)


def _run(options: RunOptions, image: str, metrics: str | None, below: Sequence[str] = ()) -> None:
    import asyncio

    from migemu.cli.live import watched
    from migemu.cli.run_ending import show_and_write
    from migemu.process.metrics import metrics_address
    from migemu.report.terminal.progress import Progress
    from migemu.store.image import open_image
    from migemu.store.output import named_files
    from migemu.transport.shaper import check_link
    from migemu.worlds.pair import Pair, run_directory

    voice = Voice(stderr_console())
    scenario = load_scenario(voice, options.scenario_file, options.assignments, image, below)
    directory = options.out or run_directory(scenario.scenario.name)
    if options.live:
        click.get_current_context().with_resource(watched(voice, directory))
    try:
        metrics_at = metrics_address(metrics) if metrics is not None else None
        check_link("link", scenario.link)
        check_link("return_link", scenario.return_link)
        if scenario.memory.image:
            open_image(scenario.memory.image, scenario.geometry, scenario.memory.image_format)
        with Progress(voice.console, scenario.scenario.name, options.is_silent) as progress:
            inputs = [*named_files(scenario.resolved()), *([options.scenario_file] if options.scenario_file else [])]
            pair = Pair(scenario, directory, progress, options.traces, inputs)
            outcome = asyncio.run(_watched(pair, metrics_at, directory, progress))
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    all_written = show_and_write(voice, options, directory, _result(directory))
    if outcome.error:
        voice.console.print(f"migemu: {outcome.error}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(outcome.exit_code or (0 if all_written else BrokenError.exit_code))


async def _watched(pair: Pair, metrics_at: TcpAddress | None, directory: Path, progress: Progress) -> PairOutcome:
    """Run the pair, with metrics of both nodes meanwhile where they are wanted."""

    from migemu.process.metrics import of_directory, serving

    async with serving(metrics_at, of_directory(directory), progress.note):
        return await pair.run()


def _result(directory: Path) -> dict[str, Any]:
    """The result that the destination wrote, if it came to that."""

    from migemu import named

    try:
        result: dict[str, Any] = json.loads(named.read_text(directory / "result.json"))
    except (OSError, ValueError):
        return {}
    return result
