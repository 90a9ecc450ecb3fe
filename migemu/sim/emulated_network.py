"""A network of two nodes in memory, in virtual time, over an emulated link.

Handshakes are frames without bytes: they queue, are delayed and get lost in outages like all others.

    connect   SYN ---> <--- SYN, ACK   the caller is connected and sends its preamble
              preamble --->            the listener accepts, and sends its own

Simplified: no address but the other node's, whatever it is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from migemu.address import LOOPBACK, Address, TcpAddress
from migemu.errors import BrokenError
from migemu.link.scheduler import QueuedFrame
from migemu.ports import ChannelHandler
from migemu.scenario.net import NetSettings
from migemu.sim.cable import Direction
from migemu.sim.emulated_channel import EmulatedChannel, Observe, Tamper
from migemu.sim.loop import VirtualLoop
from migemu.units import MS, SECOND, format_time

#: As link.tcp.
_RETRY_NS: Final = 100 * MS
#: IANA's first dynamic port.
_PORT_FIRST: Final = 49152


def _door(address: Address) -> int | str:
    """What of an address tells the doors of a node apart."""
    return address.port if isinstance(address, TcpAddress) else address.path


class EmulatedListener:
    """ports.Listener of an emulated network."""

    def __init__(self, network: EmulatedNetwork, address: Address) -> None:
        self.address = address
        self._network = network

    async def close(self) -> None:
        """Stop listening. Safe to call twice."""
        self._network.doors.pop(_door(self.address), None)
        await asyncio.sleep(0)


class EmulatedNetwork:
    """ports.Network: one node's end of a cable. `EmulatedNetwork.pair` makes both."""

    def __init__(
        self, name: str, loop: VirtualLoop, net: NetSettings, out: Direction, observe: Observe | None,
        tamper: Tamper | None,
    ) -> None:  # fmt: skip
        self.name = name
        self.loop = loop
        self.net = net
        self.out = out
        self.observe = observe
        self.tamper = tamper
        #: Those that are not over, in the order of tsuccessor making.
        self.channels: dict[EmulatedChannel, None] = {}
        self.doors: dict[int | str, Callable[[EmulatedChannel], ChannelHandler]] = {}
        self._other = self
        self._ports = _PORT_FIRST
        self._dead = False

    @classmethod
    def pair(
        cls, loop: VirtualLoop, net: NetSettings, forth: Direction, back: Direction, observe: Observe | None = None,
        tamper: Tamper | None = None,
    ) -> tuple[EmulatedNetwork, EmulatedNetwork]:  # fmt: skip
        """The networks of the source, whose frames go `forth`, and of the destination."""
        source = cls("source", loop, net, forth, observe, tamper)
        destination = cls("destination", loop, net, back, observe, tamper)
        source._other, destination._other = destination, source
        return source, destination

    def reborn(self) -> EmulatedNetwork:
        """Kill the node: the kernel closes its connections, which its peers notice. The network of its successor."""
        self._dead = True
        self.doors.clear()
        for channel in list(self.channels):
            channel.abort()
        successor = EmulatedNetwork(self.name, self.loop, self.net, self.out, self.observe, self.tamper)
        successor._other, successor._ports = self._other, self._ports
        self._other._other = successor
        return successor

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> EmulatedChannel:
        """Connect to the other node, whatever it is called; see ports.Network."""
        deadline_ns = self.loop.now_ns + self.net.connect_timeout
        while True:
            self._check_alive()
            channel = EmulatedChannel(self, str(address))
            answer: asyncio.Future[bool] = self.loop.create_future()
            self.out.send(channel.flow, 0, self._other.call(_door(address), channel, answer))
            try:
                async with asyncio.timeout(max(0, deadline_ns - self.loop.now_ns) / SECOND):
                    if await answer:
                        channel.connected(handler)
                        return channel
                why = "Connection refused"
            except TimeoutError:
                why = "no answer in time"
                channel.abort()
            except BaseException:
                channel.abort()
                raise
            if once or self.loop.now_ns + _RETRY_NS >= deadline_ns:
                tried = "" if once else f"; tried for {format_time(self.net.connect_timeout)}"
                raise BrokenError(f"nobody answers at {address} ({why}{tried}); is the destination listening there?")
            await asyncio.sleep(_RETRY_NS / SECOND)

    def call(
        self, door: int | str, caller: EmulatedChannel, answer: asyncio.Future[bool]
    ) -> Callable[[QueuedFrame], None]:
        """A SYN for this node; `answer` is told whether somebody listens."""
        return lambda _: self._called(door, caller, answer)

    def _called(self, door: int | str, caller: EmulatedChannel, answer: asyncio.Future[bool]) -> None:
        self._ports += 1
        end = EmulatedChannel(self, str(TcpAddress(LOOPBACK, self._ports)))
        end.accept = self.doors.get(door)
        end.far, caller.far = caller, end
        accepted = end.accept is not None
        self.out.send(end.flow, 0, lambda _: None if answer.done() else answer.set_result(accepted))

    async def listen(self, address: Address, accept: Callable[[EmulatedChannel], ChannelHandler]) -> EmulatedListener:
        """Accept channels at `address`; see ports.Network."""
        self._check_alive()
        if _door(address) in self.doors:
            raise BrokenError(
                f"cannot listen on {address}: Address already in use; another process uses it: choose another port, or "
                "0 for a free one"
            )
        if isinstance(address, TcpAddress):
            port = address.port
            while not port or port in self.doors:
                self._ports += 1
                port = self._ports
            address = TcpAddress(address.host, port)
        self.doors[_door(address)] = accept
        return EmulatedListener(self, address)

    def _check_alive(self) -> None:
        if self._dead:
            raise BrokenError(f"the {self.name} is dead, and has no network any more")
