"""Objects by state: every state once, under a number, and everything that was ever done to it once.

A search meets the same receiver in the same state very often, with something else around it. What an object does is
determined by its state, so it is done once, on a clone, and the answer is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from migemu.ordering.frozen import clone

T = TypeVar("T")


class Numbered(Generic[T]):
    """The states of one object that were reached, by number; 0 is the first. States with equal `key` are one."""

    def __init__(self, first: T, key: Callable[[T], Hashable]) -> None:
        self._key = key
        self._objects: list[T] = []
        self._numbers: dict[Hashable, int] = {}
        self._answers: dict[tuple[int, Hashable], tuple[int, Any]] = {}
        self._number(first)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, number: int) -> T:
        """The object in state `number`. Do not change it."""
        return self._objects[number]

    def do(self, number: int, operation: Hashable, carry_out: Callable[[T], Any]) -> tuple[int, Any]:
        """Apply `operation` (`carry_out` does it) to state `number`: the next state and the answer.

        Each is computed once.
        """
        found = self._answers.get((number, operation))
        if found is None:
            changed = clone(self._objects[number])
            answer = carry_out(changed)
            found = self._answers[number, operation] = (self._number(changed), answer)
        return found

    def _number(self, changed: T) -> int:
        number = self._numbers.setdefault(self._key(changed), len(self._objects))
        if number == len(self._objects):
            self._objects.append(changed)
        return number
