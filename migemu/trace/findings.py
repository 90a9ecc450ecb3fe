"""What is said of a whole trace: which rules it was judged by, and what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from migemu.errors import InputError
from migemu.mm.pages import Geometry
from migemu.trace.checkers import Checks, Violation, with_history
from migemu.trace.events import Event
from migemu.trace.reading import read_trace


class CheckVerdict(NamedTuple):
    """`violations` holds the first one of each rule that was broken, `broken` how often each was."""

    kind: str
    geometry: Geometry
    pages: int
    events: int
    judged: tuple[str, ...]
    unjudged: dict[str, str]
    violations: tuple[Violation, ...]
    broken: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether no rule is broken."""
        return not self.broken

    def __bool__(self) -> bool:
        return self.holds


def judge_file(path: Path, rules: Sequence[str] = (), progress: Callable[[int], None] = lambda _: None) -> CheckVerdict:
    """Judge the trace file at `path` by `rules` (default: all). Lines are those of the file.

    `progress` is told now and then how many bytes have been read. InputError: no trace, damaged, of another version,
    empty, or no such rule.
    """
    with read_trace(path, progress) as trace:
        checks, first = make_checks(trace.geometry, trace.pages, rules, line=1), _First()
        for block in trace.events():
            for event in block:
                found = checks.see(event)
                if found:
                    first.add(found)
        first.add(checks.ended(cut=True))
        kind = trace.kind
    violations: list[Violation] = list(first.violations.values())
    if violations:
        with read_trace(path) as again:
            violations = with_history(violations, chain.from_iterable(again.events()), checks, line=1)
    return _verdict(kind, checks, first, violations)


def judge_events(events: Sequence[Event], geometry: Geometry, pages: int, rules: Sequence[str] = ()) -> CheckVerdict:
    """Judge a modelled trace that is no file; lines are the numbers of the events, as if it had a header."""
    checks, first = make_checks(geometry, pages, rules, line=1), _First()
    for event in events:
        first.add(checks.see(event))
    first.add(checks.ended())
    return _verdict("modelled", checks, first, with_history(list(first.violations.values()), events, checks, line=1))


def make_checks(geometry: Geometry, pages: int, rules: Iterable[str], line: int = 0) -> Checks:
    """Checks by `rules` (none: all). InputError names those that exist when one does not."""
    try:
        return Checks(geometry, pages, tuple(rules) or None, line)
    except ValueError as error:
        raise InputError(str(error)) from None


class _First:
    """The first violation of each rule, and the number of all."""

    def __init__(self) -> None:
        self.violations: dict[str, Violation] = {}
        self.broken: dict[str, int] = {}

    def add(self, found: Sequence[Violation]) -> None:
        for violation in found:
            self.violations.setdefault(violation.rule, violation)
            self.broken[violation.rule] = self.broken.get(violation.rule, 0) + 1


def _verdict(kind: str, checks: Checks, first: _First, violations: Sequence[Violation]) -> CheckVerdict:
    unjudged = {name: why for name, why in checks.unjudged().items() if name not in first.broken}
    return CheckVerdict(
        kind, checks.account.geometry, checks.account.pages, sum(checks.happened.values()),
        tuple(name for name in checks.rules if name not in unjudged), unjudged,
        tuple(sorted(violations, key=lambda violation: violation.line)), first.broken,
    )  # fmt: skip
