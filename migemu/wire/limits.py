"""What a peer may make this side hold, and which pages exist: judged before a payload byte lands anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from migemu.errors import PeerError
from migemu.mm.pages import GEOMETRIES, Geometry, Level
from migemu.wire.bitmap import BITMAP_PAGES_MAX
from migemu.wire.digest import DIGEST_BYTES
from migemu.wire.header import HEADER_BYTES_MAX
from migemu.wire.messages import DeviceState, Digests, Message, Page, ReceivedBitmap, Request, Zero
from migemu.wire.seal import SEAL_BYTES

_WITH_PAYLOAD: Final = frozenset({DeviceState, Page, Digests, ReceivedBitmap})
#: What zlib adds to bits that it cannot compress, at most (zlib's compressBound: 13 bytes and a little per 16 KiB).
_ZLIB_SLACK: Final = 64


@dataclass(slots=True)
class Limits:
    """What a peer may make this side hold. `memory_pages` is 0 until the memory is known (Advise)."""

    payload_bytes_max: int
    header_bytes_max: int = HEADER_BYTES_MAX
    geometry: Geometry = GEOMETRIES["x86_64"]
    memory_pages: int = 0

    def check(self, message: Message, payload_bytes: int) -> None:
        """PeerError when a frame is larger than allowed, or names pages outside the memory."""
        kind = type(message)
        if payload_bytes and kind not in _WITH_PAYLOAD:
            raise PeerError(f"{kind.__name__} carries {payload_bytes} bytes of payload; it has none")
        if isinstance(message, Page | Zero | Request):
            self._check_run(message, payload_bytes)
        elif isinstance(message, Digests):
            pages = self.geometry.largest_pages
            fits = payload_bytes == DIGEST_BYTES * pages and len(message.seal) in (0, SEAL_BYTES)
            if message.first % pages or message.first >= self.memory_pages or not fits:
                raise PeerError(f"Digests at page {message.first} do not fit a hugetlb page of this memory")
        elif isinstance(message, ReceivedBitmap):
            self._check_bitmap(message, payload_bytes)

    def _check_bitmap(self, message: ReceivedBitmap, payload_bytes: int) -> None:
        hugepage, end = self.geometry.largest_pages, message.first + message.count
        most = -(-message.count // 8) + _ZLIB_SLACK if not message.full else 0
        if (
            not 0 < message.count <= max(hugepage, BITMAP_PAGES_MAX)
            or message.first % hugepage
            or message.count % hugepage
            or end > self.memory_pages
            or payload_bytes > most
        ):
            raise PeerError(
                f"ReceivedBitmap of {message.count} pages from {message.first} on with {payload_bytes} bytes does not "
                f"fit this memory of {self.memory_pages} pages"
            )

    def _run_pages_max(self, message: Page | Zero | Request) -> int:
        """A few bytes must not be work for all of the memory: a frame's worth, or a hugetlb page, is enough for all."""
        if isinstance(message, Request) and message.again:
            return self.geometry.pages(Level.PMD)  # base pages are asked for again one by one
        return max(self.geometry.largest_pages, self.payload_bytes_max // self.geometry.page_bytes)

    def _check_run(self, message: Page | Zero | Request, payload_bytes: int) -> None:
        each = self.geometry.pages(message.level)
        end = message.first + message.count * each
        if message.count == 0 or message.first % each or end > self.memory_pages:
            raise PeerError(
                f"{type(message).__name__} of {message.count} x {self.geometry.size(message.level)} bytes at page "
                f"{message.first} is empty, not aligned, or outside the memory of {self.memory_pages} pages"
            )
        if isinstance(message, Page) and payload_bytes != (end - message.first) * self.geometry.page_bytes:
            raise PeerError(f"Page at page {message.first} carries {payload_bytes} bytes, not its pieces' size")
        if end - message.first > (most := self._run_pages_max(message)):
            raise PeerError(
                f"{type(message).__name__} at page {message.first} is of {end - message.first} base pages at once; "
                f"{most} are the most"
            )
        if not isinstance(message, Request) and message.digests:
            sealed = end - message.first if isinstance(message, Page) else 0
            if len(message.digests) != sealed * DIGEST_BYTES + SEAL_BYTES:
                raise PeerError(f"{type(message).__name__} at page {message.first} has not one digest a base page")
