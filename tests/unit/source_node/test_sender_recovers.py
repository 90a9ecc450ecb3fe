"""What the source sends after connections were lost, and what it never sends again."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Level, PageBitmap, PieceRun
from migemu.policy.push_order import push_orders
from migemu.wire.messages import Request
from source_node.core.sender import Sender
from tests.unit.source_node.test_sender import MAIN, PMD, PREEMPT, PTE, TOTAL, make, pulled


def bitmap(*pages: int) -> PageBitmap:
    made = PageBitmap(TINY, TOTAL)
    for page in pages:
        made.add(page, 1)
    return made


def test_after_a_loss_what_has_not_arrived_is_sent_again_and_nothing_else() -> None:
    sender, _ = make(run_pages_max=4)
    pulled(sender, MAIN, 3)
    sender.receive(Request(20, 1, PTE))
    assert sender.recover(bitmap(0, 1, 2, 5)) == 9
    assert sender.statistics().pages_lost == 9
    assert pulled(sender, PREEMPT) == [], "there is no such channel yet, and the request was forgotten"
    sender.receive(Request(20, 1, PTE))
    assert pulled(sender, MAIN, 4) == [(20, 1, PTE), (3, 1, PTE), (4, 1, PTE), (6, 2, PTE)]
    sender.preempt_back()
    sender.receive(Request(30, 1, PTE))
    assert sender.next_run(PREEMPT) == (30, 1, PTE)


def test_when_the_preempt_channel_is_lost_alone_what_went_meanwhile_counts_as_sent() -> None:
    sender, _ = make(run_pages_max=4)
    for page in (8, 9, 10):
        sender.receive(Request(page, 1, PTE))
    assert [sender.next_run(PREEMPT) for _ in range(2)] == [(8, 1, PTE), (9, 1, PTE)]
    sender.preempt_lost()
    assert sender.next_run(PREEMPT) is None
    assert sender.next_run(MAIN) == (10, 1, PTE)
    assert sender.next_run(MAIN) == (0, 4, PTE)
    sender.receive(Request(25, 1, PTE))
    assert sender.preempt_recovered(bitmap(8)) == 1, "page 9 was lost; 10, 0-3 and 25 are under way, or will be"
    assert sender.next_run(MAIN) == (25, 1, PTE)
    assert sender.next_run(MAIN) == (4, 4, PTE)
    assert sender.next_run(MAIN) == (9, 1, PTE)
    sender.preempt_back()
    sender.receive(Request(31, 1, PTE))
    assert sender.next_run(PREEMPT) == (31, 1, PTE)


def test_a_page_whose_copy_was_lost_with_the_preempt_channel_gets_another_copy() -> None:
    sender, _ = make(resend=True)
    for _ in range(2):
        sender.receive(Request(8, 1, PTE))
    assert pulled(sender, PREEMPT) == [(8, 1, PTE)] * 2, "the page, and one more copy that may overtake it"
    sender.preempt_lost()
    assert sender.preempt_recovered(bitmap()) == 1
    sender.preempt_back()
    for _ in range(2):
        sender.receive(Request(8, 1, PTE))
    assert pulled(sender, PREEMPT) == [(8, 1, PTE)] * 2, "both are lost: nothing is under way"


def test_what_came_corrupt_is_sent_again_once_per_request() -> None:
    sender, _ = make()
    while sender.next_run(MAIN) is not None:
        pass
    sender.receive(Request(4, 2, PTE, True))
    sender.receive(Request(5, 1, PTE, True))
    assert not sender.finished
    assert pulled(sender, PREEMPT) == [(4, 1, PTE), (5, 1, PTE)]
    sender.receive(Request(5, 1, PTE, True))
    assert pulled(sender, PREEMPT) == [(5, 1, PTE)]
    assert sender.statistics().pages_resent == 3
    assert sender.statistics().pages_urgent == 3


def test_a_page_that_is_asked_for_as_corrupt_before_it_was_sent_is_sent_once_and_its_neighbour_too() -> None:
    sender, _ = make()
    sender.receive(Request(4, 1, PTE, True))
    assert pulled(sender, PREEMPT) == [(4, 1, PTE)]
    assert pulled(sender, MAIN, 3) == [(0, 4, PTE), (5, 3, PTE), (8, 4, PTE)]
    assert sender.statistics().pages_resent == 0


def test_what_waited_to_be_sent_again_is_forgotten_with_all_connections_and_may_be_asked_for_anew() -> None:
    sender, _ = make(resend=True)
    for request in (Request(8, 1, PTE), Request(8, 1, PTE), Request(9, 1, PTE, True)):
        sender.receive(request)
    sender.recover(bitmap())
    sender.preempt_back()
    for request in (Request(8, 1, PTE), Request(8, 1, PTE), Request(9, 1, PTE, True)):
        sender.receive(request)
    assert pulled(sender, PREEMPT) == [(8, 1, PTE), (8, 1, PTE), (9, 1, PTE)]


def test_losses_add_up_and_where_all_has_arrived_nothing_is_lost() -> None:
    sender, _ = make()
    pulled(sender, MAIN, 2)
    assert sender.recover(bitmap(*range(8))) == 0
    assert sender.statistics().pages_lost == 0
    pulled(sender, MAIN, 1)
    assert sender.recover(bitmap(*range(8))) == 4
    pulled(sender, MAIN, 2)
    assert sender.recover(bitmap(*range(9))) == 7
    assert sender.statistics().pages_lost == 11


def test_what_went_meanwhile_counts_as_sent_wherever_it_is() -> None:
    sender, _ = make(run_pages_max=1)
    sender.preempt_lost()
    for page in (TOTAL - 1, 20, 10, 12):
        sender.receive(Request(page, 1, PTE))
    assert len(pulled(sender, MAIN, 4)) == 4
    assert sender.preempt_recovered(bitmap()) == 0
    rest = [first for first, _, _ in pulled(sender, MAIN)]
    assert rest == [page for page in range(TOTAL) if page not in (10, 12, 20, TOTAL - 1)]


class Link:
    """Two channels that keep their order, and what of them has arrived."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.main: list[PieceRun] = []
        self.preempt: list[PieceRun] = []
        self.arrived = PageBitmap(TINY, TOTAL)
        self.twice = 0

    def arrive(self, channel: list[PieceRun], runs: int) -> None:
        for _ in range(min(runs, len(channel))):
            run = channel.pop(0)
            pages = run.count * TINY.pages(run.level)
            self.twice += pages - self.arrived.add(run.first, pages)

    def bitmap(self) -> PageBitmap:
        copy = PageBitmap(TINY, TOTAL)
        for page in range(TOTAL):
            if self.arrived.pages[page]:
                copy.add(page, 1)
        return copy


