"""The gate of one connection: TLS, then the pre-shared key, then the stream. Nothing of migemu is said before it opens.

    bytes of the socket --> get_buffer(), updated() --> [TLS] --> [proof of the key] --> read() --> the decoder
    bytes for the socket <-- output() <--------------- [TLS] <------------------------- write() <-- frames

A thing without a socket and without a clock. Either part may be missing, not both. Without TLS the gate is not needed
any more once it is open (`passes`): it has taken exactly the bytes of the proof from the stream, none of the frames.

Rules of this file
    1. Before it opens a peer makes this side hold `_CLOSED_BYTES` and what OpenSSL keeps for a handshake (messages
       of at most 100 KiB), whatever it sends.
    2. When it fails, `output` may still hold the alert that tells the peer why; after it nothing is to be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from migemu.errors import PeerError
from migemu.transport.security.psk import Proof, PskEnd
from migemu.transport.security.tls import Tls
from migemu.units import KIB

#: What one receive may bring before it is open: a record of TLS.
_CLOSED_BYTES: Final = 17 * KIB
#: The same afterwards. More is received per call, but no longer out of the processor's cache.
_OPEN_BYTES: Final = 128 * KIB


class Handshake:
    """Of one connection. `start` first, then send `output()`; do so after each `updated`, `write` and `end`."""

    def __init__(
        self, end: PskEnd, tls: Tls | None, source_name: str, prove: Callable[[PskEnd, bytes], Proof] | None
    ) -> None:  # fmt: skip
        """`source_name` is what a source's certificate has to be for; "" takes any that is signed.

        `prove(end, binding)` makes this side's part in proving the pre-shared key.
        """
        self.open = False
        self._end = end
        self._tls = tls
        self._source_name = source_name
        self._prove = prove
        self._proof: Proof | None = None
        self._shaken = tls is None
        self._buffer = memoryview(bytearray(_CLOSED_BYTES))
        self._message = memoryview(b"")
        self._filled = 0
        self._plain = bytearray()

    def start(self) -> None:
        """The connection is established: begin the handshake."""
        self._advance()

    @property
    def passes(self) -> bool:
        """Whether, once it is open, bytes can go past it."""
        return self._tls is None

    @property
    def ended(self) -> bool:
        """Whether an end of the stream now would be one that the peer has said, and nobody else."""
        return self.open and (self._tls is None or self._tls.ended)

    @property
    def trouble(self) -> str:
        """What it probably means if the peer leaves before it is open, and what to do."""
        other = self._end.other.value
        if self._end is PskEnd.SOURCE and self._proof is not None and self._proof.is_answered:
            return f"the {other} did not accept the pre-shared key; give both sides the same (security.psk_file)"
        if self._end is PskEnd.SOURCE and self._shaken:
            return f"the {other} did not accept this side's certificate; look at its security.peer_name"
        return f"the {other} left during the handshake; look there for the reason"

    def get_buffer(self) -> memoryview:
        """Where the next bytes of the socket belong."""
        return self._buffer if self._tls is not None else self._message[self._filled :]

    def updated(self, received: int) -> None:
        """`received` bytes were written into the last `get_buffer()`. PeerError when the peer may not come in."""
        if self._tls is not None:
            self._tls.feed(self._buffer[:received])
        else:
            self._filled += received
        if not self.open:
            self._advance()

    def _advance(self) -> None:
        if not self._shaken:
            assert self._tls is not None
            if not self._tls.shake():
                return
            if self._source_name and not self._tls.carries(self._source_name):
                raise PeerError(
                    f"the source's certificate is not for {self._source_name}; look at security.peer_name on this side"
                )
            self._shaken = True
        if self._prove is not None and not self._proven(self._prove):
            return
        self.open = True
        if self._tls is not None:
            self._buffer = memoryview(bytearray(_OPEN_BYTES))

    def _proven(self, prove: Callable[[PskEnd, bytes], Proof]) -> bool:
        """Go on with the proof of the pre-shared key; True once both sides have it."""
        if self._proof is None:
            self._proof = prove(self._end, b"" if self._tls is None else self._tls.binding())
            self._say(self._proof.opening())
            self._expect(self._proof.wants)
        while self._proof.wants:
            if self._tls is not None:
                self._filled += self._tls.read(self._message[self._filled :])
            if self._filled < self._proof.wants:
                self._proof.glance(bytes(self._message[: self._filled]))
                return False
            self._say(self._proof.take(bytes(self._message)))
            self._expect(self._proof.wants)
        return True

    def _expect(self, wanted: int) -> None:
        self._message, self._filled = memoryview(bytearray(wanted)), 0

    def _say(self, message: bytes) -> None:
        if self._tls is None:
            self._plain += message
        elif message:
            self._tls.write(memoryview(message))

    def output(self) -> bytes:
        """What is to be sent to the socket now."""
        if self._tls is not None:
            return self._tls.output()
        plain, self._plain = bytes(self._plain), bytearray()
        return plain

    def read(self, view: memoryview) -> int:
        """Bytes of the stream into `view`; how many, 0 when there are no more now. Only through TLS. PeerError."""
        assert self._tls is not None
        return self._tls.read(view)

    def write(self, buffer: memoryview) -> None:
        """Bytes of the stream for the peer. Only through TLS."""
        assert self._tls is not None
        self._tls.write(buffer)

    def end(self) -> None:
        """Say that nothing more will come from here, as far as it can be said."""
        if self._tls is not None and self._shaken:
            self._tls.end()
