"""When a paused migration is given up, and when it is tried again."""

from __future__ import annotations

from random import Random

import pytest

from migemu.errors import PeerError
from migemu.node.patience import Backoff, Patience
from migemu.scenario.recovery_settings import RecoverySettings
from migemu.units import MS, SECOND

SETTINGS = RecoverySettings(timeout="10s", backoff_min="100ms", backoff_max="1s", errors_max=2)


def test_waits_double_up_to_the_longest_and_are_shortened_by_up_to_a_half() -> None:
    backoff = Backoff(SETTINGS, Random(1))
    whole = [100, 200, 400, 800, 1000, 1000]
    waits = [backoff.next_ns() for _ in whole]
    assert all(most * MS // 2 <= wait <= most * MS for wait, most in zip(waits, whole, strict=True))
    backoff.reset()
    assert backoff.next_ns() <= 100 * MS
    assert [Backoff(SETTINGS, Random(1)).next_ns() for _ in range(2)] == [waits[0]] * 2


def test_many_sources_that_lost_the_same_node_do_not_come_at_once() -> None:
    first = [Backoff(SETTINGS, Random(seed)).next_ns() for seed in range(200)]
    assert 50 * MS <= min(first) < 55 * MS
    assert 95 * MS < max(first) <= 100 * MS
    assert len(set(first)) == 200


def test_an_operator_gets_a_try_at_once_and_the_waits_begin_anew() -> None:
    backoff = Backoff(SETTINGS, Random(1))
    for _ in range(5):
        backoff.next_ns()
    backoff.at_once()
    assert backoff.next_ns() == 0
    assert 50 * MS <= backoff.next_ns() <= 100 * MS


def test_patience_ends_when_the_time_has_passed_without_progress() -> None:
    patience = Patience(SETTINGS)
    patience.lost(5 * SECOND)
    assert patience.deadline_ns == 15 * SECOND
    assert not patience.over(15 * SECOND - 1)
    assert patience.over(15 * SECOND) == "no progress for 10s (recovery.timeout)"


def test_losses_without_progress_share_one_deadline() -> None:
    patience = Patience(SETTINGS)
    patience.arrived(7)
    patience.lost(5 * SECOND)
    patience.resumed(6 * SECOND)
    assert not patience.arrived(7)
    patience.lost(14 * SECOND)
    assert patience.deadline_ns == 15 * SECOND
    assert patience.paused_ns(14 * SECOND + 5) == SECOND + 5


@pytest.mark.parametrize("progress", ["a page", "a connection that lasted"])
def test_progress_begins_the_wait_anew(progress: str) -> None:
    patience = Patience(SETTINGS)
    patience.lost(0, PeerError("nonsense"))
    patience.resumed(SECOND)
    if progress == "a page":
        assert patience.arrived(1)
        patience.lost(2 * SECOND, PeerError("nonsense"))
        assert patience.deadline_ns == 12 * SECOND
    else:
        patience.lost(11 * SECOND, PeerError("nonsense"))
        assert patience.deadline_ns == 21 * SECOND
    patience.lost(11 * SECOND, PeerError("nonsense"))
    assert not patience.over(11 * SECOND)
    assert (patience.count, patience.errors) == (1, 3)


def test_errors_in_a_row_end_it_sooner() -> None:
    patience = Patience(SETTINGS)
    for _ in range(2):
        patience.lost(0, PeerError("nonsense"))
        assert not patience.over(1)
    patience.lost(0)
    assert not patience.over(1)
    patience.lost(0, PeerError("nonsense"))
    assert patience.over(1) == "3 connections ended in errors without progress (recovery.errors_max)"


def test_the_longest_wait_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ValueError, match="backoff_max: it is shorter"):
        RecoverySettings(backoff_min="2s", backoff_max="1s")
