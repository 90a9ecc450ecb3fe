"""A shaper under a clock that is moved by hand: exact on any machine, however late it is.

The shaper's alarm knows the machine's clock alone: it takes the small times of this clock for past and rings in every
turn of the loop. What the shaper does then is decided by the clock that it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import pytest

from migemu.scenario.scenario import LinkSettings
from migemu.transport.shaper import Port, Shaper
from migemu.units import KIB, MS, US
from tests.conformance.worlds import LOOPS, Loop

STEP_NS: Final = 20 * US
SOCKET_BYTES: Final = 256 * KIB


class HandClock:
    """ports.Clock that stands still until it is moved, and counts how often it was looked at."""

    def __init__(self) -> None:
        self.now = MS
        self.looks = 0

    def now_ns(self) -> int:
        self.looks += 1
        return self.now

    async def sleep_until(self, when_ns: int) -> None:
        raise NotImplementedError("the shaper is called by its alarm and its ports; it does not sleep")


class Exit:
    """A port, and what has come out at its far end: (time, bytes)."""

    def __init__(self, clock: HandClock, shaper: Shaper) -> None:
        self.arrivals: list[tuple[int, bytes]] = []
        self.port: Port = shaper.port(self._deliver)
        self._clock = clock

    def _deliver(self, buffers: list[Any]) -> None:
        self.arrivals += [(self._clock.now, bytes(buffer)) for buffer in buffers]

    @property
    def bytes(self) -> bytes:
        return b"".join(data for _, data in self.arrivals)

    def bytes_by(self, when_ns: int) -> int:
        return sum(len(data) for at, data in self.arrivals if at <= when_ns)


class Wire:
    """A shaper under a clock moved by hand."""

    def __init__(self, seed: int = 1, socket_bytes: int = SOCKET_BYTES, **link: Any) -> None:
        self.clock = HandClock()
        self.shaper = Shaper(LinkSettings(**link), self.clock, Random(seed), socket_bytes)
        self.exits: list[Exit] = []

    def exit(self) -> Exit:
        self.exits.append(Exit(self.clock, self.shaper))
        return self.exits[-1]

    @property
    def idle(self) -> bool:
        return all(each.port.idle for each in self.exits)

    async def pass_ns(self, step_ns: int) -> None:
        """Let time pass at once, and the shaper notice."""
        self.clock.now += step_ns
        seen = self.clock.looks
        # It looks once to hand over and once to transmit. There is no event to await: the alarm is within.
        while not self.idle and self.clock.looks < seen + 2:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def settle(self, step_ns: int = STEP_NS) -> None:
        """Let time pass in steps until everything has arrived."""
        while not self.idle:
            await self.pass_ns(step_ns)


def on_wires(test: Callable[..., Awaitable[None]]) -> Callable[[Loop], None]:
    """Make of `async def test(make)` a test in every loop; wires that it makes are closed."""

    def run(loop: Loop) -> None:
        async def main() -> None:
            wires: list[Wire] = []

            def make(**link: Any) -> Wire:
                wires.append(Wire(**link))
                return wires[-1]

            try:
                await test(make)
            finally:
                for wire in wires:
                    wire.shaper.close()

        loop.run(main())

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return pytest.mark.parametrize("loop", LOOPS, ids=[loop.name for loop in LOOPS])(run)


Make = Callable[..., Wire]
