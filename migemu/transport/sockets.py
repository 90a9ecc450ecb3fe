"""Addresses of sockets, socket options of the scenario, and what an error of a socket says in words."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from migemu.address import TcpAddress
from migemu.errors import BrokenError
from migemu.scenario.net import NetSettings
from migemu.transport.local import Credential


def reason(error: BaseException) -> str:
    """What an OSError says, without the numbers and tuples that asyncio puts around it."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, UnicodeError):
        return "it is no host name"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def resolve(address: TcpAddress) -> list[str]:
    """The hosts of `address`, as numbers; of "", those that listening there would take. OSError, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    _, percent, zone = address.host.partition("%")
    return [tcp_address(name).host.partition("%")[0] + percent + zone for *_, name in found]


def tcp_address(name: tuple[Any, ...]) -> TcpAddress:
    """What the kernel calls one end of a TCP connection; with its zone, which not every loop writes into the host."""
    host, port = str(name[0]), int(name[1])
    if len(name) == 4 and name[3] and "%" not in host:
        try:
            zone = socket.if_indextoname(name[3])
        except OSError:  # a link that is gone
            zone = str(name[3])
        host = f"{host}%{zone}"
    return TcpAddress(host, port)


def who(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """Who is at the other end of a connection that was accepted: in words, and as what it counts at the door."""
    sock, name = transport.get_extra_info("socket"), transport.get_extra_info("peername")
    try:
        if sock is not None and sock.family == socket.AF_UNIX:
            found = Credential.of(sock)
            return str(found), f"user {found.uid}"
        address = tcp_address(name or sock.getpeername())
        return str(address), address.host
    except (OSError, AttributeError):  # it is gone already
        return "?", "?"


def tune(sock: Any, net: NetSettings) -> None:
    """Socket options of the scenario, on a connection that may be gone already."""
    if sock is None:
        return
    try:
        if net.send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, net.send_buffer)
        if net.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, net.receive_buffer)
        if sock.family == socket.AF_UNIX:
            return
        congestion = net.congestion
        if congestion == "auto" and sock.getpeername()[0] == sock.getsockname()[0]:
            congestion = "cubic"
        if congestion != "auto":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    except OSError:
        pass  # gone, which its channel is told, or cubic is not to be had; `check` has refused the rest


def check(net: NetSettings) -> None:
    """BrokenError when the kernel does not have the congestion control that was asked for by name."""
    if net.congestion == "auto":
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, net.congestion.encode())
        except OSError as error:
            raise BrokenError(
                f"net.congestion={net.congestion}: the kernel refuses it ({reason(error)}); "
                "see /proc/sys/net/ipv4/tcp_allowed_congestion_control"
            ) from None
