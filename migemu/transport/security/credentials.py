"""What a node shows and what it asks to be shown: [security] of the scenario, read from its files and checked once.

Rules of this file
    1. Whoever can be reached by others, or reaches others, needs TLS or a pre-shared key: an address that is not of
       the loopback device is refused without either, unless that was said to be meant (`insecure`).
    2. A file that cannot be used is an InputError that names the setting and what to do. Keys are never shown: not in
       an error, not in a result, not in a repr.
    3. A pre-shared key that others could read or guess is refused. How hard it is to guess cannot be seen, so it is
       counted generously: 4 bits a character of hexadecimal digits, 6 of other printable text, else 8 bits a byte; in
       all at least 256, of at least 8 different bytes.
"""

from __future__ import annotations

import os
import secrets
import ssl
import stat
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final, NoReturn

from migemu import named
from migemu.errors import InputError
from migemu.scenario.net import SecuritySettings
from migemu.transport.security.handshake import Handshake
from migemu.transport.security.psk import NONCE_BYTES, Proof, PskEnd
from migemu.transport.security.tls import Tls

ENVIRONMENT_KEY: Final = "MIGEMU_PSK"
KEY_BITS_MIN: Final = 256
_KEY_BYTES_MAX: Final = 4096
_DIFFERENT_MIN: Final = 8
_HEX: Final = frozenset(string.hexdigits.encode())
_PRINTABLE: Final = frozenset(string.printable.encode())


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one node. Without any, it keeps to the loopback device."""

    client: ssl.SSLContext | None = None
    server: ssl.SSLContext | None = None
    peer_name: str = ""
    key: bytes = field(default=b"", repr=False)
    insecure: bool = False

    def gate(self, end: PskEnd, host: str = "") -> Handshake | None:
        """What stands between one connection's bytes and its messages; None: nothing does. A source calls `host`."""
        tls, name = None, ""
        if end is PskEnd.SOURCE and self.client is not None:
            tls = Tls(self.client, server_side=False, server_name=self.peer_name or host)
        elif end is PskEnd.DESTINATION and self.server is not None:
            tls, name = Tls(self.server, server_side=True), self.peer_name
        if tls is None and not self.key:
            return None
        return Handshake(end, tls, name, self._proof if self.key else None)

    def _proof(self, end: PskEnd, binding: bytes) -> Proof:
        return Proof(self.key, end, secrets.token_bytes(NONCE_BYTES), binding)

    def check_named(self, address: str) -> None:
        """InputError when nothing says whose certificate is to be shown at `address`, which names no host."""
        if self.client is not None and not self.peer_name:
            raise InputError(
                f"security.peer_name is missing: {address} names no host that a certificate could carry; give the name "
                "that it has to"
            )

    def check_reach(self, verb: str, address: str) -> None:
        """InputError when `address` (numbers) is not loopback's and nothing keeps strangers out."""
        if self.client is None and not self.key and not self.insecure and not is_loopback(address):
            raise InputError(
                f"{verb} {address} without TLS or a pre-shared key would trust everybody on the network; set "
                "security.certificate and security.authority, or security.psk_file, or say --insecure"
            )


def is_loopback(address: str) -> bool:
    """Whether an address in numbers stays within this machine."""
    number = ip_address(address.partition("%")[0])
    if isinstance(number, IPv6Address) and number.ipv4_mapped is not None:
        number = number.ipv4_mapped
    return number.is_loopback


