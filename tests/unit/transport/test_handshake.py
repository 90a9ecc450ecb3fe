"""What is between a connection's bytes and its messages, without a socket: two gates, and all they say."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest

from migemu.errors import PeerError
from migemu.transport.security.credentials import Credentials
from migemu.transport.security.handshake import Handshake
from migemu.transport.security.psk import NAME, PskEnd
from migemu.transport.security.tls import Tls
from migemu.wire.codec import preamble
from tests import certificates
from tests.certificates import KEY, PSK, TLS, credentials, security

BOTH = replace(TLS, key=PSK.key)
OTHER_KEY = credentials(KEY[::-1])


def gate(of: Credentials, end: PskEnd, host: str = certificates.NODE) -> Handshake:
    made = of.gate(end, host)
    assert made is not None
    return made


def give(data: bytes, to: Handshake) -> None:
    """All of `data`, as a socket would bring it."""
    view = memoryview(data)
    while view and not (to.open and to.passes):
        buffer = to.get_buffer()
        taken = min(len(buffer), len(view))
        buffer[:taken] = view[:taken]
        view = view[taken:]
        to.updated(taken)
    assert not view


class Meeting:
    """Two gates that talk until neither has anything to say; what each thinks of the other then."""

    def __init__(self, source: Handshake, destination: Handshake, change: Callable[[bytes], bytes] = bytes) -> None:
        self.gates = {PskEnd.SOURCE: source, PskEnd.DESTINATION: destination}
        self.said: dict[PskEnd, list[bytes]] = {PskEnd.SOURCE: [], PskEnd.DESTINATION: []}
        self.errors: dict[PskEnd, str] = {PskEnd.SOURCE: "", PskEnd.DESTINATION: ""}
        self._change = change
        for one in self.gates.values():
            one.start()
        self.talk()

    def talk(self) -> None:
        quiet = 0
        while quiet < 2:
            for end, one in self.gates.items():
                output = one.output()
                quiet = 0 if output else quiet + 1
                if not output:
                    continue
                self.said[end].append(output)
                if self.errors[end.other]:
                    continue
                try:
                    give(self._change(output), self.gates[end.other])
                    self._look(self.gates[end.other])
                except PeerError as error:
                    self.errors[end.other] = str(error)

    @staticmethod
    def _look(one: Handshake) -> None:
        """An alert is found by reading on."""
        if one.open and not one.passes:
            one.read(memoryview(bytearray(100)))

    @property
    def open(self) -> bool:
        return all(one.open for one in self.gates.values()) and not any(self.errors.values())


def meet(source: Credentials, destination: Credentials, host: str = certificates.NODE) -> Meeting:
    return Meeting(gate(source, PskEnd.SOURCE, host), gate(destination, PskEnd.DESTINATION))


@pytest.mark.parametrize("both", [TLS, PSK, BOTH], ids=["tls", "psk", "tls and psk"])
def test_two_that_trust_each_other_let_each_other_in(both: Credentials) -> None:
    met = meet(both, both)
    assert met.errors == {PskEnd.SOURCE: "", PskEnd.DESTINATION: ""}
    assert met.open
    assert met.gates[PskEnd.SOURCE].passes is (both is PSK)


@pytest.mark.parametrize("both", [TLS, BOTH], ids=["tls", "tls and psk"])
def test_what_is_said_through_tls_arrives_and_is_not_seen_outside(both: Credentials) -> None:
    met = meet(both, both)
    source, destination = met.gates[PskEnd.SOURCE], met.gates[PskEnd.DESTINATION]
    words = b"the guest's memory " * 5000
    source.write(memoryview(words))
    outside = source.output()
    assert words[:19] not in outside
    heard = bytearray()
    for start in range(0, len(outside), 10_000):
        give(outside[start : start + 10_000], destination)
        buffer = memoryview(bytearray(len(words)))
        heard += buffer[: destination.read(buffer)]
    assert bytes(heard) == words
    assert not destination.ended
    source.end()
    give(source.output(), destination)
    destination.read(memoryview(bytearray(1)))
    assert destination.ended


def named(**settings: str) -> Credentials:
    return credentials(**security(), **settings)


NO_CERTIFICATE = replace(TLS, client=ssl.create_default_context(cafile=certificates.authority_file()))
REFUSALS: dict[str, tuple[Credentials, Credentials, str, str]] = {
    "a source of another authority": (
        credentials(**security(of="theirs")), TLS,
        "the destination does not trust this side's certificate", "the source's certificate is refused: unable to get",
    ),
    "a destination of another authority": (
        TLS, credentials(**security(of="theirs")),
        "the destination's certificate is refused: unable to get", "the source does not trust this side's certificate",
    ),
    "an expired source": (
        credentials(**security(expired=True)), TLS,
        "this side's certificate has expired, says the destination", "refused: certificate has expired",
    ),
    "an expired destination": (
        TLS, credentials(**security(expired=True)),
        "refused: certificate has expired", "this side's certificate has expired, says the source",
    ),
    "a destination of another name": (
        TLS, credentials(**security("dest.example")),
        "refused: IP address mismatch", "the source refuses this side's certificate",
    ),
    "a destination that is not the one meant": (
        named(peer_name="dest.example"), TLS,
        "refused: Hostname mismatch", "the source refuses this side's certificate",
    ),
    "a source of another name": (
        TLS, named(peer_name="source.example"),
        "", "the source's certificate is not for source.example; look at security.peer_name",
    ),
    "a source without a certificate": (
        NO_CERTIFICATE, TLS,
        "the destination wants a certificate and was shown none", "the source showed no certificate",
    ),
    "another key": (PSK, OTHER_KEY, "", "the source has another pre-shared key"),
    "another key within TLS": (BOTH, replace(BOTH, key=OTHER_KEY.key), "", "the source has another pre-shared key"),
    "a key on one side only, within TLS": (BOTH, TLS, "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_each_side_says_in_its_own_words_what_is_wrong(case: str) -> None:
    """Where it says nothing it has been left alone: the other closes without a word."""
    source, destination, at_source, at_destination = REFUSALS[case]
    met = meet(source, destination)
    assert not met.open
    for end, says in ((PskEnd.SOURCE, at_source), (PskEnd.DESTINATION, at_destination)):
        assert says in met.errors[end]
        assert bool(says) is bool(met.errors[end])
        assert "\n" not in met.errors[end]
        assert "_ssl" not in met.errors[end]


def test_a_name_that_is_asked_for_is_accepted_in_whatever_case() -> None:
    source = credentials(**security("source.example"))
    assert meet(source, named(peer_name="Source.Example")).open


def older(version: ssl.TLSVersion) -> Handshake:
    """A source that speaks TLS up to `version`."""
    chain, key = certificates.certificate()
    context = ssl.create_default_context(cafile=certificates.authority_file())
    context.maximum_version = version
    context.load_cert_chain(chain, key)
    return Handshake(PskEnd.SOURCE, Tls(context, server_side=False, server_name=certificates.NODE), "", None)


def test_a_source_of_tls_1_2_is_refused() -> None:
    met = Meeting(older(ssl.TLSVersion.TLSv1_2), gate(TLS, PskEnd.DESTINATION))
    assert met.errors[PskEnd.DESTINATION].startswith("the source speaks an older TLS than 1.3")
    assert met.errors[PskEnd.SOURCE].startswith("the destination does not speak TLS 1.3")


@pytest.mark.parametrize("end", PskEnd, ids=lambda end: end.value)
@pytest.mark.parametrize(
    ("of", "says"),
    [(TLS, "does not speak TLS"), (PSK, "showed no pre-shared key"), (BOTH, "does not speak TLS")],
    ids=["tls", "psk", "tls and psk"],
)
def test_a_peer_without_any_of_it_is_told_apart(end: PskEnd, of: Credentials, says: str) -> None:
    one = gate(of, end)
    one.start()
    with pytest.raises(PeerError, match=f"the {end.other.value} {says}"):
        give(preamble(), one)


def test_a_peer_without_tls_is_answered_with_a_record_that_shows_what_is_spoken() -> None:
    one = gate(TLS, PskEnd.DESTINATION)
    one.start()
    with pytest.raises(PeerError):
        give(preamble(), one)
    assert one.output().startswith(b"\x15\x03")


def test_a_handshake_cannot_be_made_to_hold_much_memory() -> None:
    """A first message that says it will be 16 MiB long."""
    one = gate(TLS, PskEnd.DESTINATION)
    one.start()
    with pytest.raises(PeerError, match=r"the source breaks TLS \(excessive message size\)"):
        give(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380), one)


def test_what_is_written_after_a_failure_goes_nowhere() -> None:
    met = meet(credentials(**security(of="theirs")), TLS)
    assert met.errors[PskEnd.SOURCE]
    met.gates[PskEnd.SOURCE].write(memoryview(b"farewell"))
    met.gates[PskEnd.SOURCE].end()
    assert met.gates[PskEnd.SOURCE].output() == b""


def test_a_handshake_that_was_recorded_lets_nobody_in() -> None:
    """All that the source said is said again to the same destination's next gate."""
    for both in (TLS, PSK, BOTH):
        recorded = meet(both, both).said[PskEnd.SOURCE]
        again = gate(both, PskEnd.DESTINATION)
        again.start()
        with pytest.raises(PeerError):
            give(b"".join(recorded), again)
        assert not again.open


