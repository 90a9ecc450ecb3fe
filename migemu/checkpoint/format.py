"""A checkpoint of the destination: what a directory holds so that a killed destination can be started again.

    DIR/memory          the guest's memory, mapped shared: what arrives and what the guest writes is in the file
    DIR/digests         xxh3_64 of each base page as it arrived, mapped shared
    DIR/log.N           guest writes, in order (write_log); each is logged before it is stored
    DIR/words.N         earlier logs, folded
    DIR/running         is there once the guest has begun to run
    DIR/verified        the digest over all bytes, once they were found to be the source's
    DIR/checkpoint      which pages are kept, which logs count and how much of them, whose migration it is

Rules
    1. A generation is one file, `checkpoint`, that names all else. It is written beside the last one, synced, and
       renamed over it: there is never a half of one.
    2. Order: the bitmap is copied first; then memory and digests are synced, then logs, then names in the directory,
       then the generation is written. So a durable bitmap never names bytes that are not durable.
    3. A guest write is **acknowledged** once its record is written: it survives the death of the process (SIGKILL)
       from then on, and the death of the machine once the next generation is complete.
    4. A page's digest is of its bytes as they arrived. A page of the bitmap whose bytes, with logged words put back,
       do not give its digest is not kept: it comes again, and the logged writes are applied over it. That covers what
       order cannot: a guest write that reached the disk when its record did not.
    5. The first error ends the protection, not the migration: nothing is logged or written any more, the last whole
       generation stays, and `failure` says why. What the guest writes from then on is lost with this process.

Simplified: on file systems that copy on write, or compress, room that was allocated may still be missing later.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import xxhash

from migemu.checkpoint.disk import Disk
from migemu.checkpoint.write_log import WriteLog, encoded, folded, read_log

SCHEMA_VERSION: Final = 1
MEMORY, DIGESTS, CHECKPOINT, NEW, RUNNING = "memory", "digests", "checkpoint", "checkpoint.new", "running"
VERIFIED: Final = "verified"
FILE_NAMES: Final = (MEMORY, DIGESTS, NEW, RUNNING, VERIFIED)
LOGS: Final = ("log.", "words.")
_MAGIC: Final = b"migemuCP"
_HEADER: Final = struct.Struct("<8sII")
_CHECK_BYTES: Final = 16


class Identity(NamedTuple):
    """Whose checkpoint it is: the memory that the source announced, and the guest's settings (as JSON text)."""

    migration: str
    geometry: str
    memory_bytes: int
    image_bytes: int
    device_state_bytes: int
    preempt: bool
    scenario: str
    guest: str


class DirectoryState(NamedTuple):
    """One generation. `received` has a byte a base page, 1 if it is kept; `logs` are (name, bytes that count)."""

    generation: int
    identity: Identity
    logs: tuple[tuple[str, int], ...]
    received: bytes


def encode(state: DirectoryState) -> bytes:
    """The bytes of `checkpoint`: magic, version, length of the header, header (JSON), bits (zlib), xxh3_128 of all."""
    pages = np.frombuffer(state.received, dtype=np.uint8)
    bits = zlib.compress(np.packbits(pages, bitorder="little").tobytes(), 1)
    header = {
        "generation": state.generation, "identity": state.identity._asdict(), "logs": state.logs, "pages": len(pages),
    }  # fmt: skip
    text = json.dumps(header).encode()
    body = _HEADER.pack(_MAGIC, SCHEMA_VERSION, len(text)) + text + bits
    return body + xxhash.xxh3_128_digest(body)


def decode(data: bytes) -> DirectoryState:
    """The state in the bytes of `checkpoint`. ValueError says what is wrong with them."""
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEADER.size + _CHECK_BYTES:
        raise ValueError("it is no checkpoint")
    _, version, length = _HEADER.unpack_from(data)
    if version != SCHEMA_VERSION:
        raise ValueError(f"it is of version {version}; this migemu reads version {SCHEMA_VERSION}")
    body = data[:-_CHECK_BYTES]
    if xxhash.xxh3_128_digest(body) != data[-_CHECK_BYTES:]:
        raise ValueError("its checksum is wrong")
    header = json.loads(body[_HEADER.size : _HEADER.size + length])
    bits = np.frombuffer(zlib.decompress(body[_HEADER.size + length :]), dtype=np.uint8)
    received = np.unpackbits(bits, bitorder="little", count=header["pages"]).tobytes()
    logs = tuple((str(name), int(size)) for name, size in header["logs"])
    return DirectoryState(header["generation"], Identity(**header["identity"]), logs, received)


class RestorePlan(NamedTuple):
    """What the next generation will hold, as of one moment: received pages, logs, and the log that is written now.

    `ended` is the log before that one, if a new one was begun at this moment.
    """

    received: bytes
    logs: tuple[tuple[str, int], ...]
    log: WriteLog
    ended: WriteLog | None


@dataclass(slots=True)
class CheckpointStatistics:
    """What was written so far. Times in ns; `bytes` of logs and generations, without the memory itself."""

    generation: int = 0
    bytes: int = 0
    writes: int = 0


