"""How a node stands, and what its user orders: a line of JSON each way over a local socket, and who may ask.

    connect, say nothing or "status", read a line (of a destination of several migrations, one for each), closed
    connect, say {"order":"pause"} and the like (`Order`), read {"exit":0,"told":"..."} (`Answer`), closed

Rules
    1. The socket is `DIR/destination.sock` or `DIR/source.sock` where the node has an --out DIR; else it lies in the
       user's runtime directory ($XDG_RUNTIME_DIR/migemu, or /tmp/migemu-UID), with the node's pid in its name.
    2. Only the user may connect; a socket that was left behind is taken over (migemu.transport.local).
    3. The kernel says who has connected: nobody but the user, and root, is heard.
    4. Whoever asks is told and shown out. What they say has `ORDER_BYTES_MAX` and `_SAYING_S`; who says nothing in that
       time wants to know how it stands. Of more than `ASKERS_MAX` who have said nothing yet the oldest gives way.
    5. What nodes that were killed have left in the runtime directory is swept out by the next one.
    6. A node that cannot be asked (a directory that is read-only) says so once and runs all the same.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from migemu.checkpoint.writer import Protection
from migemu.errors import BrokenError, InputError, MigemuError, one_line
from migemu.transport.local import Credential, SocketFile, is_stale, short

SUFFIX: Final = ".sock"
ASKERS_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 1 << 20
ORDER_BYTES_MAX: Final = 16 << 10
_SAYING_S: Final = 0.5
_PATIENCE_S: Final = 2.0
#: An order may have to resolve a name first.
_ORDER_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How a node stands. `sent_bytes` are a source's, `received_bytes` and what follows a destination's.

    `whereabouts` of its guest, as it knows them (migemu.node.outcome.Whereabouts); empty: none has come.
    Bytes are of memory; `faults_waiting` are base pages that are waited for, `vcpus_waiting` who sleeps on them.
    `turned_away` counts who came to the node and was no source of it, or was refused.
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
    turned_away: int = 0
    whereabouts: str = ""
    checkpoint: Protection | None = None

    def line(self) -> str:
        """The status as one line of JSON."""
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


@dataclass(frozen=True, slots=True)
class Order:
    """What a node's user wants of it: a word of `ORDERS`.

    `migration` is how its name begins, where there are several; `address` is for those that need one; `sure`: whatever
    it costs.
    """

    order: str
    migration: str = ""
    address: str = ""
    sure: bool = False

    def line(self) -> str:
        """The order as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, line: bytes) -> Order:
        """What `line` tells, whoever wrote it. ValueError when it is no order."""
        order = _parsed(cls, line)
        if order.order not in ORDERS:
            raise ValueError(f"{order.order[:40]!r} is not an order; the orders are {', '.join(ORDERS)}")
        return order


#: What can be ordered: `connect` and `listen` are what `migemu recover` says to a source and to a destination.
ORDERS: Final = ("pause", "resume", "cancel", "connect", "listen")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order: an exit code, and a line for whoever gave it."""

    exit: int
    told: str

    def line(self) -> str:
        """The answer as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, line: bytes) -> Answer:
        """What `line` tells, whoever wrote it. ValueError when it is no answer."""
        answer = _parsed(cls, line)
        if not 0 <= answer.exit < 256:
            raise ValueError("exit is no exit code")
        return answer


_Plain = TypeVar("_Plain", Order, Answer)


def _parsed(kind: type[_Plain], line: bytes) -> _Plain:
    """The values of a line of JSON, each of its type. ValueError."""
    try:
        fields: dict[str, Any] = json.loads(line)
        parsed = kind(**fields)
    except (TypeError, RecursionError):
        raise ValueError(f"it is no {kind.__name__.lower()} of this version of migemu") from None
    for name, value in fields.items():
        if type(value) is not get_type_hints(kind)[name] or (isinstance(value, str) and not value.isprintable()):
            raise ValueError(f"{name} is no such value")
    return parsed


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


#: Carries an order out, and says in a line what became of it; MigemuError says why not.
Obey = Callable[[Order], Awaitable[str]]


