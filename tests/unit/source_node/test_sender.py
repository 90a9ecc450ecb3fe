"""What the source sends next: situations by hand, on TINY (a "2M" of 4 pages, a "1G" of 16)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Level, PageBitmap, PageIndex, PieceRun
from migemu.policy.push_order import push_orders
from migemu.wire.messages import MAIN_CHANNEL, PREEMPT_CHANNEL, ChannelId, Request
from source_node.core.sender import Sender, SenderStatistics

PTE, PMD = Level.PTE, Level.PMD
MAIN, PREEMPT = MAIN_CHANNEL, PREEMPT_CHANNEL
TOTAL = 32


class InOrder:
    """A push order that goes from the first page to the last, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[PageIndex] = []

    def requested(self, page: PageIndex) -> None:
        self.told.append(page)

    def next_run(self, sent: PageBitmap, pages_max: int) -> tuple[PageIndex, int] | None:
        first = sent.next_clear(0)
        if first is None:
            return None
        return first, sent.clear_until(first, min(first - first % 4 + 4, first + pages_max)) - first


def make(
    *, piece: Level = PTE, run_pages_max: int = 4, preempt: bool = True, resend: bool = False
) -> tuple[Sender, InOrder]:
    order = InOrder()
    return Sender(
        TINY, TOTAL, order, piece=piece, run_pages_max=run_pages_max, preempt=preempt, resend=resend
    ), order  # fmt: skip


def pulled(sender: Sender, role: ChannelId, most: int = 100) -> list[tuple[PageIndex, int, Level]]:
    """All runs for a channel, as plain tuples; at most `most`."""
    runs = []
    while len(runs) < most and (run := sender.next_run(role)) is not None:
        runs.append(tuple(run))
    return runs


# --- background ---


def test_everything_is_pushed_once_in_runs_of_the_order() -> None:
    sender, _ = make(run_pages_max=3)
    assert pulled(sender, MAIN, 4) == [(0, 3, PTE), (3, 1, PTE), (4, 3, PTE), (7, 1, PTE)]
    assert not sender.finished
    assert sum(count for _, count, _ in pulled(sender, MAIN)) == TOTAL - 8
    assert sender.finished
    assert sender.next_run(MAIN) is None


def test_background_is_for_the_main_channel_alone() -> None:
    sender, _ = make()
    assert sender.next_run(PREEMPT) is None
    assert sender.next_urgent(MAIN) is None
    assert sender.statistics().pages_sent == 0


def test_2m_pieces_are_pushed_whole_where_nothing_of_them_was_sent() -> None:
    """Also beyond the bound on runs; elsewhere what is missing goes as 4K pieces."""
    sender, _ = make(piece=PMD, run_pages_max=2)
    sender.receive(Request(5, 1, PTE))
    assert pulled(sender, PREEMPT) == [(5, 1, PTE)]
    assert pulled(sender, MAIN, 4) == [(0, 1, PMD), (4, 1, PTE), (6, 2, PTE), (8, 1, PMD)]


# --- urgent ---


def test_a_request_is_answered_on_the_preempt_channel_and_not_pushed_again() -> None:
    sender, order = make()
    sender.receive(Request(2, 1, PTE))
    assert sender.statistics() == SenderStatistics(1, 0, 1, 0, 1)
    assert pulled(sender, MAIN, 2) == [(0, 2, PTE), (3, 1, PTE)]
    assert pulled(sender, PREEMPT) == [(2, 1, PTE)]
    assert order.told == [2]


def test_urgent_comes_first_where_there_is_one_channel() -> None:
    sender, _ = make(preempt=False)
    assert pulled(sender, MAIN, 1) == [(0, 4, PTE)]
    sender.receive(Request(9, 1, PTE))
    sender.receive(Request(20, 1, PMD))
    assert sender.next_urgent(PREEMPT) is None
    assert pulled(sender, MAIN, 3) == [(9, 1, PTE), (20, 1, PMD), (4, 4, PTE)]


def test_requests_are_answered_in_their_order() -> None:
    sender, _ = make()
    for page in (9, 3, 30):
        sender.receive(Request(page, 1, PTE))
    assert [first for first, _, _ in pulled(sender, PREEMPT)] == [9, 3, 30]


