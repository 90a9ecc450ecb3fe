"""Sockets of this machine that have a file: how one is made, reached, taken over and taken away.

Rules
    1. Only the user may connect: mode 0600, set before anybody can.
    2. A file that nobody listens at any more was left by a process that was killed: whoever comes next takes its place,
       if it is a socket of the same user. Nothing else that lies there is ever touched.
    3. Who leaves takes the file away, unless another one has taken its place.

An address has 107 bytes (unix(7)): a longer path is reached through the descriptor of its directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

_ADDRESS_BYTES_MAX: Final = 107
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """An address of `path` that is short enough, as long as this lasts. OSError."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{directory}/{path.name}"
        if len(os.fsencode(address)) > _ADDRESS_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        yield address
    finally:
        os.close(directory)


class SocketFile:
    """A socket that is bound to a file, and does not listen yet."""

    def __init__(self, path: Path) -> None:
        """OSError when it cannot be made there; EADDRINUSE when something lies there that is not to be taken over."""
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with short(path) as address:
                try:
                    self.socket.bind(address)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE or not is_stale(path):
                        raise
                    path.unlink()
                    self.socket.bind(address)
            path.chmod(0o600)  # before it listens: until then nobody can connect
            self._made = _identity(path)
        except BaseException:
            self.socket.close()
            raise

    def remove(self) -> None:
        """Take the file away, if it is still this one's. Safe to call twice."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def is_stale(path: Path) -> bool:
    """Whether it is a socket of this user that no process has any more. OSError when it cannot be looked at.

    Asked by a socket of another type, so that whoever listens there is not disturbed: the kernel then refuses with
    EPROTOTYPE where there is a socket behind the file, and with ECONNREFUSED where there is none (unix_find_other).
    """
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        return False
    with short(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(address) == errno.ECONNREFUSED


class Credential(NamedTuple):
    """Who is at the other end, as the kernel knows it (SO_PEERCRED): when it connected, or listened."""

    pid: int
    uid: int

    @classmethod
    def of(cls, sock: Any) -> Credential:
        """That of a connected socket. OSError when the connection is gone."""
        told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(told)
        return cls(pid, uid)

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"
