"""Reads a trace file: strictly, in blocks, and naming the line of whatever is wrong with it.

Rules
    1. A file is refused (InputError) when it is no trace, one of another version, or damaged: a line that is no event
       of the vocabulary, a field that its event does not have, time that goes back, a last line without its end.
    2. Numbers are only checked for being numbers: a count below 1 is for the checkers to object to.
    3. Lines are parsed many at a time, which is what makes it fast: their line ends stay between them, and a JSON
       string cannot hold one, so that no two damaged lines make a whole one. When a block fails, its lines are looked
       at one by one.
    4. What memory a trace is about stands in its first `memory` event, before any event about a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

from migemu import named
from migemu.errors import InputError
from migemu.mm.pages import GEOMETRIES, Geometry, Level
from migemu.trace.events import FIELDS, KINDS, SCHEMA, SCHEMA_VERSION, CarriedFrame, Event, Happening, emitters_of

_BLOCK: Final = 1024
_HAPPENINGS: Final = {one.value: one for one in Happening}
_LEVELS: Final = {level.name: level for level in Level}
_TYPES: Final[dict[str, type]] = {
    "t": int, "node": str, "event": str, "first": int, "count": int, "level": str, "vcpu": int, "write": bool,
    "urgent": bool, "detail": str, "wire": dict,
}  # fmt: skip


#: Base pages of a guest: 4 TiB, four times what `limits.memory_max` allows by default. Each costs a judge a byte.
PAGES_MAX: Final = 1 << 30


class Trace:
    """A trace file that is being read: its header, its memory, and its events, once, in order."""

    def __init__(self, path: Path, file: BinaryIO, progress: Callable[[int], None]) -> None:
        """`progress` is told now and then how many bytes have been read. InputError as the module says."""
        self.path = path
        self._file = file
        self._progress = progress
        self._line = 1
        self._last_t = -(1 << 63)
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._hash = sha256()
        self.kind = self._header()
        self._blocks = self._parsed()
        self._ahead: list[Event] = []
        self.geometry, self.pages = self._memory()

    @property
    def digest(self) -> str:
        """The sha256 of the lines of the events that have been read (`trace_digest` in result.json)."""
        return self._hash.hexdigest()

    def events(self) -> Iterator[list[Event]]:
        """Every event from the first on, in blocks. The first one stands in line 2."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            yield ahead
        yield from self._blocks

    def _header(self) -> str:
        line = self._file.readline(4096)
        said = parse_header(line)
        if isinstance(said, str):
            return self._refuse(said)
        return str(said["kind"])

    def _memory(self) -> tuple[Geometry, int]:
        """What the trace is about; the events up to there are kept for `events`."""
        for block in self._blocks:
            self._ahead += block
            for number, event in enumerate(self._ahead, 2):
                if event.event is Happening.MEMORY:
                    return self._understood(event, number)
                if event.first is not None:
                    self._refuse(f"line {number}: an event about page {event.first} before any `memory` event")
        return self._refuse("holds no `memory` event: what happened in it is not known; nothing to check")

    def _understood(self, event: Event, number: int) -> tuple[Geometry, int]:
        geometry = GEOMETRIES.get(event.detail or "")
        if geometry is None:
            self._refuse(f"line {number}: {event.detail!r} is no geometry; known: {', '.join(GEOMETRIES)}")
        if not event.count or event.count < 0 or event.count % geometry.largest_pages:
            self._refuse(f"line {number}: {event.count} base pages are not whole hugetlb pages of {geometry.name}")
        if event.count > PAGES_MAX:
            self._refuse(f"line {number}: {event.count} base pages are more than any guest has; the line is damaged")
        return geometry, event.count

    def _parsed(self) -> Iterator[list[Event]]:
        while lines := list(islice(self._file, _BLOCK)):
            if not lines[-1].endswith(b"\n"):
                self._refuse(
                    f"line {self._line + len(lines)} is cut off: the trace is truncated (its node was killed, or the "
                    "copy is incomplete); without that line the rest can be checked"
                )
            began_t = self._last_t
            try:
                said = json.loads(b"[" + b",".join(lines) + b"]")
                if len(said) != len(lines):
                    raise ValueError
                events = [self._event(each) for each in said]
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self._last_t = began_t
                self._find_fault(lines)
            self._line += len(lines)
            self._hash.update(b"".join(lines))
            self._progress(self._file.tell())
            yield events

    def _event(self, said: dict[str, Any]) -> Event:
        """One event. ValueError says what is wrong; other errors that something is."""
        values: Iterable[Any] = said.values()
        shape = (said["event"], *said, *map(type, values))
        plan = self._plans.get(shape)
        if plan is None:
            plan = self._plans[shape] = _plan(said)
        if said["t"] < self._last_t:
            raise ValueError("time goes back; traces of several nodes must be merged by time")
        if said["node"] not in plan.nodes:
            raise ValueError(f"`{said['event']}` of the node {said['node']!r}: it is told by {' or '.join(plan.nodes)}")
        level = None
        if plan.has_level and (level := _LEVELS.get(said["level"])) is None:
            raise ValueError(f"there is no level {said['level']!r}")
        if plan.has_wire:
            wire = _wire(said["wire"])
            values = [wire if name == "wire" else value for name, value in said.items()]
        self._last_t = said["t"]
        return Event._make(plan.fields((None, plan.happening, level, *values)))

    def _find_fault(self, lines: list[bytes]) -> NoReturn:
        """A block has a line that is no event: which, and why."""
        for number, line in enumerate(lines, self._line + 1):
            try:
                said = json.loads(line)
                if not isinstance(said, dict):
                    raise ValueError("is no JSON object")
                _plan(said)
                self._event(said)
            except KeyError as error:
                self._refuse(f"line {number}: has no {error.args[0]!r}: {_excerpt(line)}")
            except json.JSONDecodeError as error:
                self._refuse(f"line {number}: is no JSON ({error.msg}, column {error.colno}): {_excerpt(line)}")
            except (ValueError, TypeError, RecursionError) as error:
                self._refuse(f"line {number}: {error}: {_excerpt(line)}")
        raise AssertionError("a block was refused, and every line of it taken")

    def _refuse(self, problem: str) -> NoReturn:
        raise InputError(f"{self.path}: {problem}")


