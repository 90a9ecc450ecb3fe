"""Peers that lie, babble, stall or leave, against real nodes over real sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from migemu.mm.pages import Level
from migemu.wire.codec import encode, preamble
from migemu.wire.messages import (
    PROTOCOL_VERSION,
    Advise,
    Agreed,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Page,
    Ready,
    Request,
    Resume,
    Run,
    Running,
    Zero,
)  # fmt: skip
from tests.real import threaded
from tests.real.peers import MEMORY_BYTES, PAGES, Peer, advise, connected, listening
from tests.real.processes import destination, source

# --- at the destination's door ---


@pytest.mark.parametrize(
    ("opening", "says"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak migemu"),
        (preamble(PROTOCOL_VERSION + 1), f"version {PROTOCOL_VERSION + 1} there, version {PROTOCOL_VERSION} here"),
        (preamble(0), f"version 0 there, version {PROTOCOL_VERSION} here"),
        (preamble() + b"".join(encode(advise())), "Advise came before Hello"),
        (preamble() + struct.pack(">IH", 0xFFFFFFFF, 3) + b"abc", "larger than the limit"),
        (preamble() + struct.pack(">IH", 0, 3) + b"\xc1\xc1\xc1", "not msgpack"),
        (preamble() + b"".join(encode(Hello(ChannelRole.PREEMPT, "0" * 32))), "without a migration"),
        (b"MIG", "in the middle of a message"),
    ],
    ids=["http", "newer", "older", "no-hello", "oversize", "junk", "preempt-alone", "truncated"],
)
def test_who_is_no_source_is_turned_away_and_the_next_source_is_served(opening: bytes, says: str) -> None:
    with destination() as dest:
        with connected(dest.port) as stranger:
            stranger.say_bytes(opening)
            if opening == b"MIG":
                stranger.connection.shutdown(socket.SHUT_WR)
            stranger.hear_end()
        assert says in dest.wait_for_notice()
        with source(dest.port) as sender:
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error


def test_a_peer_that_says_nothing_is_dropped_after_the_hello_timeout() -> None:
    with destination("--set", "net.hello_timeout=200ms") as dest:
        with connected(dest.port) as silent:
            silent.hear_end()
        assert "said nothing for 200ms" in dest.wait_for_notice()
        with source(dest.port) as sender:
            assert sender.wait() == 0


def test_a_second_source_is_refused_and_the_first_is_undisturbed() -> None:
    with destination() as dest:
        with source(dest.port, "--set", "push.hold=1500ms") as first:
            dest.wait_for_stage("run")
            with threaded.source(dest.port) as second:  # it is there at once, before the first one's hold is over
                assert second.wait() == 3
                assert "busy" in second.error
            assert first.wait() == 0, first.error
        assert dest.wait() == 0, dest.error


# --- within a migration, against the destination ---


def begin(peer: Peer, **changes: int) -> None:
    """Everything up to the guest running."""
    peer.greet()
    peer.say(advise())
    peer.hear(Ready)
    peer.say(Listen(), Run())
    peer.hear(Running)


def ruin(peer: Peer, wrong: Callable[[Peer], None]) -> str:
    wrong(peer)
    failed = peer.hear(Failed)
    assert isinstance(failed, Failed)
    return failed.reason


BYTES = bytes(4096)
ONCE = ("--set", "recovery.timeout=0")
SLOW = ("--set", "pull.preempt=off", "--set", "push.hold=20s", "--set", "memory.zero_share=0")
LIES: list[tuple[str, Callable[[Peer], None], str]] = [
    (
        "page outside memory",
        lambda peer: peer.say(Page(PAGES, 1, Level.PTE, False), payload=BYTES),
        "outside the memory",
    ),
    ("zero outside memory", lambda peer: peer.say(Zero(PAGES - 1, 2, Level.PTE, False)), "outside the memory"),
    ("count overflows", lambda peer: peer.say(Zero(0, 2**62, Level.PMD, False)), "outside the memory"),
    ("unaligned 2M", lambda peer: peer.say(Page(1, 1, Level.PMD, False), payload=BYTES * 4), "not aligned"),
    ("payload too short", lambda peer: peer.say(Page(0, 2, Level.PTE, False), payload=BYTES), "not its pieces' size"),
    ("payload of nothing", lambda peer: peer.say(Zero(0, 1, Level.PTE, False), payload=BYTES), "it has none"),
    ("advise again", lambda peer: peer.say(advise()), "Advise is not allowed"),
    ("run again", lambda peer: peer.say(Run()), "Run is not allowed"),
    ("hello again", lambda peer: peer.say(Hello(ChannelRole.MAIN, "0" * 32)), "Hello is not allowed"),
    ("a destination's message", lambda peer: peer.say(Request(0, 1, Level.PTE)), "Request is not allowed"),
    ("digests before the end", lambda peer: peer.say(Digests(0), payload=bytes(128)), "Digests is not allowed"),
    ("end with a wrong count", lambda peer: peer.say(End(PAGES + 1, 0, 0)), "ends after"),
    (
        "agreed before the verdict",
        lambda peer: peer.say(End(PAGES, 0, 0), Agreed(PAGES, "", 0)),
        "needs the other side",
    ),
    ("resume unasked", lambda peer: peer.say(Resume()), "Resume is not allowed"),
    ("oversize frame", lambda peer: peer.say_bytes(struct.pack(">IH", 1 << 31, 4)), "larger than the limit"),
    ("junk", lambda peer: peer.say_bytes(b"\0\0\0\0\0\1\xff"), "tag of a known message"),
]


@pytest.mark.parametrize(("wrong", "says"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_lying_source_is_refused_with_the_reason(wrong: Callable[[Peer], None], says: str, tmp_path: Path) -> None:
    """Both sides learn it, the exit code is not 0, and the result of what had arrived is written."""
    with destination("--out", str(tmp_path), "--set", "guest.vcpus=0", *ONCE) as dest:
        with connected(dest.port) as peer:
            begin(peer)
            assert says in ruin(peer, wrong)
        assert dest.wait() == 4
        assert says in dest.error
    assert '"status": "failed"' in (tmp_path / "result.json").read_text()


@pytest.mark.parametrize(
    ("announced", "says"),
    [
        (advise(memory_bytes=0), "whole hugetlb pages"),
        (advise(memory_bytes=MEMORY_BYTES + 4096), "whole hugetlb pages"),
        (advise(memory_bytes=2 << 40), "limits.memory_max"),
        (advise(memory_bytes=1 << 62), "limits.memory_max"),
        (Advise("tiny", MEMORY_BYTES, MEMORY_BYTES * 2, 0, False, "{}"), "image"),
        (Advise("tiny", MEMORY_BYTES, MEMORY_BYTES, 1 << 60, False, "{}"), "limits.device_state_max"),
    ],
)
def test_an_announcement_that_cannot_be_met_is_refused_and_the_next_source_is_served(
    announced: Advise, says: str
) -> None:
    """Whoever may connect could end a destination of a single migration otherwise."""
    with destination() as dest:
        with connected(dest.port) as peer:
            peer.greet()
            peer.say(announced)
            failed = peer.hear(Failed)
            assert isinstance(failed, Failed)
            assert says in failed.reason
        assert says in dest.wait_for_notice()
        with source(dest.port) as honest:
            assert honest.wait() == 0, honest.error
        assert dest.wait() == 0, dest.error


def test_device_state_has_to_be_complete_and_in_order() -> None:
    for messages, says in (
        ((DeviceState(5),), "does not follow"),
        ((Run(),), "0 of 10 bytes of device state"),
    ):
        with destination(*ONCE) as dest:
            with connected(dest.port) as peer:
                peer.greet()
                peer.say(advise()._replace(device_state_bytes=10))
                peer.hear(Ready)
                peer.say(Listen())
                peer.say(*messages, payload=b"state" if isinstance(messages[-1], DeviceState) else None)
                failed = peer.hear(Failed)
                assert isinstance(failed, Failed)
                assert says in failed.reason
            assert dest.wait() == 4


def test_a_flipped_byte_is_found_and_the_first_bad_piece_named() -> None:
    """All pieces are zero, the digests speak of other bytes: the verdict says which piece, to both sides."""
    with destination("--set", "guest.vcpus=0") as dest:
        with connected(dest.port) as peer:
            begin(peer)
            peer.say(Zero(0, PAGES, Level.PTE, False), End(PAGES, 0, 0))
            for first in range(0, PAGES, 16):
                peer.say(Digests(first), payload=bytes(128))
            complete = peer.hear(Complete)
            assert isinstance(complete, Complete)
            assert not complete.verified
            assert "first bad piece is base page 0" in complete.reason
        assert dest.wait() == 5
        assert "first bad piece is base page 0" in dest.error


@pytest.mark.parametrize("stage", ["hello", "advise", "run", "pages", "mid-page", "end"])
def test_a_source_that_leaves_is_noticed_in_every_stage(stage: str, tmp_path: Path) -> None:
    with destination("--out", str(tmp_path), "--set", "guest.vcpus=0", *ONCE) as dest:
        with connected(dest.port) as peer:
            peer.greet()
            if stage != "hello":
                peer.say(advise())
                peer.hear(Ready)
            if stage in ("run", "pages", "mid-page", "end"):
                peer.say(Listen(), Run())
                peer.hear(Running)
            if stage == "pages":
                peer.say(Page(3, 2, Level.PTE, False), payload=BYTES * 2)
            if stage == "mid-page":
                frame = b"".join(encode(Page(0, 16, Level.PTE, False), BYTES * 16))
                peer.say_bytes(frame[: len(frame) // 2])
            if stage == "end":
                peer.say(Zero(0, PAGES - 1, Level.PTE, False), End(PAGES, 0, 0))
            peer.connection.shutdown(socket.SHUT_WR)
            peer.hear_end()
        if stage == "hello":  # it was nobody's migration yet
            assert "before the migration was complete" in dest.wait_for_notice()
            return
        assert dest.wait() == 3
        assert "in the middle of a message" in dest.error or "before the migration was complete" in dest.error


@pytest.mark.parametrize(("zeros", "is_written"), [(PAGES - 1, True), (PAGES - 2, False)], ids=["all", "not all"])
def test_what_came_whole_is_dumped_unverified_when_no_digests_come(
    zeros: int, is_written: bool, tmp_path: Path
) -> None:  # fmt: skip
    """The guest has run here, and its source is gone for good: the dump is all that is left of it."""
    dump = tmp_path / "dump"
    dump.write_bytes(b"earlier")
    with destination("--out", str(tmp_path), "--dump", str(dump), "--set", "guest.vcpus=0", *ONCE) as dest:
        with connected(dest.port) as peer:
            begin(peer)
            peer.say(Page(0, 1, Level.PTE, False), payload=b"\x5a" * 4096)
            peer.say(Zero(1, zeros, Level.PTE, False))
            peer.connection.shutdown(socket.SHUT_WR)
            peer.hear_end()
        assert dest.wait() == 3
        told = [each["notice"] for each in dest.said if "notice" in each]
    unverified = "; unverified: all of it came, and was not compared with the source's"
    assert [line.endswith(unverified) for line in told if "--dump" in line] == [True] * is_written
    assert dump.read_bytes() == (b"\x5a" * 4096 + bytes(MEMORY_BYTES - 4096) if is_written else b"earlier")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "failed"


def test_a_source_that_falls_silent_is_given_up_after_the_idle_timeout() -> None:
    with destination("--set", "net.idle_timeout=300ms", *ONCE) as dest:
        with connected(dest.port) as peer:
            begin(peer)
            failed = peer.hear(Failed)
            assert isinstance(failed, Failed)
            assert "silent for 300ms" in failed.reason
        assert dest.wait() == 3


# --- against the source ---


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        (lambda peer: peer.say_bytes(b"220 mail.example ESMTP\r\n"), 4, "does not speak migemu"),
        (lambda peer: peer.say_bytes(preamble(9)), 4, f"version 9 there, version {PROTOCOL_VERSION} here"),
        (lambda peer: (peer.say_bytes(preamble()), peer.say(Running())), 4, "Running is not allowed"),
        (lambda peer: (peer.say_bytes(preamble()), peer.say(Failed("no room"))), 3, "gave up: no room"),
        (lambda peer: (peer.say_bytes(preamble()), peer.say(Complete(True, "", ""))), 4, "Complete is not allowed"),
        (
            lambda peer: (peer.say_bytes(preamble()[:3]), peer.connection.shutdown(socket.SHUT_WR)),
            3,
            "in the middle of a message",
        ),
        (lambda peer: peer.say_bytes(preamble()), 3, "silent for 500ms"),
        (lambda peer: None, 3, "silent for 500ms"),
    ],
    ids=["smtp", "newer", "running-first", "gives-up", "complete-first", "leaves", "says-nothing-more", "mute"],
)
def test_a_strange_destination_is_told_apart(script: Callable[[Peer], None], code: int, says: str) -> None:
    with listening() as (server, port), source(port, "--set", "net.idle_timeout=500ms") as sender:
        connection, _ = server.accept()
        with connection:
            script(Peer(connection))
            assert sender.wait() == code
            assert says in sender.error


def test_a_request_outside_memory_is_refused() -> None:
    with listening() as (server, port), source(port, *SLOW, *ONCE) as sender:
        connection, _ = server.accept()
        with connection:
            peer = Peer(connection)
            peer.say_bytes(preamble())
            peer.hear(Advise)
            peer.say(Ready(peer.migration))
            peer.hear(Run)
            peer.say(Running(), Request(0, 1, Level.PTE))
            page = peer.hear(Page)
            assert isinstance(page, Page)
            assert (page.first, page.count, page.urgent) == (0, 1, True)
            peer.say(Request(PAGES, 1, Level.PTE))
            failed = peer.hear(Failed)
            assert isinstance(failed, Failed)
            assert "outside the memory" in failed.reason
            assert sender.wait() == 4
