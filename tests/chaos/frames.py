"""The bytes of one direction of a connection, taken apart into messages, as far as somebody in between can.

A stream opens with the preamble, or with an opening and a proof of a pre-shared key and the preamble then; each of
these is a unit without a name, and so is whatever else comes: records of TLS, and all that follows nonsense.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgpack

from migemu.transport.security import psk
from migemu.wire.codec import MAGIC, PREAMBLE_BYTES
from migemu.wire.header import HEADER_BYTES_MAX, PREFIX
from migemu.wire.messages import TAGS

_NAMES: Final = {tag: kind.__name__ for kind, tag in TAGS.items()}
_HELLO: Final = "Hello"


class Unit(NamedTuple):
    """A message of `kind`, whole; or bytes without a name."""

    kind: str
    data: bytes


class Frames:
    """Of one direction. `channel` is what its Hello has said, or "main"."""

    def __init__(self) -> None:
        self.channel = "main"
        self.opaque = False
        self._data = bytearray()
        self._is_open = False
        self._proof_due = False

    def take(self, data: bytes) -> list[Unit]:
        """What `data` completes."""
        self._data += data
        units: list[Unit] = []
        while self._data and (unit := self._next()) is not None:
            units.append(unit)
        return units

    def rest(self) -> bytes:
        """What has come of the next message; it will not be whole any more."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def _next(self) -> Unit | None:
        if self.opaque:
            return Unit("", self.rest())
        if not self._is_open:
            return self._opening()
        if len(self._data) < PREFIX.size:
            return None
        payload_bytes, header_bytes = PREFIX.unpack_from(self._data)
        end = PREFIX.size + header_bytes
        if header_bytes > HEADER_BYTES_MAX:
            return self._senseless()
        if len(self._data) < end:
            return None
        kind = self._kind(bytes(self._data[PREFIX.size : end]))
        if not kind:
            return self._senseless()
        return self._cut(kind, end + payload_bytes)

    def _kind(self, header: bytes) -> str:
        try:
            values: Any = msgpack.unpackb(header, max_array_len=64, max_map_len=64)
            kind = _NAMES[values[0]]
            if kind == _HELLO:
                self.channel = str(values[1])
        except (ValueError, TypeError, KeyError, IndexError, msgpack.exceptions.UnpackException):
            return ""
        return kind

    def _opening(self) -> Unit | None:
        if self._proof_due:
            unit = self._cut("", psk.PROOF_BYTES)
            self._proof_due = unit is None
            return unit
        if self._data.startswith(MAGIC):
            self._is_open = len(self._data) >= PREAMBLE_BYTES
            return self._cut("", PREAMBLE_BYTES)
        if self._data.startswith(psk.NAME):
            unit = self._cut("", psk.OPENING_BYTES)
            self._proof_due = unit is not None
            return unit
        if MAGIC.startswith(self._data) or psk.NAME.startswith(self._data):
            return None
        return self._senseless()

    def _senseless(self) -> Unit:
        self.opaque = True
        return Unit("", self.rest())

    def _cut(self, kind: str, size: int) -> Unit | None:
        if len(self._data) < size:
            return None
        data = bytes(self._data[:size])
        del self._data[:size]
        return Unit(kind, data)