@contextmanager
def read_trace(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Trace]:
    """The trace at `path`, while it is being read. InputError when it is none, or damaged, or cannot be read."""
    try:
        file = named.opened(path)
    except OSError as error:
        raise InputError(f"{path}: the trace cannot be read: {error.strerror}") from None
    with file:
        try:
            yield Trace(path, file, progress)
        except OSError as error:
            raise InputError(f"{path}: the trace cannot be read: {error.strerror}") from None


def parse_header(line: bytes | str) -> dict[str, object] | str:
    """The first line of a trace of this version as a mapping, or what is wrong with it."""
    if not line:
        return "is empty, no trace"
    try:
        said = json.loads(line)
        schema, version, kind = said["schema"], said["version"], said["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"is not a trace: its first line is {_excerpt(line)}, not the header of a {SCHEMA}"
    if schema != SCHEMA:
        return f"is not a trace of migemu: its schema is {schema!r}, not {SCHEMA!r}"
    if version != SCHEMA_VERSION or type(version) is not int:
        return (
            f"is a trace of version {version!r}; this migemu reads version {SCHEMA_VERSION}. Run it again to have one"
        )
    if kind not in KINDS:
        return f"is a trace of kind {kind!r}; known: {', '.join(KINDS)}"
    if len(said) > 3:
        return f"has an unknown header: {_excerpt(line)}"
    return dict(said)


class _Plan(NamedTuple):
    """How the values of a line become an event, for all lines with the same event, fields and types, in this order."""

    happening: Happening
    nodes: tuple[str, ...]
    has_level: bool
    has_wire: bool
    fields: Callable[[tuple[Any, ...]], tuple[Any, ...]]


def _plan(said: dict[str, Any]) -> _Plan:
    """The plan for lines like this one. ValueError when it has not the fields of its event, or not their types."""
    for name, value in said.items():
        if name in _TYPES and type(value) is not _TYPES[name]:
            raise ValueError(f"{name!r} is {value!r}, no {_TYPES[name].__name__}")
    happening = _HAPPENINGS.get(said["event"])
    if happening is None:
        raise ValueError(f"no event is called {said['event']!r}")
    needed, possible = FIELDS[happening]
    for name in ("t", "node", *needed):
        if name not in said:
            raise ValueError(f"`{happening.value}` without {name!r}")
    if unknown := set(said) - {"t", "node", "event", *needed, *possible}:
        raise ValueError(f"`{happening.value}` has no field {min(unknown)!r}")
    place = {"event": 1, "level": 2}
    names = list(said)
    places = [place.get(name, names.index(name) + 3 if name in said else 0) for name in Event._fields]
    return _Plan(happening, emitters_of(happening), "level" in said, "wire" in said, itemgetter(*places))


def _wire(said: dict[str, Any]) -> CarriedFrame:
    """What `carried` says of the wire. ValueError when it is not all of it, or something else."""
    if set(said) != set(CarriedFrame._fields) or any(type(value) is not int for value in said.values()):
        raise ValueError(f"'wire' is {said!r}; it has {', '.join(CarriedFrame._fields)}, all integers")
    return CarriedFrame(**said)


def _excerpt(line: bytes | str, most: int = 60) -> str:
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    text = " ".join(text.split())
    return repr(text if len(text) <= most else text[:most] + "...")
