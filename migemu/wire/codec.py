"""Messages to bytes and back.

A connection opens, in both directions, with a **preamble** of 8 bytes: `MIGEMU` and the protocol version, so that
a stranger or another version is recognised before anything else is read. Then frames follow:

    u32 payload length | u16 header length | header | payload            (big endian)

The header is a msgpack array: the message's tag, then its fields in order. The payload is raw bytes. The
parts of this module: `header` (messages as bytes), `limits` (what a peer may send), and here the stream itself.

Rules of this file
    1. `encode` passes the payload through untouched: the very object that was given comes back in the list, so it can
       be a memoryview of the guest's page (nothing is copied) or a placeholder that knows nothing but its length.
    2. The decoder **lends** memory: `get_buffer` says where the next bytes should be received. Headers and small
       payloads go through a staging buffer; the rest of a large page payload goes straight to where `landing` says it
       belongs. `landing` is asked again before every receive, because a piece that is on its way here can meanwhile
       have come on another channel: from then on its bytes must land in scrap, not on what the guest may have written.
    3. Every byte is hostile. Lengths are checked against limits before anything is allocated, fields against their
       types and ranges before anybody sees them, and `announced` is called (the states are judged there) before the
       first payload byte lands anywhere.

Taken from measurements: receiving in place costs about 1.0 us per 4K piece at one header for 64 pieces, a staging
copy of everything 2.6 us; hence the direct landing above `DIRECT_BYTES_MIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from migemu.errors import PeerError, VersionError
from migemu.wire.header import (
    DIGESTED_PAGES_MAX,
    HEADER_BYTES_MAX,
    PREFIX,
    TEXT_BYTES_MAX,
    decode_header,
    encode_head,
)  # fmt: skip
from migemu.wire.limits import Limits
from migemu.wire.messages import PROTOCOL_VERSION, Message, Page

__all__ = [
    "DIGESTED_PAGES_MAX", "DIRECT_BYTES_MIN", "HEADER_BYTES_MAX", "MAGIC", "PREAMBLE_BYTES", "STAGING_BYTES",
    "TEXT_BYTES_MAX", "Frame", "FrameDecoder", "Limits", "Sized", "decode_header", "encode", "encode_head", "frames_of",
    "preamble",
]  # fmt: skip

MAGIC: Final = b"MIGEMU"
PREAMBLE_BYTES: Final = 8
#: What one receive may bring through the staging buffer. Small, because what it holds is copied once more.
STAGING_BYTES: Final = 32 * 1024
#: A payload of at least this size is received in place; smaller ones are copied out of the staging buffer.
DIRECT_BYTES_MIN: Final = 16 * 1024

#: How those begin who might be ours all the same (a record of TLS; a pre-shared key's opening), and what to do.
_STRANGERS: Final = {
    b"\x15\x03": "; it speaks TLS: set security.certificate and security.authority here too",
    b"\x16\x03": "; it speaks TLS: set security.certificate and security.authority here too",
    b"MIGEPSK": "; it wants a pre-shared key: set security.psk_file here too",
}


class Sized(Protocol):
    """All that a payload must be able to do here."""

    def __len__(self) -> int: ...


class Frame(NamedTuple):
    """A complete message. `payload` is empty for pages: their bytes have already landed."""

    message: Message
    payload: bytes


def preamble(version: int = PROTOCOL_VERSION) -> bytes:
    """The 8 bytes that open a connection."""
    return MAGIC + version.to_bytes(2, "big")


def encode(message: Message, payload: Sized | None = None) -> list[Any]:
    """The buffers of one frame, in order: its head, and the payload object itself if there is one."""
    return [encode_head(message, 0 if payload is None else len(payload))] + ([] if payload is None else [payload])


class FrameDecoder:
    """Bytes of one connection in, messages out. Pure: the shell receives into `get_buffer()`.

    `announced(message, payload_bytes)` is called once per frame before its payload is taken; what it raises ends the
    connection. `landing(page, offset)` answers with the memory for the payload from byte `offset` on, as long as it
    likes (at least one byte, no further than it may be filled).
    """

    def __init__(
        self,
        limits: Limits,
        announced: Callable[[Message, int], None],
        landing: Callable[[Page, int], memoryview],
    ) -> None:
        self.limits = limits
        self.received_bytes = 0
        self._announced = announced
        self._landing = landing
        self._staging = memoryview(bytearray(STAGING_BYTES))
        self._begin = 0
        self._end = 0
        self._greeted = False
        self._page: Page | None = None  # the page run whose payload is being received in place
        self._message: Message | None = None  # any other message whose payload is being collected
        self._collected = memoryview(b"")
        self._offset = 0
        self._payload_bytes = 0

    @property
    def mid_frame(self) -> bool:
        """Whether the stream stands within a frame: an end of stream here is a truncation."""
        return self._begin < self._end or self._page is not None or self._message is not None or not self._greeted

    def get_buffer(self) -> memoryview:
        """Where the next received bytes belong; never empty."""
        if self._page is not None:
            return self._landing(self._page, self._offset)
        if self._message is not None:
            return self._collected[self._offset :]
        return self._staging[self._end :]

    def buffer_updated(self, received: int) -> Iterable[Frame]:
        """`received` bytes were written into the last `get_buffer()`: the messages that are complete now.

        To be iterated to its end: each message is decoded when it is asked for, so that what the one before it has
        changed counts already, and what was said in order is heard before a mistake behind it. PeerError when the
        stream breaks the protocol; nothing can be decoded afterwards.
        """
        self.received_bytes += received
        if self._page is not None:
            self._offset += received
            if self._offset < self._payload_bytes:
                return ()
            page, self._page = self._page, None
            return (Frame(page, b""),)
        if self._message is not None:
            self._offset += received
            if self._offset < self._payload_bytes:
                return ()
            message, self._message = self._message, None
            return (Frame(message, bytes(self._collected)),)
        self._end += received
        return self._parse()

    def _parse(self) -> Iterator[Frame]:
        if not self._greeted and not self._greet():
            return
        while self._page is None and self._message is None:
            available = self._end - self._begin
            if available < PREFIX.size:
                break
            payload_bytes, header_bytes = PREFIX.unpack_from(self._staging, self._begin)
            if payload_bytes > self.limits.payload_bytes_max or header_bytes > self.limits.header_bytes_max:
                raise PeerError(
                    f"a frame of {header_bytes}+{payload_bytes} bytes is larger than the limit of "
                    f"{self.limits.header_bytes_max}+{self.limits.payload_bytes_max}; "
                    "limits.frame_bytes_max on this side must not be below the other side's push.run"
                )
            start = self._begin + PREFIX.size + header_bytes
            if available < PREFIX.size + header_bytes:
                break
            frame_bytes = PREFIX.size + header_bytes + payload_bytes
            if payload_bytes < DIRECT_BYTES_MIN and available < frame_bytes <= STAGING_BYTES:
                break  # small enough to wait for here; one receive can then bring many such frames
            message = decode_header(self._staging[self._begin + PREFIX.size : start])
            self.limits.check(message, payload_bytes)
            self._announced(message, payload_bytes)
            self._begin = start
            if isinstance(message, Page):
                frame = self._take_page(message, payload_bytes)
            else:
                frame = self._take(message, payload_bytes)
            if frame is not None:
                yield frame
        self._make_room()

    def _greet(self) -> bool:
        """Check the preamble as far as it is there; True once it is complete."""
        seen = bytes(self._staging[: min(self._end, PREAMBLE_BYTES)])
        if not MAGIC.startswith(seen[: len(MAGIC)]):
            hint = next((hint for start, hint in _STRANGERS.items() if seen.startswith(start)), "")
            raise PeerError(f"the peer does not speak migemu (its first bytes are {seen!r}){hint}")
        if len(seen) < PREAMBLE_BYTES:
            return False
        version = int.from_bytes(seen[len(MAGIC) :], "big")
        if version != PROTOCOL_VERSION:
            age = "an older" if version < PROTOCOL_VERSION else "a newer"
            raise VersionError(
                f"the peer speaks {age} version of the protocol: version {version} there, version "
                f"{PROTOCOL_VERSION} here; run the same migemu on both sides"
            )
        self._begin = PREAMBLE_BYTES
        self._greeted = True
        return True

    def _take_page(self, page: Page, payload_bytes: int) -> Frame | None:
        here = min(self._end - self._begin, payload_bytes)
        offset = 0
        while offset < here:  # what is already in the staging buffer is copied to where it belongs
            target = self._landing(page, offset)[: here - offset]
            target[:] = self._staging[self._begin + offset : self._begin + offset + len(target)]
            offset += len(target)
        self._begin += here
        if here == payload_bytes:
            return Frame(page, b"")
        self._page, self._offset, self._payload_bytes = page, offset, payload_bytes
        return None

    def _take(self, message: Message, payload_bytes: int) -> Frame | None:
        here = min(self._end - self._begin, payload_bytes)
        payload = bytes(self._staging[self._begin : self._begin + here])
        self._begin += here
        if here == payload_bytes:
            return Frame(message, payload)
        self._collected = memoryview(bytearray(payload_bytes))
        self._collected[:here] = payload
        self._message, self._offset, self._payload_bytes = message, here, payload_bytes
        return None

    def _make_room(self) -> None:
        """Move what is left to the front, so that the rest of a header always fits."""
        left = self._end - self._begin
        if self._begin and left:
            self._staging[:left] = bytes(self._staging[self._begin : self._end])
        if self._begin:
            self._begin, self._end = 0, left


def frames_of(decoder: FrameDecoder, data: bytes) -> Iterator[Frame]:
    """Feed `data` to a decoder as a shell would: for tests, captures and tools."""
    view = memoryview(data)
    while view:
        buffer = decoder.get_buffer()
        taken = min(len(buffer), len(view))
        buffer[:taken] = view[:taken]
        view = view[taken:]
        yield from decoder.buffer_updated(taken)
