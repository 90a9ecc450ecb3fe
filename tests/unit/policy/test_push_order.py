"""What each push order does first: hand-made rows of requests and the runs that must follow them."""

from __future__ import annotations

from random import Random

import pytest

from migemu.mm.pages import TINY, X86_64, Level, PageBitmap
from migemu.policy.push_order import PushOrder, push_orders

TOTAL = TINY.pages(Level.PUD)  # 16 pages in 4 PMDs of 4
SHIPPED = ("bubbling", "fault_follow", "fill_pmd", "random", "sequential")


def make(spec: str, total: int = TOTAL, seed: int = 1) -> PushOrder:
    return push_orders.create(spec, TINY, total, Random(seed))


def play(order: PushOrder, sent: PageBitmap, script: list[int | None], pages_max: int) -> list[tuple[int, int]]:
    """A number is a request, whose page is sent at once; None pulls a run. The rest is pulled at the end."""
    runs = []

    def pull() -> bool:
        run = order.next_run(sent, pages_max)
        if run is not None:
            runs.append(run)
            assert sent.add(*run) == run[1], "a sent page was pushed again"
        return run is not None

    for step in script:
        if step is None:
            assert pull()
        else:
            order.requested(step)
            sent.add(step, 1)
    while pull():
        pass
    assert sent.complete
    return runs


@pytest.mark.parametrize(
    ("spec", "script", "pages_max", "expected"),
    [
        ("sequential", [], 4, [(0, 4), (4, 4), (8, 4), (12, 4)]),
        ("sequential", [], 3, [(0, 3), (3, 1), (4, 3), (7, 1), (8, 3), (11, 1), (12, 3), (15, 1)]),
        ("sequential", [None, 6, None, 9], 4, [(0, 4), (4, 2), (7, 1), (8, 1), (10, 2), (12, 4)]),
        # The scan goes on behind the request, to the end, then around.
        ("fault_follow", [None, 9], 4, [(0, 4), (10, 2), (12, 4), (4, 4), (8, 1)]),
        ("fault_follow", [9, None, 1], 4, [(10, 2), (2, 2), (4, 4), (8, 1), (12, 4), (0, 1)]),
        # What lies before the fault in the first PMD comes before the scan goes on, too.
        ("fill_pmd", [2, 6], 4, [(7, 1), (4, 2), (3, 1), (0, 2), (8, 4), (12, 4)]),
        # The whole PMD of the request from there on, then its beginning, then on behind it.
        ("fill_pmd", [9], 4, [(10, 2), (8, 1), (12, 4), (0, 4), (4, 4)]),
        ("fill_pmd", [9], 1, [(n, 1) for n in (10, 11, 8, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)]),
        # The latest fault first, the others after it; the scan goes on behind the latest.
        ("fill_pmd", [13, 6], 4, [(7, 1), (4, 2), (14, 2), (12, 1), (8, 4), (0, 4)]),
        # A further fault puts its PMD in front again.
        ("fill_pmd", [13, 6, 14], 4, [(15, 1), (12, 1), (7, 1), (4, 2), (0, 4), (8, 4)]),
        # Faults of one PMD are one: they do not push others out of a full queue.
        ("fill_pmd:pending=2", [13, 4, 5, 6], 4, [(7, 1), (14, 2), (12, 1), (8, 4), (0, 4)]),
        ("fill_pmd:pending=1", [13, 6], 4, [(7, 1), (4, 2), (8, 4), (12, 1), (14, 2), (0, 4)]),
        # One bubble, both edges in turn; and forward only: then what lies before comes last.
        ("bubbling:pivots=1", [6], 1, [(n, 1) for n in (7, 5, 8, 4, 9, 3, 10, 2, 11, 1, 12, 0, 13, 14, 15)]),
        ("bubbling:pivots=1", [6], 4, [(7, 1), (4, 2), (8, 4), (0, 4), (12, 4)]),
        ("bubbling:pivots=1,dual=off", [6], 4, [(7, 1), (8, 4), (12, 4), (0, 4), (4, 2)]),
        # Without a request page 0 is the pivot.
        ("bubbling", [], 4, [(0, 4), (4, 4), (8, 4), (12, 4)]),
        # Two bubbles, at 10 and at 0, take turns, the latest first; at 7 | 8 they meet.
        ("bubbling:pivots=2", [10], 2, [(11, 1), (0, 2), (8, 2), (2, 2), (12, 2), (4, 2), (6, 2), (14, 2)]),
        # A request where a bubble has been moves nothing.
        ("bubbling:pivots=2", [10, None, None, 1], 4, [(11, 1), (0, 4), (8, 2), (4, 4), (12, 4)]),
        # A pivot between two others cannot grow; one beside a pivot that has not grown can.
        ("bubbling:pivots=3", [5, 7, 6], 4, [(8, 4), (4, 1), (12, 4), (0, 4)]),
        ("bubbling:pivots=3", [1], 4, [(2, 2), (0, 1), (4, 4), (8, 4), (12, 4)]),
        # A bubble ends before its right edge: who asks for that page is another pivot.
        ("bubbling:pivots=1", [8, None, 12], 4, [(9, 3), (13, 3), (4, 4), (0, 4)]),
        # The oldest pivot gives way: 0, then 4.
        ("bubbling:pivots=2", [4, 12, 9], 1,
         [(n, 1) for n in (10, 13, 8, 11, 7, 14, 6, 15, 5, 3, 2, 1, 0)]),
    ],
)  # fmt: skip
def test_runs_in_order(spec: str, script: list[int | None], pages_max: int, expected: list[tuple[int, int]]) -> None:
    assert play(make(spec), PageBitmap(TINY, TOTAL), script, pages_max) == expected


