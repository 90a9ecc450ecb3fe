"""Who is cut off for dripping, and who is only slow. Times in seconds; a window of 10 s at 2 kbit/s is 2500 bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migemu.transport.slow_peer import LOOKS, Drip
from migemu.units import SECOND

WINDOW_S = 10
TURN_S = WINDOW_S / LOOKS


def seconds_until_cut(received: Callable[[float], int], messages: Callable[[float], int], for_s: int = 200) -> float:
    """When a peer is cut off that has brought `received(s)` bytes and `messages(s)` after `s`; 0 if it never is."""
    drip = Drip(WINDOW_S * SECOND, 2000, 0)
    for turn in range(1, int(for_s / TURN_S)):
        s = turn * TURN_S
        if drip.look(int(s * SECOND), received(s), messages(s), mid_message=True):
            return s
    return 0


@pytest.mark.parametrize(
    ("received", "messages", "cut_s"),
    [
        (lambda s: int(s), lambda s: 0, 10),
        (lambda s: 0, lambda s: 0, 10),
        (lambda s: int(s * 249), lambda s: 0, 10),
        (lambda s: int(s * 251), lambda s: 0, 0),
        (lambda s: 2500 * int(s // 10), lambda s: 0, 0),
        (lambda s: min(int(s * 10_000), 10**6), lambda s: 0, 110),
        (lambda s: int(s), lambda s: int(s // 8), 0),
    ],
    ids=["a byte a second", "nothing", "a little too slow", "just fast enough", "in bursts", "stops", "small messages"],
)
def test_who_is_cut_off(received: Callable[[float], int], messages: Callable[[float], int], cut_s: float) -> None:
    assert seconds_until_cut(received, messages) in ((0,) if not cut_s else (cut_s, cut_s + TURN_S))


def test_a_pause_between_messages_is_none_of_its_business() -> None:
    drip = Drip(WINDOW_S * SECOND, 2000, 0)
    assert not any(drip.look(int(turn * TURN_S * SECOND), 100, 1, mid_message=False) for turn in range(1, 100))


def test_a_node_that_was_stopped_itself_blames_nobody() -> None:
    drip = Drip(WINDOW_S * SECOND, 2000, 0)
    looks = [(2.5, 0), (100, 0), (102.5, 0), (105, 0), (107.5, 0), (110, 0), (112.5, 0)]
    assert [s for s, got in looks if drip.look(int(s * SECOND), got, 0, mid_message=True)][:1] == [110]


def test_a_short_window_asks_for_less_and_at_least_for_a_byte() -> None:
    assert [Drip(ms * SECOND // 1000, 2000, 0).bytes_min for ms in (10_000, 100, 1)] == [2500, 25, 1]
