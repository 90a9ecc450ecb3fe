"""How each base page of a hugetlb page came, and when: what a picture of one pixel a page is made of.

Rules
    1. The bytes that are kept are those that came first; `received` tells of these. What was dropped after that is told
       as a duplicate, and does not change the time.
    2. Of many hugetlb pages a few are looked at, chosen before the trace is read: those asked for, or some spread
       evenly from the first to the last.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from migemu.mm.pages import Geometry
from migemu.trace.events import Event, Happening

#: Marks a page that never came.
NEVER: Final = -1


class How(IntEnum):
    """How the bytes of a page arrived."""

    NOT = 0
    PUSHED = 1
    URGENT = 2
    ZERO = 3
    TWICE = 4

    @property
    def words(self) -> str:
        """The same as a text for people."""
        return ("not received", "pushed", "urgent", "zero", "duplicate")[self]


class PieceMap:
    """One hugetlb page. `how` has a byte a base page (`How`), `arrived` the time in ns of each, or NEVER."""

    __slots__ = ("arrived", "how", "hugepage")

    def __init__(self, hugepage: int, pages: int) -> None:
        self.hugepage = hugepage
        self.how = bytearray(pages)
        self.arrived = array("q", (NEVER,)) * pages

    def received(self, first: int, end: int, how: How, t: int) -> None:
        """Base pages `first` to `end` (exclusive) of this hugetlb page arrived at `t`."""
        self.how[first:end] = bytes((how,)) * (end - first)
        self.arrived[first:end] = array("q", (t,)) * (end - first)

    def dropped(self, first: int, end: int) -> None:
        """Base pages `first` to `end` (exclusive) arrived a second time."""
        for page in range(first, end):
            if self.how[page]:
                self.how[page] = How.TWICE


class PieceMaps:
    """The maps of some hugetlb pages of a memory, by number."""

    __slots__ = ("_per_page", "maps")

    def __init__(self, geometry: Geometry, hugepages: Sequence[int]) -> None:
        self._per_page = geometry.largest_pages
        self.maps = {each: PieceMap(each, self._per_page) for each in hugepages}

    def take(self, event: Event) -> None:
        """Take the next event of the trace; only `received` and `dropped` matter."""
        happening = event.event
        if happening is not Happening.RECEIVED and happening is not Happening.DROPPED:
            return
        first, count = event.first or 0, event.count or 0
        for hugepage in range(first // self._per_page, (first + count - 1) // self._per_page + 1):
            found = self.maps.get(hugepage)
            if found is None:
                continue
            start = max(0, first - hugepage * self._per_page)
            end = min(self._per_page, first + count - hugepage * self._per_page)
            if happening is Happening.DROPPED:
                found.dropped(start, end)
            else:
                found.received(start, end, _how(event), event.t)


def _how(event: Event) -> How:
    if event.detail == "zero":
        return How.ZERO
    return How.URGENT if event.urgent else How.PUSHED


def spread(hugepages: int, most: int) -> tuple[int, ...]:
    """At most `most` numbers from 0 to hugepages - 1, evenly spread, the first and last included if `most` > 1."""
    if hugepages <= most:
        return tuple(range(hugepages))
    return tuple(number * (hugepages - 1) // max(1, most - 1) for number in range(most))
