"""What a collapse does, counted: entries cleared and set, tables freed, flushes, notifications.

What this models
    The primitives of MADV_COLLAPSE (SEMANTICS 2.1, 2.3), without a price: `migemu.costs.collapse_cost` has the prices.
    There are two ways to the same counts. `collapse_operations` knows them beforehand from the leaves that a span has;
    `of_steps` reads them off what a model did (`AddressSpace(on_gather=...)`).

Rules
    1. 4K to 1G: 262,144 leaves cleared, 513 tables freed, 1 leaf set. 4K to 2M, all of it: 262,144, 512 and 512; then
       2M to 1G: 512, 1 and 1 (SEMANTICS 2.4).
    2. The range of a call picks the level of its entries: 512M of a 1G page become 256 entries of 2M (SEMANTICS 2.1).
    3. The gather flushes when its batch is full, about every 10,000 entries, which is looked at after each row of a
       table, and once at the end for what is left (SEMANTICS 2.3).
    4. A call has one notifier window over its whole range (SEMANTICS 2.3, I7).

Simplified
    Beforehand, a span counts as full: its small leaves fill whole PTE tables, and leaves of several levels flush as
    their smallest do. Tables without a single leaf, which a walk may leave behind, are seen by `of_steps` alone.
    Entries that are no leaves (markers) are cleared for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from migemu.mm.gather import GATHER_BATCH, GatherKind, GatherStep
from migemu.mm.pages import Geometry, Level


@dataclass(frozen=True, slots=True)
class Operations:
    """Counts of primitives. `cleared` and `installed` are leaves by level; levels without any are left out."""

    cleared: dict[Level, int] = field(default_factory=dict)
    installed: dict[Level, int] = field(default_factory=dict)
    tables_freed: int = 0
    flushes: int = 0
    calls: int = 0
    """Calls, that is notifier windows."""

    @property
    def leaves_cleared(self) -> int:
        """How many leaves were cleared, of all levels."""
        return sum(self.cleared.values())

    @property
    def leaves_installed(self) -> int:
        """How many leaves were installed, of all levels."""
        return sum(self.installed.values())


def full(geometry: Geometry, from_level: Level, to_level: Level) -> dict[Level, int]:
    """The leaves of one span of `to_level` that is wholly mapped by entries of `from_level`."""
    return {from_level: geometry.pages(to_level) // geometry.pages(from_level)}


def collapse_operations(
    geometry: Geometry, leaves: Mapping[Level, int], to_level: Level, spans: int = 1, batch: int = GATHER_BATCH
) -> Operations:
    """One call over `spans` neighbouring spans of `to_level`, each of which has the same `leaves` by level.

    Leaves of `to_level` and larger ones are skipped, as the kernel does (SEMANTICS 2.1). ValueError: a level that the
    geometry has not.
    """
    for level in (*leaves, to_level):
        if level not in geometry.shifts:
            raise ValueError(f"{geometry.name} has no {level.name} entries")
    cleared = {level: count * spans for level, count in sorted(leaves.items()) if level < to_level and count}
    if not cleared:
        return Operations(calls=1)
    tables = 0
    for table in (Level.PMD, Level.PUD):  # a table hangs from an entry of one of these levels
        below = sum(leaves[level] * geometry.pages(level) for level in cleared if level < table)
        if table <= to_level:
            tables += -(-below // geometry.pages(table))
    flushes = _flushes(geometry, cleared, batch, tables > 0)
    return Operations(cleared, {to_level: spans}, tables * spans, flushes, 1)


def _flushes(geometry: Geometry, cleared: Mapping[Level, int], batch: int, frees: bool) -> int:
    """Early flushes, after the row of a table that fills the batch; one at the end if anything is left to flush."""
    row = max(1, geometry.pages(Level.PMD) // geometry.pages(min(cleared)))
    filled = -(-batch // row) * row
    early, left = divmod(sum(cleared.values()), filled)
    return early + (1 if left or frees else 0)


def calls_of(steps: Iterable[GatherStep]) -> list[list[GatherStep]]:
    """The steps of each call: a process_madvise makes one for every range (SEMANTICS 6.1)."""
    calls: list[list[GatherStep]] = []
    for step in steps:
        if step.kind is GatherKind.NOTIFIER_START or not calls:
            calls.append([])
        calls[-1].append(step)
    return calls


def of_steps(steps: Iterable[GatherStep]) -> Operations:
    """What `steps`, as reported by `on_gather`, come to; of one call or of many."""
    cleared: dict[Level, int] = {}
    installed: dict[Level, int] = {}
    tables_freed = flushes = calls = 0
    for step in steps:
        if step.kind is GatherKind.CLEARED and step.level is not None:
            cleared[step.level] = cleared.get(step.level, 0) + step.count
        elif step.kind is GatherKind.INSTALLED and step.level is not None:
            installed[step.level] = installed.get(step.level, 0) + step.count
        elif step.kind is GatherKind.FREED:
            tables_freed += step.count
        elif step.kind is GatherKind.FLUSHED:
            flushes += 1
        elif step.kind is GatherKind.NOTIFIER_START:
            calls += 1
    return Operations(dict(sorted(cleared.items())), dict(sorted(installed.items())), tables_freed, flushes, calls)
