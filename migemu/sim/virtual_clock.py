"""The clock of a virtual loop."""

from __future__ import annotations

import asyncio

from migemu.sim.loop import VirtualLoop


class VirtualClock:
    """ports.Clock of a virtual loop: exact to the nanosecond."""

    def __init__(self, loop: VirtualLoop | None = None) -> None:
        """Of the loop given, or else of the one that runs when it is asked."""
        self._given = loop

    @property
    def _loop(self) -> VirtualLoop:
        if self._given is None:
            running = asyncio.get_running_loop()
            assert isinstance(running, VirtualLoop)
            self._given = running
        return self._given

    def now_ns(self) -> int:
        """The loop's time, or when the processor that runs this will have done what was charged to it."""
        loop = self._given or self._loop
        now_ns, processor = loop.now_ns, loop.processor
        return now_ns if processor is None or processor.free_ns < now_ns else processor.free_ns

    async def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns`; after a turn of the loop if that has passed."""
        loop = self._given or self._loop
        woken = loop.create_future()
        timer = loop.call_at_ns(when_ns, _wake, woken)
        try:
            await woken
        except BaseException:
            timer.cancel()
            raise


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