@given(
    preempt=st.booleans(),
    spec=st.sampled_from(["sequential", "fault_follow", "random", "fill_pmd", "bubbling"]),
    piece=st.sampled_from([PTE, PMD]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "ask", "urgent", "main", "preempt", "lose", "lose preempt", "back"]),
            st.integers(0, TOTAL - 1),
        ),
        max_size=60,
    ),
)
def test_whatever_is_lost_whenever_all_arrives_and_nothing_twice(
    preempt: bool, spec: str, piece: Level, steps: list[tuple[str, int]]
) -> None:
    order = push_orders.create(spec, TINY, TOTAL, Random(1))
    sender = Sender(TINY, TOTAL, order, piece=piece, run_pages_max=3, preempt=preempt)
    link = Link(sender)

    def lose() -> None:
        link.main.clear()
        link.preempt.clear()
        sender.recover(link.bitmap())

    def lose_preempt() -> None:
        """As the shell does it: what is on the main channel arrives before the bitmap is made."""
        if sender.urgent_channel == PREEMPT:
            link.preempt.clear()
            sender.preempt_lost()
            link.arrive(link.main, len(link.main))
            told = link.bitmap()
            for _ in range(2):  # sent, while the bitmap is on its way
                if (run := sender.next_run(MAIN)) is not None:
                    link.main.append(run)
            link.arrive(link.main, 1)
            sender.preempt_recovered(told)

    for what, number in steps:
        if what == "send" and (run := sender.next_run(MAIN)) is not None:
            link.main.append(run)
        elif what == "urgent" and (run := sender.next_urgent(PREEMPT)) is not None:
            link.preempt.append(run)
        elif what == "ask":
            sender.receive(Request(number, 1, PTE))
        elif what == "main":
            link.arrive(link.main, 1 + number % 3)
        elif what == "preempt":
            link.arrive(link.preempt, 1 + number % 3)
        elif what == "lose":
            lose()
        elif what == "lose preempt":
            lose_preempt()
        elif what == "back":
            sender.preempt_back()
    while not sender.finished:
        for role, channel in ((MAIN, link.main), (PREEMPT, link.preempt)):
            if (run := sender.next_run(role)) is not None:
                channel.append(run)
    link.arrive(link.main, TOTAL)
    link.arrive(link.preempt, TOTAL)
    assert link.arrived.complete
    assert link.twice == 0
