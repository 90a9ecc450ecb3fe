"""A ChannelHandler that keeps all it hears, in order, and receives pages as a destination does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from migemu.errors import MigemuError
from migemu.mm.pages import TINY, Level, PageIndex
from migemu.ports import Channel
from migemu.wire.limits import Limits
from migemu.wire.messages import Message, Page

PAGE = TINY.page_bytes
#: 8 MiB: whole hugetlb pages of TINY.
PAGES = 128 * TINY.pages(Level.PUD)
#: What memory holds before anything has landed: neither zeros nor what tests send.
BLANK = 0xEE


class Ear:
    """Hears one connection, or several that share a memory.

    `memory` is where pages land; a page marked in `came` is there already, and lands in `scrap` when it comes again.
    """

    def __init__(self, memory: bytearray | None = None, came: bytearray | None = None) -> None:
        self.limits = Limits(64 << 20, geometry=TINY, memory_pages=PAGES)
        self.memory = bytearray([BLANK]) * (PAGES * PAGE) if memory is None else memory
        self.came = bytearray(PAGES) if came is None else came
        self.scrap = bytearray([BLANK]) * (4 << 20)
        self.announcements: list[tuple[Message, int]] = []
        self.landings: list[tuple[Page, int]] = []
        self.heard: list[tuple[Message, bytes]] = []
        self.ends: list[MigemuError | None] = []
        self.channels: set[Channel] = set()
        self.on_announced: Callable[[Message], None] = lambda _: None
        self.on_landing: Callable[[Page, int], None] = lambda *_: None
        self.on_received: Callable[[Channel, Message], None] = lambda *_: None
        self._changed = asyncio.Event()

    # --- ports.ChannelHandler ---

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        self.channels.add(channel)
        self.announcements.append((message, payload_bytes))
        self.on_announced(message)

    def landing(self, page: Page, offset: int) -> memoryview:
        self.landings.append((page, offset))
        self.on_landing(page, offset)
        first = page.first + offset // PAGE
        within = offset % PAGE
        end = page.first + page.count * TINY.pages(page.level)
        if self.came[first]:
            return memoryview(self.scrap)[within:PAGE]
        until = self.came.find(1, first, end)
        return memoryview(self.memory)[first * PAGE + within : (end if until < 0 else until) * PAGE]

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        self.channels.add(channel)
        self.heard.append((message, payload))
        if isinstance(message, Page):
            pages = message.count * TINY.pages(message.level)
            self.came[message.first : message.first + pages] = bytes([1]) * pages
        self.on_received(channel, message)
        self._changed.set()

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        self.channels.add(channel)
        self.ends.append(error)
        self._changed.set()

    # --- what tests ask ---

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`; looked at whenever something was heard."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def hears(self, count: int) -> list[Message]:
        """The first `count` messages, once they are there."""
        await self.until(lambda: len(self.heard) >= count)
        return [message for message, _ in self.heard[:count]]

    async def end(self) -> MigemuError | None:
        """Why the connection is over, once it is. Nobody is told twice."""
        await self.until(lambda: bool(self.ends))
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(self.ends) == 1
        return self.ends[0]

    def page(self, first: PageIndex, count: int = 1) -> bytes:
        """What lies in memory."""
        return bytes(self.memory[first * PAGE : (first + count) * PAGE])
