"""Whole migrations between two real nodes that trust each other, and what the nodes say about those they do not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from migemu.address import LOOPBACK, TcpAddress
from migemu.errors import MigemuError
from migemu.scenario.net import NetSettings
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.tcp import TcpNetwork
from tests import certificates
from tests.certificates import KEY, PSK, credentials, security
from tests.conformance.ear import Ear
from tests.real.processes import TINY, destination, node, source


def settings(**values: str) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in ("--set", f"security.{key}={value}"))


def key_file(folder: Path, key: str = KEY) -> str:
    path = folder / f"{key[:4]}.psk"
    path.write_text(f"{key}\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("kind", ["tls", "psk", "tls and psk", "tls with a name", "psk of the environment"])
def test_a_migration_is_verified(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = there = settings(**security())
    if kind == "tls and psk":
        here = there = settings(**security(), psk_file=key_file(tmp_path))
    elif kind == "psk":
        here = there = settings(psk_file=key_file(tmp_path))
    elif kind == "tls with a name":
        here = settings(**security("source.example"))
        there = settings(**security(), peer_name="source.example")
    elif kind == "psk of the environment":
        here = there = ()
        monkeypatch.setenv("MIGEMU_PSK", KEY)
    with destination(*there) as dest, source(dest.port, *here) as sender:
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    assert not any("notice" in said for said in (*sender.said, *dest.said))


def test_a_large_migration_under_load_is_verified_through_tls(tmp_path: Path) -> None:
    """With requests, a preempt channel, and runs larger than a record."""
    extra = ("--set", "memory.size=64M", "--set", "guest.rate=0", *settings(**security(), psk_file=key_file(tmp_path)))
    with destination(*extra) as dest, source(dest.port, *extra) as sender:
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error


async def turned_away(port: int, of: Credentials) -> str:
    """What a caller with these credentials is told."""
    ear = Ear()
    try:
        channel = await TcpNetwork(NetSettings(), MonotonicClock(), None, of).connect(TcpAddress(LOOPBACK, port), ear)
    except MigemuError as error:
        return str(error)
    told = await ear.end()
    await channel.close()
    return str(told)


def test_strangers_are_told_in_a_line_each_while_a_migration_runs_undisturbed(tmp_path: Path) -> None:
    """One of each kind: plain, of another key, of another authority, one that leaves, one that only stands there."""
    ours = settings(**security(), psk_file=key_file(tmp_path))
    others = [
        (Credentials(), "set security.certificate"),
        (credentials(KEY[::-1], **security()), "did not accept the pre-shared key"),
        (credentials(KEY, **security(of="theirs")), "does not trust this side's certificate"),
        (PSK, "showed no pre-shared key"),
    ]
    with destination(*ours) as dest, source(dest.port, *ours, "--set", "push.hold=3s") as sender:
        dest.wait_for_stage("run")
        with socket.create_connection(("127.0.0.1", dest.port)) as leaving:
            leaving.sendall(b"\x16\x03\x01\x00\xff")
        with socket.create_connection(("127.0.0.1", dest.port)):
            for of, says in others:
                assert says in asyncio.run(turned_away(dest.port, of))
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    notices = [said["notice"] for said in dest.said if "notice" in said]
    assert len(notices) == len(others) + 1
    assert all(notice.startswith("turned away 127.0.0.1:") and "\n" not in notice for notice in notices)
    assert KEY not in str(dest.said) + str(sender.said)


def test_a_handshake_that_does_not_end_is_dropped_after_the_hello_timeout(tmp_path: Path) -> None:
    """However slowly it goes on."""
    with destination(*settings(**security()), "--set", "net.hello_timeout=300ms") as dest:
        chain, key = certificates.certificate()
        context = ssl.create_default_context(cafile=certificates.authority_file())
        context.load_cert_chain(chain, key)
        out = ssl.MemoryBIO()
        half = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=certificates.NODE)
        with pytest.raises(ssl.SSLWantReadError):
            half.do_handshake()
        with socket.create_connection(("127.0.0.1", dest.port), timeout=20) as dripping:
            dripping.sendall(out.read()[:50])
            assert dripping.recv(100) == b""
        assert "300ms" in dest.wait_for_notice()
        with source(dest.port, *settings(**security())) as sender:
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error


@pytest.mark.parametrize(
    ("module", "option", "address", "verb"),
    [("dest_node", "--listen", "0.0.0.0:0", "listening on"), ("source_node", "--connect", "192.0.2.1:4", "connecting")],
)
def test_beyond_this_machine_nothing_goes_without_a_word(module: str, option: str, address: str, verb: str) -> None:
    with node(module, option, address, *TINY) as careless:
        assert careless.wait() == 2
        assert careless.error.startswith(verb)
        assert "security.certificate and security.authority, or security.psk_file, or say --insecure" in careless.error


@pytest.mark.parametrize("how", ["--insecure", "psk", "tls"])
def test_beyond_this_machine_it_goes_with_one(how: str, tmp_path: Path) -> None:
    options = {
        "--insecure": ("--insecure",),
        "psk": settings(psk_file=key_file(tmp_path)),
        "tls": settings(**security()),
    }
    with node("dest_node", "--listen", "0.0.0.0:0", *TINY, *options[how]) as dest:
        assert dest.port
        with source(dest.port, *options[how]) as sender:
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error


def test_a_key_that_everybody_can_read_is_told_of_and_a_wrong_setting_ends_it(tmp_path: Path) -> None:
    values = security()
    bare = tmp_path / "bare.key"
    bare.write_bytes(Path(values["key"]).read_bytes())
    bare.chmod(0o644)
    with destination(*settings(**values | {"key": str(bare)})) as dest:
        assert "everybody on this machine can read the private key" in dest.wait_for_notice()
    path = Path(key_file(tmp_path))
    path.chmod(0o644)
    with destination(*settings(psk_file=str(path))) as dest:
        assert dest.wait() == 2
        assert "others can read or write" in dest.error