def test_a_changed_byte_in_the_stream_is_found() -> None:
    met = meet(TLS, TLS)
    met.gates[PskEnd.SOURCE].write(memoryview(b"page"))
    outside = bytearray(met.gates[PskEnd.SOURCE].output())
    outside[-1] ^= 1
    give(bytes(outside), met.gates[PskEnd.DESTINATION])
    with pytest.raises(PeerError, match="not what was sent there; somebody or something in between changes bytes"):
        met.gates[PskEnd.DESTINATION].read(memoryview(bytearray(100)))


@pytest.mark.parametrize("both", [TLS, PSK, BOTH], ids=["tls", "psk", "tls and psk"])
def test_however_the_bytes_of_a_handshake_are_cut_it_is_the_same(both: Credentials) -> None:
    source, destination = gate(both, PskEnd.SOURCE), gate(both, PskEnd.DESTINATION)
    source.start()
    destination.start()
    pairs = ((source, destination), (destination, source))
    while not (source.open and destination.open):
        for here, there in pairs:
            for byte in here.output():
                give(bytes([byte]), there)
    assert source.open
    assert destination.open


@pytest.mark.parametrize("both", [TLS, PSK, BOTH], ids=["tls", "psk", "tls and psk"])
def test_a_handshake_that_is_cut_anywhere_opens_nothing(both: Credentials) -> None:
    """Nor does it fail: whoever waits has a time limit, and a word for a peer that leaves."""
    for sent in range(0, sum(map(len, meet(both, both).said[PskEnd.SOURCE])) - 1, 97):
        budget = sent

        def cut(data: bytes) -> bytes:
            nonlocal budget
            part, budget = data[:budget], max(0, budget - len(data))
            return part

        source, destination = gate(both, PskEnd.SOURCE), gate(both, PskEnd.DESTINATION)
        source.start()
        destination.start()
        for _ in range(4):
            give(cut(source.output()), destination)
            if not source.open:
                give(destination.output(), source)
        assert not destination.open
        assert destination.trouble == "the source left during the handshake; look there for the reason"


def test_a_stranger_is_told_nothing_that_was_made_with_the_key() -> None:
    one = gate(PSK, PskEnd.DESTINATION)
    one.start()
    give(NAME + bytes(32), one)
    said = one.output()
    with pytest.raises(PeerError):
        give(bytes(32), one)
    assert len(said) == 40
    assert one.output() == b""
