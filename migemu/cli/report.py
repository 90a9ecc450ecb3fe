"""`migemu report`: the page of one or several runs, or of a sweep; and a trace that Perfetto opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from migemu.errors import InputError, MigemuError, ScenarioError
from migemu.experiment.objective import DEFAULT, OBJECTIVES
from migemu.process.completing import figure_names
from migemu.process.context import OneOf
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from migemu.analysis.perfetto import CollapseNs
    from migemu.experiment.comparison import Comparison
    from migemu.experiment.sources import SampleSource
    from migemu.mm.pages import Geometry
    from migemu.report.directory import RunDirectory
    from migemu.trace.events import Event
    from migemu.trace.reading import Trace

#: Shorter traces are read before anybody could look at a bar.
_PROGRESS_BYTES: Final = 20_000_000
PAGE: Final = "report.html"
#: What figures are written as (migemu.report.figure_files.FORMATS, which takes a moment to import).
FIGURE_FORMATS: Final = ("svg", "pdf", "png", "csv")
PERFETTO: Final = "perfetto.json"

_Command = TypeVar("_Command", bound=Callable[..., object])


def figures_option(meaning: str) -> Callable[[_Command], _Command]:
    """`--figures DIR2` of a command that draws figures."""
    return click.option("--figures", type=click.Path(path_type=Path), metavar="DIR2", help=meaning)


format_option = click.option(
    "--format", "formats", type=click.Choice(FIGURE_FORMATS), multiple=True,
    help="Of --figures: what to write; may be given many times. Default: svg. All but csv need "
    "pip install -e '.[figures]', and Chromium or Chrome.",
)  # fmt: skip


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.html",
    help=f"Where the page goes. Default: {PAGE} in the directory of the run, or here for several runs.",
)  # fmt: skip
@click.option(
    "--hugepage", "hugepages", metavar="N", multiple=True, type=click.IntRange(min=0),
    help="Draw the pieces of this hugetlb page; may be given many times. Default: a few, from the first to the last.",
)  # fmt: skip
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, shell_complete=figure_names,
    help="Of a sweep: draw this figure (* and ? are wildcards); may be given many times. Default: the headlines.",
)  # fmt: skip
@click.option(
    "--objective", type=OneOf([*OBJECTIVES]), default=DEFAULT, show_default=True,
    help="Of a sweep: what the best cell is chosen by. "
    + " ".join(f"{each.name}: {each.meaning}." for each in OBJECTIVES.values()),
)  # fmt: skip
@figures_option(
    "Write every figure of the page as a file into DIR2, with its data as CSV; no page, unless --out is given."
)
@format_option
@click.option(
    "--perfetto", type=click.Path(path_type=Path), metavar="FILE.json",
    help="Instead of the page, write the trace of the run so that https://ui.perfetto.dev opens it.",
)  # fmt: skip
def report(
    directories: tuple[Path, ...], out: Path | None, hugepages: tuple[int, ...], metrics: tuple[str, ...],
    objective: str, figures: Path | None, formats: tuple[str, ...], perfetto: Path | None,
) -> None:  # fmt: skip
    """Write what happened in one or several runs, or in a sweep, as one HTML file, which opens offline.

    \b
    Examples:
        migemu run --out runs/a --trace  &&  migemu report runs/a
        migemu report runs/a runs/b --out compared.html
        migemu report runs/a --perfetto a.json
        migemu report runs/a --figures paper/ --format pdf
        migemu report runs/sweep-hgm_question --metric 'fault.*'

    A directory is one that `migemu run`, `sim` or `sweep` wrote; of a sweep its sweep.sqlite will do. With --trace it
    tells of everything over time, of the causes of faults and of every piece; without, of figures alone. What is
    missing is said on the page. Runs of virtual time and of real time may stand in one page; they share no figure.
    Exit codes: 0 written, 2 not the directory of a run, 3 the file cannot be written.
    """
    voice = Voice(stderr_console())
    try:
        check_formats(figures, formats)
        sweep = next((found for each in directories if (found := _sweep_file(each)) is not None), None)
        if sweep is not None:
            if len(directories) > 1 or hugepages or perfetto is not None:
                raise InputError("a sweep has a page of its own: give one, and no --hugepage or --perfetto")
            if figures is not None:
                say_figures(write_sweep_figures(sweep, figures, formats, metrics, objective), figures)
            if figures is None or out is not None:
                path = out or sweep.parent / PAGE
                write_sweep_page(sweep, path, metrics, objective)
                click.echo(f"report: {path}")
        elif metrics:
            raise InputError("--metric is for a sweep; the page of a run has all its figures")
        elif perfetto is not None:
            if len(directories) != 1 or out is not None or hugepages or figures is not None:
                raise InputError("--perfetto takes one DIR, and no --out, --hugepage or --figures")
            entries = write_perfetto(directories[0], perfetto)
            click.echo(f"{perfetto}: {entries:,} entries; open it in https://ui.perfetto.dev")
        else:
            if figures is not None:
                say_figures(write_run_figures(directories, figures, formats, hugepages or None), figures)
            if figures is not None and out is None:
                return
            path = out or (directories[0] / PAGE if len(directories) == 1 else Path(PAGE))
            write_page(directories, path, hugepages or None, voice.console)
            click.echo(f"report: {path}")
    except MigemuError as error:
        exit_with(voice, error)


def write_page(
    directories: Sequence[Path], path: Path, hugepages: Sequence[int] | None = None, console: Console | None = None
) -> None:  # fmt: skip
    """Write the page of these runs. InputError when one is none, BrokenError when the file cannot be written."""

    from migemu.report.directory import RunDirectory
    from migemu.store.output import writing

    opened = [RunDirectory.open(directory) for directory in directories]
    if hugepages and not any(each.trace for each in opened):
        raise InputError("--hugepage draws the pieces of a trace, and there is none; run with --trace")
    with writing(path, inputs=[file for each in opened for file in each.files]) as output:
        output.write(_page(opened, hugepages, console).encode())


def _page(opened: Sequence[RunDirectory], hugepages: Sequence[int] | None, console: Console | None) -> str:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from migemu.report.page import html, load  # plotly and numpy take a moment, which no other command shall wait

    sizes = {each.path: each.trace.stat().st_size for each in opened if each.trace}
    if console is None or not console.is_terminal or sum(sizes.values()) < _PROGRESS_BYTES:
        return html(load(opened, hugepages))
    columns = ("reading {task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[Path, TaskID] = {each: progress.add_task(str(each), total=size) for each, size in sizes.items()}
        runs = load(opened, hugepages, lambda each, done: progress.update(tasks[each], completed=done))
    return html(runs)


def write_sweep_page(results: Path, path: Path, metrics: Sequence[str] = (), objective: str = DEFAULT) -> None:
    """Write the page of the sweep whose results these are. InputError, BrokenError as above."""

    from migemu.report import sweep_page
    from migemu.report.grid import read_grid
    from migemu.store.output import writing

    with writing(path, inputs=[results]) as output:
        output.write(sweep_page.html(read_grid(results, metrics, objective), path).encode())


def write_run_figures(
    directories: Sequence[Path], path: Path, formats: Sequence[str], hugepages: Sequence[int] | None = None
) -> list[Path]:  # fmt: skip
    """Write every figure of the page of these runs into the directory `path`; the files. Errors as `write_page`."""

    from migemu.report import figure_files
    from migemu.report.directory import RunDirectory
    from migemu.report.page import load

    opened = [RunDirectory.open(directory) for directory in directories]
    found = figure_files.of_runs(load(opened, hugepages))
    return figure_files.write_figures(
        found, path, formats or ("svg",), [file for each in opened for file in each.files]
    )


def write_sweep_figures(
    results: Path, path: Path, formats: Sequence[str], metrics: Sequence[str] = (), objective: str = DEFAULT
) -> list[Path]:
    """The same of the page of a sweep."""
    from migemu.report import figure_files
    from migemu.report.grid import read_grid

    found = figure_files.of_sweep(read_grid(results, metrics, objective))
    return figure_files.write_figures(found, path, formats or ("svg",), [results])


def check_formats(figures: Path | None, formats: Sequence[str]) -> None:
    """InputError for --format without --figures."""
    if formats and figures is None:
        raise InputError("--format is for --figures DIR2")


def write_comparison_figures(
    comparison: Comparison, sources: Sequence[SampleSource], path: Path, formats: Sequence[str]
) -> list[Path]:  # fmt: skip
    """Write every figure of the page of a comparison into the directory `path`; the files. Errors as `write_page`."""
    from migemu.report import comparison_page, figure_files

    found = figure_files.of_sections([comparison_page.forest(comparison)])
    return figure_files.write_figures(found, path, formats or ("svg",), [source.file for source in sources])


def say_figures(written: Sequence[Path], directory: Path) -> None:
    """How many figures were written, and where."""
    drawn = sum(path.suffix != ".csv" for path in written)
    click.echo(f"{directory}: {drawn} figures, and the data of {len(written) - drawn}")


def _sweep_file(path: Path) -> Path | None:
    """The results of a sweep that `path` means; None when it is something else."""

    from migemu.experiment.sources import SWEEP_FILE

    if (path / SWEEP_FILE).is_file():
        return path / SWEEP_FILE
    return path if path.is_file() and path.suffix == Path(SWEEP_FILE).suffix else None


def write_sweep_report(voice: Voice, results: Path, quiet: bool) -> bool:
    """The page of a sweep, beside its results; as `write_report`."""
    return _written(voice, results.parent / PAGE, quiet, lambda path: write_sweep_page(results, path))


def write_comparison_report(
    voice: Voice, comparison: Comparison, base: SampleSource, new: SampleSource, path: Path, quiet: bool
) -> bool:  # fmt: skip
    """The page of a comparison; as `write_report`."""

    from migemu.report import comparison_page
    from migemu.store.output import writing

    def write(path: Path) -> None:
        with writing(path, inputs=[base.file, new.file]) as output:
            output.write(comparison_page.html(comparison, base.text, new.text).encode())

    return _written(voice, path, quiet, write)


def write_report(voice: Voice, directory: Path, quiet: bool) -> bool:
    """The page of a run, and whether it is there; that it cannot be written is told."""
    return _written(voice, directory / PAGE, quiet, lambda path: write_page([directory], path, console=voice.console))


def write_perfetto_beside(voice: Voice, directory: Path, quiet: bool) -> bool:
    """DIR/perfetto.json of a run; as `write_report`."""
    return _written(voice, directory / PERFETTO, quiet, lambda path: write_perfetto(directory, path), "perfetto")


def _written(voice: Voice, path: Path, quiet: bool, write: Callable[[Path], object], what: str = "report") -> bool:
    try:
        write(path)
    except MigemuError as error:
        voice.notice(str(error))
        return False
    if not quiet:
        click.echo(f"{what}: {path}")
    return True


def write_perfetto(directory: Path, path: Path) -> int:
    """Write the trace of a run for Perfetto; how many entries that are. InputError, BrokenError as above.

    Of a damaged trace what stands before the damage is written before InputError says so.
    """

    from migemu.analysis.perfetto import perfetto_lines
    from migemu.report.directory import RunDirectory
    from migemu.store.output import writing
    from migemu.trace.reading import read_trace

    found = RunDirectory.open(directory)
    if found.trace is None:
        raise InputError(f"{directory}: holds no trace; run it with --trace")
    damage: list[InputError] = []
    count = 0
    with read_trace(found.trace) as trace:
        prices = _collapse_ns(found, trace.geometry) if trace.kind == "modelled" else None
        lines = perfetto_lines(_until(trace, damage), trace.geometry, trace.pages, trace.kind, prices)
        with writing(path, inputs=found.files) as output, output.text() as file:
            for line in lines:
                file.write(line)
                count += 1
            if not damage:
                found.check(trace.digest)
    if damage:
        raise InputError(f"{damage[0]} - {path} holds everything before that")
    return count - 2


def _collapse_ns(found: RunDirectory, geometry: Geometry) -> CollapseNs | None:
    """What a collapse took in that run, by its [costs]; None where its scenario is not known."""

    from migemu.scenario.scenario import from_mapping

    try:
        scenario = from_mapping(found.scenario, str(found.path))
    except ScenarioError:
        return None
    return scenario.costs.model(geometry, scenario.guest.vcpus).duration_ns


def _until(trace: Trace, damage: list[InputError]) -> Iterator[Event]:
    """The events up to the first damage, which is put into `damage`."""
    try:
        for block in trace.events():
            yield from block
    except InputError as error:
        damage.append(error)
