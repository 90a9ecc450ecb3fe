"""Replay: the accesses of a file.

What this models
    A recorded guest: from another tool, or the faults of an earlier migration, so that several policies can be judged
    by one and the same row of accesses.

The format
    A text file, one access a line, in the order of time. Empty lines and comments, from `#` to the end of the line, are
    skipped. An access is

        vcpu page r|w            0 4711 w

    the vCPU from 0, the base page from 0, and whether it reads or writes. A line that begins with `{` is a line of
    a migemu trace: those with `"event": "faulted"` are accesses, by their fields `vcpu`, `first` and `write`; all other
    lines of a trace are skipped.

Rules
    1. Every line is judged, those of other vCPUs too: a wrong one ends the run before it begins, with its number.
    2. A page outside the memory and a vCPU that the guest does not have are refused: left out, they would make the
       replay another workload than the one recorded.
    3. A vCPU without lines ends at once.

Simplified
    Times are not replayed: the guest's rate decides. A trace's faults are first touches only; what the guest did
    between them has left no line.
"""

from __future__ import annotations

import json
from array import array

from migemu.guest.workload import Access, WorkloadContext, workloads

ACCEPTED = 'give "vcpu page r|w" such as "0 4711 w", a # comment, or a line of a migemu trace'


@workloads.register("replay")
class Replay:
    """Each vCPU repeats its accesses from a file of lines `vcpu page r|w`, or a migemu trace's faults; then it ends.

    Setting `path`: the file.
    """

    __slots__ = ("_next", "_pages", "_path", "_writes")

    def __init__(self, context: WorkloadContext, *, path: str = "") -> None:
        if not path:
            raise ValueError('replay needs a file: give "replay:path=..."')
        self._path = path
        self._pages = array("q")
        self._writes = bytearray()
        self._next = 0
        accesses = 0
        for number, line in enumerate(context.read_text(path).split("\n"), 1):
            try:
                parsed = _parse(line)
                if parsed is None:
                    continue
                vcpu, page, write = parsed
                if not 0 <= vcpu < context.vcpus:
                    raise ValueError(f"vCPU {vcpu} is not one of the guest's {context.vcpus}")
                if not 0 <= page < context.total_pages:
                    raise ValueError(f"page {page} is outside the memory of {context.total_pages} pages")
            except ValueError as problem:
                raise ValueError(f"{path}, line {number}: {problem}") from None
            accesses += 1
            if vcpu == context.vcpu:
                self._pages.append(page)
                self._writes.append(write)
        if not accesses:
            raise ValueError(f"{path} holds no access: {ACCEPTED}")

    def next_access(self) -> Access | None:
        """The next access of the file."""
        index = self._next
        if index == len(self._pages):
            return None
        self._next = index + 1
        return Access(self._pages[index], bool(self._writes[index]))

    def __repr__(self) -> str:
        return f"<Replay of {self._path}: {self._next}/{len(self._pages)}>"


def _parse(line: str) -> tuple[int, int, bool] | None:
    """(vcpu, page, write) of one line, or None when it holds no access. ValueError says what is accepted."""
    text = line.strip()
    if text.startswith("{"):
        return _parse_trace(text)
    fields = text.partition("#")[0].split()
    if not fields:
        return None
    if len(fields) == 3 and fields[0].isdecimal() and fields[1].isdecimal() and fields[2] in ("r", "w"):
        return int(fields[0]), int(fields[1]), fields[2] == "w"
    raise ValueError(f"{_shortened(text)} is not an access: {ACCEPTED}")


def _parse_trace(text: str) -> tuple[int, int, bool] | None:
    """As `_parse`, of a line of JSON."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{_shortened(text)} is not JSON: {ACCEPTED}") from None
    if event.get("event") != "faulted":
        return None
    vcpu, page, write = event.get("vcpu"), event.get("first"), event.get("write")
    if type(vcpu) is int and type(page) is int and type(write) is bool:
        return vcpu, page, write
    raise ValueError(f'{_shortened(text)} is no access: a fault has integers "vcpu", "first" and a boolean "write"')


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
