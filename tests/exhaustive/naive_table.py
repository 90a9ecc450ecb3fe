"""The page table of one mapping as two collections: what each slot holds, and which slots are tables.

Written from the rules of SEMANTICS.md alone, slow and obvious. A slot is (level, first page); pages are counted as
everywhere in the naive model, from the first mapping's first page. What is in neither collection is empty.

A group of contiguous entries (SEMANTICS 3.7) is no table page of its own: it holds a leaf, or it is what the entries
below say. All alike and blank: it is blank; anything else: it is looked into as a table is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from errno import EEXIST, ENOMEM
from typing import NamedTuple

from migemu.mm import Geometry, Level

CONT = (Level.CONT_PTE, Level.CONT_PMD)
BLANK = ("none", "wp_marker")


class Slot(NamedTuple):
    level: Level
    first: int


class Refused(Exception):
    """An errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class NaiveTable:
    """Pages `[first, end)`, whole hugepages, each of `hstate` size."""

    geometry: Geometry
    hstate: Level
    first: int
    end: int
    tables_max: int | None = None
    entries: dict[Slot, str] = field(default_factory=dict)  # leaf, wp_marker, migration, poison
    wp: set[Slot] = field(default_factory=set)  # the leaves and migration entries that are write-protected
    tables: set[Slot] = field(default_factory=set)
    hgm: set[int] = field(default_factory=set)  # the first pages of the hugepages with MADV_SPLIT
    cleared: Counter[Level] = field(default_factory=Counter)  # leaves, since somebody last looked
    freed: int = 0  # tables, likewise

    def size(self, level: Level) -> int:
        return self.geometry.pages(level)

    @property
    def levels(self) -> list[Level]:
        """From the hugepage down."""
        return [level for level in reversed(self.geometry.levels) if level <= self.hstate]

    @property
    def plain_levels(self) -> list[Level]:
        return [level for level in self.levels if level not in CONT]

    def slot(self, level: Level, page: int) -> Slot:
        return Slot(level, page // self.size(level) * self.size(level))

    def pages_of(self, slot: Slot) -> range:
        return range(slot.first, slot.first + self.size(slot.level))

    def children(self, slot: Slot) -> list[Slot]:
        """The plain entries of the table, or group, that `slot` is."""
        below = next(level for level in self.plain_levels if level < slot.level)
        return [Slot(below, first) for first in self.pages_of(slot)[:: self.size(below)]]

    def kind(self, slot: Slot) -> str:
        if slot in self.tables:
            return "table"
        if slot in self.entries:
            return self.entries[slot]
        if slot.level in CONT:
            inside = {self.kind(child) for child in self.children(slot)}
            return inside.pop() if inside in ({"none"}, {"wp_marker"}) else "table"
        return "none"

    def walk(self, page: int, stop: Level | None = None) -> Slot:
        """The first slot over `page` that is no table, or that of level `stop` if that comes first."""
        for level in self.levels:
            slot = self.slot(level, page)
            if level == stop:
                return slot
            kind = self.kind(slot)
            if kind != "table" and not (level in CONT and kind in BLANK):  # no contiguous bit in an empty entry
                return slot
        raise AssertionError("a table at the lowest level")

    def choose(self, page: int, end: int) -> Level:
        """SEMANTICS 1.3: the largest size aligned at the position that fits in the rest."""
        return next(level for level in self.levels if page % self.size(level) == 0 and page + self.size(level) <= end)

    def walk_to(self, page: int, wanted: Level) -> Slot:
        """The helper that CONTINUE and COLLAPSE share: the entry of `wanted`, under tables made as needed."""
        for level in self.levels:
            slot = self.slot(level, page)
            if level == wanted:
                return slot
            kind = self.kind(slot)
            if kind in BLANK and level not in CONT:
                self.make_table(slot)
            elif kind not in ("table", *BLANK):
                raise Refused(EEXIST)
        raise AssertionError("no such level")

    def make_table(self, slot: Slot) -> None:
        """SEMANTICS 3.3: a marker is copied to all children."""
        if self.tables_max is not None and len(self.tables) >= self.tables_max:
            raise Refused(ENOMEM)
        self.tables.add(slot)
        if self.entries.pop(slot, None) == "wp_marker":
            self.entries |= dict.fromkeys(self.children(slot), "wp_marker")

    def install(self, slot: Slot, wp: bool = False, kind: str = "leaf") -> None:
        """Into a blank slot."""
        if slot.level in CONT:
            for child in self.children(slot):
                self.entries.pop(child, None)
        self.entries[slot] = kind
        if wp:
            self.wp.add(slot)

    def remove(self, slot: Slot) -> str:
        """Empty the entry, whatever it holds."""
        self.wp.discard(slot)
        return self.entries.pop(slot)

    def below(self, first: int, end: int) -> list[Slot]:
        """Every entry that lies in pages `[first, end)`, by address."""
        inside = [slot for slot in self.entries if first <= slot.first and self.pages_of(slot).stop <= end]
        return sorted(inside, key=lambda slot: slot.first)

    def clear(self, slot: Slot) -> None:
        """SEMANTICS 2.1 step 3: no entry, table or marker stays at or below `slot`."""
        pages = self.pages_of(slot)
        for each in self.below(pages.start, pages.stop):
            if self.remove(each) == "leaf":
                self.cleared[each.level] += 1
        gone = {table for table in self.tables if table.first in pages and table.level <= slot.level}
        self.tables -= gone
        self.freed += len(gone)

    def leaves(self, kind: str = "leaf") -> list[Slot]:
        return [slot for slot, held in self.entries.items() if held == kind]

    def split_around(self, bad: int) -> None:
        """3.4, 4K poison: the leaf over `bad` becomes the largest leaves that avoid it, and a poison entry."""
        whole = self.walk(bad)
        before = dict(self.entries), set(self.wp), set(self.tables)
        wp = whole in self.wp
        self.remove(whole)
        try:
            for level in self.plain_levels[:-1]:
                if level <= whole.level:
                    self.make_table(self.slot(level, bad))
            for part in self.cover(whole.first, bad) + self.cover(bad + 1, self.pages_of(whole).stop):
                self.install(part, wp)
            self.install(Slot(min(self.levels), bad), kind="poison")
        except Refused:
            self.entries, self.wp, self.tables = before

    def cover(self, first: int, end: int) -> list[Slot]:
        """The largest entries that make up pages `[first, end)`."""
        slots = []
        while first < end:
            slots.append(Slot(self.choose(first, end), first))
            first += self.size(slots[-1].level)
        return slots
