"""Nodes of today and peers of other versions, over real sockets: those of the captures, and those that are to come.

Another version of the protocol is refused by its name, on both sides, before anything else is read. Within a version
messages may have fields that this side does not know: they are passed over, unless they say that they must be known.
"""

from __future__ import annotations

from typing import Any

import pytest

from migemu.mm.pages import Level
from migemu.wire.codec import preamble
from migemu.wire.digest import MemoryDigest, page_digests
from migemu.wire.messages import (
    PROTOCOL_VERSION,
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Run,
    Running,
    Zero,
)  # fmt: skip
from tests.golden.captures import capture
from tests.real.peers import MIGRATION, PAGES, Peer, advise, connected, listening
from tests.real.threaded import destination, source
from tests.unit.wire.stream import with_extra

OLDER = range(1, PROTOCOL_VERSION)
NEWER = (PROTOCOL_VERSION + 1, 65535)
#: What a later version of the program may say besides: of no importance here, of any shape.
OPTIONAL: dict[str, Any] = {"colour": "blue", "sizes": [1, {"a": 2}], "later": None}
REQUIRED: dict[str, Any] = {"colour": 1, "sparse!": True}


def speech(version: int) -> bytes:
    """All that a peer of an older version can say; a newer one says what nobody knows yet."""
    if version < PROTOCOL_VERSION:
        return b"".join(bytes.fromhex(digits) for _, digits in capture(version))
    return preamble(version) + b"\x00\x00\x00\x03\x00\x02\x91\x63new"


def say_with(peer: Peer, extra: dict[str, Any], *messages: Message, payload: bytes = b"") -> None:
    """Messages with fields that this version does not know; the payload belongs to each."""
    for message in messages:
        peer.say_bytes(with_extra(message, extra, len(payload)) + payload)


@pytest.mark.parametrize("version", [*OLDER, *NEWER])
def test_a_source_of_another_version_is_turned_away_by_its_name_and_the_next_one_is_served(version: int) -> None:
    with destination() as dest:
        with connected(dest.port) as stranger:
            stranger.say_bytes(speech(version))
            stranger.leave()
        with source(dest.port) as honest:
            assert honest.wait() == 0, honest.error
        assert dest.wait() == 0, dest.error
        (notice,) = dest.notices
        assert f"version {version} there, version {PROTOCOL_VERSION} here; run the same migemu on both sides" in notice


@pytest.mark.parametrize("version", [*OLDER, *NEWER])
def test_a_destination_of_another_version_is_told_by_its_name_and_the_guest_stays(version: int) -> None:
    with listening() as (server, port), source(port) as sender:
        connection, _ = server.accept()
        with connection:
            connection.sendall(speech(version))
            Peer(connection).hear_end()
        assert sender.wait() == 4
        assert f"version {version} there, version {PROTOCOL_VERSION} here" in sender.error
        assert "The guest runs on at the source" in sender.error


@pytest.mark.parametrize("version", [*OLDER, *NEWER])
def test_a_source_of_another_version_cannot_recover_a_migration_and_the_right_one_can(version: int) -> None:
    with destination("guest.vcpus=0") as dest:
        with connected(dest.port) as peer:
            peer.greet()
            peer.say(advise())
            peer.hear(Ready)
            peer.say(Listen(), Run())
            peer.hear(Running)
        with connected(dest.port) as stranger:
            stranger.say_bytes(speech(version))
            stranger.leave()
        with connected(dest.port) as again:
            again.greet(again=True)
            again.say(Recover())
            again.hear(ReceivedBitmap)
        assert f"version {version} there" in dest.notices[0]


@pytest.mark.parametrize("version", [*OLDER, *NEWER])
def test_a_destination_of_another_version_after_the_switch_ends_it_at_once(version: int) -> None:
    """Trying again would not change it. Several times: it may be heard before or after the connection stands.

    Nothing is pushed meanwhile: a source that has sent everything says where to look for the verdict instead.
    """
    settings = ("pull.preempt=off", "recovery.backoff_min=1ms", "push.hold=60s")
    for _ in range(6):
        with listening() as (server, port), source(port, *settings) as sender:
            connection, _ = server.accept()
            with connection:
                peer = Peer(connection)
                peer.say_bytes(preamble())
                peer.hear(Advise)
                peer.say(Ready(peer.migration))
                peer.hear(Run)
                peer.say(Running())
            connection, _ = server.accept()
            with connection:
                connection.sendall(speech(version))
                Peer(connection).hear_end()
            assert sender.wait() == 4
            assert f"version {version} there" in sender.error
            assert "The guest is at the destination" in sender.error


