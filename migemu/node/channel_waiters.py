"""Who waits for a channel: writers for room in its queue, `close` for its end. The same in both worlds."""

from __future__ import annotations

import asyncio


class ChannelWaiters:
    """The futures of those who wait for one channel, on the loop that runs when it is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._writers: list[asyncio.Future[None]] = []
        self._end: asyncio.Future[None] = self._loop.create_future()

    def room(self) -> asyncio.Future[None]:
        """Done at the next `wake`; whoever awaits it then looks whether there is room now."""
        writer = self._loop.create_future()
        self._writers.append(writer)
        return writer

    def wake(self) -> None:
        """There may be room now, or there never will be: everybody who waits for room looks again."""
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def ended(self) -> None:
        """The connection is gone: nobody waits any longer, neither for room nor for its end. Safe to call twice."""
        self.wake()
        if not self._end.done():
            self._end.set_result(None)

    async def end(self) -> None:
        """Return when the connection is gone."""
        await self._end

    def __repr__(self) -> str:
        return f"<ChannelWaiters: {len(self._writers)} for room>"
