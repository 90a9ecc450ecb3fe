"""What a node may show and ask for, and which files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migemu.errors import InputError
from migemu.scenario.net import SecuritySettings
from migemu.transport.security.credentials import Credentials, is_loopback, load
from migemu.transport.security.psk import PskEnd
from tests import certificates
from tests.certificates import KEY, PSK, TLS, credentials, security

OPEN = Credentials()


def key_file(folder: Path, content: bytes = KEY.encode() + b"\n", mode: int = 0o600) -> str:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


# --- how far it reaches ---


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_within_the_machine_nothing_is_asked_for(address: str) -> None:
    assert is_loopback(address)
    OPEN.check_reach("listening on", address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1"])
def test_beyond_it_something_has_to_keep_strangers_out(address: str) -> None:
    with pytest.raises(InputError, match=r"listening on .*security.psk_file, or say --insecure"):
        OPEN.check_reach("listening on", address)
    for of in (TLS, PSK, Credentials(insecure=True)):
        of.check_reach("listening on", address)


def test_without_settings_nothing_stands_before_the_stream() -> None:
    assert load(SecuritySettings(), {}) == (OPEN, [])
    assert OPEN.gate(PskEnd.SOURCE, "host") is None
    assert OPEN.gate(PskEnd.DESTINATION) is None


# --- TLS ---


def test_a_certificate_and_its_key_may_share_a_file(tmp_path: Path) -> None:
    settings = security()
    both = tmp_path / "both.pem"
    both.write_text(Path(settings["certificate"]).read_text() + Path(settings["key"]).read_text())
    both.chmod(0o600)
    of, warnings = load(SecuritySettings(certificate=str(both), authority=settings["authority"]), {})
    assert of.client is not None
    assert warnings == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"authority": ""}, "security.authority is missing: TLS needs"),
        ({"certificate": ""}, "security.certificate is missing: TLS needs"),
        ({"certificate": "", "authority": ""}, "security.key means nothing without security.certificate"),
        (
            {"certificate": "", "authority": "", "key": "", "peer_name": "a"},
            "security.peer_name means nothing without security.certificate",
        ),
        ({"certificate": "/none"}, "security.certificate: /none cannot be read: No such file"),
        ({"certificate": "/none", "key": ""}, "security.certificate: /none cannot be read: No such file"),
        ({"key": "/none"}, "security.key: /none cannot be read: No such file"),
        ({"authority": "/none"}, "security.authority: /none cannot be read: No such file"),
        ({"authority": __file__}, "security.authority: .* holds nothing that can be used; give PEM"),
        ({"certificate": __file__}, "security.certificate: .* holds nothing that can be used; give PEM"),
        ({"key": __file__}, "security.key: .* holds nothing that can be used; give PEM"),
        ({"key": certificates.certificate("other.example")[1]}, "is not the key of security.certificate"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_the_name_of_their_setting(changes: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        load(SecuritySettings(**security() | changes), {})
    assert "\n" not in str(refused.value)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    settings = security()
    key = serialization.load_pem_private_key(Path(settings["key"]).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with pytest.raises(InputError, match=r"security\.key: .*locked\.key needs a passphrase"):
        load(SecuritySettings(**settings | {"key": str(locked)}), {})


def test_a_private_key_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    settings = security()
    bare = tmp_path / "bare.key"
    bare.write_bytes(Path(settings["key"]).read_bytes())
    for mode, warnings in ((0o600, 0), (0o640, 0), (0o644, 1)):
        bare.chmod(mode)
        _, told = load(SecuritySettings(**settings | {"key": str(bare)}), {})
        assert len(told) == warnings
    assert told == [f"security.key: everybody on this machine can read the private key {bare}; chmod 600 it"]


# --- the pre-shared key ---


def test_a_key_may_be_in_a_file_or_in_the_environment(tmp_path: Path) -> None:
    """The end of the line is not part of it."""
    here = load(SecuritySettings(psk_file=key_file(tmp_path)), {})[0]
    assert here == load(SecuritySettings(), {"MIGEMU_PSK": KEY})[0] == PSK
    assert here.key == KEY.encode()


def test_a_key_of_any_32_bytes_is_taken_as_it_is(tmp_path: Path) -> None:
    key = bytes(range(200, 231)) + b"\n"
    assert load(SecuritySettings(psk_file=key_file(tmp_path, key)), {})[0].key == key


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"secret", b"0123456789abcdef" * 3, b"correct horse battery staple, as they say", b"ab" * 64,
     bytes(range(128, 159))],
    ids=["nothing", "an empty line", "a word", "too few digits", "too few words", "twice the same", "31 bytes"],
)  # fmt: skip
def test_a_key_that_can_be_guessed_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no key that is hard to guess: .*openssl rand -hex 32"):
        load(SecuritySettings(psk_file=key_file(tmp_path, content)), {})
    with pytest.raises(InputError, match=r"MIGEMU_PSK holds no key"):
        load(SecuritySettings(), {"MIGEMU_PSK": os.fsdecode(content)})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_key_file_that_others_can_use_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"security\.psk_file: others can read or write .*; chmod 600 it"):
        load(SecuritySettings(psk_file=key_file(tmp_path, mode=mode)), {})


def test_what_is_no_file_with_a_key_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    large = key_file(tmp_path, KEY.encode() * 1000)
    for path, says in ((tmp_path / "none", "No such file"), (pipe, "it is a pipe"), (large, "more than 4096 bytes")):
        with pytest.raises(InputError, match=says):
            load(SecuritySettings(psk_file=str(path)), {})


def test_two_keys_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in security.psk_file and in MIGEMU_PSK; give one"):
        load(SecuritySettings(psk_file=key_file(tmp_path)), {"MIGEMU_PSK": KEY})


def test_a_key_is_not_shown() -> None:
    assert KEY not in repr(credentials(KEY))
