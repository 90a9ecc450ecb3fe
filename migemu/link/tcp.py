"""The real network: who calls and who is called, over TCP, on whichever asyncio loop runs.

What a connection does is told in `migemu.link.channel`, who may come in in `migemu.link.credentials` and
`migemu.link.gate`, how many in `migemu.link.door`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from migemu.errors import BrokenError
from migemu.link.channel import TcpChannel
from migemu.link.clock import BusyPoll
from migemu.link.credentials import Credentials
from migemu.link.door import Door
from migemu.link.outgoing import Node
from migemu.link.psk import End
from migemu.link.shaper import Shaper
from migemu.link.sockets import check, reason, resolve
from migemu.ports import ChannelHandler, Clock
from migemu.scenario import Bounds, Net
from migemu.units import SECOND, format_time

_RETRY_S: Final = 0.1
_NOTHING: Final = Credentials()
_DEFAULTS: Final = Bounds()


class TcpListener:
    """ports.Listener over a listening socket."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.address, self.port = server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await asyncio.sleep(0)


class TcpNetwork:
    """ports.Network over TCP. With a shaper, all that leaves this node crosses one emulated wire."""

    def __init__(
        self, net: Net, clock: Clock, shaper: Shaper | None = None, credentials: Credentials = _NOTHING,
        bounds: Bounds = _DEFAULTS,
    ) -> None:  # fmt: skip
        """Must be made in a running loop. Without credentials it keeps to the loopback device."""
        self._net = net
        self._clock = clock
        self._credentials = credentials
        self._node = Node(net, bounds, clock, shaper, BusyPoll(net.busy_poll))

    async def connect(self, host: str, port: int, handler: ChannelHandler, *, once: bool = False) -> TcpChannel:
        """Connect, trying again while nobody listens, for `net.connect_timeout`. BrokenError after that.

        With `once` it is not tried again. PeerError when the two do not trust each other, which trying again would not
        change; InputError where nothing would keep strangers out.
        """
        check(self._net)
        loop = asyncio.get_running_loop()
        deadline = self._clock.now_ns() + self._net.connect_timeout
        while True:
            try:
                left = max(0.001, (deadline - self._clock.now_ns()) / SECOND)
                await self._check_reach("connecting to", host, port)
                _, channel = await asyncio.wait_for(
                    loop.create_connection(
                        lambda: TcpChannel(lambda _: handler, self._node, self._credentials.gate(End.SOURCE, host)),
                        host,
                        port,
                    ),
                    left,
                )
            except (OSError, TimeoutError, UnicodeError) as error:
                if isinstance(error, socket.gaierror | UnicodeError):
                    raise BrokenError(f"{host} cannot be resolved: {reason(error)}") from None
                if once or self._clock.now_ns() + _RETRY_S * SECOND >= deadline:
                    tried = "" if once else f"; tried for {format_time(self._net.connect_timeout)}"
                    raise BrokenError(
                        f"nobody answers at {host}:{port} ({reason(error)}{tried}); is the destination listening there?"
                    ) from None
                await asyncio.sleep(_RETRY_S)
            else:
                await self._let_in(channel)
                return channel

    async def _let_in(self, channel: TcpChannel) -> None:
        """Return when the other side has let us in, if that has to be asked. PeerError or BrokenError."""
        if channel.let_in is None:
            return
        try:
            await asyncio.wait_for(channel.let_in, self._net.hello_timeout / SECOND)
        except TimeoutError:
            raise BrokenError(
                f"{channel.peer} did not finish the handshake within {format_time(self._net.hello_timeout)} "
                "(net.hello_timeout)"
            ) from None
        finally:
            if not channel.let_in.done() or channel.let_in.cancelled() or channel.let_in.exception() is not None:
                channel.abort()

    async def _check_reach(self, verb: str, host: str, port: int) -> None:
        """InputError when an address of `host` is beyond the loopback device, and nothing keeps strangers out."""
        for address in await resolve(host, port):
            self._credentials.check_reach(verb, address)

    async def listen(self, host: str, port: int, accept: Callable[[TcpChannel], ChannelHandler]) -> TcpListener:
        """Listen. BrokenError when the address cannot be used, InputError when it is open to strangers.

        Port 0 takes a free one.
        """
        check(self._net)
        loop = asyncio.get_running_loop()
        door: Door[TcpChannel] = Door(self._node.bounds.connections_max)
        try:
            await self._check_reach("listening on", host, port)
            server = await loop.create_server(
                lambda: TcpChannel(accept, self._node, self._credentials.gate(End.DESTINATION), door),
                host,
                port,
                reuse_address=True,
            )
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            hint = "; another process uses it: choose another port, or 0 for a free one"
            raise BrokenError(f"cannot listen on {host}:{port}: {reason(error)}{hint if in_use else ''}") from None
        return TcpListener(server)
