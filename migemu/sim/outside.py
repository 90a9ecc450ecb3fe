"""What an asyncio loop can do that a virtual one cannot: sockets, threads, signals, subprocesses.

Each of them says so when it is asked for. Code that needs the outside takes it as one of the seams of `migemu.ports`,
which has a modelled implementation for this world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

_NAMES: Final = (
    "run_in_executor", "set_default_executor", "getaddrinfo", "getnameinfo", "create_connection", "create_server",
    "create_unix_connection", "create_unix_server", "create_datagram_endpoint", "connect_accepted_socket", "start_tls",
    "sendfile", "connect_read_pipe", "connect_write_pipe", "subprocess_shell", "subprocess_exec", "add_reader",
    "remove_reader", "add_writer", "remove_writer", "sock_recv", "sock_recv_into", "sock_recvfrom",
    "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_connect", "sock_accept", "sock_sendfile",
    "add_signal_handler", "remove_signal_handler", "set_task_factory", "get_task_factory",
)  # fmt: skip


class WithoutOutside(asyncio.AbstractEventLoop):
    """An event loop that refuses everything outside of this process's own Python."""


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: WithoutOutside, *args: object, **options: object) -> Any:
        raise NotImplementedError(f"{name}: there is no outside in virtual time; use the seams of migemu.ports")

    refuse.__name__ = name
    return refuse


for _name in _NAMES:
    setattr(WithoutOutside, _name, _refusal(_name))