@pytest.mark.parametrize(
    ("sent_before", "request_", "answer"),
    [
        ([], Request(4, 1, PMD), [(4, 1, PMD)]),
        ([], Request(4, 2, PMD), [(4, 1, PMD), (8, 1, PMD)]),
        ([5], Request(4, 1, PMD), [(4, 1, PTE), (6, 2, PTE)]),
        ([5], Request(4, 2, PMD), [(4, 1, PTE), (6, 2, PTE), (8, 1, PMD)]),
        ([4, 7], Request(4, 1, PMD), [(5, 2, PTE)]),
        ([4, 5, 6, 7], Request(4, 1, PMD), []),
        ([], Request(5, 2, PTE), [(5, 2, PTE)]),
        ([6], Request(5, 3, PTE), [(5, 1, PTE), (7, 1, PTE)]),
        ([5], Request(5, 1, PTE), []),
        ([5], Request(0, 16, PTE), [(0, 4, PTE), (4, 1, PTE), (6, 2, PTE), (8, 4, PTE), (12, 4, PTE)]),
        ([5], Request(0, 4, PMD), [(0, 1, PMD), (4, 1, PTE), (6, 2, PTE), (8, 1, PMD), (12, 1, PMD)]),
    ],
)
def test_a_request_is_answered_with_what_has_not_been_sent(
    sent_before: list[PageIndex], request_: Request, answer: list[tuple[PageIndex, int, Level]]
) -> None:
    sender, _ = make()
    for page in sent_before:
        sender.receive(Request(page, 1, PTE))
    pulled(sender, PREEMPT)
    before = sender.statistics()
    sender.receive(request_)
    assert pulled(sender, PREEMPT) == answer
    after = sender.statistics()
    fresh = sum(count * TINY.pages(level) for _, count, level in answer)
    assert after.pages_urgent - before.pages_urgent == after.pages_sent - before.pages_sent == fresh
    assert after.requests_already_sent - before.requests_already_sent == (fresh == 0)


@pytest.mark.parametrize(
    ("first", "count", "answer"),
    [
        (2, 4, [(2, 2, PTE), (4, 2, PTE)]),  # as many pages as a 2M piece, but not one
        (1, 4, [(1, 3, PTE), (4, 1, PTE)]),
        (0, 32, [(page, 4, PTE) for page in range(0, 32, 4)]),
        (3, 7, [(3, 1, PTE), (4, 4, PTE), (8, 2, PTE)]),
        (0, 4, [(0, 4, PTE)]),
    ],
)
def test_urgent_runs_of_4k_end_at_2m_borders_too(
    first: PageIndex, count: int, answer: list[tuple[PageIndex, int, Level]]
) -> None:
    """Whatever the peer asks for, each run is one that it must accept."""
    sender, _ = make()
    sender.receive(Request(first, count, PTE))
    assert pulled(sender, PREEMPT) == answer


def test_urgent_runs_are_bounded_too() -> None:
    sender, _ = make(run_pages_max=3)
    sender.receive(Request(0, 4, PTE))
    sender.receive(Request(9, 1, PTE))
    assert pulled(sender, PREEMPT) == [(0, 3, PTE), (3, 1, PTE), (9, 1, PTE)]


def test_it_is_not_finished_while_an_urgent_run_waits() -> None:
    sender, _ = make()
    sender.receive(Request(31, 1, PTE))
    pulled(sender, MAIN)
    assert sender.statistics().pages_sent == TOTAL
    assert not sender.finished
    assert pulled(sender, PREEMPT) == [(31, 1, PTE)]
    assert sender.finished


# --- requests for what is under way ---


def test_a_request_for_what_was_sent_moves_no_scan() -> None:
    sender, order = make()
    assert pulled(sender, MAIN, 1) == [(0, 4, PTE)]
    sender.receive(Request(1, 1, PTE))
    assert order.told == []
    sender.receive(Request(20, 1, PTE))
    sender.receive(Request(20, 1, PTE))
    assert order.told == [20]


