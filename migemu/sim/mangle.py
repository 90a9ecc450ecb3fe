"""What becomes of a frame that is cut, torn or corrupted on its way, where frames have no bytes. Pure.

    up_to      only the bytes in front of a byte arrive: of a page, the base pages that are whole have landed
    torn       the bytes from a byte on are missing, and the decoder takes those that follow for them: a header cannot
               be read, a payload is damaged from there on
    corrupted  a bit is turned over. In the header: it is encoded, and the real decoder judges what it finds then. In
               the payload: the base page is damaged (`store.model`), a byte is another one

Bytes count as they are encoded: prefix, header, payload. A byte behind the end means the last one.

Simplified: a corrupted length is refused at once, where a decoder might first wait for more. Of a frame that comes in
parts (more than 64K with bytes) what happens happens to the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from migemu.errors import PeerError
from migemu.sim.contents import Contents
from migemu.sim.emulated_channel import Parcel
from migemu.wire.header import decode_header, encode_head
from migemu.wire.messages import Page

#: u32 payload length, u16 header length (`migemu.wire.codec`).
_PREFIX_BYTES: Final = 6


def size_of(parcel: Parcel) -> int:
    """Bytes of the frame, or of its part."""
    return parcel.header_bytes + parcel.end - parcel.begin


def up_to(parcel: Parcel, byte: int) -> Parcel | None:
    """What has been taken in when the stream ends in front of `byte`; None: nothing, not even a header."""
    if byte < parcel.header_bytes or parcel.end == 0:
        return parcel if byte >= size_of(parcel) else None
    end = parcel.begin + byte - parcel.header_bytes
    if isinstance(parcel.message, Page) and isinstance(parcel.payload, Contents):
        end -= end % parcel.payload.page_bytes
    return replace(parcel, end=min(end, parcel.end))


def torn(parcel: Parcel, byte: int) -> Parcel | PeerError:
    """What the decoder makes of it when the bytes from `byte` on are those of the next frame."""
    byte = min(byte, size_of(parcel) - 1)
    if byte < parcel.header_bytes:
        return PeerError(f"a header of {parcel.header_bytes} bytes is not msgpack (it was torn at byte {byte})")
    return _damaged(parcel, byte - parcel.header_bytes, len(parcel.payload) if parcel.payload is not None else 0)


def corrupted(parcel: Parcel, byte: int) -> Parcel | PeerError:
    """What the decoder makes of it when a bit of `byte` is turned over."""
    byte = min(byte, size_of(parcel) - 1)
    if byte >= parcel.header_bytes:
        begin = byte - parcel.header_bytes
        return _damaged(parcel, begin, begin + 1)
    if byte < _PREFIX_BYTES:
        return PeerError("a frame's length does not fit what is in it")
    head = bytearray(encode_head(parcel.message, len(parcel.payload) if parcel.payload is not None else 0))
    head[byte] ^= 1 << byte % 8
    try:
        return replace(parcel, message=decode_header(head[_PREFIX_BYTES:]))
    except PeerError as error:
        return error


def _damaged(parcel: Parcel, begin: int, end: int) -> Parcel:
    """Bytes `[begin, end)` of the payload are other ones."""
    payload = parcel.payload
    if isinstance(payload, Contents):
        first, last = begin // payload.page_bytes, -(-end // payload.page_bytes)
        damage = range(payload.first + first, payload.first + last)
        return replace(parcel, payload=replace(payload, damaged=damage))
    if not isinstance(payload, bytes | bytearray | memoryview):
        return parcel
    changed = bytearray(payload)
    changed[begin:end] = bytes(each ^ 0xFF for each in changed[begin:end])
    return replace(parcel, payload=bytes(changed))
