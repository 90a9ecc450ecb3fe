"""Golden traces: a trace that was looked at once and is kept, to be compared with from then on.

A golden file is a trace file (`migemu.trace.events`): a header, and a line for each event. `migemu check` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from migemu import named
from migemu.store.output import write_text
from migemu.trace.events import Event, event_line, header_line

_CONTEXT: Final = 3


def golden_lines(trace: Iterable[Event]) -> list[str]:
    """The lines of the trace file that holds these events, header first."""
    return [header_line("modelled"), *(event_line(event) for event in trace)]


def write_golden(path: Path, trace: Iterable[Event]) -> None:
    """Make or replace a golden file."""
    write_text(path, "".join(line + "\n" for line in golden_lines(trace)))


def golden_difference(path: Path, trace: Iterable[Event]) -> str:
    """The differences between a trace and its golden file, as lines; [] if there are none. OSError: no such file."""
    golden, found = named.read_text(path).splitlines(), golden_lines(trace)
    if golden == found:
        return ""
    shorter = min(len(golden), len(found))
    at = next((number for number in range(shorter) if golden[number] != found[number]), shorter)
    lines = [f"line {at + 1} is the first that differs ({len(golden)} lines in the golden file, {len(found)} now):"]
    lines += [f"    {line}" for line in golden[max(0, at - _CONTEXT) : at]]
    lines += [f"  - {line}" for line in golden[at : at + _CONTEXT]] or ["  - (the golden trace ends here)"]
    lines += [f"  + {line}" for line in found[at : at + _CONTEXT]] or ["  + (the trace ends here)"]
    return "\n".join(lines)