@pytest.mark.parametrize(
    ("spec", "requests", "pulls", "again"),
    [
        ("sequential", [], 3, [(0, 4), (4, 4), (8, 4), (12, 4)]),
        ("bubbling:pivots=2", [10], 1, [(10, 2), (0, 4), (8, 2), (4, 4), (12, 4)]),
        ("bubbling:pivots=2", [10], 2, [(10, 2), (0, 4), (8, 2), (4, 4), (12, 4)]),
        ("fill_pmd", [0, 6], 0, [(6, 2), (4, 2), (0, 4), (8, 4), (12, 4)]),
    ],
)
def test_another_bitmap_begins_anew_with_what_was_requested(
    spec: str, requests: list[int], pulls: int, again: list[tuple[int, int]]
) -> None:
    """What was asked for may be lost with what was pushed: neither has arrived."""
    order, lost = make(spec), PageBitmap(TINY, TOTAL)
    for page in requests:
        order.requested(page)
    for _ in range(pulls):
        run = order.next_run(lost, 4)
        assert run is not None
        lost.add(*run)
    assert play(order, PageBitmap(TINY, TOTAL), [], 4) == again


def test_random_draws_its_blocks_anew_for_another_bitmap() -> None:
    order = make("random")
    assert order.next_run(PageBitmap(TINY, TOTAL), 2) is not None
    assert sorted(play(order, PageBitmap(TINY, TOTAL), [], 4)) == [(0, 4), (4, 4), (8, 4), (12, 4)]


def test_a_bubble_leaves_the_direction_in_which_it_meets_another_to_that_one() -> None:
    order, sent = make("bubbling:pivots=2", 2 * TOTAL), PageBitmap(TINY, 2 * TOTAL)
    sent.add(0, 12)
    order.requested(11)
    # The bubble at 0 would have to jump over pivot 11, so only the one at 11 goes on to 12.
    assert order.next_run(sent, 4) == (12, 4)
    sent.add(12, 4)
    assert order.next_run(sent, 4) == (16, 4)


def test_a_pivot_that_has_not_grown_yet_is_met_too() -> None:
    order, sent = make("bubbling", 2 * TOTAL), PageBitmap(TINY, 2 * TOTAL)
    sent.add(5, 7)
    order.requested(11)
    order.requested(5)
    # Forward from 5 lies pivot 11: backward, then.
    assert order.next_run(sent, 4) == (4, 1)
    sent.add(4, 1)
    assert order.next_run(sent, 4) == (12, 4)


