"""Objects as values: what is one state and what is two, and clones that go their own way."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import pytest

from migemu.mm.pages import TINY, Level, PageBitmap, Span
from migemu.ordering.frozen import clone, freeze


class Slotted:
    __slots__ = ("__hidden", "left", "right")

    def __init__(self, left: object, right: object = None) -> None:
        self.left, self.right = left, right
        self.__hidden = left


class Derived(Slotted):
    """Slots, and a dict besides."""

    def __init__(self, left: object) -> None:
        super().__init__(left)
        self.more = [left]


@dataclass
class Data:
    seen: set[Any] = field(default_factory=set)
    count: int = 0


class Pair(NamedTuple):
    one: Any
    other: Any


def bitmap(*pages: int) -> PageBitmap:
    made = PageBitmap(TINY, 16)
    for page in pages:
        made.add(page, 1)
    return made


def looped() -> Data:
    data = Data()
    data.count = data  # type: ignore[assignment]
    return data


def drawn(times: int) -> Random:
    rng = Random(1)
    for _ in range(times):
        rng.random()
    return rng


def backwards() -> dict[int, int]:
    return {2: 2, 1: 1}


EQUAL: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: Slotted([1]), lambda: Slotted([1])),
    (lambda: Derived(deque([1])), lambda: Derived(deque([1]))),
    (lambda: {3, 1, 2}, lambda: {2, 1, 3}),
    (lambda: Data({Span(0, Level.PMD)}), lambda: Data({Span(0, Level.PMD)})),
    (lambda: bitmap(3, 5), lambda: bitmap(5, 3)),
    (looped, looped),
    (lambda: drawn(2), lambda: drawn(2)),
    (lambda: array("H", [1]), lambda: array("H", [1])),
    (lambda: [1].append, lambda: [1].append),
]
DIFFERENT: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: Slotted([1]), lambda: Slotted([2])),
    (lambda: Slotted(1), lambda: Derived(1)),
    (lambda: [1, 2], lambda: [2, 1]),
    (lambda: [1], lambda: (1,)),
    (lambda: [1], lambda: [True]),
    (lambda: [0], lambda: [Level.PTE]),
    (lambda: [1], lambda: [1.0]),
    (lambda: bytearray(b"a"), lambda: b"a"),
    (lambda: {1: 1, 2: 2}, backwards),
    (lambda: {1}, lambda: {1, 2}),
    (lambda: bitmap(3), lambda: bitmap(4)),
    (lambda: drawn(2), lambda: drawn(3)),
    (lambda: [[1], [1]], lambda: [[1]] * 2),
    (lambda: Pair([1], 2), lambda: Pair([2], 1)),
    (lambda: Data(count=1).seen.add, lambda: Data(count=1).seen.discard),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_the_same_state_is_the_same_value(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert freeze(one()) == freeze(other())
    assert hash(freeze(one())) == hash(freeze(other()))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_state_is_another_value(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert freeze(one()) != freeze(other())


@pytest.mark.parametrize("make", [each for pair in EQUAL + DIFFERENT for each in pair])
def test_a_clone_is_in_the_same_state(make: Callable[[], Any]) -> None:
    original = make()
    assert freeze(clone(original)) == freeze(original)


def test_a_clone_goes_its_own_way() -> None:
    original = Pair(Derived([1]), {"a": bytearray(b"a"), "b": {1}, "c": deque([bitmap(1)])})
    twin, before = clone(original), freeze(original)
    twin.one.left.append(2)
    twin.one.more.append(3)
    twin.other["a"][0] = 0
    twin.other["b"].add(2)
    twin.other["c"][0].add(2, 1)
    assert freeze(original) == before != freeze(twin)


def test_what_was_one_object_is_one_in_the_clone() -> None:
    shared = [1]
    twin = clone([shared, {"again": shared}, shared.append])
    twin[2](2)
    assert twin == [[1, 2], {"again": [1, 2]}, twin[0].append]
    assert twin[0] is twin[1]["again"]
    assert shared == [1]


def test_what_is_ignored_makes_no_difference() -> None:
    assert freeze(Data(count=1), frozenset({"count"})) == freeze(Data(count=2), frozenset({"count"}))
    assert freeze([Data({1})], frozenset({"count"})) != freeze([Data({2})], frozenset({"count"}))


def test_what_cannot_be_copied_is_refused() -> None:
    for each in (threading.Lock(), (number for number in range(3))):
        with pytest.raises(TypeError):
            freeze([each])
        with pytest.raises(TypeError):
            clone([each])
