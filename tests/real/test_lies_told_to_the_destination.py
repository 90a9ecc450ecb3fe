"""Sources that lie where there is recovery, against the destination's service over real sockets.

After the switch a lie is a lost connection first: the guest is here, and an honest source may come. With
`recovery.errors_max=0` the first one is the last. Lies of a first connection alone stand in test_hostile_peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash

from migemu.mm.pages import Level, PieceRun
from migemu.wire.digest import MemoryDigest, page_digests
from migemu.wire.messages import (
    Agreed,
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
    Resume,
    Resumed,
    Run,
    Running,
    Zero,
)  # fmt: skip
from migemu.wire.seal import seal_of, sealed
from tests.real.peers import MIGRATION, PAGES, Peer, advise, connected
from tests.real.threaded import Threaded, destination

Lie = Callable[[Peer], object]
ONE_LIE = "recovery.errors_max=0"
IDLE = "guest.vcpus=0"
OTHER = "f" * 32
A, B = b"a" * 4096, b"b" * 4096
FIRST = PieceRun(0, 1, Level.PTE)
REST = Zero(1, PAGES - 1, Level.PTE, False)


@contextmanager
def switched(*settings: str) -> Iterator[tuple[Threaded, Peer]]:
    """A destination whose guest runs, and its source, written by hand."""
    with destination(IDLE, *settings) as dest, connected(dest.port) as peer:
        peer.greet()
        peer.say(advise())
        peer.hear(Ready)
        peer.say(Listen(), Run())
        peer.hear(Running)
        yield dest, peer


def said(*messages: Message, payload: bytes | None = None) -> Lie:
    return lambda peer: peer.say(*messages, payload=payload)


def digests_of(peer: Peer, first_page: bytes, *, corrupt: int = -1) -> str:
    """Say End and the digests of a memory of zeros behind `first_page`; the digest of it all.

    Those of the hugetlb page at `corrupt` come with the seal of others.
    """
    peer.say(End(PAGES, 0, 0))
    whole = MemoryDigest()
    for first in range(0, PAGES, 16):
        memory = (first_page if first == 0 else bytes(4096)) + bytes(15 * 4096)
        digests = page_digests(memoryview(memory), 4096)
        whole.add(digests)
        peer.say(Digests(first, seal_of(first + 16 * (first == corrupt), digests)), payload=digests)
    return whole.hexdigest()


MISPLACED = Page(0, 1, Level.PTE, False, sealed(PieceRun(1, 1, Level.PTE), False, page_digests(memoryview(A), 4096)))
LIES: list[tuple[str, Lie, str]] = [
    ("a bitmap of its own", said(ReceivedBitmap(0, PAGES, True)), "ReceivedBitmap is not allowed from the source"),
    ("resumed", said(Resumed()), "Resumed is not allowed from the source"),
    ("resume without recover", said(Resume()), "Resume is not allowed from the source in state run"),
    ("a piece in another's place", said(MISPLACED, payload=A), "the seal of another address: it was misplaced"),
    ("nothing in another's place", said(Zero(3, 2, Level.PTE, True, bytes(8))), "it was misplaced"),
    ("a digest too few", said(Page(0, 2, Level.PTE, False, bytes(16)), payload=A + B), "not one digest a base page"),
    ("all in one", said(Zero(0, 2**40, Level.PTE, False)), "outside the memory of 256 pages"),
    ("the end too early", said(End(PAGES - 1, 0, 0)), "ends after 255 base pages of 256"),
    ("digests in no order", said(REST, End(PAGES, 0, 0), Digests(16), payload=bytes(128)), "those of page 0 were due"),
    ("digests of others", lambda peer: digests_of(peer, A, corrupt=32), "digests of page 32 came corrupt"),
    ("recover, before it was answered", said(Recover(), Recover(), Recover()), "came again before it was answered"),
    ("agreed, before there was a verdict", said(End(PAGES, 0, 0), Agreed(PAGES, "", 0)), "in state end"),
]


@pytest.mark.parametrize(("lie", "says"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_lying_source_is_refused_with_the_reason(lie: Lie, says: str) -> None:
    with switched(ONE_LIE) as (dest, peer):
        lie(peer)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert says in failed.reason
        assert not failed.over, "the migration may be recovered over another connection"
        peer.leave()
        assert dest.wait() == 4
        assert says in dest.error
        assert "The guest is lost: 0 vCPUs wait" in dest.error


LIES_IN_RECOVERY: list[tuple[str, Lie, str]] = [
    ("resume without recover", said(Resume()), "needs the other side in state recover; it is in state paused"),
    ("pieces before resume", said(Page(0, 1, Level.PTE, False), payload=A), "Page is not allowed from the source"),
    ("the end before resume", said(End(PAGES, 0, 0)), "End is not allowed"),
    ("another memory", said(advise()), "Advise is not allowed"),
    ("the guest is started again", said(Recover(), Listen()), "needs the other side in state advise"),
    ("hello again", said(Hello(ChannelRole.MAIN, MIGRATION, True)), "Hello is not allowed"),
    ("recover, before it was answered", said(Recover(), Recover()), "came again before it was answered"),
]


@pytest.mark.parametrize(
    ("lie", "says"), [lie[1:] for lie in LIES_IN_RECOVERY], ids=[lie[0] for lie in LIES_IN_RECOVERY]
)
def test_a_source_that_comes_again_and_lies_is_refused_with_the_reason(lie: Lie, says: str) -> None:
    with switched(ONE_LIE) as (dest, peer):
        peer.connection.close()
        with connected(dest.port) as again:
            again.greet(again=True)
            lie(again)
            failed = again.hear(Failed)
            assert isinstance(failed, Failed)
            assert says in failed.reason
            again.leave()
        assert dest.wait() == 4
        assert says in dest.error


@pytest.mark.parametrize(
    ("hello", "says"),
    [
        (Hello(ChannelRole.MAIN, OTHER, True), "busy with another migration"),
        (Hello(ChannelRole.PREEMPT, OTHER, True), "busy with another migration"),
        (Hello(ChannelRole.MAIN, MIGRATION), "busy with this migration, which has a source"),
        (Hello(ChannelRole.PREEMPT, MIGRATION, True), "a preempt channel that was not announced"),
    ],
    ids=["somebody else's migration", "its preempt channel", "this one from the start", "a channel of nothing"],
)
def test_who_recovers_what_is_not_his_is_turned_away_and_nobody_else_notices(hello: Hello, says: str) -> None:
    with switched(ONE_LIE) as (dest, peer):
        with connected(dest.port) as stranger:
            stranger.greet(hello.channel, hello.migration, again=hello.again)
            stranger.say(Recover())
            failed = stranger.hear(Failed)
            assert isinstance(failed, Failed)
            assert says in failed.reason
            stranger.leave()
        peer.say(REST, Page(0, 1, Level.PTE, False), payload=A)
        digest = digests_of(peer, A)
        peer.hear(Complete)
        peer.say(Agreed(PAGES, digest, 0))
        peer.connection.close()
        assert dest.wait() == 0, dest.error
        assert [says in notice for notice in dest.notices] == [True]


def test_who_recovers_at_a_destination_that_knows_nothing_is_told_that_the_guest_is_lost() -> None:
    with destination(IDLE) as dest, connected(dest.port) as peer:
        peer.greet(again=True)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert failed.over
        assert "knows nothing of migration 01234567" in failed.reason


# --- pieces that come twice, corrupt, or too late ---


def test_what_comes_twice_counts_the_first_time() -> None:
    with switched() as (dest, peer):
        peer.say(Page(0, 1, Level.PTE, False), payload=A)
        peer.say(Page(0, 1, Level.PTE, True), payload=B)
        peer.say(Zero(0, PAGES, Level.PTE, False), Zero(0, 4, Level.PMD, False))
        digest = digests_of(peer, A)
        peer.say(Page(0, 1, Level.PTE, False), payload=B)
        complete = peer.hear(Complete)
        assert complete == Complete(True, digest, "")
        peer.say(Agreed(PAGES, digest, 0))
        peer.connection.close()
        assert dest.wait() == 0, dest.error
        assert dest.outcome is not None
        assert dest.outcome.certificate is not None
        assert dest.outcome.certificate.countersigned


def test_what_comes_corrupt_is_asked_for_again_and_what_comes_corrupt_once_more_ends_it() -> None:
    page = Page(0, 1, Level.PTE, False, sealed(FIRST, False, xxhash.xxh3_64_intdigest(A).to_bytes(8, "little")))
    with switched("recovery.errors_max=1") as (dest, peer):
        peer.say(page, payload=B)
        assert peer.hear(Request) == Request(0, 1, Level.PTE, True)
        peer.say(page, payload=B)
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert "base page 0 came corrupt 2 times" in failed.reason
        peer.leave()
        with connected(dest.port) as again:
            again.greet(again=True)
            again.say(Recover())
            again.hear(ReceivedBitmap)
            again.say(Resume(), page, payload=A)
            again.say(REST)
            digest = digests_of(again, A)
            assert again.hear(Complete) == Complete(True, digest, "")
            again.say(Agreed(PAGES, digest, 1))
        assert dest.wait() == 0, dest.error
        assert dest.outcome is not None
        assert dest.outcome.corrupt == 2


def test_digests_of_other_bytes_are_found_and_told_to_both() -> None:
    with switched() as (dest, peer):
        peer.say(REST, Page(0, 1, Level.PTE, False), payload=A)
        digests_of(peer, B)
        complete = peer.hear(Complete)
        assert isinstance(complete, Complete)
        assert not complete.verified
        assert "the first bad piece is base page 0" in complete.reason
        peer.connection.close()
        assert dest.wait() == 5
        assert "the first bad piece is base page 0" in dest.error


@pytest.mark.parametrize("agreed", [Agreed(PAGES - 1, "", 0), Agreed(PAGES, "f" * 32, 0)], ids=["count", "digest"])
def test_who_signs_other_figures_has_signed_nothing(agreed: Agreed) -> None:
    """What was compared stands: it is verified, and the certificate says who has not signed it."""
    with switched("recovery.timeout=50ms") as (dest, peer):
        peer.say(REST, Page(0, 1, Level.PTE, False), payload=A)
        digest = digests_of(peer, A)
        peer.hear(Complete)
        peer.say(agreed._replace(digest=agreed.digest or digest))
        failed = peer.hear(Failed)
        assert isinstance(failed, Failed)
        assert "the source signs for" in failed.reason
        peer.leave()
        assert dest.wait() == 0, dest.error
        assert dest.outcome is not None
        assert dest.outcome.certificate is not None
        assert not dest.outcome.certificate.countersigned


# --- again and again ---


def test_a_thousand_lies_leave_nothing_behind() -> None:
    """Resident memory, in KiB, and descriptors: after the first hundred they are where they stay."""

    def held() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4, len(list(Path("/proc/self/fd").iterdir()))

    with switched("recovery.errors_max=1000000") as (dest, peer):
        peer.connection.close()
        before = (0, 0)
        for number in range(1000):
            if number == 100:
                before = held()
            with connected(dest.port) as again:
                again.greet(again=True)
                lie = LIES_IN_RECOVERY[number % len(LIES_IN_RECOVERY)]
                lie[1](again)
                failed = again.hear(Failed)
                assert isinstance(failed, Failed)
                assert lie[2] in failed.reason
                again.leave()
        memory, descriptors = held()
        assert memory - before[0] < 4096
        assert descriptors <= before[1] + 1
        with connected(dest.port) as honest:
            honest.greet(again=True)
            honest.say(Recover())
            honest.hear(ReceivedBitmap)
            honest.say(Resume())
            honest.hear(Resumed)
