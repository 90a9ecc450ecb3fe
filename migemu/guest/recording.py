"""A recording: the accesses of a file, read once, by vCPU, in four bytes each.

The format
    A text file, one access a line, in the order of time. Empty lines and comments, from `#` to the end of the line, are
    skipped. An access is

        vcpu page r|w            0 4711 w

    the vCPU from 0, the base page from 0, and whether it reads or writes. A line that begins with `{` is a line of
    a migemu trace: those with `"event": "faulted"` are accesses, by their fields `vcpu`, `first` and `write`; all other
    lines of a trace are skipped.

Rules
    1. Every line is judged, those of other vCPUs too: a wrong one is refused with its number.
    2. Blocks of lines that are all alike are read at once, which is what makes it fast; any other block is looked at
       line by line, and means the same (`tests/unit/guest/test_recording.py`).
    3. An access is kept as twice its page, plus one for a write, in 32 bits where all pages fit. It is shared by all
       vCPUs, and by all guests of a process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from migemu.units import KIB, format_size

ACCEPTED: Final = 'give "vcpu page r|w" such as "0 4711 w", a # comment, or a line of a migemu trace'
#: The most accesses of a recording (assumed: 400 MB here, an hour of faults of a guest that does nothing else).
ACCESSES_MAX: Final = 100_000_000
#: The longest line; those of a trace have some 200 bytes.
LINE_BYTES_MAX: Final = 64 * KIB
#: No guest has more vCPUs, no memory more pages: what is larger is a mistake, and would not fit.
_VCPUS_MAX: Final = 1 << 31
_PAGES_MAX: Final = 1 << 62
_PLAIN: Final = re.compile(rb"(?:[ \t]*+[0-9]{1,9}+[ \t]++[0-9]{1,18}+[ \t]++[rw][ \t]*+\r?\n)++")
_AS_NUMBERS: Final = bytes.maketrans(b"rw", b"01")

_Numbers = np.ndarray[Any, np.dtype[np.int64]]


class _Most(NamedTuple):
    """The largest value there is, and the line that it stands in."""

    value: int = -1
    line: int = 0


class Recording:
    """What was read. Made by `recording`."""

    def __init__(self, name: str, vcpus: _Numbers, codes: _Numbers, vcpu: _Most, page: _Most) -> None:
        """`codes` are twice the page, plus one for a write."""
        self.name = name
        self.accesses = len(codes)
        self._vcpu, self._page = vcpu, page
        kind = np.uint32 if page.value < 1 << 31 else np.uint64
        order = np.argsort(vcpus, kind="stable")
        ordered: Any = np.ascontiguousarray(codes[order], dtype=kind)  # a buffer, which its annotation does not say
        self._codes = memoryview(ordered)
        self._offsets: list[int] = np.cumsum(np.bincount(vcpus, minlength=1)).tolist() if len(vcpus) else []

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the accesses take."""
        return self._codes.nbytes

    def of(self, vcpu: int) -> Sequence[int]:
        """The accesses of one vCPU: twice the page, plus one for a write."""
        if vcpu >= len(self._offsets):
            return ()
        return self._codes[self._offsets[vcpu - 1] if vcpu else 0 : self._offsets[vcpu]]

    def check(self, vcpus: int, pages: int | None = None) -> None:
        """ValueError when the guest has not such a vCPU, or its memory (None: not known yet) not such a page."""
        if self._vcpu.value >= vcpus:
            raise ValueError(
                f"{self.name}, line {self._vcpu.line}: vCPU {self._vcpu.value} is not one of the guest's {vcpus}"
            )
        if pages is not None and self._page.value >= pages:
            raise ValueError(
                f"{self.name}, line {self._page.line}: page {self._page.value} is outside the memory of {pages} pages"
            )

    def __repr__(self) -> str:
        return f"<Recording {self.name}: {self.accesses} accesses, {format_size(self.nbytes)}>"


def recording(name: str, blocks: Iterable[bytes]) -> Recording:
    """The recording in the bytes of a file, which come in blocks of any length. ValueError says what is wrong."""
    reader = _RecordingReader(name)
    rest = b""
    for block in blocks:
        block = rest + block
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if len(rest) > LINE_BYTES_MAX:
            line = reader.line + block.count(b"\n")
            raise ValueError(f"{name}, line {line}: is longer than {format_size(LINE_BYTES_MAX)}; {ACCEPTED}")
        reader.take(block[:end])
    if rest:
        reader.take(rest + b"\n")
    if not reader.accesses:
        raise ValueError(f"{name} holds no access: {ACCEPTED}")
    return reader.recording()


