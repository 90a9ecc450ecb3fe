"""Inputs made of inputs: frames are taken apart, one of their parts is changed, and they are put together again.

Everything is drawn from one `Random`: the same seed makes the same inputs. What is changed, and how often, has no
source but experience with decoders: lengths first, then types, then order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

import msgpack

from migemu.wire.header import HEADER_BYTES_MAX, PREFIX, TEXT_BYTES_MAX
from migemu.wire.messages import TAGS

T = TypeVar("T")
#: The longest input; four times the staging buffer of a decoder.
INPUT_BYTES_MAX: Final = 1 << 17
_INTEGERS: Final = (
    0, 1, 2, 3, 4, 7, 15, 16, 17, 31, 32, 33, 127, 128, 255, 4096, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63),
)  # fmt: skip
_STRANGE: Final[tuple[Any, ...]] = (
    *_INTEGERS, None, True, False, 0.0, 1.5, float("nan"), float("inf"), "", "x", "main", "preempt", "tiny", "x86_64",
    "0" * 32, "ä" * 40, "x" * TEXT_BYTES_MAX, "x" * (TEXT_BYTES_MAX + 1), "line\nline", b"", b"12345678", b"x" * 24,
    b"x" * 4096, [], [1], [[[[]]]], {}, {"a": 1}, msgpack.Timestamp(1), msgpack.ExtType(5, b"x"),
)  # fmt: skip
_EXTRA: Final[tuple[dict[Any, Any], ...]] = (
    {}, {"colour": 1}, {"colour!": 1}, {"colour": [1, {"a": 2}], "sparse!": True}, {b"x": 1}, {1: 2}, {"!": 0},
    {"x" * 300 + "!": 0}, {str(each): each for each in range(16)}, {str(each): each for each in range(17)},
)  # fmt: skip
_RAW: Final = (
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\x91" * 600, b"\x91" * 2000, b"\x81\xa1x" * 600, b"\x81\x90\x01", b"\xc7\xff\x05", b"\xa1\xff", b"\xd6\xff",
    b"\xdc\xff\xff" + b"\x00" * 200, b"\xc9\x7f\xff\xff\xff\x01",
    b"\xdc\x40\x00" * 1000, b"\x91\xde\x40\x00" * 1000,
)  # fmt: skip
_LENGTHS: Final = (
    0, 1, 2, 5, 128, 4095, 4096, 4097, 16383, 16384, 16385, 32768, 32762, HEADER_BYTES_MAX, HEADER_BYTES_MAX + 1,
    65535, 1 << 17, (1 << 17) + 1, 2**31, 2**32 - 1,
)  # fmt: skip
#: No two of its parts are alike: what is lost on the way shows.
_BYTES: Final = b"".join(number.to_bytes(4, "big") for number in range(10_000))
_TAGS: Final = (*TAGS.values(), 0, max(TAGS.values()) + 1, -1, 2**40)


class Part(NamedTuple):
    """A frame: the lengths that it names, its header and payload as they are."""

    payload_bytes: int
    header_bytes: int
    header: bytes
    payload: bytes

    def bytes(self) -> bytes:
        """As it goes over the wire."""
        return PREFIX.pack(self.payload_bytes & 0xFFFFFFFF, self.header_bytes & 0xFFFF) + self.header + self.payload


def parts_of(stream: bytes) -> list[Part]:
    """The frames of a stream, by the lengths that they name; what is left in the end is a frame too."""
    found, at = [], 0
    while at + PREFIX.size <= len(stream):
        payload_bytes, header_bytes = PREFIX.unpack_from(stream, at)
        at += PREFIX.size
        header = stream[at : at + header_bytes]
        payload = stream[at + header_bytes : at + header_bytes + payload_bytes]
        at += len(header) + len(payload)
        found.append(Part(payload_bytes, header_bytes, header, payload))
    return found


class Mutation:
    """Changes, drawn from `random`. `headers` are those of honest frames, to take pieces of."""

    def __init__(self, random: Random, headers: list[bytes]) -> None:
        self._draw = random.random
        self._headers = headers

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        return int(self._draw() * bound)

    def one_of(self, choices: Sequence[T]) -> T:
        """One of a sequence."""
        return choices[int(self._draw() * len(choices))]

    # --- bytes ---

    def scar(self, data: bytes) -> bytes:
        """`data` with one wound: flipped, cut, doubled, spliced, overwritten."""
        if not data:
            return self.one_of(_RAW)
        at, how, length = self.below(len(data)), self.below(7), 1 + self.below(8)
        if how == 0:
            return data[:at] + bytes((data[at] ^ 1 << self.below(8),)) + data[at + 1 :]
        if how == 1:
            return data[:at]
        if how == 2:
            return data[:at] + data[at + length :]
        if how == 3:
            return data[: at + length] + data[at:]
        if how == 4:
            return data[:at] + bytes((self.below(256),)) + data[at + 1 :]
        if how == 5:
            other = self.one_of(self._headers)
            return data[:at] + other[self.below(len(other)) :]
        return data[:at] + struct.pack(self.one_of((">H", "<H", ">I", ">Q", "<Q")), 2**16 - 1) + data[at + length :]

    # --- headers ---

    def header(self, header: bytes) -> bytes:
        """A header with one of its values changed, or its bytes."""
        if self._draw() < 0.3:
            return self.scar(header) if self._draw() < 0.8 else self.one_of(_RAW)
        try:
            values = msgpack.unpackb(header, strict_map_key=False)
        except Exception:  # it has been changed before, and is none any more
            return self.scar(header)
        if type(values) is not list or not values:
            return self.scar(header)
        self._value(values)
        try:
            return bytes(msgpack.packb(values))
        except (OverflowError, ValueError, TypeError, UnicodeEncodeError):  # what cannot be said
            return self.scar(header)

    def _value(self, values: list[Any]) -> None:
        how, at = self.below(8), self.below(len(values))
        if how <= 1:
            values[at] = self.one_of(_STRANGE)
        elif how == 2:
            value = values[at]
            values[at] = value + self.one_of((-1, 1, 16, 32)) if type(value) is int else self.one_of(_INTEGERS)
        elif how == 3:
            other = self.below(len(values))
            values[at], values[other] = values[other], values[at]
        elif how == 4:
            del values[at]
        elif how == 5:
            values.insert(at, values[self.below(len(values))])
        elif how == 6:
            values[0] = self.one_of(_TAGS)
        else:
            values.append(self.one_of(_EXTRA))

    # --- frames ---

    def frame(self, part: Part) -> Part:
        """A frame with one thing changed: its header, a length, or its payload."""
        how = self._draw()
        if how < 0.6:
            header = self.header(part.header)
            return Part(part.payload_bytes, len(header), header, part.payload)
        if how < 0.7:
            return part._replace(payload_bytes=self._length(part.payload_bytes))
        if how < 0.8:
            return part._replace(header_bytes=self._length(part.header_bytes))
        if how < 0.9:
            payload = self._payload(part.payload)
            return part._replace(payload=payload, payload_bytes=len(payload))
        header = self.header(self.header(part.header))
        return Part(self._length(part.payload_bytes), len(header), header, part.payload)

    def _length(self, length: int) -> int:
        return max(length + self.one_of((-4096, -1, 1, 4096)), 0) if self._draw() < 0.5 else self.one_of(_LENGTHS)

    def _payload(self, payload: bytes) -> bytes:
        how = self.below(4)
        if how == 0:
            return _BYTES[: self.one_of((1, 5, 128, 4096, 16384, 16385, 40_000))]
        if how == 1:
            return payload + payload[:4096]
        return self.scar(payload)

    def frames(self, parts: list[Part]) -> list[Part]:
        """A stream of which most frames are changed, and sometimes their order."""
        made = [self.frame(part) if self._draw() < 0.7 else part for part in parts]
        if self._draw() < 0.2 and made:
            at, other = self.below(len(made)), self.below(len(made))
            how = self.below(3)
            if how == 0:
                made[at], made[other] = made[other], made[at]
            elif how == 1:
                made.insert(at, made[other])
            else:
                del made[at]
        return made

    def doings(self, data: bytes) -> bytes:
        """What a liar does (`nodes`), two bytes each, with one of them changed, gone, new, or done again."""
        at, how, what = 2 * self.below(len(data) // 2 + 1), self.below(5), self.below(256)
        kind = self.one_of((0, 0, 0, 1, 2, 3, 5, 16, 128, what))
        if how == 0:
            return data[:at] + bytes((what, kind)) + data[at + 2 :]
        if how == 1:
            return data[: at + 1] + bytes((kind,)) + data[at + 2 :]
        if how == 2:
            return data[:at] + data[at + 2 :]
        if how == 3:
            return data[:at] + bytes((what, kind)) + data[at:]
        return data[: at + 2 * (1 + self.below(5))] + data[at:]

    def input(self, data: bytes) -> bytes:
        """Any input, changed; of streams and headers the parts."""
        if len(data) < 5:
            return data[:1] + self.scar(data[1:])
        letter = data[:1]
        if letter == b"S":
            head = data[1:4] if self._draw() < 0.8 else self.scar(data[1:4])[:3].ljust(3, b"\0")
            changed = letter + head + b"".join(part.bytes() for part in self.frames(parts_of(data[4:])))
        elif letter == b"H":
            changed = letter + self.header(data[1:])
        elif letter == b"N":
            changed = data[:2] + self.doings(data[2:])
            while self._draw() < 0.5:
                changed = data[:2] + self.doings(changed[2:])
        else:
            changed = letter + self.scar(data[1:])
            while self._draw() < 0.4:
                changed = letter + self.scar(changed[1:])
        return changed[:INPUT_BYTES_MAX]
