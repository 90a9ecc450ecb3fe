"""The real network: who calls and who is called, over TCP or a socket file, on whichever asyncio loop runs.

What a connection does is told in `migemu.transport.channel`, who may come in in
`migemu.transport.security.credentials` and `migemu.transport.security.handshake`, how many in
`migemu.transport.admission`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from migemu.address import Address, TcpAddress, UnixAddress
from migemu.errors import BrokenError, InputError
from migemu.ports import ChannelHandler, Clock
from migemu.scenario.net import LimitsSettings, NetSettings
from migemu.transport.admission import Door
from migemu.transport.channel import TcpChannel
from migemu.transport.clock import BusyPoll
from migemu.transport.local import SocketFile, short
from migemu.transport.outgoing import NodeTurns
from migemu.transport.security.credentials import Credentials
from migemu.transport.security.psk import PskEnd
from migemu.transport.shaper import Shaper
from migemu.transport.sockets import check, reason, resolve, tcp_address
from migemu.units import SECOND, format_time

_RETRY_S: Final = 0.1
_NOTHING: Final = Credentials()
_DEFAULTS: Final = LimitsSettings()
_IN_USE: Final = {
    TcpAddress: "; another process uses it: choose another port, or 0 for a free one",
    UnixAddress: "; another process listens there, or it is no socket of yours: choose another path",
}


class TcpListener:
    """ports.Listener over a listening socket."""

    def __init__(self, server: asyncio.Server, file: SocketFile | None = None) -> None:
        """`file` is that of the socket, where it has one."""
        self._server = server
        self._file = file
        self.address: Address = (
            UnixAddress(str(file.path)) if file is not None else tcp_address(server.sockets[0].getsockname())
        )

    async def close(self) -> None:
        """Stop listening; connections that exist stay."""
        self._server.close()
        if self._file is not None:
            self._file.remove()
        await asyncio.sleep(0)


class TcpNetwork:
    """ports.Network over TCP and socket files. With a shaper, all that leaves this node crosses one emulated wire."""

    def __init__(
        self, net: NetSettings, clock: Clock, shaper: Shaper | None = None, credentials: Credentials = _NOTHING,
        bounds: LimitsSettings = _DEFAULTS,
    ) -> None:  # fmt: skip
        """Must be made in a running loop. Without credentials it keeps to the loopback device."""
        self._net = net
        self._clock = clock
        self._credentials = credentials
        self._node = NodeTurns(net, bounds, clock, shaper, BusyPoll(net.busy_poll))

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> TcpChannel:
        """Connect, trying again while nobody listens, for `net.connect_timeout`. BrokenError after that.

        With `once` it is not tried again. PeerError when the two do not trust each other, which trying again would not
        change; InputError where nothing would keep strangers out.
        """
        check(self._net)
        deadline = self._clock.now_ns() + self._net.connect_timeout
        while True:
            try:
                async with asyncio.timeout(max(0.001, (deadline - self._clock.now_ns()) / SECOND)):
                    channel = await self._dial(address, handler)
            except (OSError, TimeoutError, UnicodeError) as error:
                if isinstance(error, socket.gaierror | UnicodeError) and isinstance(address, TcpAddress):
                    raise BrokenError(f"{address.host} cannot be resolved: {reason(error)}") from None
                if once or self._clock.now_ns() + _RETRY_S * SECOND >= deadline:
                    tried = "" if once else f"; tried for {format_time(self._net.connect_timeout)}"
                    raise BrokenError(
                        f"nobody answers at {address} ({reason(error)}{tried}); is the destination listening there?"
                    ) from None
                await asyncio.sleep(_RETRY_S)
            else:
                try:
                    await self._let_in(channel)
                except BrokenError:  # a forwarder, behind which nobody listens yet, breaks off without a byte
                    if once or channel.heard or self._clock.now_ns() + _RETRY_S * SECOND >= deadline:
                        raise
                    await asyncio.sleep(_RETRY_S)
                    continue
                return channel

    async def _dial(self, address: Address, handler: ChannelHandler) -> TcpChannel:
        if isinstance(address, UnixAddress):
            return await self._dial_file(address, handler)
        return await self._dial_port(address, handler)

    async def _dial_port(self, address: TcpAddress, handler: ChannelHandler) -> TcpChannel:
        await self._check_reach("connecting to", address)
        gate = self._credentials.gate(PskEnd.SOURCE, address.host.partition("%")[0])  # no certificate knows our links
        _, channel = await asyncio.get_running_loop().create_connection(
            lambda: TcpChannel(lambda _: handler, self._node, gate), address.host, address.port
        )
        return channel

    async def _dial_file(self, address: UnixAddress, handler: ChannelHandler) -> TcpChannel:
        self._credentials.check_named(str(address))
        gate = self._credentials.gate(PskEnd.SOURCE)
        with short(Path(address.path)) as path:
            _, channel = await asyncio.get_running_loop().create_unix_connection(
                lambda: TcpChannel(lambda _: handler, self._node, gate, peer=str(address)), path
            )
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

    async def allows(self, address: Address) -> None:
        """InputError when connecting to `address` would be refused, whoever answers there."""
        if isinstance(address, UnixAddress):
            self._credentials.check_named(str(address))
            return
        try:
            await self._check_reach("connecting to", address)
        except (OSError, UnicodeError) as error:
            raise InputError(f"{address.host} cannot be resolved: {reason(error)}") from None

    async def _check_reach(self, verb: str, address: TcpAddress) -> None:
        """InputError when it is beyond the loopback device, and nothing keeps strangers out."""
        for number in await resolve(address):
            self._credentials.check_reach(verb, number)

    async def listen(self, address: Address, accept: Callable[[TcpChannel], ChannelHandler]) -> TcpListener:
        """Listen. BrokenError when the address cannot be used, InputError when it is open to strangers.

        Port 0 takes a free one.
        """
        check(self._net)
        loop = asyncio.get_running_loop()
        door: Door[TcpChannel] = Door(self._node.bounds.connections_max)

        def made() -> TcpChannel:
            return TcpChannel(accept, self._node, self._credentials.gate(PskEnd.DESTINATION), door)

        try:
            if isinstance(address, UnixAddress):
                file = SocketFile(Path(address.path))
                return TcpListener(await loop.create_unix_server(made, sock=file.socket), file)
            await self._check_reach("listening on", address)
            return TcpListener(await loop.create_server(made, address.host, address.port, reuse_address=True))
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            hint = _IN_USE[type(address)] if in_use else ""
            raise BrokenError(f"cannot listen on {address}: {reason(error)}{hint}") from None
