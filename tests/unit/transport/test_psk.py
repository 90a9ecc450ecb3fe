"""The proof of a pre-shared key, as bytes between two ends."""

from __future__ import annotations

import pytest

from migemu.errors import PeerError
from migemu.transport.security.psk import NAME, NONCE_BYTES, OPENING_BYTES, PROOF_BYTES, Proof, PskEnd

KEY = bytes(range(32))


def ends(key: bytes = KEY, other: bytes = KEY, bindings: tuple[bytes, bytes] = (b"", b"")) -> tuple[Proof, Proof]:
    nonces = bytes([1]) * NONCE_BYTES, bytes([2]) * NONCE_BYTES
    return Proof(key, PskEnd.SOURCE, nonces[0], bindings[0]), Proof(other, PskEnd.DESTINATION, nonces[1], bindings[1])


def converse(source: Proof, destination: Proof) -> list[bytes]:
    """All that is said, in order."""
    said = [source.opening(), destination.opening()]
    destination.take(said[0])
    said.append(source.take(said[1]))
    said.append(destination.take(said[2]))
    source.take(said[3])
    return said


def test_two_ends_with_the_same_key_prove_it_to_each_other() -> None:
    source, destination = ends()
    said = converse(source, destination)
    assert [len(message) for message in said] == [OPENING_BYTES, OPENING_BYTES, PROOF_BYTES, PROOF_BYTES]
    assert source.wants == destination.wants == 0


def test_the_proofs_stay_as_they_are() -> None:
    """Made with `openssl dgst -sha256 -mac HMAC`: another version would not be understood by this one."""
    assert [message.hex() for message in converse(*ends())[2:]] == [
        "9e7958b7be784fd0432d95e60bbb6ecdeedc415c32c1538ff47bcdada6c60a62",
        "7b48a2091890c43a0a242165f244c0a858b4c0025cf741e46f70108a4fd5db01",
    ]


@pytest.mark.parametrize(
    "pair",
    [ends(other=bytes(32)), ends(bindings=(b"this", b"that"))],
    ids=["another key", "another TLS connection"],
)
def test_a_destination_refuses_a_wrong_proof_and_says_nothing_made_with_its_key(pair: tuple[Proof, Proof]) -> None:
    source, destination = pair
    destination.take(source.opening())
    proof = source.take(destination.opening())
    with pytest.raises(PeerError, match="the source has another pre-shared key"):
        destination.take(proof)
    assert destination.wants


def test_a_source_refuses_a_destination_that_has_not_the_key() -> None:
    source, _ = ends()
    source.take(NAME + bytes(NONCE_BYTES))
    with pytest.raises(PeerError, match="the destination has another pre-shared key"):
        source.take(bytes(PROOF_BYTES))


def test_a_proof_that_is_sent_back_to_who_made_it_proves_nothing() -> None:
    """With its own random bytes too."""
    source, _ = ends()
    proof = source.take(source.opening())
    with pytest.raises(PeerError, match="another pre-shared key"):
        source.take(proof)


def test_what_a_source_said_once_proves_nothing_a_second_time() -> None:
    source, destination = ends()
    said = converse(source, destination)
    later = Proof(KEY, PskEnd.DESTINATION, bytes([3]) * NONCE_BYTES)
    later.take(said[0])
    with pytest.raises(PeerError, match="another pre-shared key"):
        later.take(said[2])


def test_what_a_destination_said_once_proves_nothing_a_second_time() -> None:
    said = converse(*ends())
    later = Proof(KEY, PskEnd.SOURCE, bytes([3]) * NONCE_BYTES)
    later.take(said[1])
    with pytest.raises(PeerError, match="another pre-shared key"):
        later.take(said[3])


@pytest.mark.parametrize("begun", [b"M", b"MIGEPSK", NAME + b"anything"])
def test_an_opening_that_has_only_begun_is_waited_for(begun: bytes) -> None:
    ends()[0].glance(begun)


@pytest.mark.parametrize("begun", [b"\0", b"MIGEMU", NAME[:-1] + b"\x02"])
def test_who_opens_otherwise_is_refused_at_once(begun: bytes) -> None:
    with pytest.raises(PeerError, match="showed no pre-shared key"):
        ends()[1].glance(begun)
