"""Where a node listens, or connects to: a port of a host, or a socket file of this machine. Pure.

    HOST:PORT  [IPV6]:PORT  :PORT  tcp:...     a name or a number; without one, the loopback device
    unix:PATH                                  a file; nobody but its owner connects, and nothing leaves the machine

The words are QEMU's (`-incoming`, `migrate`). An address of one link alone has the link's name or number behind a `%`
(RFC 4007, its zone): `[fe80::1%eth0]:4444`. What `str` writes, `parse_address` reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from migemu.errors import InputError

LOOPBACK: Final = "127.0.0.1"
PORT_MAX: Final = 65535
#: A name of the DNS has 253 characters at most (RFC 1035), a zone 15 (IFNAMSIZ), a path 4095 bytes (PATH_MAX).
_HOST_CHARS_MAX: Final = 320
_PATH_BYTES_MAX: Final = 4095
_PORT: Final = re.compile("[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of a host: of a name, or of numbers, without brackets. Port 0, where one listens, is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The address of a Unix socket: the path of its file."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """What a user, or a file, has written. InputError says what is wrong with it."""
    if text.startswith("unix:"):
        return _unix(text)
    host, colon, port = text.removeprefix("tcp:").rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > PORT_MAX or len(host) > _HOST_CHARS_MAX:
        raise _no_address(text, "give HOST:PORT, for example 127.0.0.1:4444, or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except AddressValueError:
            raise _no_address(text, "what stands in brackets is no IPv6 address") from None
    elif ":" in host:
        raise _no_address(text, "put an IPv6 address in brackets: [::1]:4444")
    elif not host.isprintable() or " " in host or "[" in host or "]" in host:
        raise _no_address(text, "what stands before the port is no name of a host")
    return TcpAddress(host or LOOPBACK, int(port))


def _unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if not path or not path.isprintable():  # else it would not fit into a line, or no file could be called so
        raise _no_address(text, "give unix:PATH, for example unix:/run/user/1000/migration.sock")
    if len(path.encode()) > _PATH_BYTES_MAX:
        raise _no_address(text, f"a path has at most {_PATH_BYTES_MAX} bytes")
    return UnixAddress(path)


def _no_address(text: str, what: str) -> InputError:
    """`text` may be of any length, and hold anything."""
    shown = text if len(text) <= 100 else f"{text[:100]}..."
    return InputError(f"{shown!r} is not an address: {what}")