@pytest.mark.parametrize("spec", ["random:block=2", "random:block=4", "random:block=3", "random:block=100"])
def test_random_keeps_blocks_together(spec: str) -> None:
    block = int(spec.partition("=")[2])
    runs = play(make(spec), PageBitmap(TINY, TOTAL), [], 4)
    pages = [page for first, count in runs for page in range(first, first + count)]
    blocks = [page // block for page in pages]
    assert blocks == sorted(blocks, key=blocks.index), "a block was left and taken up again"
    assert all(count <= 4 for _, count in runs)


def test_random_takes_the_longest_run_as_its_block() -> None:
    runs = play(make("random"), PageBitmap(TINY, TOTAL), [], 2)
    assert sorted(runs) == [(first, 2) for first in range(0, TOTAL, 2)]
    assert runs != sorted(runs)


def test_random_depends_on_the_seed_alone() -> None:
    orders = [play(make("random", seed=seed), PageBitmap(TINY, TOTAL), [], 1) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("name", SHIPPED)
class TestEvery:
    def test_has_a_summary(self, name: str) -> None:
        entry, _ = push_orders.parse(name)
        assert entry.summary.startswith("Pushes ")

    def test_takes_up_a_second_bitmap(self, name: str) -> None:
        order = make(name)
        play(order, PageBitmap(TINY, TOTAL), [None, 9], 4)
        play(order, PageBitmap(TINY, TOTAL), [None, 3], 4)

    def test_refuses_another_memory_and_empty_runs(self, name: str) -> None:
        order = make(name)
        with pytest.raises(ValueError, match="a bitmap of 32 pages was given to an order of 16"):
            order.next_run(PageBitmap(TINY, 32), 4)
        with pytest.raises(ValueError, match="at most 0 pages"):
            order.next_run(PageBitmap(TINY, TOTAL), 0)

    def test_has_nothing_when_all_is_sent(self, name: str) -> None:
        order, sent = make(name), PageBitmap(TINY, TOTAL)
        sent.add(0, TOTAL)
        assert order.next_run(sent, 4) is None

    def test_shows_itself(self, name: str) -> None:
        order, sent = make(name), PageBitmap(TINY, TOTAL)
        kind = type(order).__name__
        assert repr(order) == f"<{kind}: not begun>"
        order.next_run(sent, 4)
        assert repr(order) == f"<{kind}: <UnsentFinder 16 unsent of 16>>"

    def test_goes_around_faults_near_the_end_of_1g(self, name: str) -> None:
        total = X86_64.pages(Level.PUD)
        order, sent = push_orders.create(name, X86_64, total, Random(1)), PageBitmap(X86_64, total)
        order.requested(total - 1)
        sent.add(total - 1, 1)
        runs = 0
        while (run := order.next_run(sent, 512)) is not None:
            assert sent.add(*run) == run[1]
            runs += 1
        assert sent.complete
        assert 512 <= runs <= 520


def test_seven_faults_count_unless_told_otherwise() -> None:
    faults: list[int | None] = [20, 24, 28, 32, 36, 40, 44, 48]

    def runs(spec: str) -> list[tuple[int, int]]:
        return play(make(spec, 4 * TOTAL), PageBitmap(TINY, 4 * TOTAL), faults, 1)

    assert runs("bubbling") == runs("bubbling:pivots=7") != runs("bubbling:pivots=8")


def test_shipped() -> None:
    assert {entry.name for entry in push_orders} >= set(SHIPPED)


@pytest.mark.parametrize("spec", ["bubbling:pivots=1024", "fill_pmd:pending=65536", "random:block=0"])
def test_the_largest_and_smallest_settings_are_taken(spec: str) -> None:
    assert make(spec).next_run(PageBitmap(TINY, TOTAL), 4) is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bubbling:pivots=0", "pivots: '0' is not accepted here: give a whole number from 1 to 1024"),
        ("fill_pmd:pending=0", "pending: '0' is not accepted here: give a whole number from 1 to 65536"),
        ("random:block=-1", "block: '-1' is not accepted here: give a whole number, at least 0"),
        ("bubbling:dual=perhaps", "dual: 'perhaps' is not accepted here: give on or off"),
    ],
)
def test_settings_are_judged(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec)
