"""A forwarder answers where nobody listens behind it yet: it takes a connection, and breaks it without a byte."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.processes import destination, source

TIMEOUT_S = 20
RESET = struct.pack("ii", 1, 0)
TIMES = 3


class Forwarder:
    """Breaks the first connections, then passes all bytes on."""

    def __init__(self, port: int, reset: bool) -> None:
        self._behind, self._reset = port, reset
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.broken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            if self.broken < TIMES:
                self.broken += 1
                if self._reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.close()
                continue
            onward = socket.create_connection(("127.0.0.1", self._behind), timeout=TIMEOUT_S)
            for pair in ((connection, onward), (onward, connection)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(here: socket.socket, there: socket.socket) -> None:
        try:
            while data := here.recv(1 << 16):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._server.close()


@contextmanager
def forwarder(port: int, reset: bool) -> Iterator[Forwarder]:
    made = Forwarder(port, reset)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("guard", ["", "psk"])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_it_is_tried_again(reset: bool, guard: str, tmp_path: Path) -> None:
    secure: tuple[str, ...] = ()
    if guard:
        key = tmp_path / "key"
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
        secure = ("--set", f"security.psk_file={key}")
    with (
        destination(*secure) as dest,
        forwarder(dest.port, reset) as between,
        source(between.port, *secure, "--set", "pull.preempt=off") as sender,
    ):
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
        assert between.broken == TIMES


def test_for_as_long_as_it_is_tried_where_nobody_answers() -> None:
    with forwarder(1, reset=True) as between:
        between.broken = -1000
        with source(between.port, "--set", "net.connect_timeout=500ms") as sender:
            assert sender.wait() == 3
            assert "The guest runs on at the source" in sender.error
        assert -999 <= between.broken < -980
