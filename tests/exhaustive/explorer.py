"""Every state that a set of calls can lead to, each of the calls tried in each of the states.

By state, not by sequence: a call that leads to a state already seen is compared and not followed. Twins are copied by
pickle, both models together. Where a state is met first, all that can be seen of it is compared; where it is met again
by another way, the real model must show the entries and the counts that it showed the first time. Its own invariants
are checked after every call that changed something, and once for all that did not.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from itertools import product

from migemu.mm import ValidationError
from tests.exhaustive.twin_mm import Call, Twins

Sensible = Callable[[Twins, Call], bool]


def ranges(pages: int, aligned: bool = False, step: int = 1) -> list[tuple[int, int]]:
    """Every (first, count) within `pages`, in steps of `step`; if `aligned`, naturally aligned powers of two only."""
    borders = range(0, pages + 1, step)
    everything = [(first, end - first) for first, end in product(borders, borders) if first < end]
    return [(f, n) for f, n in everything if not aligned or (n & (n - 1) == 0 and f % n == 0)]


def on(names: Sequence[str], where: Sequence[tuple[int, int]], *more: object) -> list[Call]:
    return [(name, *each, *more) for name in names for each in where]


def always(twins: Twins, call: Call) -> bool:
    return True


def folio_allows(twins: Twins, call: Call) -> bool:
    """Only a cached, healthy folio is isolated, once; only an isolated one is put back.

    Migration and memory failure both hold the folio lock, so neither begins while the other is at it. Which of them
    v1 notices first when it collapses is not known, so there the one excludes the other.
    """
    file, name = twins.files[0][0], call[0]
    if name == "hwpoison_at":
        hugepages = {file.hugepage(page) for page in range(call[1], call[1] + call[2])}
        return hugepages.isdisjoint(file.isolated if twins.naive.hgm == "v1" else file.unmapped)
    if name not in ("isolate", "putback", "try_to_migrate", "remove_migration_ptes"):
        return True
    hugepage = call[1]
    isolated, unmapped = hugepage in file.isolated, hugepage in file.unmapped
    if name == "putback":
        return isolated and not unmapped
    if name == "remove_migration_ptes":
        return unmapped
    taken = unmapped if name == "try_to_migrate" else isolated
    return hugepage in file.cached and not taken and not file.poisoned(hugepage)


class Explorer:
    """From the state that `prefix` leads to. `tried` counts the calls compared, `seen` the states."""

    def __init__(self, twins: Twins, prefix: Sequence[Call], sensible: Sensible = always) -> None:
        self.sensible = sensible
        self.tried = 0
        for call in prefix:
            twins.do(*call)
            twins.compare()
        self.seen: dict[object, object] = {}
        self.states: list[tuple[bytes, list[Call]]] = []
        self.frontier = [self.met(twins, list(prefix))]

    def met(self, twins: Twins, path: list[Call]) -> tuple[bytes, list[Call]]:
        """Remember a state."""
        twins.compare()
        self.seen[twins.key()] = twins.glance()
        self.states.append((pickle.dumps(twins, pickle.HIGHEST_PROTOCOL), path))
        return self.states[-1]

    def step(self, calls: Sequence[Call]) -> None:
        """Every call from every state of the frontier; the states not seen before are the next one."""
        frontier, self.frontier = self.frontier, []
        for kept, path in frontier:
            twins: Twins = pickle.loads(kept)
            before = twins.key()
            for call in calls:
                if not self.sensible(twins, call):
                    continue
                try:
                    changed = self.attempt(twins, call, path, before)
                except (AssertionError, ValidationError) as error:
                    raise AssertionError(f"after {path}, {call}: {error}") from error
                if changed:
                    twins = pickle.loads(kept)
            twins.validate()

    def attempt(self, twins: Twins, call: Call, path: list[Call], before: object) -> bool:
        """One call of both, compared; whether it changed anything."""
        self.tried += 1
        twins.do(*call)
        after = twins.key()
        if after not in self.seen:
            self.frontier.append(self.met(twins, [*path, call]))
        assert twins.glance() == self.seen[after], f"not as it was when this state was met first: {after}"
        if after != before:
            twins.validate()
        return after != before

    def again(self) -> None:
        """All states seen are the frontier, for other calls."""
        self.frontier = list(self.states)

    @property
    def found(self) -> tuple[int, int]:
        """How many states, how many calls compared."""
        return len(self.seen), self.tried

    def all_of(self, calls: Sequence[Call]) -> tuple[int, int]:
        """Until nothing new is met: `found`, which `pytest -s` shows."""
        while self.frontier:
            self.step(calls)
        print(f"{len(self.seen)} states, {self.tried} calls compared")
        return self.found
