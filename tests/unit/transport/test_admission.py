"""Who gets in when the door is full."""

from __future__ import annotations

import pytest

from migemu.errors import PeerError
from migemu.transport.admission import Door


def door(places: int, *visitors: tuple[str, str]) -> Door[str]:
    made: Door[str] = Door(places)
    for name, host in visitors:
        assert made.enter(name, host) is None
    return made


def test_as_many_as_there_are_places_come_in() -> None:
    assert len(door(3, ("a", "x"), ("b", "x"), ("c", "y"))) == 3


def test_a_newcomer_takes_the_place_of_the_one_that_has_waited_longest() -> None:
    full = door(2, ("a", "x"), ("b", "x"))
    assert full.enter("c", "x") == "a"
    assert full.enter("d", "x") == "b"
    assert len(full) == 2


def test_the_host_with_the_most_at_the_door_gives_way_first() -> None:
    """So who floods the door wears out only what came from there."""
    full = door(3, ("honest", "h"), ("flood 1", "f"), ("flood 2", "f"))
    assert [full.enter(f"flood {number}", "f") for number in range(3, 6)] == ["flood 1", "flood 2", "flood 3"]


def test_who_is_inside_stays() -> None:
    full = door(2, ("main", "x"), ("stranger", "y"))
    full.admit("main")
    assert full.enter("next", "x") == "stranger"
    assert full.enter("another", "x") == "next"


def test_when_all_are_inside_the_newcomer_is_refused() -> None:
    full = door(2, ("main", "x"), ("preempt", "x"))
    full.admit("main")
    full.admit("preempt")
    with pytest.raises(PeerError, match=r"too many connections \(2, limits.connections_max\)"):
        full.enter("third", "y")
    full.leave("main")
    assert full.enter("third", "y") is None


def test_a_place_is_free_again_however_its_visitor_left() -> None:
    full = door(2, ("a", "x"), ("b", "x"))
    full.admit("a")
    for name in ("a", "b", "b", "nobody"):
        full.leave(name)
    full.admit("a")  # its first message was accepted when it was gone already
    assert len(full) == 0
