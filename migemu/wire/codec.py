"""Messages to bytes and back.

A connection opens, in both directions, with a **preamble** of 8 bytes: `MIGEMU` and the protocol version, so that
a stranger or another version is recognised before anything else is read. Then frames follow:

    u32 payload length | u16 header length | header | payload            (big endian)

The header is a msgpack array: the message's tag, then its fields in order. The payload is raw bytes.

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

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import msgpack

from migemu.errors import PeerError, VersionError
from migemu.mm.pages import GEOMETRIES, Geometry, Level
from migemu.wire.messages import (
    PROTOCOL_VERSION,
    TAGS,
    Advise,
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
    Request,
    Run,
    Running,
    Zero,
)  # fmt: skip

MAGIC: Final = b"MIGEMU"
PREAMBLE_BYTES: Final = 8
_PREFIX = struct.Struct(">IH")
#: What one receive may bring through the staging buffer. Small, because what it holds is copied once more.
STAGING_BYTES: Final = 32 * 1024
#: A payload of at least this size is received in place; smaller ones are copied out of the staging buffer.
DIRECT_BYTES_MIN: Final = 16 * 1024
#: The longest text in a header (a reason, a scenario).
TEXT_BYTES_MAX: Final = 8 * 1024
#: The longest header. With its prefix it must fit the staging buffer.
HEADER_BYTES_MAX: Final = 2 * TEXT_BYTES_MAX + 1024
_U63_MAX: Final = (1 << 63) - 1


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


def encode_head(message: Message, payload_bytes: int) -> bytes:
    """Prefix and header of a frame whose payload has `payload_bytes` bytes."""
    kind = type(message)
    header = _pack(
        [TAGS[kind], *(field.value if isinstance(field, ChannelRole) else field for field in message)]
        if kind is Hello
        else [TAGS[kind], *message]
    )
    return _PREFIX.pack(payload_bytes, len(header)) + header


_pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack


# --- fields ----------------------------------------------------------------------------------------------------------


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _U63_MAX:
        raise ValueError("is not an integer from 0 to 2**63-1")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("is not a boolean")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_BYTES_MAX:
        raise ValueError("is not a text of reasonable length")
    return value


def _level(value: Any) -> Level:
    if type(value) is int and value in (Level.PTE, Level.PMD):
        return Level(value)
    raise ValueError("is not a piece size (0 for PTE, 2 for PMD)")


def _migration(value: Any) -> str:
    if type(value) is not str or re.fullmatch(r"[0-9a-f]{32}", value) is None:
        raise ValueError("is not 32 hexadecimal digits")
    return value


def _geometry(value: Any) -> str:
    if type(value) is not str or value not in GEOMETRIES:
        raise ValueError(f"is not one of {', '.join(GEOMETRIES)}")
    return value


def _channel(value: Any) -> ChannelRole:
    if type(value) is not str:
        raise ValueError("is not a channel role")
    return ChannelRole(value)


_RUN = (_integer, _integer, _level)
_FIELDS: Final[dict[type[Message], tuple[Callable[[Any], Any], ...]]] = {
    Hello: (_channel, _migration),
    Advise: (_geometry, _integer, _integer, _integer, _boolean, _text),
    Ready: (),
    Listen: (),
    DeviceState: (_integer,),
    Run: (),
    Running: (),
    Request: _RUN,
    Page: (*_RUN, _boolean),
    Zero: (*_RUN, _boolean),
    End: (_integer, _integer, _integer),
    Digests: (_integer,),
    Complete: (_boolean, _text, _text),
    Alive: (),
    Failed: (_text,),
}
_KINDS: Final = {tag: kind for kind, tag in TAGS.items()}
_WITH_PAYLOAD: Final = frozenset({DeviceState, Page, Digests})


def decode_header(header: bytes | bytearray | memoryview) -> Message:
    """The message of a header; PeerError names the message and the field that is wrong."""
    try:
        values = msgpack.unpackb(header, strict_map_key=True)
    except Exception as error:  # msgpack raises half a dozen kinds, UnicodeDecodeError and RecursionError among them
        raise PeerError(f"a header of {len(header)} bytes is not msgpack ({type(error).__name__})") from None
    if type(values) is not list or not values or type(values[0]) is not int or values[0] not in _KINDS:
        raise PeerError("a header does not begin with the tag of a known message")
    kind = _KINDS[values[0]]
    checks = _FIELDS[kind]
    if len(values) != len(checks) + 1:
        raise PeerError(f"{kind.__name__} has {len(values) - 1} fields instead of {len(checks)}")
    fields = []
    for name, check, value in zip(kind._fields, checks, values[1:], strict=True):
        try:
            fields.append(check(value))
        except ValueError as error:
            raise PeerError(f"{kind.__name__}.{name} {error}") from None
    return kind(*fields)


# --- the decoder -----------------------------------------------------------------------------------------------------


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
            pages = self.geometry.pages(Level.PUD)
            if message.first % pages or message.first >= self.memory_pages or payload_bytes != 8 * pages:
                raise PeerError(f"Digests at page {message.first} do not fit a hugetlb page of this memory")

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
            if available < _PREFIX.size:
                break
            payload_bytes, header_bytes = _PREFIX.unpack_from(self._staging, self._begin)
            if payload_bytes > self.limits.payload_bytes_max or header_bytes > self.limits.header_bytes_max:
                raise PeerError(
                    f"a frame of {header_bytes}+{payload_bytes} bytes is larger than the limit of "
                    f"{self.limits.header_bytes_max}+{self.limits.payload_bytes_max}; "
                    "limits.frame_bytes_max on this side must not be below the other side's push.run"
                )
            start = self._begin + _PREFIX.size + header_bytes
            if available < _PREFIX.size + header_bytes:
                break
            frame_bytes = _PREFIX.size + header_bytes + payload_bytes
            if payload_bytes < DIRECT_BYTES_MIN and available < frame_bytes <= STAGING_BYTES:
                break  # small enough to wait for here; one receive can then bring many such frames
            message = decode_header(self._staging[self._begin + _PREFIX.size : start])
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
            raise PeerError(f"the peer does not speak migemu (its first bytes are {seen!r})")
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
