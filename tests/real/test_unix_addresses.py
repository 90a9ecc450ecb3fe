"""Nodes that meet at a socket file, or at an address of one link: files that come and go, names in messages."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from migemu.address import TcpAddress, UnixAddress
from migemu.errors import BrokenError, InputError
from migemu.scenario.net import NetSettings
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.tcp import TcpNetwork
from tests.certificates import TLS
from tests.conformance.ear import Ear
from tests.real.processes import TINY, node


@pytest.fixture
def there() -> Iterator[Path]:
    """A file in a directory of a short name."""
    with TemporaryDirectory(prefix="m-") as directory:
        yield Path(directory) / "there.sock"


def network(credentials: Credentials | None = None) -> TcpNetwork:
    return TcpNetwork(NetSettings(connect_timeout="100ms"), MonotonicClock(), None, credentials or Credentials())


async def test_only_the_user_may_connect_and_the_file_goes_with_the_listener(there: Path) -> None:
    listener = await network().listen(UnixAddress(str(there)), lambda _: Ear())
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    await listener.close()
    assert not there.exists()


async def test_a_file_that_a_killed_node_has_left_is_taken_over_and_nothing_else(there: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(there))
        with pytest.raises(BrokenError, match="another process listens there"):  # it may do so any moment
            await network().listen(UnixAddress(str(there)), lambda _: Ear())
    listener = await network().listen(UnixAddress(str(there)), lambda _: Ear())
    with pytest.raises(BrokenError, match=f"cannot listen on unix:{there}: Address already in use; another process"):
        await network().listen(UnixAddress(str(there)), lambda _: Ear())
    await listener.close()
    there.write_text("precious")
    with pytest.raises(BrokenError, match="or it is no socket of yours"):
        await network().listen(UnixAddress(str(there)), lambda _: Ear())
    assert there.read_text() == "precious"


async def test_whoever_leaves_lets_the_file_of_another_one_be(there: Path) -> None:
    first = await network().listen(UnixAddress(str(there)), lambda _: Ear())
    there.unlink()
    second = await network().listen(UnixAddress(str(there)), lambda _: Ear())
    await first.close()
    assert there.exists()
    await second.close()


async def test_a_path_may_be_longer_than_an_address(there: Path) -> None:
    long = there.parent / ("d" * 100) / ("e" * 60) / "there.sock"
    long.parent.mkdir(parents=True)
    listener = await network().listen(UnixAddress(str(long)), lambda _: Ear())
    channel = await network().connect(listener.address, Ear())
    assert channel.peer == f"unix:{long}"
    await channel.close()
    await listener.close()
    assert not long.exists()


async def test_a_name_that_is_too_long_is_told_in_one_line(there: Path) -> None:
    far = UnixAddress(str(there.parent / ("f" * 150)))
    with pytest.raises(BrokenError, match="File name too long"):
        await network().listen(far, lambda _: Ear())
    with pytest.raises(BrokenError, match=r"nobody answers at unix:.*File name too long"):
        await network().connect(far, Ear(), once=True)


async def test_nobody_there_is_told_with_the_path(there: Path) -> None:
    with pytest.raises(BrokenError, match=f"nobody answers at unix:{there} .No such file or directory; tried for"):
        await network().connect(UnixAddress(str(there)), Ear())


async def test_a_certificate_needs_a_name_that_a_file_does_not_give(there: Path) -> None:
    with pytest.raises(InputError, match=r"security.peer_name is missing: unix:.* names no host"):
        await network(TLS).connect(UnixAddress(str(there)), Ear())


async def test_an_address_of_one_link_keeps_its_zone(there: Path) -> None:
    """The kernel takes it, and says it again; uvloop leaves it out of what it resolves."""
    found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    local = [(number, device) for number, *_, device in found if number.startswith("fe80")]
    if not local:
        pytest.skip(reason="no device of this machine has an address of its link")
    (number, device), *_ = local
    host = f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))}%{device}"
    ours = network(Credentials(insecure=True))
    peers: list[str] = []

    def accept(channel: object) -> Ear:
        peers.append(channel.peer)  # type: ignore[attr-defined]
        return Ear()

    listener = await ours.listen(TcpAddress(host, 0), accept)
    assert isinstance(listener.address, TcpAddress)
    assert listener.address.host == host
    channel = await ours.connect(listener.address, Ear())
    assert channel.peer == str(listener.address) == f"[{host}]:{listener.address.port}"
    assert peers[0].startswith(f"[{host}]:")
    await channel.close()
    await listener.close()
    with pytest.raises(InputError, match=f"connecting to {host} without TLS"):
        await network().connect(listener.address, Ear())


@pytest.mark.parametrize("settings", [(), ("--set", "pull.preempt=off"), ("--set", "link.rate=1Gbit")], ids=str)
def test_a_migration_over_a_socket_file_is_verified_and_leaves_none(there: Path, settings: tuple[str, ...]) -> None:
    with node("dest_node", "--listen", f"unix:{there}", *TINY) as dest:
        assert dest.address == UnixAddress(str(there))
        with node("source_node", "--connect", f"unix:{there}", *TINY, *settings) as sender:
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    assert not there.exists()


def test_a_stranger_at_a_socket_file_is_told_by_process_and_user(there: Path) -> None:
    with node("dest_node", "--listen", f"unix:{there}", *TINY) as dest:
        assert dest.address == UnixAddress(str(there))
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(there))
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            me = f"turned away process {os.getpid()} of user {os.getuid()}: "
            assert dest.wait_for_notice().startswith(me)


def test_a_killed_source_finds_the_socket_file_again_from_another_directory(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ("--set", "push.hold=1s", "--set", "guest.rate=1000")
    monkeypatch.chdir(there.parent)
    with node("dest_node", "--listen", "unix:there.sock", *TINY, *held) as dest:
        assert dest.address == UnixAddress(str(there))
        with node("source_node", "--connect", "unix:there.sock", *TINY, *held, "--out", str(tmp_path)) as first:
            dest.wait_until(lambda said: said.get("status", {}).get("received_bytes", 0))
            first.signal(signal.SIGKILL)
            first.wait()
        assert json.loads((tmp_path / "migration.json").read_text())["address"] == f"unix:{there}"
        monkeypatch.chdir("/")
        with node("source_node", "--recover", str(tmp_path)) as second:
            assert second.wait() == 0, second.error
        assert dest.wait() == 0, dest.error
