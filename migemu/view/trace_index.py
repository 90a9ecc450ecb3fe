"""The index of a trace: what the browser asks for, so that any moment of a long trace is there at once.

    NAME.jsonl.view          beside NAME.jsonl, made once (`index_builder`), read in parts

What this models
    The trace is cut into chunks of some 65,536 records. Of each chunk are kept: the states of all pages as it begins (a
    snapshot), its events and the faults that ended in it as columns (`event_columns`), and where its first lines stand
    in the trace. The state at any time is a snapshot and at most one chunk of events after it.

Format
    `MAGIC`, blobs (zlib, as they are sent to the browser), the head as JSON, and 16 bytes: length and xxh3_64 of the
    head. What does not fit its trace (size, or digest of its first and last bytes) or is damaged is made anew: an index
    holds nothing that the trace does not.

Rules
    1. An index that is being built is read at the same time (a run that is watched): whoever does either holds `lock`.
    2. A chunk has `max(CHUNK_RECORDS, pages / 32)` records, so that snapshots never outweigh events.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

import xxhash

from migemu import named
from migemu.errors import BrokenError
from migemu.mm.pages import GEOMETRIES, Geometry
from migemu.store.output import writing
from migemu.view.event_columns import COLLAPSE_FIELDS, STALL_FIELDS, to_columns

SUFFIX: Final = ".view"
MAGIC: Final = b"migemu-view-1\n"
CHUNK_RECORDS: Final = 1 << 16
_PAGES_PER_RECORD: Final = 32
_TRAILER_BYTES: Final = 16
_HEAD_BYTES_MAX: Final = 256 << 20
_BLOB_BYTES_MAX: Final = 2 << 30
_MARK_BYTES: Final = 1 << 16
_COPY_BYTES: Final = 1 << 20


class Blob(NamedTuple):
    """Where bytes stand in the file of blobs."""

    offset: int
    stored_bytes: int


NO_BLOB: Final = Blob(0, 0)


class BlobFile:
    """Bytes in a file, appended and read at any time. Temporary until it is saved, and without a name until then."""

    def __init__(self, file: BinaryIO, written_bytes: int = 0) -> None:
        self._file = file
        self.written_bytes = written_bytes

    @classmethod
    def temporary(cls, beside: Path) -> BlobFile:
        """A new one, in the directory `beside` if that can be, else where temporary files go. BrokenError."""
        try:
            place = beside if os.access(beside, os.W_OK) else None
            blobs = cls(tempfile.TemporaryFile(dir=place))  # noqa: SIM115 - it lives as long as the index
        except OSError as error:
            raise BrokenError(f"no temporary file for the index of a trace: {error.strerror}") from None
        blobs._put(MAGIC)
        return blobs

    def append(self, data: bytes) -> Blob:
        """Keep `data`, compressed. BrokenError when the disk does not take it."""
        stored = zlib.compress(data, 1)
        return Blob(self._put(stored), len(stored))

    def _put(self, data: bytes) -> int:
        at = self.written_bytes
        try:
            view = memoryview(data)
            while view:
                done = os.pwrite(self._file.fileno(), view, self.written_bytes)
                self.written_bytes += done
                view = view[done:]
        except OSError as error:
            raise BrokenError(f"the index of a trace cannot be written: {error.strerror}") from None
        return at

    def stored(self, blob: Blob) -> bytes:
        """The bytes as they are stored: compressed."""
        return os.pread(self._file.fileno(), blob.stored_bytes, blob.offset)

    def read(self, blob: Blob) -> bytes:
        """The bytes that were appended."""
        return zlib.decompress(self.stored(blob))

    def save(self, path: Path, head: bytes, inputs: list[Path]) -> None:
        """All of it and the head as the file `path`. What `migemu.store.output` raises."""
        with writing(path, inputs=inputs) as output:
            for at in range(0, self.written_bytes, _COPY_BYTES):
                output.write(os.pread(self._file.fileno(), min(_COPY_BYTES, self.written_bytes - at), at))
            output.write(head)
            output.write(len(head).to_bytes(8, "little") + xxhash.xxh3_64_digest(head))

    def close(self) -> None:
        """Give it up; a temporary one is gone then."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class IndexChunk:
    """A part of the trace: its `records`, of `events` events from number `event` on, from time `began` to `ended`.

    At byte `line_offset` of the trace stands the line of event `line_event` (-1 is the header), at or before its own
    first one. `counts` are the pages in each state as it begins, `asleep` who sleeps then: (vCPU, base page, since
    when). `faults` faults end in it, of which `fault` is the number of the first.
    """

    event: int
    line_offset: int
    line_event: int
    began: int
    counts: tuple[int, ...]
    asleep: tuple[tuple[int, int, int], ...]
    state: Blob
    fault: int
    records: int = 0
    events: int = 0
    ended: int = 0
    faults: int = 0
    stored_events: Blob = NO_BLOB
    stored_faults: Blob = NO_BLOB


