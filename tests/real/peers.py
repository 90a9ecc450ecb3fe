"""Peers written by hand: they say exactly the bytes a test wants, over a real blocking socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from migemu.errors import PeerError
from migemu.mm.pages import TINY
from migemu.wire.codec import Frame, FrameDecoder, encode, preamble
from migemu.wire.limits import Limits
from migemu.wire.messages import Advise, ChannelRole, Hello, Message, Page

MIGRATION = "0123456789abcdef" * 2
MEMORY_BYTES = 1 << 20
PAGES = MEMORY_BYTES // 4096


def advise(memory_bytes: int = MEMORY_BYTES, preempt: bool = False) -> Advise:
    """What the scripted source announces: 1 MiB of TINY memory, no device state."""
    return Advise("tiny", memory_bytes, memory_bytes, 0, preempt, json.dumps({}))


class Peer:
    """One end of a connection, scripted."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self.connection = connection
        limits = Limits(1 << 26, geometry=TINY, memory_pages=PAGES)
        self._decoder = FrameDecoder(limits, lambda *_: None, self._no_landing)
        self._heard: list[Frame] = []
        #: That of the message heard last; pages have none.
        self.payload = b""
        #: The name of the migration, once a Hello was passed over.
        self.migration = ""

    @staticmethod
    def _no_landing(page: Page, offset: int) -> memoryview:
        return memoryview(bytearray(page.count * 4096 - offset))

    def say(self, *messages: Message, payload: bytes | None = None) -> None:
        """Send messages; `payload` belongs to the last one."""
        data = b"".join(
            part for number, message in enumerate(messages)
            for part in encode(message, payload if number == len(messages) - 1 else None)
        )  # fmt: skip
        self.connection.sendall(data)

    def say_bytes(self, data: bytes) -> None:
        self.connection.sendall(data)

    def greet(
        self, role: ChannelRole = ChannelRole.MAIN, migration: str = MIGRATION, *, again: bool = False
    ) -> None:  # fmt: skip
        """Preamble and Hello."""
        self.say_bytes(preamble())
        self.say(Hello(role, migration, again))

    def hear(self, kind: type[Message]) -> Message:
        """The next message of `kind`, passing over others. AssertionError when the connection ends before."""
        while True:
            for number, (message, payload) in enumerate(self._heard):
                if isinstance(message, Hello):
                    self.migration = message.migration
                if isinstance(message, kind):
                    del self._heard[: number + 1]
                    self.payload = payload
                    return message
            self._heard.clear()
            buffer = self._decoder.get_buffer()
            received = self.connection.recv_into(buffer)
            if not received:
                raise AssertionError(f"the connection ended before {kind.__name__} came")
            self._heard += self._decoder.buffer_updated(received)

    def hear_end(self) -> None:
        """Read until the other side closes."""
        try:
            while self.connection.recv(65536):
                pass
        except (ConnectionResetError, PeerError):
            pass

    def leave(self) -> None:
        """Read until the other side closes, then close too."""
        self.hear_end()
        self.connection.close()


@contextmanager
def connected(port: int) -> Iterator[Peer]:
    """A scripted source that has connected to `port`."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield Peer(connection)


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """A listening socket for a scripted destination."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server, server.getsockname()[1]
