"""What the destination asks for when connections are lost and found again: situations by hand, on TINY."""

from __future__ import annotations

from dest_node.core.effects import Ask, Finish
from migemu.mm.pages import PieceRun
from tests.unit.dest_node.receiving import NOW, PTE, TOTAL, carry_out, make


def ask(page: int) -> Ask:
    return Ask(PieceRun(page, 1, PTE))


def test_while_paused_nothing_is_asked_for_and_then_all_that_is_waited_for() -> None:
    receiver = make()
    assert receiver.faulted(3, NOW) == (ask(3),)
    assert receiver.faulted(5, NOW) == (ask(5),)
    receiver.paused(NOW)
    assert receiver.faulted(9, NOW) == ()
    assert receiver.faulted(9, NOW) == ()
    assert receiver.pages_waited_for == 3
    assert receiver.recovered(NOW) == [ask(3), ask(5), ask(9)]
    assert receiver.faulted(11, NOW) == (ask(11),)
    assert receiver.faulted(9, NOW) == (), "that has been asked for"


def test_what_has_arrived_is_not_asked_for_again() -> None:
    receiver = make()
    receiver.faulted(3, NOW)
    receiver.faulted(4, NOW)
    arrived = receiver.arrived(PieceRun(3, 1, PTE), NOW)
    receiver.paused(NOW)
    assert receiver.recovered(NOW) == [ask(4)], "3 is here, though not mapped yet"
    carry_out(receiver, arrived)
    assert receiver.pages_waited_for == 1


def test_after_a_pause_the_end_has_to_be_said_again() -> None:
    receiver = make()
    receiver.ended(NOW)
    receiver.paused(NOW)
    receiver.recovered(NOW)
    done = carry_out(receiver, receiver.arrived(PieceRun(0, TOTAL, PTE), NOW))
    assert Finish() not in done
    assert Finish() in carry_out(receiver, receiver.ended(NOW))
    receiver.paused(NOW)
    receiver.recovered(NOW)
    assert carry_out(receiver, receiver.ended(NOW)) == [], "it finishes once"


def test_a_preempt_channel_lost_alone_does_not_take_the_end_back() -> None:
    receiver = make()
    receiver.faulted(7, NOW)
    receiver.ended(NOW)
    assert receiver.recovered(NOW) == [ask(7)]
    assert Finish() in carry_out(receiver, receiver.arrived(PieceRun(0, TOTAL, PTE), NOW))
