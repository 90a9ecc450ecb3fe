"""What the picture shows of each base page: one byte a page, and how each event changes it.

What this models
    A page is missing, asked for, arrived (its bytes are here, no entry maps it), or mapped by a leaf of some level; and
    the guest has written to it or not. The low three bits are a `PageState`, bit 3 is `WRITTEN_BIT`.

Rules
    1. Each event does the same to every page of its range, whatever came before: a table of 256 bytes says what becomes
       of each state. The browser is sent these tables (`TABLES`), so that the rules stand here and nowhere else.
    2. UFFDIO_CONTINUE maps a piece whole, or not at all where anything of it is mapped already (EEXIST, SEMANTICS 1.3).
    3. A collapse maps its span whole, whatever mapped it before. What was written stays written.
    4. What was dropped by the guest (`zapped`) is missing again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening


class PageState(IntEnum):
    """What is known of a base page; the mapped ones by the level of the leaf that maps it."""

    MISSING = 0
    ASKED = 1
    ARRIVED = 2
    MAPPED_PTE = 3
    MAPPED_CONT_PTE = 4
    MAPPED_PMD = 5
    MAPPED_CONT_PMD = 6
    MAPPED_PUD = 7


STATE_MASK: Final = 7
#: The guest has written to the page.
WRITTEN_BIT: Final = 8
#: Different values of a byte of state.
STATES: Final = 16

#: Numbers of the tables. A CONTINUE or collapse of a level has the number of the smallest one, plus the level.
NOTHING, ASK, ARRIVE, CONTINUE, COLLAPSE, WRITE, ZAP = 0, 1, 2, 3, 8, 13, 14


def _table(change: Callable[[int], int]) -> bytes:
    return bytes(change(state) & 0xFF if state < STATES else state for state in range(256))


def _raised(to: PageState) -> bytes:
    """At least `to`: what has come further stays."""
    return _table(lambda state: state if state & STATE_MASK >= to else state & WRITTEN_BIT | to)


def _mapped(level: Level, anew: bool) -> bytes:
    """Mapped by a leaf of `level`; `anew` also where something maps it already."""
    to = PageState.MAPPED_PTE + level
    if anew:
        return _table(lambda state: state & WRITTEN_BIT | to)
    return _table(lambda state: state if state & STATE_MASK >= PageState.MAPPED_PTE else state & WRITTEN_BIT | to)


#: What becomes of each state, by number of the table.
TABLES: Final = (
    _table(lambda state: state),
    _raised(PageState.ASKED),
    _raised(PageState.ARRIVED),
    *(_mapped(level, anew=False) for level in Level),
    *(_mapped(level, anew=True) for level in Level),
    _table(lambda state: state | WRITTEN_BIT),
    _table(lambda _: PageState.MISSING),
)

_SIMPLE: Final = {
    Happening.REQUESTED: ASK, Happening.RECEIVED: ARRIVE, Happening.WRITTEN: WRITE, Happening.ZAPPED: ZAP,
}  # fmt: skip


class PageStates:
    """The states of `pages` base pages, and `counts[state]`, how many are in each of the `STATES`."""

    __slots__ = ("counts", "geometry", "states")

    def __init__(self, geometry: Geometry, pages: int) -> None:
        """All missing."""
        self.geometry = geometry
        self.states = bytearray(pages)
        self.counts = [pages] + [0] * (STATES - 1)

    def take(self, event: Event) -> list[tuple[int, PageIndex, int]]:
        """The next event: the changes that it makes, as (table, first page, pages); they are made when this returns.

        ValueError: it lies outside the memory.
        """
        first, count, level, happening = event.first, event.count, event.level, event.event
        if first is None:
            return []
        table = _SIMPLE.get(happening, NOTHING)
        if happening is Happening.COLLAPSED or happening is Happening.CONTINUED:
            if level not in self.geometry.shifts:
                raise ValueError(f"{happening.value}: {self.geometry.name} has no such level")
            table = (COLLAPSE if happening is Happening.COLLAPSED else CONTINUE) + level
            if happening is Happening.COLLAPSED:
                count = self.geometry.pages(level)
        pages = 1 if count is None else count
        if first < 0 or pages < 0 or first + pages > len(self.states):
            raise ValueError(f"{happening.value} of {count} pages at {first} does not fit {len(self.states)} pages")
        if table == NOTHING or not pages:
            return []
        if happening is Happening.CONTINUED and level and not self._is_unmapped(first, pages):
            return self._continue_parts(first, pages, level)
        self.apply(table, first, pages)
        return [(table, first, pages)]

    def apply(self, table: int, first: PageIndex, pages: int) -> None:
        """Change `pages` pages from `first` on as the table of that number says."""
        states, counts, becomes = self.states, self.counts, TABLES[table]
        if pages == 1:
            before = states[first]
            after = states[first] = becomes[before]
            counts[before] -= 1
            counts[after] += 1
            return
        part = states[first : first + pages]
        for before in set(part):
            number, after = part.count(before), becomes[before]
            counts[before] -= number
            counts[after] += number
        states[first : first + pages] = part.translate(becomes)

    def _is_unmapped(self, first: PageIndex, pages: int) -> bool:
        return all(state & STATE_MASK < PageState.MAPPED_PTE for state in set(self.states[first : first + pages]))

    def _continue_parts(self, first: PageIndex, pages: int, level: Level) -> list[tuple[int, PageIndex, int]]:
        """Rule 2: those pieces of a run of which nothing is mapped."""
        size, made = self.geometry.pages(level), []
        for at in range(first, first + pages, size):
            length = min(size, first + pages - at)
            if self._is_unmapped(at, length):
                self.apply(CONTINUE + level, at, length)
                made.append((CONTINUE + level, at, length))
        return made
