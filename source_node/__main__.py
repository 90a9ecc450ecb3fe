"""`migemu-source`: the source of a migration as a process of its own."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path
from random import Random

import click

from migemu.command import (
    CONTEXT,
    Voice,
    exit_with,
    json_option,
    load_scenario,
    parse_address,
    quiet_option,
    run_node,
    scenario_argument,
    set_option,
    stderr_console,
    supervised_option,
    trace_option,
    version_option,
)  # fmt: skip
from migemu.errors import InputError, MigemuError
from migemu.link.clock import MonotonicClock
from migemu.link.shaper import Shaper, check_link
from migemu.link.tcp import TcpNetwork
from migemu.scenario import Scenario
from migemu.store.image import ImageMemory, open_image, pattern
from migemu.trace.recorder import FileRecorder
from migemu.units import format_size, format_time
from source_node.service import Source, SourceOutcome


@click.command(context_settings=CONTEXT)
@scenario_argument
@click.option(
    "--connect", metavar="HOST:PORT", default="127.0.0.1:4444", show_default=True,
    help="Where the destination listens; tried for net.connect_timeout.",
)  # fmt: skip
@click.option("--image", default="", metavar="FILE", help="The memory to migrate: any file. Default: a seeded pattern.")
@set_option
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where --trace writes to.")
@trace_option
@json_option
@quiet_option
@supervised_option
@version_option
def main(
    scenario_file: Path | None, connect: str, image: str, assignments: tuple[str, ...], out: Path | None, trace: bool,
    as_json: bool, quiet: bool, supervised: bool,
) -> None:  # fmt: skip
    """Migrate a memory image to a destination that listens (migemu-dest), post-copy.

    Memory, push order, piece size, the preempt channel and the link towards the destination are settings of this side.
    The image is only read. Exit codes: 0 verified, 2 bad input, 3 something broke (connection, memory), 4 the peer
    broke the protocol, 5 the memory differs, 130 interrupted.
    """
    voice = Voice(stderr_console(), supervised)
    scenario = load_scenario(voice, scenario_file, assignments, image)
    try:
        host, port = parse_address(connect)
        check_link("link", scenario.link)
        if trace and out is None:
            raise InputError("--trace needs --out DIR to write to")
        memory = _memory(scenario)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    outcome = run_node(voice, lambda: _migrate(voice, scenario, memory, host, port, out if trace else None))
    if as_json and not supervised:
        click.echo(json.dumps(asdict(outcome) | {"sender": outcome.sender._asdict()}, indent=2))
    elif not quiet and not supervised:
        voice.console.print(
            f"migemu-source: verified, {format_size(memory.memory_bytes)} of memory, "
            f"{format_size(outcome.wire_bytes)} on the wire, downtime {format_time(outcome.downtime_ns)}, "
            f"digest {outcome.digest}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _memory(scenario: Scenario) -> ImageMemory:
    if scenario.memory.image:
        memory = open_image(Path(scenario.memory.image), scenario.geometry)
        if memory.memory_bytes > scenario.limits.memory_max:
            raise InputError(
                f"{scenario.memory.image}: {format_size(memory.memory_bytes)} are more than limits.memory_max allows "
                f"({format_size(scenario.limits.memory_max)})"
            )
        return memory
    return pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)


async def _migrate(
    voice: Voice, scenario: Scenario, memory: ImageMemory, host: str, port: int, trace_to: Path | None
) -> SourceOutcome:  # fmt: skip
    clock = MonotonicClock()
    with contextlib.ExitStack() as stack:
        shaper = None
        if scenario.link.shaped:
            shaper = Shaper(scenario.link, clock, Random(f"{scenario.scenario.seed} link"), scenario.net.high_water)
            stack.callback(voice.notice_unheld, "link", shaper)
            stack.callback(shaper.close)
        tracer = None
        if trace_to is not None:
            tracer = stack.enter_context(FileRecorder(trace_to / "trace.source.jsonl", "measured"))
        network = TcpNetwork(scenario.net, clock, shaper)
        return await Source(scenario, network, clock, memory, secrets.token_hex(16), tracer).run(host, port)


if __name__ == "__main__":
    sys.exit(main())
