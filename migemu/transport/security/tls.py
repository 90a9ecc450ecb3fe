"""TLS 1.3 of one connection, between the bytes of the socket and those of the stream, as a thing without a socket.

The transport under a channel stays the plain one, so everything that keeps faults fast (how much is handed to the
socket at once, whose turn it is, polling instead of sleeping) is the same with and without TLS, on every event loop;
and the end of one direction can be said while the other goes on, which the loops' own TLS cannot.

Bytes are copied once more than without TLS on their way in (into OpenSSL's buffer; from there they are decrypted to
where they belong) and once more on their way out. A record carries at most 16 KiB.

Rules of this file
    1. Nothing of OpenSSL's words reaches a user: `_words` says what is wrong and what to do.
    2. An end of the stream that was not said inside of TLS is not an end (`ended`): anybody can send a FIN.

Words: a *record* is what is encrypted at once, an *alert* tells the peer why.  (RFC 8446)
Simplified: no session is resumed, no key is changed while a connection stands unless the peer asks for it.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from migemu.errors import PeerError

#: RFC 5929; Python has no exporter (RFC 9266). It is the Finished message of the source: with TLS 1.3 a MAC over the
#: whole handshake, certificates included, by a secret of this connection, and no session is ever resumed here.
_BINDING: Final = "tls-unique"

#: A record with the alert protocol_version: so that a peer without TLS can tell what is spoken here.
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x46"

_SETTINGS: Final = "security.certificate and security.authority"
_UNTRUSTED: Final = "the {peer} does not trust this side's certificate; its security.authority has to have signed it"
#: What is found in the reason of an ssl.SSLError -> what it says of {peer}. The first that fits counts.
_WORDS: Final[dict[str, str]] = {
    "CERTIFICATE_REQUIRED": f"the {{peer}} wants a certificate and was shown none; set {_SETTINGS} on both sides",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": f"the {{peer}} showed no certificate; set {_SETTINGS} on both sides",
    "ALERT_UNKNOWN_CA": _UNTRUSTED,
    "ALERT_DECRYPT_ERROR": _UNTRUSTED,
    "ALERT_CERTIFICATE_EXPIRED": "this side's certificate has expired, says the {peer}; make a new one",
    "ALERT_BAD_CERTIFICATE": "the {peer} refuses this side's certificate; look at its name, dates and purposes",
    "ALERT_CERTIFICATE": "the {peer} refuses this side's certificate; look at its name, dates and purposes",
    "ALERT_UNSUPPORTED_CERTIFICATE": "the {peer} refuses this side's certificate; look at its purposes",
    "ALERT_PROTOCOL_VERSION": "the {peer} does not speak TLS 1.3; run the same migemu on both sides",
    "UNSUPPORTED_PROTOCOL": "the {peer} speaks an older TLS than 1.3; run the same migemu on both sides",
    "WRONG_VERSION_NUMBER": f"the {{peer}} does not speak TLS; set {_SETTINGS} on both sides",
    "WRONG_SSL_VERSION": f"the {{peer}} does not speak TLS; set {_SETTINGS} on both sides",
    "HTTP_REQUEST": "the {peer} is a web browser",
    "RECORD_LAYER_FAILURE": f"the {{peer}} does not speak TLS; set {_SETTINGS} on both sides",
}  # fmt: skip


def _words(error: ssl.SSLError, peer: str, shaken: bool = False) -> str:
    """What went wrong, and what to do. `shaken`: the handshake was done already."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the {peer}'s certificate is refused: {error.verify_message.rstrip('.')}; "
            "look at security.authority and security.peer_name on this side, and at the certificate there"
        )
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    if shaken and "ALERT" not in reason:
        return f"what came from the {peer} is not what was sent there; somebody or something in between changes bytes"
    for part, words in _WORDS.items():
        if part in reason:
            return words.format(peer=peer)
    return f"the {peer} breaks TLS ({reason.lower().replace('_', ' ')})"


class Tls:
    """One end of a TLS connection. Encrypted bytes go in by `feed` and come out by `output`."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: str = "") -> None:
        """`server_name` is what the certificate over there has to be for; a server looks at `carries`."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._peer = "source" if server_side else "destination"
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name or None
        )
        self._spoken = False
        #: Whether the peer has said, inside of TLS, that nothing more will come.
        self.ended = False

    def feed(self, data: memoryview) -> None:
        """Take bytes that arrived from the network."""
        self._incoming.write(data)

    def output(self) -> bytes:
        """Bytes to be sent now."""
        output = self._outgoing.read()
        self._spoken = self._spoken or bool(output)
        return output

    def shake(self) -> bool:
        """Go on with the handshake; True once it is done. PeerError when it fails: `output` is to be sent then too."""
        try:
            self._ssl.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLError as error:
            if not self._spoken and not self._outgoing.pending:  # a stranger's bytes get no answer from OpenSSL
                self._outgoing.write(_ALERT)
            raise PeerError(_words(error, self._peer)) from None
        return True

    def carries(self, name: str) -> bool:
        """Whether the peer's certificate is for `name`: a DNS name or an address, exactly. After the handshake."""
        certificate: Any = self._ssl.getpeercert() or {}
        return name.lower() in [value.lower() for _, value in certificate.get("subjectAltName", ())]

    def binding(self) -> bytes:
        """Bytes that this connection, and no other, has on both ends. After the handshake."""
        binding = self._ssl.get_channel_binding(_BINDING)
        if not binding:
            raise PeerError(f"the {self._peer}'s TLS has no channel binding, which a pre-shared key needs")
        return binding

    def read(self, view: memoryview) -> int:
        """Decrypt into `view`, until it is full or nothing more is there; how many bytes. PeerError."""
        filled = 0
        try:
            while filled < len(view):
                rest = view[filled:]
                received: Any = self._ssl.read(len(rest), rest)
                if not received:
                    self.ended = True
                    break
                filled += received
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise PeerError(_words(error, self._peer, shaken=True)) from None
        return filled

    def write(self, buffer: memoryview) -> None:
        """Encrypt all of `buffer` for `output`; nothing of it once the connection has failed, which `read` has told."""
        try:
            while buffer:
                buffer = buffer[self._ssl.write(buffer) :]
        except ssl.SSLError:
            pass

    def end(self) -> None:
        """Say that nothing more will come from here."""
        try:
            self._ssl.unwrap()
        except ssl.SSLError:  # it waits for the peer to say so too, which it need not
            pass
