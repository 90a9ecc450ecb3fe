"""A stream to decode: frames as bytes, right or wrong, and a decoder with a memory to land in."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from migemu.errors import PeerError
from migemu.mm.pages import TINY
from migemu.wire.codec import Frame, FrameDecoder, encode, preamble
from migemu.wire.header import PREFIX, encode_head
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    Message,
    Page,
)  # fmt: skip
from tests.samples import PAGE, PAGES, tiny_limits


class Receiver:
    """A decoder, the memory its pages land in, and what it announced."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.memory = memoryview(bytearray(PAGES * PAGE))
        self.announced: list[tuple[Message, int]] = []
        self.decoder = FrameDecoder(limits or tiny_limits(), self._announced, self._landing)

    def _announced(self, message: Message, payload_bytes: int) -> None:
        self.announced.append((message, payload_bytes))

    def _landing(self, page: Page, offset: int) -> memoryview:
        return self.memory[page.first * PAGE + offset : (page.first + page.count * TINY.pages(page.level)) * PAGE]

    def feed(self, *buffers: bytes) -> list[Frame]:
        frames: list[Frame] = []
        for view in map(memoryview, buffers):
            while view:
                buffer = self.decoder.get_buffer()
                assert len(buffer), "an empty buffer was lent: nothing can ever be received again"
                taken = min(len(buffer), len(view))
                buffer[:taken] = view[:taken]
                view = view[taken:]
                frames += self.decoder.buffer_updated(taken)
        return frames


def wire(message: Message, payload: bytes = b"") -> bytes:
    return b"".join(encode(message, payload or None))


def raw(values: Any, payload_bytes: int = 0) -> bytes:
    """A frame with any header at all."""
    header = values if isinstance(values, bytes) else msgpack.packb(values)
    return payload_bytes.to_bytes(4, "big") + len(header).to_bytes(2, "big") + header


def with_extra(message: Message, extra: dict[Any, Any], payload_bytes: int = 0) -> bytes:
    """The head of a frame, with a map of fields behind those that it has."""
    return raw([*msgpack.unpackb(encode_head(message, 0)[PREFIX.size :]), extra], payload_bytes)


def refused(data: bytes, limits: Limits | None = None) -> str:
    """What the decoder says to `data` behind a preamble."""
    receiver = Receiver(limits)
    receiver.feed(preamble())
    with pytest.raises(PeerError) as error:
        receiver.feed(data)
    assert "\n" not in str(error.value)
    return str(error.value)