class Checkpoint:
    """The checkpoint directory of a destination while it runs."""

    def __init__(
        self, disk: Disk, directory: Path, identity: Identity, data: tuple[int, int], logs: tuple[tuple[str, int], ...],
        generation: int, log_bytes_max: int,
    ) -> None:  # fmt: skip
        """Begin the next log. `data` are the descriptors of memory and digests, `logs` the earlier logs that count.

        A log of more than `log_bytes_max` bytes is folded, and a new one begun. OSError.
        """
        self.identity, self.directory = identity, directory
        #: Why the guest is not protected any more; None while it is.
        self.failure: str | None = None
        self.statistics = CheckpointStatistics(generation)
        self._disk = disk
        self._data = data
        self._logs = logs
        self._log_bytes_max = log_bytes_max
        number = max((int(name.rpartition(".")[2]) for name, _ in logs), default=0) + 1
        self._log = WriteLog(disk, directory / f"log.{number}", identity.migration, logs[-1][1] if logs else 0)

    def runs(self) -> None:
        """Record that the guest is about to run; durable on return, so it waits for the disk.

        OSError when that cannot be written, or the disk has failed before: then the directory must not be used to
        recover, as the guest could run twice.
        """
        try:
            self._disk.close(self._disk.create(self.directory / RUNNING))
            self._disk.sync_directory(self.directory)
        except OSError as error:
            self.lose(error)
            try:
                self.discard()
            except OSError:
                pass  # a disk that takes nothing: the checkpoint there stays as it was

    def verified(self, digest: str) -> None:
        """Record that all pages of the last generation are the source's; durable on return, unless `failure`."""
        if not self.failure:
            try:
                self._put(self.directory / VERIFIED, digest.encode())
                self._disk.sync_directory(self.directory)
            except OSError as error:
                self.lose(error)

    def wrote(self, word: int, before: int, stamp: int) -> None:
        """Log that the guest is about to store `stamp` to `word`, which holds `before`.

        Acknowledged on return, unless `failure`.
        """
        if not self.failure:
            try:
                self._log.append(word, before, stamp)
            except OSError as error:
                self.lose(error)
            else:
                self.statistics.writes += 1

    def plan(self, received: bytearray) -> RestorePlan:
        """The next generation as of now; fast enough for the event loop. OSError when a new log cannot be begun."""
        ended = None
        if self._log.size > self._log_bytes_max:
            ended = self._log
            path = self.directory / f"log.{int(ended.path.suffix[1:]) + 1}"
            self._log = WriteLog(self._disk, path, self.identity.migration, ended.size)
            self._logs = (*self._logs, (ended.path.name, ended.size))
        logs = (*self._logs, (self._log.path.name, self._log.size))
        return RestorePlan(bytes(received), logs, self._log, ended)

    def complete(self, plan: RestorePlan) -> None:
        """Write `plan` durably, in the order of rule 2. It waits for the disk: call it in a thread, one at a time.

        OSError.
        """
        disk, directory = self._disk, self.directory
        for descriptor in (*self._data, plan.log.descriptor):
            disk.sync(descriptor)
        logs = self._fold(plan.logs)
        disk.sync_directory(directory)
        generation = self.statistics.generation + 1
        data = encode(DirectoryState(generation, self.identity, logs, plan.received))
        self._put(directory / NEW, data)
        disk.replace(directory / NEW, directory / CHECKPOINT)
        disk.sync_directory(directory)
        self.statistics.generation = generation
        self.statistics.bytes += len(data)
        if plan.ended is not None:
            disk.close(plan.ended.descriptor)
        for name, _ in plan.logs:
            if name not in dict(logs):
                disk.unlink(directory / name)

    def _fold(self, logs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        """Merge all `logs` but the last into one durable file; the names that count afterwards."""
        *earlier, last = logs
        if all(name.startswith("words") for name, _ in earlier):
            return logs
        migration = self.identity.migration
        read = [read_log(self.directory / name, migration, size) for name, size in earlier]
        words = folded([log.words for log in read if log is not None])
        name = f"words{Path(last[0]).suffix}"
        data = encoded(words, name, migration)
        self._put(self.directory / name, data)
        self.statistics.bytes += len(data)
        self._logs = ((name, len(data)),)
        return ((name, len(data)), last)

    def _put(self, path: Path, data: bytes) -> None:
        """Write a whole file and sync it; its name is not durable yet."""
        descriptor = self._disk.create(path)
        try:
            self._disk.write(descriptor, data)
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def lose(self, error: OSError) -> None:
        """Stop protecting the guest because of `error`; only the first error is kept."""
        self.failure = self.failure or (error.strerror or str(error))

    def discard(self) -> None:
        """Remove the checkpoint, the generation first: the migration is complete. OSError."""
        self.failure = self.failure or "the migration is complete"
        self._disk.unlink(self.directory / CHECKPOINT)
        self._disk.sync_directory(self.directory)
        for path in sorted(self.directory.iterdir()):
            if path.name in FILE_NAMES or path.name.startswith(LOGS):
                self._disk.unlink(path)

    def close(self) -> None:
        """Close the descriptors; mapped files stay mapped. The files stay for a later recovery."""
        self.failure = self.failure or "closed"
        for descriptor in (*self._data, self._log.descriptor):
            self._disk.close(descriptor)

    def __repr__(self) -> str:
        state = ", failed" if self.failure else ""
        return f"<Checkpoint {self.directory}, generation {self.statistics.generation}{state}>"
