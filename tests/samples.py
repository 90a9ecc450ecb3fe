"""One instance of every message, with a payload where it has one: what codec, capture and split tests speak about.

All of them fit a memory of two TINY hugetlb pages (32 base pages). The golden captures are made of these instances:
change one, and the capture of its version no longer matches.
"""

from __future__ import annotations

import zlib
from typing import Final

from migemu.mm.pages import TINY, Level, PieceRun
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resume,
    Resumed,
    Run,
    Running,
    Zero,
)  # fmt: skip
from migemu.wire.seal import seal_of, sealed

PAGE: Final = TINY.page_bytes
PAGES: Final = 2 * TINY.pages(Level.PUD)
MIGRATION: Final = "00112233445566778899aabbccddeeff"

SAMPLES: Final[tuple[tuple[Message, bytes], ...]] = (
    (Hello(ChannelRole.MAIN, MIGRATION), b""),
    (Hello(ChannelRole.PREEMPT, MIGRATION), b""),
    (Advise("tiny", PAGES * PAGE, PAGES * PAGE - 100, 5, True, '{"scenario": {"name": "näme"}}'), b""),
    (Ready(MIGRATION), b""),
    (Listen(), b""),
    (DeviceState(0), b"state"),
    (Run(), b""),
    (Running(), b""),
    (Request(7, 1, Level.PTE), b""),
    (Request(4, 2, Level.PMD), b""),
    (Page(7, 1, Level.PTE, True), bytes(range(256)) * 16),
    (Page(8, 1, Level.PMD, False), b"\xa5" * 4 * PAGE),
    (Zero(12, 3, Level.PTE, False), b""),
    (Zero(16, 4, Level.PMD, True), b""),
    (End(PAGES, 123_456_789_012, 345_678), b""),
    (Digests(16), bytes(range(128))),
    (Complete(True, "0123456789abcdef0123456789abcdef", ""), b""),
    (Complete(False, "", "base page 3 differs"), b""),
    (Alive(), b""),
    (Failed("the disk is full"), b""),
    (Hello(ChannelRole.MAIN, MIGRATION, True), b""),
    (Request(9, 1, Level.PTE, True), b""),
    (Page(9, 1, Level.PTE, True, sealed(PieceRun(9, 1, Level.PTE), True, bytes(8))), b"\x5a" * PAGE),
    (Zero(10, 2, Level.PTE, False, sealed(PieceRun(10, 2, Level.PTE), False)), b""),
    (Digests(0, seal_of(0, bytes(128))), bytes(128)),
    (Failed("the guest's memory is gone", True), b""),
    (Recover(), b""),
    (ReceivedBitmap(0, 16, True), b""),
    (ReceivedBitmap(16, 16, False), zlib.compress(b"\xa5\x0f")),
    (Resume(), b""),
    (Resumed(), b""),
    (Agreed(PAGES, "0123456789abcdef0123456789abcdef", 7), b""),
)


def tiny_limits(payload_bytes_max: int = 1 << 20) -> Limits:
    """Limits of a node whose memory is known to be `PAGES` TINY base pages."""
    return Limits(payload_bytes_max, geometry=TINY, memory_pages=PAGES)