class TraceIndex:
    """Everything that is known of a trace without reading it; a context manager, which closes its file.

    `first` and `last` are the times of its first and last event, `zero` is when the guest began to run at the
    destination (None until then). `problem` says why the trace could not be read to its end, "" if it could; `digest`
    is the sha256 of its events. `ended` is False while events still come.
    """

    def __init__(self, geometry: Geometry, pages: int, kind: str, blobs: BlobFile) -> None:
        """Of a memory of `pages` base pages; nothing has happened yet."""
        self.geometry = geometry
        self.pages = pages
        self.kind = kind
        self.blobs = blobs
        self.chunks: list[IndexChunk] = []
        self.events = self.faults = self.vcpus = 0
        self.first = self.last = 0
        self.zero: int | None = None
        self.problem = self.digest = ""
        self.ended = False
        #: (time, words): stages of the destination, connections that ended.
        self.marks: list[tuple[int, str]] = []
        #: Series over time, see `IndexBuilder`.
        self.overview: dict[str, Any] = {}
        #: Rows of `COLLAPSE_FIELDS` and of `STALL_FIELDS`.
        self.collapses: list[tuple[float, ...]] = []
        self.stalls: list[tuple[float, ...]] = []
        #: Columns of the last chunk while it is being filled.
        self.open_events = self.open_faults = b""
        self.lock = threading.RLock()

    def stored_events(self, chunk: int) -> bytes:
        """The events of a chunk, zlib. IndexError."""
        with self.lock:
            return self._stored(self.chunks[chunk].stored_events, self.open_events)

    def stored_faults(self, chunk: int) -> bytes:
        """The faults that ended in a chunk, zlib. IndexError."""
        with self.lock:
            return self._stored(self.chunks[chunk].stored_faults, self.open_faults)

    def stored_state(self, chunk: int) -> bytes:
        """The states of all pages as a chunk begins, zlib. IndexError."""
        return self.blobs.stored(self.chunks[chunk].state)

    def read_events(self, chunk: int) -> bytes:
        """The events of a chunk. IndexError."""
        return zlib.decompress(self.stored_events(chunk))

    def read_faults(self, chunk: int) -> bytes:
        """The faults of a chunk. IndexError."""
        return zlib.decompress(self.stored_faults(chunk))

    def _stored(self, blob: Blob, still_open: bytes) -> bytes:
        return self.blobs.stored(blob) if blob.stored_bytes else zlib.compress(still_open, 1)

    def collapse_columns(self) -> bytes:
        """All collapses, as columns."""
        return to_columns(self.collapses, COLLAPSE_FIELDS)

    def stall_columns(self) -> bytes:
        """All stalls that were found, as columns."""
        return to_columns(self.stalls, STALL_FIELDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.blobs.close()

    def save(self, path: Path, trace: Path) -> None:
        """Write it as the index of the trace at `trace`. What `migemu.store.output` raises."""
        head = {name: getattr(self, name) for name in _PLAIN}
        head |= {"geometry": self.geometry.name, "chunks": [asdict(each) for each in self.chunks]}
        head |= {"trace": trace_mark(trace)}
        head |= {"collapses": self.collapses, "stalls": self.stalls}
        self.blobs.save(path, json.dumps(head, separators=(",", ":")).encode(), [trace])


_PLAIN: Final = (
    "pages", "kind", "events", "zero", "first", "last", "vcpus", "faults", "problem", "digest", "marks", "overview",
)  # fmt: skip


def chunk_records(pages: int) -> int:
    """Records of a chunk, for a memory of so many base pages. Rule 2."""
    return max(CHUNK_RECORDS, pages // _PAGES_PER_RECORD)


def trace_mark(trace: Path) -> list[Any]:
    """What tells one trace from another without reading all of it: its size, and a digest of its two ends. OSError."""
    with named.opened(trace) as file:
        size = os.fstat(file.fileno()).st_size
        ends = os.pread(file.fileno(), _MARK_BYTES, 0) + os.pread(
            file.fileno(), _MARK_BYTES, max(0, size - _MARK_BYTES)
        )
    return [size, xxhash.xxh3_64_hexdigest(ends)]


def open_index(path: Path, trace: Path) -> TraceIndex | None:
    """The index at `path`; None when there is none, it is damaged, or it is that of another trace."""
    try:
        file = named.opened(path)
    except OSError:
        return None
    try:
        index = _parsed(file, trace)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        index = None
    if index is None:
        file.close()
    return index


def _parsed(file: BinaryIO, trace: Path) -> TraceIndex | None:
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    trailer = os.pread(descriptor, _TRAILER_BYTES, max(0, size - _TRAILER_BYTES))
    head_bytes = int.from_bytes(trailer[:8], "little")
    blobs_bytes = size - _TRAILER_BYTES - head_bytes
    if os.pread(descriptor, len(MAGIC), 0) != MAGIC or not 0 < head_bytes <= _HEAD_BYTES_MAX or blobs_bytes < 0:
        return None
    text = os.pread(descriptor, head_bytes, blobs_bytes)
    if xxhash.xxh3_64_digest(text) != trailer[8:]:
        return None
    head = json.loads(text)
    if head["trace"] != trace_mark(trace):
        return None
    index = TraceIndex(GEOMETRIES[head["geometry"]], head["pages"], head["kind"], BlobFile(file, blobs_bytes))
    for name in _PLAIN:
        setattr(index, name, head[name])
    index.chunks = [_chunk(each, blobs_bytes) for each in head["chunks"]]
    index.collapses = [tuple(each) for each in head["collapses"]]
    index.stalls = [tuple(each) for each in head["stalls"]]
    index.ended = True
    return index


def _chunk(fields: dict[str, Any], blobs_bytes: int) -> IndexChunk:
    for name in ("state", "stored_events", "stored_faults"):
        blob = fields[name] = Blob(*fields[name])
        if blob.offset < 0 or not 0 <= blob.stored_bytes <= _BLOB_BYTES_MAX or sum(blob) > blobs_bytes:
            raise ValueError(f"{name} lies outside the file")
    fields["asleep"] = tuple(tuple(each) for each in fields["asleep"])
    fields["counts"] = tuple(fields["counts"])
    return IndexChunk(**fields)