class StatusSocket:
    """The door of one node. `status` is asked anew for each that asks; `obey` carries an order out."""

    def __init__(self, path: Path, status: Callable[[], Sequence[NodeStatus]], obey: Obey) -> None:
        self.path = path
        self._status = status
        self._obey = obey
        self._silent: dict[asyncio.Task[Any], None] = {}  # who has not said yet what they want
        self._file: SocketFile | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. BrokenError when the socket cannot be made, or another node answers there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = SocketFile(self.path)
        except OSError as error:
            raise BrokenError(f"{self.path}: the status socket cannot be made there: {error.strerror}") from None
        self._server = await asyncio.start_unix_server(self._asked, sock=self._file.socket, limit=ORDER_BYTES_MAX)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if Credential.of(writer.get_extra_info("socket")).uid in (0, os.getuid()):
                writer.write(await self._answer(reader))
                async with asyncio.timeout(_PATIENCE_S):
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # whoever asked has left, or does not read, or has had to give way
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """What is said to whoever asks."""
        try:
            said = await self._said(reader)
            if said in (b"", b"status"):
                return "".join(f"{each.line()}\n" for each in self._status()).encode()
            answer = Answer(0, await self._obey(Order.parse(said)))
        except ValueError as error:
            answer = Answer(InputError.exit_code, one_line(error))
        except MigemuError as error:
            answer = Answer(error.exit_code, one_line(error))
        return f"{answer.line()}\n".encode()

    async def _said(self, reader: asyncio.StreamReader) -> bytes:
        """Their line; nothing, if they say none in time. ValueError when it is too long."""
        task = asyncio.current_task()
        assert task is not None
        self._silent[task] = None
        if len(self._silent) > ASKERS_MAX:
            next(iter(self._silent)).cancel()
        try:
            async with asyncio.timeout(_SAYING_S):
                return (await reader.readuntil(b"\n")).strip()
        except asyncio.IncompleteReadError as error:
            return error.partial.strip()
        except asyncio.LimitOverrunError:
            raise ValueError(f"an order has at most {ORDER_BYTES_MAX} bytes") from None
        except TimeoutError:
            return b""
        finally:
            del self._silent[task]

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
                if is_stale(path):
                    path.unlink()
            except OSError:
                pass  # somebody else was quicker


@contextlib.asynccontextmanager
async def answering(
    role: str, out: Path | None, status: Callable[[], Sequence[NodeStatus]], obey: Obey, notice: Callable[[str], None]
) -> AsyncIterator[None]:
    """A node that can be asked, and told what to do, meanwhile; if it cannot be, `notice` is told why."""
    door: StatusSocket | None = None
    try:
        if out is None:
            sweep(runtime_directory())
            door = StatusSocket(runtime_directory() / f"{role}-{os.getpid()}{SUFFIX}", status, obey)
        else:
            door = StatusSocket(out / f"{role}{SUFFIX}", status, obey)
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
    return _exchange(
        path, b"", _PATIENCE_S, lambda said: [NodeStatus.parse(line) for line in said.splitlines() or (b"",)]
    )


def give(path: Path, order: Order) -> Answer:
    """What the node at the socket `path` says to an order. BrokenError tells in a line why it says nothing."""
    return _exchange(path, f"{order.line()}\n".encode(), _ORDER_S, Answer.parse)


_Told = TypeVar("_Told")


def _exchange(path: Path, said: bytes, patience_s: float, meant: Callable[[bytes], _Told]) -> _Told:
    """Say something to a node, and that this was all; what its answer means, or BrokenError."""
    received = b""
    try:
        with short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience_s)
            connection.connect(address)
            with contextlib.suppress(BrokenPipeError):  # it has said all it had to, and hung up
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
            end_s = time.monotonic() + patience_s
            while len(received) <= ANSWER_BYTES_MAX and (part := connection.recv(1 << 16)):
                received += part
                if time.monotonic() > end_s:
                    raise TimeoutError
        return meant(received)
    except ConnectionRefusedError:
        told = f"{path}: the node is gone; it was killed, and its socket was left behind"
        raise BrokenError(told + _way_back(path)) from None
    except TimeoutError:
        raise BrokenError(f"{path}: the node does not answer; is it stopped?") from None
    except OSError as error:
        raise BrokenError(f"{path}: the node cannot be asked: {error.strerror}") from None
    except ValueError:
        raise BrokenError(f"{path}: what answers there is no node of this version of migemu") from None


def _way_back(path: Path) -> str:
    """What to type for a node that was killed, where its --out DIR is known."""
    if path.name == f"source{SUFFIX}":
        return f". If the guest had left: migemu-source --recover {shlex.quote(str(path.parent))}"
    if path.name == f"destination{SUFFIX}":
        return ". If it had a --checkpoint DIR: start it again with that"
    return ""
