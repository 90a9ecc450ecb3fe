"""What the network suites send: pages whose bytes name their place, and a run that no buffer holds."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Final

from migemu.mm.pages import TINY, Level, PageIndex
from migemu.ports import Channel
from migemu.wire.messages import Page
from tests.conformance.ear import PAGE

#: Settings of [net] under which a few hundred KiB are more than a connection holds by itself.
NARROW: Final = {"send_buffer": "64K", "receive_buffer": "64K", "high_water": "64K", "write": "16K"}
#: 4 MiB.
LARGE: Final = Page(0, 1024, Level.PTE, urgent=False)


@cache
def body(first: PageIndex, count: int = 1) -> bytes:
    """The bytes of pages, the same in every test."""
    return b"".join(Random(f"page {page}").randbytes(PAGE) for page in range(first, first + count))


def send_page(channel: Channel, page: Page) -> None:
    """Send `page` with the bytes that belong to it."""
    channel.send(page, memoryview(body(page.first, page.count * TINY.pages(page.level))))
