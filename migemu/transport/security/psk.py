"""The pre-shared key: two ends of a connection prove to each other that they have it, before anything else is said.

    source                                      destination
    opening: name, 32 random bytes  ------->
                                    <-------    opening: name, 32 random bytes
    HMAC-SHA256(key, source's words) ------>    compared; a wrong one ends the connection without a word
                                    <-------    HMAC-SHA256(key, destination's words)

    words = "migemu psk 1", role, the source's random bytes, the destination's, what the TLS connection is bound to

Rules of this file
    1. The destination proves itself only to a source that has done so: a stranger who calls learns nothing that was
       made with the key. A stranger who is called learns one HMAC over random bytes; that is why the key has to be
       random itself, and long (`migemu.transport.security.credentials` refuses others).
    2. Both random bytes are in both proofs: a proof that was recorded fits no other connection. The role is in it: a
       proof that is sent back to who made it does not fit either.
    3. Proofs are compared in constant time.

It authenticates, and does not encrypt: who sits in between can read, and change what follows. With TLS around it the
proofs also cover the TLS connection, so they cannot be passed on through somebody in between.

Simplified: no key is derived, none is agreed upon anew, there is one key for all.
"""

from __future__ import annotations

import hmac
from enum import Enum
from typing import Final

from migemu.errors import PeerError

NAME: Final = b"MIGEPSK\x01"
NONCE_BYTES: Final = 32
OPENING_BYTES: Final = len(NAME) + NONCE_BYTES
PROOF_BYTES: Final = 32
_LABEL: Final = b"migemu psk 1"


class PskEnd(Enum):
    """Which end of a connection: who called, or who was called."""

    SOURCE = "source"
    DESTINATION = "destination"

    @property
    def other(self) -> PskEnd:
        """The end at the peer."""
        return PskEnd.DESTINATION if self is PskEnd.SOURCE else PskEnd.SOURCE


class Proof:
    """One end's part. Pure: whoever holds it sends `opening()`, then brings `wants` bytes at a time to `take`."""

    def __init__(self, key: bytes, end: PskEnd, nonce: bytes, binding: bytes = b"") -> None:
        """`nonce` are `NONCE_BYTES` random bytes, never used before; `binding` names the TLS connection around it."""
        self._key = key
        self._end = end
        self._nonce = nonce
        self._binding = binding
        self._peer_nonce = b""
        self.wants = OPENING_BYTES

    @property
    def is_answered(self) -> bool:
        """Whether the peer has opened its part: what it has refused since then can only be the key."""
        return bool(self._peer_nonce)

    def opening(self) -> bytes:
        """The first bytes that this end sends."""
        return NAME + self._nonce

    def glance(self, begun: bytes) -> None:
        """The bytes that are there of the next message. PeerError when it can be no proof, however it goes on."""
        if not self._peer_nonce and not NAME.startswith(begun[: len(NAME)]):
            raise PeerError(
                f"the {self._end.other.value} showed no pre-shared key, which is asked for here; "
                "set security.psk_file on both sides"
            )

    def take(self, message: bytes) -> bytes:
        """The next `wants` bytes of the peer; what to send now. PeerError when they prove nothing."""
        self.glance(message)
        if not self._peer_nonce:
            self._peer_nonce = message[len(NAME) :]
            self.wants = PROOF_BYTES
            return self._words(self._end) if self._end is PskEnd.SOURCE else b""
        if not hmac.compare_digest(message, self._words(self._end.other)):
            raise PeerError(
                f"the {self._end.other.value} has another pre-shared key; give both sides the same (security.psk_file)"
            )
        self.wants = 0
        return self._words(self._end) if self._end is PskEnd.DESTINATION else b""

    def _words(self, end: PskEnd) -> bytes:
        nonces = (self._nonce, self._peer_nonce) if self._end is PskEnd.SOURCE else (self._peer_nonce, self._nonce)
        words = b"\0".join((_LABEL, end.value.encode(), b"".join(nonces) + self._binding))
        return hmac.digest(self._key, words, "sha256")
