"""`migemu.check`: a trace judged by the rules of `migemu check`, from a program."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from migemu.api.run_result import Result
from migemu.errors import InputError
from migemu.mm.pages import GEOMETRIES
from migemu.trace.events import Event, Happening
from migemu.trace.findings import CheckVerdict, judge_events, judge_file


def check(trace: Result | str | PathLike[str] | Sequence[Event], *, rules: Sequence[str] = ()) -> CheckVerdict:
    """Judge a trace by every rule, or by `rules`: does all happen in an order that leaves the guest's memory right?

    `trace` is a result, a trace file, the directory of a run, or events (`migemu.trace.events.Event`), of which the
    first `memory` event says what memory they are about. The verdict is true if no rule is broken (`holds`);
    `violations` has the first of each rule that is, `broken` how often each was.

    InputError: no trace, a damaged one, or no such rule.

    >>> import migemu
    >>> result = migemu.simulate({"memory.geometry": "tiny", "memory.size": "64K", "guest.vcpus": 1})
    >>> verdict = migemu.check(result)
    >>> verdict.holds, len(verdict.judged) > 5
    (True, True)
    """
    if isinstance(trace, Sequence) and not isinstance(trace, str):
        return _judge(trace, rules)
    path = trace.path if isinstance(trace, Result) else Path(trace)
    return judge_file(Result.read(path).trace_path if path.is_dir() else path, rules)


def _judge(events: Sequence[Event], rules: Sequence[str]) -> CheckVerdict:
    memory = next((event for event in events if event.event is Happening.MEMORY), None)
    if memory is None or memory.detail not in GEOMETRIES or not isinstance(memory.count, int):
        raise InputError("the events say nothing of their memory; begin with a `memory` event (count, detail)")
    return judge_events(events, GEOMETRIES[memory.detail], memory.count, rules)
