"""The received bitmap on the wire: what the destination has, told in parts of whole hugetlb pages.

Rules
    1. Parts cover the memory in order, without gap or overlap. A part that is all there, or of which nothing is, is
       said without bytes; neighbours that are equal in this are one part.
    2. The reader takes nothing on trust: order, size, how much comes out of a payload, and whether what is claimed can
       have arrived at all are judged.

On the wire a hugetlb page of 262144 base pages costs 14 bytes where it is whole or empty, some hundreds where it was
received in rows, 33 KiB at worst.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from migemu.errors import PeerError
from migemu.mm.pages import Geometry, PageBitmap, PageIndex, Span
from migemu.wire.messages import ReceivedBitmap

#: The most base pages of one part, unless a hugetlb page has more: x86_64's, so that no part takes the loop for long.
BITMAP_PAGES_MAX: Final = 262_144
_DIGITS: Final = bytes.maketrans(b"\0\1", b"01")
_PAGES: Final = bytes.maketrans(b"01", b"\0\1")


def parts(received: PageBitmap) -> Iterator[tuple[ReceivedBitmap, bytes]]:
    """The messages that tell of `received`, with their payloads, in order."""
    hugepage = received.geometry.largest_pages
    most = max(hugepage, BITMAP_PAGES_MAX)
    begin = 0
    while begin < received.total:
        kind = _kind(received, begin)
        end = begin + hugepage
        while kind is not None and end < received.total and end - begin < most and _kind(received, end) is kind:
            end += hugepage
        bits = b"" if kind is not None else zlib.compress(_bits(received, begin, end), 1)
        yield ReceivedBitmap(begin, end - begin, bool(kind)), bits
        begin = end


def _kind(received: PageBitmap, first: int) -> bool | None:
    """Whether a hugetlb page is full (True), empty (False), or neither (None)."""
    span = Span(first, received.geometry.largest)
    return True if received.full(span) else False if received.empty(span) else None


def _bits(received: PageBitmap, begin: int, end: int) -> bytes:
    digits = received.pages[begin:end].translate(_DIGITS)
    digits.reverse()
    return int(digits, 2).to_bytes(-(-(end - begin) // 8), "little")


class BitmapReader:
    """Takes the parts of one bitmap in."""

    def __init__(self, geometry: Geometry, pages: int, sent: PageBitmap | None = None) -> None:
        """`pages` base pages of memory, of which nothing but `sent` can have arrived; None: that is not known."""
        self.received = PageBitmap(geometry, pages)
        self._sent = sent
        self._next = 0

    @property
    def complete(self) -> bool:
        """Whether the last part has come."""
        return self._next == self.received.total

    def take(self, part: ReceivedBitmap, payload: bytes) -> None:
        """The next part, whose limits have been checked (`codec.Limits`). PeerError when it is none."""
        if part.first != self._next:
            raise PeerError(f"a bitmap of the pages from {part.first} on came where {self._next} was due")
        self._next += part.count
        if part.full:
            self._add(part.first, part.count)
        elif payload:
            self._take_bits(part, payload)

    def _take_bits(self, part: ReceivedBitmap, payload: bytes) -> None:
        size = -(-part.count // 8)
        inflater = zlib.decompressobj()
        try:
            bits = inflater.decompress(payload, size + 1)
        except zlib.error as error:
            raise PeerError(f"the bitmap of the pages from {part.first} on is not zlib: {error}") from None
        if len(bits) != size or not inflater.eof or inflater.unused_data:
            raise PeerError(f"the bitmap of the pages from {part.first} on is not {size} bytes long")
        digits = f"{int.from_bytes(bits, 'little'):0{part.count}b}".encode()[::-1]
        if len(digits) != part.count:
            raise PeerError(f"the bitmap of the pages from {part.first} on speaks of pages behind them")
        pages = digits.translate(_PAGES)
        at = pages.find(1)
        while at >= 0:
            end = pages.find(0, at)
            end = part.count if end < 0 else end
            self._add(part.first + at, end - at)
            at = pages.find(1, end)

    def _add(self, first: PageIndex, count: int) -> None:
        if self._sent is not None and self._sent.count(first, count) < count:
            raise PeerError(f"a bitmap claims the {count} pages from {first} on, of which some were never sent")
        self.received.add(first, count)

    def __repr__(self) -> str:
        return f"<BitmapReader {self._next}/{self.received.total} told, {self.received.set_pages} received>"
