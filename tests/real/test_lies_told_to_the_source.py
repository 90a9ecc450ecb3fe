"""Destinations that lie, against the source's service over real sockets: refused in a line that names the lie, exit 4.

After the switch the guest is there, so that a lie is a lost connection first: `recovery.errors_max=0` makes the first
one the last. What each decoder and state says to each wrong byte stands in the tests of the wire.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migemu.mm.pages import Level
from migemu.wire.codec import preamble
from migemu.wire.messages import (
    Advise,
    Agreed,
    Complete,
    Digests,
    End,
    Failed,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resume,
    Resumed,
    Run,
    Running,
)  # fmt: skip
from tests.real.peers import MIGRATION, PAGES, Peer, listening
from tests.real.threaded import Threaded, source

Lie = Callable[[Peer], object]
PATIENCE = ("recovery.errors_max=0", "recovery.backoff_min=1ms", "recovery.backoff_max=1ms")
ALONE = ("pull.preempt=off", "memory.zero_share=0")
#: Nothing is sent but what is asked for.
HELD = "push.hold=20s"
WHERE = "The guest is at the destination, where 256 of 256 base pages are not known to have arrived"


@contextmanager
def switched(*settings: str) -> Iterator[tuple[Threaded, Peer, Callable[[], Peer]]]:
    """A source whose guest runs at a destination written by hand; the next connection that it makes."""
    with listening() as (server, port), source(port, *ALONE, *PATIENCE, *settings) as sender:
        connections = []

        def accept() -> Peer:
            connection, _ = server.accept()
            connections.append(connection)
            peer = Peer(connection)
            peer.say_bytes(preamble())
            return peer

        try:
            peer = accept()
            peer.hear(Advise)
            peer.say(Ready(peer.migration))
            peer.hear(Run)
            peer.say(Running())
            yield sender, peer, accept
        finally:
            for connection in connections:
                connection.close()


def said(*messages: Message, payload: bytes | None = None) -> Lie:
    return lambda peer: peer.say(*messages, payload=payload)


LIES: list[tuple[str, Lie, str]] = [
    ("a page outside", said(Request(PAGES, 1, Level.PTE)), "outside the memory of 256 pages"),
    ("pages to behind the end", said(Request(PAGES - 4, 2, Level.PMD)), "outside the memory of 256 pages"),
    ("a count that overflows", said(Request(0, 2**63 - 1, Level.PMD)), "outside the memory of 256 pages"),
    ("no pages", said(Request(0, 0, Level.PTE)), "is empty"),
    ("a piece that is none", said(Request(1, 1, Level.PMD)), "not aligned"),
    ("all of it again", said(Request(0, 64, Level.PTE, True)), "is of 64 base pages at once; 4 are the most"),
    ("ready again", said(Ready(MIGRATION)), "Ready is not allowed from the destination in state run"),
    ("running again", said(Running()), "Running is not allowed"),
    ("complete before the end", said(Complete(True, "0" * 32, "")), "needs the other side in state end"),
    ("a bitmap unasked", said(ReceivedBitmap(0, PAGES, False)), "a received bitmap came that was not asked for"),
    ("resumed without resume", said(Resumed()), "Resumed is not allowed"),
    ("a piece of its own", said(Page(0, 1, Level.PTE, True), payload=bytes(4096)), "Page is not allowed"),
    ("the end", said(End(PAGES, 0, 0)), "End is not allowed from the destination"),
    ("the last word", said(Agreed(PAGES, "", 0)), "Agreed is not allowed from the destination"),
    ("a run of its own", said(Run()), "Run is not allowed from the destination"),
]


@pytest.mark.parametrize(("lie", "says"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_lying_destination_is_refused_with_the_reason(lie: Lie, says: str) -> None:
    with switched(HELD) as (sender, peer, _):
        lie(peer)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert says in failed.reason
        assert not failed.over, "the migration may be recovered over another connection"
        peer.leave()
        assert sender.wait() == 4
        assert says in sender.error
        assert WHERE in sender.error


HALF = ReceivedBitmap(0, PAGES // 2, False)
BOMB = zlib.compress(bytes(1 << 14))
LIES_IN_RECOVERY: list[tuple[str, Lie, str]] = [
    ("a bitmap of a larger memory", said(ReceivedBitmap(0, 2 * PAGES, False)), "does not fit this memory of 256 pages"),
    ("a bitmap that overflows", said(ReceivedBitmap(0, 2**63 - 16, True)), "does not fit this memory"),
    ("a bitmap of half a hugetlb page", said(ReceivedBitmap(0, 8, False)), "does not fit this memory"),
    ("a bitmap with a gap", said(HALF, ReceivedBitmap(PAGES // 2 + 16, 16, False)), "on came where 128 was due"),
    ("a bitmap twice", said(HALF, HALF), "from 0 on came where 128 was due"),
    ("a bomb", said(ReceivedBitmap(0, 16, False), payload=BOMB), "is not 2 bytes long"),
    ("no zlib", said(ReceivedBitmap(0, 16, False), payload=b"\xff" * 20), "is not zlib"),
    ("what was never sent", said(ReceivedBitmap(0, PAGES, True)), "some were never sent"),
    ("resumed without resume", said(Resumed()), "Resumed is not allowed"),
    ("resumed after half", said(HALF, Resumed()), "needs the other side in state run or end"),
    ("a request before resumed", said(HALF, Request(0, 1, Level.PTE)), "Request is not allowed"),
    ("a verdict", said(Complete(True, "0" * 32, "")), "Complete is not allowed"),
    ("running again", said(Running()), "Running is not allowed"),
    ("run was not heard after all", said(Ready(MIGRATION)), "Ready is not allowed from the destination in"),
    ("recover", said(Recover()), "Recover is not allowed from the destination"),
]


@pytest.mark.parametrize(
    ("lie", "says"), [lie[1:] for lie in LIES_IN_RECOVERY], ids=[lie[0] for lie in LIES_IN_RECOVERY]
)
def test_a_destination_that_lies_about_what_it_has_is_refused_with_the_reason(lie: Lie, says: str) -> None:
    with switched(HELD) as (sender, peer, accept):
        peer.connection.close()
        peer = accept()
        peer.hear(Recover)
        lie(peer)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert says in failed.reason
        peer.leave()
        assert sender.wait() == 4
        assert says in sender.error
        assert WHERE in sender.error


def test_what_was_sent_and_is_denied_is_sent_again() -> None:
    """That is no lie that can be told from a loss."""
    with switched() as (_, peer, accept):
        peer.hear(End)
        peer.connection.close()
        peer = accept()
        peer.hear(Recover)
        peer.say(ReceivedBitmap(0, PAGES, False))
        peer.hear(Resume)
        peer.say(Resumed())
        peer.hear(Page)
        peer.hear(End)


@pytest.mark.parametrize(
    ("verdict", "code", "says"),
    [
        (Complete(True, "f" * 32, ""), 4, "has verified digest " + "f" * 32 + "; the source's own is"),
        (Complete(True, "", ""), 4, "has verified digest ; the source's own is"),
        (Complete(True, "f" * 8000, ""), 4, "has verified digest " + "f" * 40 + ";"),
        (Complete(False, "", "\x1b[2Jgone\nwrong"), 5, "does not hold the source's memory: ?[2Jgone wrong"),
        (Failed("\x1b]0;mine\x07", True), 3, "the destination gave up: ?]0;mine?"),
    ],
    ids=["another digest", "none", "long", "bad news with orders to the terminal", "so does one that gives up"],
)
def test_a_verdict_that_lies_is_no_verdict(verdict: Message, code: int, says: str) -> None:
    with switched() as (sender, peer, _):
        for _ in range(0, PAGES, 16):
            peer.hear(Digests)
        peer.say(verdict)
        peer.leave()
        assert sender.wait() == code
        assert says in sender.error


def test_a_name_that_was_not_heard_right_ends_it_before_the_guest_leaves() -> None:
    """Nobody could come back to a migration of another name."""
    with listening() as (server, port), source(port, "pull.preempt=off") as sender:
        connection, _ = server.accept()
        with connection:
            peer = Peer(connection)
            peer.say_bytes(preamble())
            peer.hear(Advise)
            peer.say(Ready("0" * 32))
            peer.hear_end()
        assert sender.wait() == 4
        assert "the destination answers for another migration, not" in sender.error
        assert "The guest runs on at the source" in sender.error
