"""A TCP proxy that is honest until it is told to cut: then it resets one connection, or all of them."""

from __future__ import annotations

from random import Random

from tests.proxy import Proxy


class Cutter(Proxy):
    """Stands in front of `target` on a port of its own."""

    def __init__(self, target: int, seed: int) -> None:
        super().__init__(target)
        self.cuts = 0
        self._rng = Random(seed)

    def cut(self) -> None:
        """One connection or all, as a dying router does it."""
        here = list(self.connections)
        for connection in here if self._rng.random() < 0.5 else self._rng.sample(here, min(1, len(here))):
            self.cuts += 1
            connection.reset()
