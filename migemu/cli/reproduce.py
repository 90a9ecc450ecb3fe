"""`migemu reproduce`: a published result, run again in the modelled world, figure by figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migemu.errors import BrokenError, InputError, MigemuError
from migemu.process.completing import assignments, publication_names
from migemu.process.options import json_option
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.experiment.cell import Cell
    from migemu.experiment.publication import Judged, Publication


@click.command()
@click.argument("name", required=False, shell_complete=publication_names)
@click.option("--list", "list_", is_flag=True, help="List the published results, with their sources.")
@click.option(
    "--variant", "wanted", multiple=True, metavar="NAME", help="Run this variant only; may be given many times."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Seed of the runs.")
@click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", shell_complete=assignments,
              help="Change a setting of all variants: no longer what was published, and said so.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep the files of each variant in DIR/VARIANT."
)
@click.option("--world", hidden=True, default="", help="Dotted name of the function that runs a cell.")
@json_option
def reproduce(
    name: str | None, list_: bool, wanted: tuple[str, ...], seed: int, assignments: tuple[str, ...], out: Path | None,
    world: str, as_json: bool,
) -> None:  # fmt: skip
    """Run what a paper or patch series measured, and print published against modelled, with every assumption.

    \b
    Examples:
        migemu reproduce --list
        migemu reproduce qemu-preempt
        migemu reproduce qemu-doublemap --variant with-hgm --json

    Exit codes: 0 all variants ran, whatever the errors are; 2 a variant cannot be run here, 3 one failed.
    """

    from migemu.experiment.publication import judge
    from migemu.experiment.run_world import MODELLED, find_world

    if list_:
        _list()
        return
    voice = Voice(stderr_console())
    try:
        publication, cells = _plan(name, wanted, assignments)
        world = world or MODELLED
        find_world(world)
        results, problems, code = _run(voice, cells, world, seed, out)
    except (MigemuError, KeyboardInterrupt) as error:
        exit_with(voice, error)
    rows = judge(publication, results, problems)
    if as_json:
        click.echo(json.dumps(_as_json(str(name), publication, rows, results, assignments), indent=2))
    else:
        _show(publication, rows, results, problems, assignments)
    sys.exit(code)


def _plan(
    name: str | None, wanted: tuple[str, ...], assignments: tuple[str, ...]
) -> tuple[Publication, dict[str, Cell]]:
    from migemu.experiment.publication import publications
    from migemu.scenario.scenario import parse_assignments
    from migemu.values import unknown

    if name is None:
        raise InputError("give a published result; `migemu reproduce --list` shows them")
    try:
        publication = publications.create(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    changed = parse_assignments(assignments)
    changes = {f"{section}.{key}": value for section, given in changed.items() for key, value in given.items()}
    cells = publication.cells(name, changes)
    if missing := [each for each in wanted if each not in cells]:
        raise InputError(unknown(f"variant of {name}", missing[0], cells))
    return publication, {each: cell for each, cell in cells.items() if not wanted or each in wanted}


def _run(
    voice: Voice, cells: Mapping[str, Cell], world: str, seed: int, out: Path | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Results by variant, problems by variant, the exit code."""

    from migemu.experiment.program import this_program
    from migemu.experiment.run_world import Job, do

    results: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    code = 0
    for number, (variant, cell) in enumerate(cells.items()):
        if cell.scenario is None:
            problems[variant], code = cell.problem, max(code, InputError.exit_code)
            continue
        if voice.console.is_terminal:
            voice.notice(f"running {variant} ({number + 1} of {len(cells)})")
        directory = str(out / variant) if out else None
        answer = do(Job(number, world, cell.seeded(seed).resolved(), directory, this_program()))
        if answer.error or answer.result is None:
            problems[variant], code = answer.error, BrokenError.exit_code
        else:
            results[variant] = answer.result
    return results, problems, code


def _show(
    publication: Publication, rows: list[Judged], results: Mapping[str, dict[str, Any]], problems: Mapping[str, str],
    assignments: tuple[str, ...],
) -> None:  # fmt: skip
    from rich.console import Console

    from migemu.experiment.publication import buckets
    from migemu.experiment.text_tables import histograms_table, published_table

    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(published_table(publication, [row for row in rows if row.figure.variant in {**results, **problems}]))
    for variant in publication.variants:
        if variant.name in results and variant.histogram_us:
            console.print(histograms_table(variant.name, variant.histogram_us, buckets(results[variant.name])))
    if assignments:
        console.print(f"changed: {', '.join(assignments)}: not what was published", markup=False, highlight=False)
    console.print("assumed, because no source states it:", highlight=False)
    for setting, why in publication.assumptions():
        console.print(f"  {setting}: {why}" if setting else f"  {why}", markup=False, highlight=False)
    console.print("sources:", highlight=False)
    for reference in publication.references:
        console.print(f"  {reference}", markup=False, highlight=False)


def _as_json(
    name: str, publication: Publication, rows: list[Judged], results: Mapping[str, dict[str, Any]],
    assignments: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name,
        "title": publication.title,
        "source": publication.source,
        "changed": list(assignments),
        "figures": [
            {
                "variant": row.figure.variant,
                "figure": row.figure.name,
                "published": [row.figure.low, row.figure.high],
                "modelled": row.modelled,
                "error": None if row.modelled is None else row.figure.error(row.modelled),
                "problem": row.problem,
            }
            for row in rows
        ],
        "references": list(publication.references),
        "assumptions": [{"setting": setting, "why": why} for setting, why in publication.assumptions()],
        "results": results,
    }


def _list() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from migemu.experiment.publication import publications

    table = Table("name", "what", "source", "variants", title="published results", title_justify="left")
    for entry in publications:
        publication = entry.factory()
        variants = ", ".join(variant.name for variant in publication.variants)
        table.add_row(entry.name, escape(entry.summary), escape(publication.source), variants)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
