"""`migemu compare`: two sides, pair by pair. Exit 0, 1 when a gate fails, 2 for what cannot be compared."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migemu.cli.report import figures_option, format_option
from migemu.errors import BrokenError, MigemuError
from migemu.process.completing import figure_names
from migemu.process.options import json_option
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.experiment.bootstrap import Interval
    from migemu.experiment.comparison import Comparison, Row

GATE_FAILED = 1
#: In less the columns of the table would show no figure whole.
_TABLE_WIDTH_MIN = 100


@click.command()
@click.argument("base", metavar="A")
@click.argument("new", metavar="B")
@click.option("--fail-if", "gates", multiple=True, metavar="'KEY > LIMIT'", shell_complete=figure_names,
              help="Exit 1 if so, as in 'fault.p99_ns > +5%'; may be given many times.")  # fmt: skip
@click.option("--strict", is_flag=True, help="A gate that the data do not settle fails too.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", shell_complete=figure_names,
              help="Show this figure (* and ? are wildcards); may be given many times.")  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html",
              help="Also write a page: forest plots, gates, and all figures in a table.")  # fmt: skip
@figures_option("Also write every figure of that page as a file into DIR2, with its data as CSV.")
@format_option
@json_option
def compare(
    base: str, new: str, gates: tuple[str, ...], strict: bool, metrics: tuple[str, ...], report: Path | None,
    figures: Path | None, formats: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Compare B with A: differences of pairs that share a cell and a seed, with bootstrap confidence intervals.

    A and B are run directories, result.json files, or sweeps (a directory or sweep.sqlite), of which cells may be
    selected as SWEEP:AXIS=VALUE,AXIS=VALUE.

    \b
    Examples:
        migemu compare runs/a runs/b
        migemu compare runs/sweep-x:collapse=at_end runs/sweep-x:collapse=eager --metric 'fault.*'
        migemu compare base.sqlite new.sqlite --fail-if 'fault.p99_ns > +5%' --fail-if 'throughput_bytes_per_s < -3%'
        migemu compare base.sqlite new.sqlite --fail-if 'fault.p99_ns > +50us' --fail-if 'time_ns.total > 3s'

    A limit with a sign is a difference from A; without one it is about B alone. A gate fails when the whole 95 %
    interval is beyond the limit; when the limit lies within the interval it is unsure, which is told and fails with
    --strict only; a single pair has no interval, there its difference decides. Gates look at each cell by itself.
    Exit codes: 0 no gate failed, 1 one did, 2 bad input or nothing in common, 3 the page cannot be written.
    """

    from migemu.cli.report import check_formats, say_figures, write_comparison_figures, write_comparison_report
    from migemu.experiment.comparison import compare as compare_sources
    from migemu.experiment.gate import GateVerdict, parse_gate
    from migemu.experiment.sources import read_source

    voice = Voice(stderr_console())
    try:
        check_formats(figures, formats)
        parsed = [parse_gate(gate) for gate in gates]
        sources = read_source(base), read_source(new)
        comparison = compare_sources(*sources, metrics, parsed)
        if figures is not None:
            written = write_comparison_figures(comparison, sources, figures, formats)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    for note in comparison.notes:
        voice.notice(note)
    if as_json:
        click.echo(json.dumps(_as_json(comparison), indent=2))
    else:
        _show(comparison)
    if figures is not None and not as_json:
        say_figures(written, figures)
    is_written = report is None or write_comparison_report(voice, comparison, *sources, report, as_json)
    failing = {GateVerdict.FAILS, GateVerdict.UNSURE} if strict else {GateVerdict.FAILS}
    failed = [ruling for ruling in comparison.rulings if ruling.verdict in failing]
    unsure = [ruling for ruling in comparison.rulings if ruling.verdict is GateVerdict.UNSURE]
    if unsure:
        names = ", ".join(dict.fromkeys(str(ruling.gate) for ruling in unsure))
        voice.notice(f"not settled by these data: {names}; more seeds would narrow the interval")
    if failed:
        voice.notice(f"{len(failed)} of {len(comparison.rulings)} gates failed")
    sys.exit(GATE_FAILED if failed else 0 if is_written else BrokenError.exit_code)


def _show(comparison: Comparison) -> None:
    from rich.console import Console

    from migemu.experiment.text_tables import comparison_lines, comparison_table, rulings_table

    console = Console(width=None if sys.stdout.isatty() else 160)
    if console.width < _TABLE_WIDTH_MIN:
        for line in comparison_lines(comparison):
            console.print(line, markup=False, highlight=False)
    else:
        console.print(comparison_table(comparison))
    if comparison.settings:
        changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in comparison.settings.items())
        console.print(f"settings that differ: {changed}", markup=False, highlight=False)
    if comparison.rulings:
        console.print(rulings_table(comparison.rulings))


def _as_json(comparison: Comparison) -> dict[str, Any]:
    from migemu.experiment.bootstrap import LEVEL

    return {
        "kind": comparison.kind,
        "level": LEVEL,
        "rows": [_row(row) for row in comparison.rows],
        "all_cells": [
            {"key": each.key, "n": each.pairs, "relative": each.relative, "interval": _interval(each.interval)}
            for each in comparison.overall
        ],
        "gates": [
            {"gate": ruling.gate.text, "cell": ruling.row.cell, "verdict": ruling.verdict.value}
            for ruling in comparison.rulings
        ],
        "settings": {key: list(values) for key, values in comparison.settings.items()},
        "notes": list(comparison.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "cell": row.cell,
        "key": row.key,
        "n": row.pairs,
        "base": row.base,
        "new": row.new,
        "difference": row.difference,
        "difference_interval": _interval(row.difference_interval),
        "relative": row.relative if math.isfinite(row.relative) else None,
        "relative_interval": _interval(row.relative_interval),
    }


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
