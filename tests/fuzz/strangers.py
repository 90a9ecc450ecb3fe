"""Strangers at the gate: any bytes before anything of migemu is said, to either end, with a key, TLS, or both.

An input: which gate and how its bytes are cut, then the bytes. With a key alone everything is known, so that an open
gate can be held against the proof that it must have seen.
"""

from __future__ import annotations

import hmac
from functools import cache
from typing import Final

from migemu.errors import PeerError
from migemu.transport.security.handshake import Handshake
from migemu.transport.security.psk import NAME, NONCE_BYTES, OPENING_BYTES, PROOF_BYTES, Proof, PskEnd
from migemu.transport.security.tls import Tls
from tests.fuzz.tally import Tally

KEY: Final = b"k" * 32
OURS, THEIRS = b"o" * NONCE_BYTES, b"t" * NONCE_BYTES
#: Bits of the first byte: this is the source's end; there is TLS; there is a key (always, without TLS).
SOURCE, WITH_TLS, WITH_KEY = 1, 2, 4


def proof(end: PskEnd, ours: bytes, theirs: bytes) -> bytes:
    """What `end` proves itself with to the end here, which is the other one."""
    nonces = theirs + ours if end is PskEnd.SOURCE else ours + theirs
    return hmac.digest(KEY, b"\0".join((b"migemu psk 1", end.value.encode(), nonces)), "sha256")


def honest(end: PskEnd) -> bytes:
    """All that an honest peer says to `end`."""
    return NAME + THEIRS + proof(end.other, OURS, THEIRS)


def judge_gate(data: bytes, tally: Tally) -> None:
    """Which gate, how it is cut, then what comes."""
    if len(data) < 2:
        return
    flags, cut, came = data[0], data[1] + 1, memoryview(data)[2:]
    end = PskEnd.SOURCE if flags & SOURCE else PskEnd.DESTINATION
    tls = _tls(end) if flags & WITH_TLS else None
    with_key = tls is None or flags & WITH_KEY
    gate = Handshake(end, tls, "", (lambda which, binding: Proof(KEY, which, OURS, binding)) if with_key else None)
    gate.start()
    at = said = 0
    try:
        while at < len(came) and not gate.open:
            buffer = gate.get_buffer()
            assert 0 < len(buffer) <= 17 * 1024, "what was lent is empty, or too much"
            taken = min(len(buffer), len(came) - at, cut)
            buffer[:taken] = came[at : at + taken]
            at += taken
            gate.updated(taken)
            said += len(gate.output())
            assert said <= 4 * 1024, "a stranger makes it say more than a handshake"
    except PeerError as error:
        tally.refused(error)
        return
    if gate.open:
        assert tls is None, "nobody without a certificate comes through TLS"
        assert at == OPENING_BYTES + PROOF_BYTES, "it took bytes of the stream"
        theirs = bytes(came[len(NAME) : OPENING_BYTES])
        assert came[OPENING_BYTES:at] == proof(end.other, OURS, theirs), "it opened to who has no key"
    tally.outcomes["gate: open" if gate.open else "gate: waits for more"] += 1


def _tls(end: PskEnd) -> Tls:
    credentials = _credentials()
    context = credentials.server if end is PskEnd.DESTINATION else credentials.client
    assert context is not None
    return Tls(
        context, server_side=end is PskEnd.DESTINATION, server_name="" if end is PskEnd.DESTINATION else "127.0.0.1"
    )


@cache
def _credentials():  # type: ignore[no-untyped-def]
    from tests.certificates import TLS

    return TLS
