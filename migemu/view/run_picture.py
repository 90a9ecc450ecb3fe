"""A run as the browser asks for it: what it is, its chunks, the history of a page, the phases of a fault.

Rules
    1. Whatever comes from files is data: it is sent as JSON or as numbers, and the page shows it as text.
    2. Events are told from the columns of the index; `detail` and `wire` are read from the trace, where there is one
       file of it.
    3. A history has its last `HISTORY_MAX` events, and says if there were more.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from migemu import named
from migemu.analysis.attribution import PHASES
from migemu.mm.pages import Level, PageIndex
from migemu.store.output import PARTIAL
from migemu.view.event_columns import (
    CAUSES,
    COLLAPSE_FIELDS,
    EVENT_FIELDS,
    EVENT_KINDS,
    FAULT_FIELDS,
    FROM_LINK,
    FROM_SOURCE,
    NO_LEVEL,
    NO_PAGE,
    PART,
    STALL_FIELDS,
    URGENT,
    WRITE,
    ZERO,
    from_columns,
)
from migemu.view.page_states import TABLES
from migemu.view.trace_index import TraceIndex

HISTORY_MAX: Final = 400
FRAMES_MAX: Final = 200
_DETECT, _REQUEST, _UPLINK, _QUEUE = range(4)
_CARRIED: Final = EVENT_KINDS.index("carried")

Said = dict[str, Any]


class RunPicture:
    """One run: its name and kind for people, and its index; `trace` is its file, if it is one."""

    def __init__(self, name: str, index: TraceIndex, trace: Path | None, missing: Sequence[str] = ()) -> None:
        """`missing` is what of the run is not there, a line each."""
        self.name = name
        self.index = index
        self.trace = trace
        self.missing = tuple(missing)
        self._earlier: list[TraceIndex] = []
        #: Counts up when `index` is another one than before.
        self.generation = 0

    def replace(self, index: TraceIndex, trace: Path | None) -> None:
        """The same run by another index: the browser begins anew."""
        self._earlier.append(self.index)  # somebody may be reading it at this moment
        self.index, self.trace = index, trace
        self.generation += 1

    def close(self) -> None:
        """Nobody asks any more."""
        for index in (*self._earlier, self.index):
            index.blobs.close()

    def about(self) -> Said:
        """What does not change while events come, for one generation."""
        index = self.index
        geometry = index.geometry
        return {
            "name": self.name, "kind": index.kind, "generation": self.generation, "pages": index.pages,
            "page_bytes": geometry.page_bytes, "geometry": geometry.name,
            "missing": self.missing, "hugepage_pages": geometry.largest_pages,
            "levels": {level.name: geometry.pages(level) for level in geometry.levels},
        }  # fmt: skip

    def now(self, after: int = 0) -> Said:
        """How far it is: chunks from number `after` on, and everything over time."""
        with self.index.lock:
            index = self.index
            names = (
                "events", "zero", "first", "last", "vcpus", "faults", "problem", "marks", "overview", "ended",
            )  # fmt: skip
            said: Said = {name: getattr(index, name) for name in names}
            said["chunks"] = [_chunk(asdict(each)) for each in index.chunks[after:]]
            said["chunk_count"] = len(index.chunks)
            said["collapse_count"], said["stall_count"] = len(index.collapses), len(index.stalls)
            return said | {"generation": self.generation}

    def history(self, page: PageIndex) -> Said:
        """All events about a base page. IndexError when there is no such page."""
        if not 0 <= page < self.index.pages:
            raise IndexError(page)
        events: list[Said] = []
        number = 0
        for chunk in range(len(self.index.chunks)):
            for each in self._about_page(chunk, page):
                number += 1
                events.append(each)
            del events[:-HISTORY_MAX]
        return {"page": page, "count": number, "events": events}

    def fault(self, number: int) -> Said:
        """A fault: its phases, the events about its page meanwhile, the frames that stood in front. IndexError."""
        chunks = self.index.chunks
        at = bisect_right([each.fault for each in chunks], number) - 1
        columns = from_columns(self.index.read_faults(at), FAULT_FIELDS) if at >= 0 and number >= 0 else {}
        place = number - chunks[at].fault
        if not columns or place >= len(columns["number"]):
            raise IndexError(number)
        fault: Said = {name: columns[name][place].item() for name, _ in FAULT_FIELDS}
        fault["cause"] = CAUSES[fault["cause"]]
        phases = [fault.pop(name) for name in PHASES]
        fault["phases"] = [[name, length] for name, length in zip(PHASES, phases, strict=True)]
        asked = fault["began"] + sum(phases[: _UPLINK + 1])
        within = [
            each for each, chunk in enumerate(chunks) if chunk.ended >= fault["began"] and chunk.began <= fault["ended"]
        ]
        fault["events"] = [
            each for chunk in within for each in self._about_page(chunk, fault["page"])
            if fault["began"] <= each["t"] <= fault["ended"]
        ][:HISTORY_MAX]  # fmt: skip
        fault["ahead"] = self._frames_ahead(within, asked, asked + phases[_QUEUE], fault["ended"])
        return fault

    def _frames_ahead(self, chunks: Sequence[int], asked: float, started: float, ended: float) -> list[Said]:
        """Frames that were on the wire between `asked` and `started`; none where the trace tells of no wire."""
        if started <= asked:
            return []
        found: list[Said] = []
        for chunk in chunks:
            columns = from_columns(self.index.read_events(chunk), EVENT_FIELDS)
            rows = np.flatnonzero((columns["kind"] == _CARRIED) & (columns["t"] >= asked) & (columns["t"] <= ended))
            for each in self._as_json(chunk, columns, rows):
                wire = each.get("wire")
                if wire and each.get("detail") != "return" and wire["departed"] > asked and wire["started"] < started:
                    found.append(each)
        return found[-FRAMES_MAX:]

    def _about_page(self, chunk: int, page: PageIndex) -> Iterator[Said]:
        columns = from_columns(self.index.read_events(chunk), EVENT_FIELDS)
        first, count = columns["first"], columns["count"].astype(np.int64)
        is_about = (first != NO_PAGE) & (first <= page) & (page < first + np.maximum(count, 1))
        rows = np.flatnonzero(is_about & (columns["kind"] != PART))
        yield from self._as_json(chunk, columns, rows[-HISTORY_MAX:])

    def _as_json(self, chunk: int, columns: dict[str, NDArray[Any]], rows: NDArray[np.intp]) -> list[Said]:
        """Those rows of a chunk as people read them."""
        if not len(rows):
            return []
        numbers = np.cumsum(columns["kind"] != PART)[rows] - 1 + self.index.chunks[chunk].event
        lines = self._lines(chunk, numbers.tolist())
        found = []
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            each = {name: columns[name][row].item() for name, _ in EVENT_FIELDS}
            said = {"number": number, "row": row, "chunk": chunk, **_words(each)}
            line = lines.get(number, {})
            found.append(said | {name: line[name] for name in ("detail", "wire") if name in line})
        return found

    def _lines(self, chunk: int, numbers: Sequence[int]) -> dict[int, Said]:
        """Those events as their lines in the trace say, by number; none where it cannot be read."""
        if self.trace is None:
            return {}
        wanted, found = set(numbers), {}
        begin = self.index.chunks[chunk]
        try:
            with _opened(self.trace) as file:
                file.seek(begin.line_offset)
                for number, line in enumerate(islice(file, numbers[-1] - begin.line_event + 1), begin.line_event):
                    if number in wanted:
                        found[number] = json.loads(line)
        except (OSError, ValueError, RecursionError):
            return {}
        return {number: line for number, line in found.items() if isinstance(line, dict)}


def _opened(trace: Path) -> BinaryIO:
    """The trace, or as much of it as has been written. OSError."""
    try:
        return named.opened(trace)
    except FileNotFoundError:
        return named.opened(trace.with_name(trace.name + PARTIAL))


def vocabulary() -> Said:
    """What every run shares: the layout of columns, the kinds, the causes, the phases, the tables of states."""
    return {
        "event_fields": EVENT_FIELDS, "fault_fields": FAULT_FIELDS, "collapse_fields": COLLAPSE_FIELDS,
        "stall_fields": STALL_FIELDS, "kinds": EVENT_KINDS, "causes": CAUSES, "phases": PHASES,
        "level_names": [level.name for level in Level], "tables": [list(table[:16]) for table in TABLES],
    }  # fmt: skip


def _chunk(said: Said) -> Said:
    """Without what stands in files."""
    return {name: value for name, value in said.items() if name not in _INSIDE}


_INSIDE: Final = ("state", "stored_events", "stored_faults", "line_offset", "line_event")


def _words(row: Said) -> Said:
    """A record as people read it; what it does not have is left out."""
    flags = row["flags"]
    said: Said = {"t": row["t"], "event": EVENT_KINDS[row["kind"]]}
    said["node"] = "source" if flags & FROM_SOURCE else "link" if flags & FROM_LINK else "destination"
    if row["first"] != NO_PAGE:
        said |= {"first": row["first"], "count": row["count"]}
    if row["level"] != NO_LEVEL:
        said["level"] = Level(row["level"]).name
    if row["vcpu"] >= 0:
        said["vcpu"] = row["vcpu"]
    return said | {name: True for name, bit in (("write", WRITE), ("urgent", URGENT), ("zero", ZERO)) if flags & bit}
