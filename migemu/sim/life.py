"""One life of a node in a simulated world: from its start to its end, or to the moment in which it is killed.

A process that gets SIGKILL does nothing more. Here its tasks are cancelled, and may clean up as they like: its network
is dead, and what it says to the trace is not heard. The kernel closes its connections, which the peers notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from migemu.ports import Tracer
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.trace.events import Event, Happening


@dataclass(slots=True)
class SourceRecord:
    """What a source has written down for its successor. `downtime_ns`: 0 until it is known."""

    switching: bool = False
    downtime_ns: int = 0
    ran: bool = False
    all_sent: bool = False

    def switch(self) -> None:
        """From now on the guest may run at the destination."""
        self.switching = True

    def learned(self, **what: Any) -> None:
        """More of it is known."""
        for name, value in what.items():
            setattr(self, name, value)


class Life:
    """ports.Tracer of one life of the node called `name`."""

    def __init__(
        self, name: str, network: EmulatedNetwork, behind: Tracer, entered: Callable[[str, str], None]
    ) -> None:  # fmt: skip
        """`entered(name, stage)` is told of each stage."""
        self.name = name
        self.network = network
        self.killed = False
        self.task: asyncio.Task[Any] | None = None
        self._behind = behind
        self._entered = entered

    def emit(self, event: Event) -> None:
        """See ports.Tracer."""
        if self.killed:
            return
        self._behind.emit(event)
        if event.event is Happening.STATE:
            self._entered(self.name, event.detail or "")

    def kill(self) -> EmulatedNetwork:
        """It ends here. The network of the next life."""
        self.killed = True
        heir = self.network.reborn()
        if self.task is not None:
            self.task.cancel()
        return heir

    def __repr__(self) -> str:
        return f"<Life of the {self.name}{', killed' if self.killed else ''}>"