def load(
    security: SecuritySettings, environment: Mapping[str, str], insecure: bool = False
) -> tuple[Credentials, list[str]]:
    """The credentials of a node, and lines that its user should see. InputError names the setting that is wrong."""
    _check_complete(security)
    key = _pre_shared_key(security, environment)
    if not security.certificate:
        return Credentials(key=key, insecure=insecure), []
    private = security.key or security.certificate
    name = "security.key" if security.key else "security.certificate"
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)  # a client's compares the certificate's name by default
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.hostname_checks_common_name = False
        try:
            context.load_verify_locations(named.checked(security.authority, named.SETTINGS_BYTES_MAX))
        except (OSError, ssl.SSLError) as error:
            _refuse("security.authority", security.authority, error)
        try:
            certificate, key_file = (
                named.checked(each, named.SETTINGS_BYTES_MAX) for each in (security.certificate, private)
            )
            context.load_cert_chain(certificate, key_file, password=_no_passphrase)
        except _PassphraseError:
            raise InputError(
                f"{name}: {private} needs a passphrase; give a key without one, for its owner only"
            ) from None
        except (OSError, ssl.SSLError) as error:
            if _holds(security.certificate, b"BEGIN CERTIFICATE"):
                _refuse(name, private, error)
            _refuse("security.certificate", security.certificate, error)
        contexts.append(context)
    client, server = contexts
    server.num_tickets = 0  # nothing is resumed
    warnings = []
    if stat.S_IMODE(named.expanded(private).stat().st_mode) & 0o007:
        warnings.append(f"{name}: everybody on this machine can read the private key {private}; chmod 600 it")
    return Credentials(client, server, security.peer_name, key, insecure), warnings


def _check_complete(security: SecuritySettings) -> None:
    """The rules between settings."""
    if bool(security.certificate) != bool(security.authority):
        missing = "authority" if security.certificate else "certificate"
        raise InputError(f"security.{missing} is missing: TLS needs security.certificate and security.authority")
    for name in ("key", "peer_name"):
        if getattr(security, name) and not security.certificate:
            raise InputError(f"security.{name} means nothing without security.certificate and security.authority")


def _holds(path: str, mark: bytes) -> bool:
    try:
        return mark in named.read(path, named.SETTINGS_BYTES_MAX)
    except OSError:
        return False


class _PassphraseError(Exception):
    """OpenSSL would ask the terminal."""


def _no_passphrase() -> str:
    raise _PassphraseError


def _refuse(setting: str, path: str, error: OSError) -> NoReturn:
    """An ssl.SSLError is an OSError too, whose strerror says nothing to people."""
    if isinstance(error, ssl.SSLError):
        mismatch = "MISMATCH" in (error.reason or "")
        what = "is not the key of security.certificate" if mismatch else "holds nothing that can be used; give PEM"
    else:
        what = f"cannot be read: {error.strerror}"
    raise InputError(f"{setting}: {path} {what}") from None


def _pre_shared_key(security: SecuritySettings, environment: Mapping[str, str]) -> bytes:
    """The key of the file or of the environment; empty without one."""
    told = environment.get(ENVIRONMENT_KEY)
    if security.psk_file and told is not None:
        raise InputError(f"a pre-shared key is in security.psk_file and in {ENVIRONMENT_KEY}; give one of them")
    if security.psk_file:
        where, key = f"security.psk_file: {security.psk_file}", _key_of_file(security.psk_file)
    elif told is not None:
        where, key = ENVIRONMENT_KEY, os.fsencode(told)
    else:
        return b""
    seen = frozenset(key)
    if seen <= _PRINTABLE:
        key = key.strip()  # the line's end is not part of it
    bits = len(key) * (4 if seen <= _HEX else 6 if seen <= _PRINTABLE else 8)
    if bits < KEY_BITS_MIN or len(seen) < _DIFFERENT_MIN:
        raise InputError(
            f"{where} holds no key that is hard to guess: give at least 32 random bytes, "
            "for example of `openssl rand -hex 32`"
        )
    return key


def _key_of_file(path: str) -> bytes:
    """The bytes of a file that only its owner can read; looked at through the descriptor that is read."""
    try:
        with named.opened(path) as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InputError(f"security.psk_file: others can read or write {path}; chmod 600 it")
            key = file.read(_KEY_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"security.psk_file: {path} cannot be read: {error.strerror}") from None
    if len(key) > _KEY_BYTES_MAX:
        raise InputError(f"security.psk_file: {path} has more than {_KEY_BYTES_MAX} bytes; give a key, 32 are enough")
    return key