def test_without_resend_what_is_under_way_is_not_sent_again() -> None:
    sender, _ = make()
    pulled(sender, MAIN)
    sender.receive(Request(1, 1, PTE))
    assert pulled(sender, PREEMPT) == []
    assert sender.statistics() == SenderStatistics(1, 1, TOTAL, 0, 0)


def test_with_resend_it_is_sent_once_more_and_no_more() -> None:
    sender, _ = make(resend=True)
    pulled(sender, MAIN)
    for _ in range(3):
        sender.receive(Request(1, 1, PTE))
    sender.receive(Request(0, 1, PMD))
    assert pulled(sender, PREEMPT) == [(page, 1, PTE) for page in (1, 0, 2, 3)]
    assert sender.statistics() == SenderStatistics(4, 4, TOTAL, 4, 0)
    assert sender.finished


def test_a_request_is_resent_only_if_all_of_it_is_under_way() -> None:
    sender, _ = make(resend=True)
    sender.receive(Request(5, 1, PTE))
    sender.receive(Request(4, 1, PMD))
    assert pulled(sender, PREEMPT) == [(5, 1, PTE), (4, 1, PTE), (6, 2, PTE)]
    assert sender.statistics().pages_resent == 0


def test_on_one_channel_nothing_is_resent() -> None:
    """A second copy cannot overtake the first there; after the end it would even be illegal."""
    sender, _ = make(preempt=False, resend=True)
    pulled(sender, MAIN)
    sender.receive(Request(1, 1, PTE))
    assert pulled(sender, MAIN) == []
    assert sender.finished
    assert sender.statistics() == SenderStatistics(1, 1, TOTAL, 0, 0)


# --- any order of events ---

steps = st.lists(
    st.one_of(
        st.sampled_from([MAIN, PREEMPT]),
        st.builds(Request, st.integers(0, 31), st.integers(1, 9), st.just(PTE), st.just(False)),
        st.builds(Request, st.integers(0, 7).map(lambda pmd: pmd * 4), st.integers(1, 2), st.just(PMD), st.just(False)),
    ),
    max_size=40,
)


@given(
    spec=st.sampled_from(["sequential", "fault_follow", "random", "bubbling", "fill_pmd"]), steps=steps,
    piece=st.sampled_from([PTE, PMD]), run_pages_max=st.integers(1, 20), preempt=st.booleans(), resend=st.booleans(),
)  # fmt: skip
def test_every_page_is_sent_once_whatever_is_asked_for(
    spec: str, steps: list[ChannelId | Request], piece: Level, run_pages_max: int, preempt: bool, resend: bool
) -> None:
    """But for what `resend` repeats; every run is aligned, bounded, within one 2M, and on the right channel."""
    order = push_orders.create(spec, TINY, TOTAL, Random(1))
    sender = Sender(
        TINY, TOTAL, order, piece=piece, run_pages_max=run_pages_max, preempt=preempt, resend=resend
    )  # fmt: skip
    times_sent = [0] * TOTAL

    def take(run: PieceRun | None) -> bool:
        if run is None:
            return False
        pages = run.count * TINY.pages(run.level)
        assert 0 <= run.first < run.first + pages <= TOTAL
        if run.level is PMD:
            assert (run.first % 4, run.count) == (0, 1)
        else:
            assert 1 <= pages <= run_pages_max
            assert run.first // 4 == (run.first + pages - 1) // 4, "a run crosses a PMD border"
        for page in range(run.first, run.first + pages):
            assert sender.sent.pages[page]
            times_sent[page] += 1
        return True

    for step in steps:
        if isinstance(step, ChannelId):
            take(sender.next_run(step))
        elif step.first + step.count * TINY.pages(step.level) <= TOTAL:
            sender.receive(step)
    while take(sender.next_run(MAIN)) or take(sender.next_run(PREEMPT)):
        pass
    assert sender.finished
    statistics = sender.statistics()
    assert statistics.pages_sent == TOTAL
    assert min(times_sent) == 1
    assert sum(times_sent) == TOTAL + statistics.pages_resent
    assert max(times_sent) == (2 if statistics.pages_resent else 1)
    assert not statistics.pages_resent or (resend and preempt)
    assert str(statistics.pages_sent) in repr(sender)
