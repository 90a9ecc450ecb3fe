"""How a node stands, for whoever asks: one JSON line over a local socket, and who may ask.

    connect, read a line (of a destination of several migrations, one for each), closed

Rules
    1. The socket is `DIR/destination.sock` or `DIR/source.sock` where the node has an --out DIR; else it lies in the
       user's runtime directory ($XDG_RUNTIME_DIR/migemu, or /tmp/migemu-UID), with the node's pid in its name.
    2. Only the user may connect; a socket that was left behind is taken over (migemu.link.local).
    3. Whoever asks is told and shown out; nothing that a peer says is read. At most `ASKERS_MAX` at once.
    4. What nodes that were killed have left in the runtime directory is swept out by the next one.
    5. A node that cannot be asked (a directory that is read-only) says so once and runs all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from migemu.errors import BrokenError, InputError, MigemuError
from migemu.link.local import SocketFile, is_left, short
from migemu.store.keeper import Protection

SUFFIX: Final = ".sock"
ASKERS_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 1 << 20
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How a node stands. `sent_bytes` are a source's, `received_bytes` and what follows a destination's.

    `whereabouts` of its guest, as it knows them (migemu.outcome.Whereabouts); empty: none has come.
    Bytes are of memory; `faults_waiting` are base pages that are waited for, `vcpus_waiting` who sleeps on them.
    """

    role: str
    pid: int
    migration: str
    stage: str
    memory_bytes: int
    recoveries: int
    last_error: str
    sent_bytes: int = 0
    received_bytes: int = 0
    mapped_bytes: int = 0
    faults_waiting: int = 0
    vcpus_waiting: int = 0
    whereabouts: str = ""
    checkpoint: Protection | None = None

    def line(self) -> str:
        """One line of JSON."""
        checkpoint = self.checkpoint._asdict() if self.checkpoint else None
        return json.dumps(asdict(self) | {"checkpoint": checkpoint}, separators=(",", ":"))

    @classmethod
    def parse(cls, line: str | bytes) -> NodeStatus:
        """What `line` tells, whoever wrote it. ValueError when it is no status of this version."""
        try:
            fields: dict[str, Any] = json.loads(line)
            checkpoint = fields.pop("checkpoint")
            protection = Protection(**checkpoint) if checkpoint is not None else None
            status = cls(**fields, checkpoint=protection)
        except (TypeError, AttributeError, KeyError, RecursionError):
            raise ValueError("it is no status of this version of migemu") from None
        told = {**fields, **(protection._asdict() if protection else {})}
        for name, value in told.items():
            is_text = isinstance(value, str)
            if type(value) is not _KINDS[name] or not (value.isprintable() if is_text else 0 <= value < 1 << 63):
                raise ValueError(f"{name} is no such value")
        return status


_KINDS: Final = get_type_hints(NodeStatus) | get_type_hints(Protection)


def runtime_directory() -> Path:
    """Where the sockets of nodes without --out lie. InputError when it is somebody else's."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "migemu" if base else Path(f"/tmp/migemu-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise InputError(f"{path}: cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(f"{path}: is not a directory of yours alone; remove it, or set XDG_RUNTIME_DIR")
    return path


class StatusSocket:
    """The door of one node. `status` is asked anew for each that asks."""

    def __init__(self, path: Path, status: Callable[[], Sequence[NodeStatus]]) -> None:
        self.path = path
        self._status = status
        self._askers = 0
        self._file: SocketFile | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. BrokenError when the socket cannot be made, or another node answers there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = SocketFile(self.path)
        except OSError as error:
            raise BrokenError(f"{self.path}: no status can be asked there: {error.strerror}") from None
        self._server = await asyncio.start_unix_server(self._asked, sock=self._file.socket)

    async def _asked(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._askers += 1
        try:
            if self._askers <= ASKERS_MAX:
                writer.write("".join(f"{each.line()}\n" for each in self._status()).encode())
                async with asyncio.timeout(_PATIENCE_S):
                    await writer.drain()
        except (OSError, TimeoutError):
            pass  # whoever asked has left, or does not read
        finally:
            self._askers -= 1
            writer.close()

    async def close(self) -> None:
        """Stop listening, and take the socket away."""
        if self._server is not None and self._file is not None:
            self._server.close()
            self._file.remove()


def sweep(directory: Path) -> None:
    """Remove from a runtime directory what processes that are gone have left there."""
    for path in directory.glob(f"*-*{SUFFIX}"):
        pid = path.stem.rpartition("-")[2]
        if pid.isascii() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            try:
                if is_left(path):
                    path.unlink()
            except OSError:
                pass  # somebody else was quicker


@contextlib.asynccontextmanager
async def answering(
    role: str, out: Path | None, status: Callable[[], Sequence[NodeStatus]], notice: Callable[[str], None]
) -> AsyncIterator[None]:
    """A node that can be asked meanwhile; if it cannot be, `notice` is told why."""
    door: StatusSocket | None = None
    try:
        if out is None:
            sweep(runtime_directory())
            door = StatusSocket(runtime_directory() / f"{role}-{os.getpid()}{SUFFIX}", status)
        else:
            door = StatusSocket(out / f"{role}{SUFFIX}", status)
        await door.open()
    except MigemuError as error:
        notice(str(error))
    try:
        yield
    finally:
        if door is not None:
            await door.close()


def ask(path: Path) -> list[NodeStatus]:
    """How the node at the socket `path` stands: a status for each of its migrations, at least one.

    BrokenError tells in a line why there is none.
    """
    received = b""
    try:
        with short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(address)
            end_s = time.monotonic() + _PATIENCE_S
            while len(received) <= ANSWER_BYTES_MAX and (part := connection.recv(1 << 16)):
                received += part
                if time.monotonic() > end_s:
                    raise TimeoutError
        return [NodeStatus.parse(line) for line in received.splitlines() or (b"",)]
    except ConnectionRefusedError:
        told = f"{path}: the node is gone; it was killed, and its socket was left behind"
        raise BrokenError(told + _way_back(path)) from None
    except TimeoutError:
        raise BrokenError(f"{path}: the node does not answer; is it stopped?") from None
    except OSError as error:
        raise BrokenError(f"{path}: no node can be asked there: {error.strerror}") from None
    except ValueError:
        raise BrokenError(f"{path}: what answers there is no node of this version of migemu") from None


def _way_back(path: Path) -> str:
    """What to type for a node that was killed, where its --out DIR is known."""
    if path.name == f"source{SUFFIX}":
        return f". If the guest had left: migemu-source --recover {shlex.quote(str(path.parent))}"
    if path.name == f"destination{SUFFIX}":
        return ". If it had a --checkpoint DIR: start it again with that"
    return ""
