"""`migemu check`: a trace judged by rules. Exit 0 when all of them hold, 1 when one is broken, 2 if it is no trace."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from migemu.errors import InputError
from migemu.process.completing import rule_names, wrong_names
from migemu.process.options import json_option
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from rich.console import Console

    from migemu.trace.checkers import Violation
    from migemu.trace.events import Event
    from migemu.trace.findings import CheckVerdict

#: Shorter files are judged before anybody could look at a bar.
_PROGRESS_BYTES: Final = 20_000_000


@click.command()
@click.argument("trace", metavar="[DIR|TRACE.jsonl]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--rule", "rules", metavar="NAME", multiple=True, shell_complete=rule_names,
    help="Judge by this rule only; may be given many times.",
)  # fmt: skip
@click.option("--list", "list_", is_flag=True, help="List every rule with its reason, and what is wrong on purpose.")
@click.option(
    "--wrong", metavar="NAME", shell_complete=wrong_names,
    help="Instead of a file, judge a scenario that is wrong on purpose.",
)  # fmt: skip
@json_option
def check(trace: Path | None, rules: tuple[str, ...], list_: bool, wrong: str | None, as_json: bool) -> None:
    """Judge a trace: does everything in it happen in an order that leaves the guest's memory right?

    \b
    Examples:
        migemu run --trace --out runs/a  &&  migemu check runs/a
        migemu check runs/a/trace.jsonl --rule no_hole_collapsed --json
        migemu check --wrong collapse_before_received

    DIR is what a run was given as --out; its trace.jsonl is judged, or what a killed node has left of it (.partial).
    A rule that finds nothing to judge in the trace is named, with what it misses. Exit codes: 0 every rule holds, 1 one
    is broken (shown with the event and the few that led to it), 2 not a trace, damaged, or of another version.
    """

    from rich.console import Console

    if list_:
        _list()
        return
    voice = Voice(stderr_console())
    try:
        verdict, what = _judge(voice.console, trace, rules, wrong)
    except InputError as error:
        exit_with(voice, error)
    if as_json:
        click.echo(json.dumps(_as_json(verdict, what), indent=2))
    else:
        _show(Console(soft_wrap=not sys.stdout.isatty()), verdict, what)
    sys.exit(1 if verdict.violations else 0)


def _judge(console: Console, trace: Path | None, rules: tuple[str, ...], wrong: str | None) -> tuple[CheckVerdict, str]:
    """The verdict, and on what."""

    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from migemu.mm.pages import TINY
    from migemu.trace.findings import judge_events, judge_file
    from migemu.trace.wrong import SCENARIOS
    from migemu.values import unknown

    if wrong is not None and trace is None:
        if wrong not in SCENARIOS:
            raise InputError(unknown("bug", wrong, SCENARIOS))
        return judge_events(SCENARIOS[wrong].events(), TINY, TINY.largest_pages, rules), wrong
    if trace is None or wrong is not None:
        raise InputError("give one trace to judge: a file, the DIR of a run, or --wrong NAME; --list shows the rules")
    if trace.is_dir():
        trace = _trace_of(trace)
    try:
        size = trace.stat().st_size
    except OSError:
        size = 0  # whoever opens it says why
    if size < _PROGRESS_BYTES or not console.is_terminal:
        return judge_file(trace, rules), str(trace)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress("judging", *columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=size)
        return judge_file(trace, rules, lambda done: progress.update(task, completed=done)), str(trace)


def _trace_of(directory: Path) -> Path:
    """The trace that a run has left in its --out DIR."""

    from migemu.report.directory import RunDirectory

    trace = RunDirectory.open(directory).trace
    if trace is None:
        raise InputError(f"{directory}: holds no trace; run it with --trace")
    return trace


def _show(console: Console, verdict: CheckVerdict, what: str) -> None:
    """For people: each violation, then one line of what was judged."""
    for violation in verdict.violations:
        _show_violation(console, violation, verdict.broken[violation.rule], what)
    held = [name for name in verdict.judged if name not in verdict.broken]
    outcome = f"{len(verdict.broken)} broken, {len(held)} hold" if verdict.broken else f"{len(held)} rules hold"
    line = f"{what}: {verdict.events:,} events, {verdict.pages:,} base pages of {verdict.geometry.name}: {outcome}"
    if verdict.unjudged:
        line += "; nothing to judge for " + ", ".join(f"{name} ({why})" for name, why in verdict.unjudged.items())
    console.print(line, markup=False, highlight=False)


def _show_violation(console: Console, violation: Violation, times: int, what: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from migemu.trace.checkers import Witness
    from migemu.trace.events import event_line
    from migemu.units import format_time

    more = f" and {times - 1:,} more" if times > 1 else ""
    console.print(f"[bold]{violation.rule}[/bold] is broken at {escape(what)}:{violation.line}{more}", highlight=False)
    console.print(f"  {violation.reason}", markup=False, highlight=False)
    console.print(f"  {event_line(violation.event)}\n", markup=False, highlight=False)
    table = Table("line", "before", "node", "event", "about", box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for witness in (*violation.history, Witness(violation.event, violation.line)):
        event = witness.event
        before = violation.event.t - event.t
        last = witness.line == violation.line
        table.add_row(
            str(witness.line), format_time(before) if before else "", event.node, event.event.value, _about(event),
            style="bold" if last else "",
        )  # fmt: skip
    console.print(table)
    console.print(f"\n  {_summary(violation.rule)}\n", markup=False, highlight=False)


def _about(event: Event) -> str:
    """The fields of an event in words."""

    from rich.markup import escape

    parts = []
    if event.first is not None:
        more = event.count is not None and event.count != 1
        parts.append(f"pages {event.first} +{event.count}" if more else f"page {event.first}")
    elif event.count is not None:
        parts.append(f"{event.count} pages")
    if event.level is not None:
        parts.append(event.level.name)
    if event.vcpu is not None:
        parts.append(f"vCPU {event.vcpu}")
    parts += [word for word, on in (("write", event.write), ("urgent", event.urgent)) if on]
    return escape(", ".join([*parts, *([event.detail] if event.detail else [])]))


def _summary(rule: str) -> str:
    from migemu.trace.checkers import checkers

    return next(entry.summary for entry in checkers if entry.name == rule)


def _as_json(verdict: CheckVerdict, what: str) -> dict[str, Any]:
    from migemu.trace.events import event_line

    return {
        "trace": what,
        "kind": verdict.kind,
        "geometry": verdict.geometry.name,
        "pages": verdict.pages,
        "events": verdict.events,
        "judged": list(verdict.judged),
        "unjudged": verdict.unjudged,
        "violations": [
            {
                "rule": violation.rule,
                "times": verdict.broken[violation.rule],
                "line": violation.line,
                "reason": violation.reason,
                "must_hold": _summary(violation.rule),
                "event": json.loads(event_line(violation.event)),
                "history": [
                    {"line": witness.line, "event": json.loads(event_line(witness.event))}
                    for witness in violation.history
                ],
            }
            for violation in verdict.violations
        ],
    }


def _list() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from migemu.trace.checkers import checkers
    from migemu.trace.wrong import SCENARIOS

    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("rule", "what must hold", "why", title="rules of `migemu check`", title_justify="left")
    for entry in checkers:
        reason = (inspect.getdoc(entry.factory) or "").partition("\n")[2]
        table.add_row(entry.name, escape(entry.summary), escape(" ".join(reason.split())))
    console.print(table)
    table = Table("name", "what goes wrong", "where it happened", "caught by", title="wrong on purpose",
                  title_justify="left")  # fmt: skip
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, escape(scenario.story), escape(scenario.happened), scenario.rule)
    console.print(table)
    console.print("Judge one as in: migemu check --wrong collapse_before_received", markup=False, highlight=False)