class _RecordingReader:
    """Takes whole lines, block by block."""

    def __init__(self, name: str) -> None:
        self.line = 1
        self.accesses = 0
        self._name = name
        self._vcpus: list[_Numbers] = []
        self._codes: list[_Numbers] = []
        self._most = [_Most(), _Most()]

    def take(self, block: bytes) -> None:
        """Read whole lines, line ends included. ValueError names the line that is no access."""
        lines: list[int] | None = None
        if _PLAIN.fullmatch(block):
            numbers = np.fromstring(block.translate(_AS_NUMBERS), dtype=np.int64, sep=" ").reshape(-1, 3)
        else:
            parsed = _events(block) or self._one_by_one(block)
            lines, found = parsed
            numbers = np.array(found, dtype=np.int64).reshape(-1, 3)
        if len(numbers):
            self._add(numbers, lines)
        self.line += block.count(b"\n")
        if self.accesses > ACCESSES_MAX:
            raise ValueError(f"{self._name} has more than {ACCESSES_MAX} accesses; give a shorter one")

    def _add(self, numbers: _Numbers, lines: list[int] | None) -> None:
        for column, most in enumerate(self._most):
            at = int(numbers[:, column].argmax())
            if (value := int(numbers[at, column])) > most.value:
                self._most[column] = _Most(value, self.line + (at if lines is None else lines[at]))
        self._vcpus.append(numbers[:, 0].copy())
        self._codes.append(numbers[:, 1] * 2 + numbers[:, 2])
        self.accesses += len(numbers)

    def _one_by_one(self, block: bytes) -> tuple[list[int], list[tuple[int, int, bool]]]:
        lines, found = [], []
        for number, line in enumerate(block.split(b"\n")[:-1]):
            try:
                access = _parse(line)
                if access is None:
                    continue
                vcpu, page, _ = access
                if not 0 <= vcpu < _VCPUS_MAX:
                    raise ValueError(f"vCPU {vcpu} is not one of any guest's")
                if not 0 <= page < _PAGES_MAX:
                    raise ValueError(f"page {page} is outside any memory")
            except ValueError as problem:
                raise ValueError(f"{self._name}, line {self.line + number}: {problem}") from None
            lines.append(number)
            found.append(access)
        return lines, found

    def recording(self) -> Recording:
        """The recording of all lines so far, at least one access."""
        vcpus, codes = np.concatenate(self._vcpus), np.concatenate(self._codes)
        return Recording(self._name, vcpus, codes, *self._most)


def _events(block: bytes) -> tuple[list[int], list[tuple[int, int, bool]]] | None:
    """(line, access) of the faults in lines of a trace; None where anything is another thing than that."""
    lines = block.split(b"\n")[:-1]
    if not all(line.startswith(b"{") for line in lines):
        return None
    try:
        events = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    if len(events) != len(lines):
        return None
    found = [(number, event) for number, event in enumerate(events) if event.get("event") == "faulted"]
    accesses = [(event.get("vcpu"), event.get("first"), event.get("write")) for _, event in found]
    if not all(_is_access(*access) and access[0] < _VCPUS_MAX and 0 <= access[1] < _PAGES_MAX for access in accesses):
        return None
    return [number for number, _ in found], accesses


def _is_access(vcpu: Any, page: Any, write: Any) -> bool:
    return type(vcpu) is int and type(page) is int and type(write) is bool


def _parse(line: bytes) -> tuple[int, int, bool] | None:
    """(vcpu, page, write) of one line, or None when it holds no access. ValueError says what is accepted."""
    line = line.strip()
    if line.startswith(b"{"):
        return _parse_event(line)
    fields = line.partition(b"#")[0].split()
    if not fields:
        return None
    if len(fields) == 3 and fields[0].isdigit() and fields[1].isdigit() and fields[2] in (b"r", b"w"):
        return int(fields[0]), int(fields[1]), fields[2] == b"w"
    raise ValueError(f"{_shortened(line)} is not an access: {ACCEPTED}")


def _parse_event(line: bytes) -> tuple[int, int, bool] | None:
    """As `_parse`, of a line of JSON."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{_shortened(line)} is not JSON: {ACCEPTED}") from None
    if event.get("event") != "faulted":
        return None
    vcpu, page, write = event.get("vcpu"), event.get("first"), event.get("write")
    if _is_access(vcpu, page, write):
        return vcpu, page, write
    raise ValueError(f'{_shortened(line)} is no access: a fault has integers "vcpu", "first" and a boolean "write"')


def _shortened(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")