def test_what_a_newer_source_says_besides_is_passed_over() -> None:
    """A whole migration, every message with fields that nobody here knows."""
    page, digests = b"a" * 4096, page_digests(memoryview(b"a" * 4096 + bytes(15 * 4096)), 4096)
    whole = MemoryDigest()
    with destination("guest.vcpus=0") as dest, connected(dest.port) as peer:
        peer.say_bytes(preamble())
        say_with(peer, OPTIONAL, Hello(ChannelRole.MAIN, MIGRATION), advise(), Alive())
        peer.hear(Ready)
        say_with(peer, OPTIONAL, Listen(), Run())
        peer.hear(Running)
        for first in range(0, PAGES, 16):
            say_with(peer, OPTIONAL, Page(first, 1, Level.PTE, False), payload=page)
            say_with(peer, OPTIONAL, Zero(first + 1, 15, Level.PTE, False))
        say_with(peer, OPTIONAL, End(PAGES, 0, 0))
        for first in range(0, PAGES, 16):
            say_with(peer, OPTIONAL, Digests(first), payload=digests)
            whole.add(digests)
        assert peer.hear(Complete) == Complete(True, whole.hexdigest(), "")
        say_with(peer, OPTIONAL, Agreed(PAGES, whole.hexdigest(), 0))
        peer.connection.close()
        assert dest.wait() == 0, dest.error


def test_what_a_newer_destination_says_besides_is_passed_over() -> None:
    whole = MemoryDigest()
    with listening() as (server, port), source(port, "pull.preempt=off") as sender:
        connection, _ = server.accept()
        with connection:
            peer = Peer(connection)
            peer.say_bytes(preamble())
            peer.hear(Advise)
            say_with(peer, OPTIONAL, Ready(peer.migration), Alive())
            peer.hear(Run)
            say_with(peer, OPTIONAL, Running(), Request(0, 1, Level.PTE))
            for _ in range(0, PAGES, 16):
                peer.hear(Digests)
                whole.add(peer.payload)
            say_with(peer, OPTIONAL, Complete(True, whole.hexdigest(), ""))
            assert peer.hear(Agreed) == Agreed(PAGES, whole.hexdigest(), 0)
            peer.leave()
        assert sender.wait() == 0, sender.error


@pytest.mark.parametrize(
    ("bytes_", "says"),
    [
        (with_extra(Alive(), REQUIRED), "Alive has the field 'sparse!', which this side must know and does not"),
        (with_extra(Failed("no", True), REQUIRED), "Failed has the field 'sparse!', which this side must know"),
        (b"\0\0\0\0\0\2\x91\x15", "known message (it is 21); run the same migemu on both sides"),
        (b"\0\0\0\5\0\2\x91\x63later", "known message (it is 99); run the same migemu on both sides"),
    ],
    ids=["a field that must be known", "also in a goodbye", "a new kind of message", "with a payload"],
)
def test_what_must_be_known_and_is_not_is_refused_by_its_name(bytes_: bytes, says: str) -> None:
    with destination("recovery.timeout=0") as dest, connected(dest.port) as peer:
        peer.greet()
        peer.say(advise())
        peer.hear(Ready)
        peer.say_bytes(bytes_)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert says in failed.reason
        peer.connection.close()
        assert dest.wait() == 4
        assert says in dest.error
    with listening() as (server, port), source(port) as sender:
        connection, _ = server.accept()
        with connection:
            peer = Peer(connection)
            peer.say_bytes(preamble() + bytes_)
            peer.leave()
        assert sender.wait() == 4
        assert says in sender.error
        assert "The guest runs on at the source" in sender.error
