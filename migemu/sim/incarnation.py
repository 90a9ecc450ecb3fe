"""One incarnation of a node in a simulated world: from its start to its end, or to the moment in which it is killed.

A process that gets SIGKILL does nothing more. Here its tasks are cancelled, and may clean up as they like: its network
is dead, and what it says to the trace is not heard. The kernel closes its connections, which the peers notice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from migemu.ports import Tracer
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.trace.events import Event


@dataclass(slots=True)
class SourceRecord:
    """What a source has written to its disk for the one that takes its place. `downtime_ns`: 0 until it is known."""

    switching: bool = False
    downtime_ns: int = 0
    ran: bool = False
    all_sent: bool = False

    def switch(self) -> None:
        """Note that from now on the guest may run at the destination."""
        self.switching = True

    def learned(self, **what: Any) -> None:
        """Note fields of this record by name (`downtime_ns`, `ran`, `all_sent`)."""
        for name, value in what.items():
            setattr(self, name, value)


class Incarnation:
    """One process of the node called `name`: ports.Tracer of what it does, until it is killed."""

    def __init__(self, name: str, network: EmulatedNetwork, tracer: Tracer) -> None:
        """`network` is its own, with the connections that it makes."""
        self.name = name
        self.network = network
        self.killed = False
        self.task: asyncio.Task[Any] | None = None
        self._tracer = tracer

    def emit(self, event: Event) -> None:
        """Hand an event on, unless it comes after the kill."""
        if not self.killed:
            self._tracer.emit(event)

    def kill(self) -> EmulatedNetwork:
        """End it here; the network of the incarnation that follows, on the same way."""
        self.killed = True
        successor = self.network.reborn()
        if self.task is not None:
            self.task.cancel()
        return successor

    def __repr__(self) -> str:
        return f"<Incarnation of the {self.name}{', killed' if self.killed else ''}>"
