"""What a peer owes: when it is late, and what that costs of the patience with it."""

from __future__ import annotations

from migemu.node.due import WORK_BYTES_PER_S, Due
from migemu.node.patience import Patience
from migemu.scenario.recovery_settings import RecoverySettings
from migemu.units import SECOND


def test_an_answer_is_late_when_its_time_is_over_and_the_error_names_it() -> None:
    due = Due("the source", 3 * SECOND)
    due.expect("Recover", SECOND)
    assert due.overdue(4 * SECOND - 1) is None
    error = due.overdue(4 * SECOND)
    assert error is not None
    assert str(error) == "the source is there, and for 3s Recover has not come (net.answer_timeout)"
    due.settled("Recover")
    assert due.overdue(9 * SECOND) is None


def test_memory_that_has_to_be_worked_through_takes_its_time_and_costs_no_patience() -> None:
    due = Due("the destination", 3 * SECOND)
    due.expect("Ready", 0, work_bytes=100 * WORK_BYTES_PER_S)
    assert due.overdue(103 * SECOND - 1) is None
    error = due.overdue(103 * SECOND)
    assert error is not None
    assert error.since_ns == 100 * SECOND


def test_a_part_that_comes_begins_the_wait_anew_and_what_is_not_due_is_nothing() -> None:
    due = Due("the source", 3 * SECOND)
    due.progressed("Run", 0)
    assert not due.is_due("Run")
    due.expect("Run", 0)
    due.progressed("Run", 2 * SECOND)
    assert due.overdue(4 * SECOND) is None
    assert due.overdue(5 * SECOND) is not None


def test_with_the_connection_all_debts_are_gone() -> None:
    due = Due("the source", SECOND)
    due.expect("Run", 0)
    due.expect("Agreed", 0)
    due.settled()
    assert due.overdue(9 * SECOND) is None


def test_a_peer_that_is_late_again_and_again_ends_patience_however_long_each_connection_lasts() -> None:
    """Between the two it worked through a memory for longer than recovery.timeout: a connection that has lasted."""
    due, patience = Due("the destination", 3 * SECOND), Patience(RecoverySettings(timeout="10s"))

    def late(begin: int) -> int:
        due.expect("Complete", begin, work_bytes=100 * WORK_BYTES_PER_S)
        now = begin + 103 * SECOND
        patience.lost(now, due.overdue(now))
        return now

    now = late(0)
    assert patience.deadline_ns == now + 7 * SECOND, "its last 3 s were silence"
    assert not patience.over(now)
    patience.resumed(now + SECOND)
    now = late(now + SECOND)
    assert patience.over(now)
