"""What maps the memory, over time: bytes by level, page tables, and what an access to it costs.

What this models
    The destination's mapping as its events tell it: `continued` maps pieces, `collapsed` puts one leaf in place of what
    a span had, `zapped` drops. Pure: a reducer over the events of a trace, measured or modelled.

Rules
    1. A piece that is continued is one leaf of its level, or nothing where anything is mapped already (EEXIST,
       SEMANTICS 1.3). A collapse maps its whole span, holes included (SEMANTICS 0.2).
    2. A table of PTEs counts while any leaf below 2M lies under it, one of PMDs while any leaf below 1G does
       (SEMANTICS 3.6): 8 bytes a 4K entry, 2 MiB and 4 KiB for 1G all at 4K. Tables above the largest leaf, which are
       there in any case, do not count.

Simplified
    Tables without any leaf, which a walk may leave behind, are not known from events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from migemu.costs.access import UNIFORM, AccessModel, Pattern
from migemu.mm.page_values import PageValues
from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening

#: What changes a mapping.
CHANGES: Final = (Happening.CONTINUED, Happening.COLLAPSED, Happening.ZAPPED)
_NEED_LEVEL: Final = (Happening.CONTINUED, Happening.COLLAPSED)


class MappingAt(NamedTuple):
    """What maps the memory from time `t` on."""

    t: int
    mapped_bytes: dict[Level, int]
    page_table_bytes: int
    access_ns: float | None
    """The expected time of an access to what is mapped; None while nothing is."""


class MappedShares:
    """Leaves and tables of a memory of `pages` base pages. A page's value is 0 (unmapped) or its leaf's level + 1."""

    __slots__ = ("_below", "_levels", "_tables", "_width", "geometry", "leaf_pages")

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self.geometry = geometry
        self._width = geometry.pages(Level.PMD)
        self._levels = PageValues(-(-pages // self._width) * self._width, self._width, max(geometry.levels) + 2)
        #: Base pages mapped by leaves of each level.
        self.leaf_pages = dict.fromkeys(geometry.levels, 0)
        # Per table of PTEs (a PMD slot) and of PMDs (a PUD slot): base pages mapped by leaves below that slot's level.
        slots = (Level.PMD, geometry.largest)
        self._below = {level: [0] * -(-pages // geometry.pages(level)) for level in slots}
        self._tables = 0  # how many of these are not 0

    def map(self, first: PageIndex, count: int, level: Level) -> None:
        """Map `count` pages by leaves of `level`; a leaf is left out where anything is mapped already."""
        end = first + count
        if self._levels.count(0, first, end) == count:
            self._set(first, end, level, was_blank=True)
            return
        size = self.geometry.pages(level)
        for at in range(first, end, size):
            if self._levels.count(0, at, at + size) == size:
                self._set(at, at + size, level)

    def collapse(self, first: PageIndex, level: Level) -> None:
        """Replace what maps a span by one leaf of `level`."""
        self._set(first, first + self.geometry.pages(level), level)

    def drop(self, first: PageIndex, count: int) -> None:
        """Unmap `count` base pages from `first` on."""
        self._set(first, first + count, None)

    @property
    def leaves(self) -> dict[Level, int]:
        """How many leaves of each level there are, as `AddressSpace.leaves` counts them."""
        return {level: pages // self.geometry.pages(level) for level, pages in self.leaf_pages.items()}

    @property
    def page_table_bytes(self) -> int:
        """Bytes of page tables that these leaves need."""
        return self._tables * self.geometry.page_bytes

    def _set(self, first: PageIndex, end: PageIndex, level: Level | None, was_blank: bool = False) -> None:
        """Set the value of these pages, one PMD slot after the other, so that tables are counted."""
        while first < end:
            slot = first // self._width
            until = min(end, (slot + 1) * self._width)
            if not was_blank:
                self._take_out(slot, first, until)
            self._levels.fill(first, until - first, 0 if level is None else level + 1)
            if level is not None:
                self._add(slot, level, until - first)
            first = until

    def _take_out(self, slot: int, first: PageIndex, end: PageIndex) -> None:
        """Uncount the leaves that map these pages of a PMD slot."""
        remaining = end - first - self._levels.count(0, first, end)
        for level in self.leaf_pages:
            if not remaining:
                return
            if pages := self._levels.count(level + 1, first, end):
                remaining -= pages
                self._add(slot, level, -pages)

    def _add(self, slot: int, level: Level, pages: int) -> None:
        """Count `pages` more pages of a PMD slot as mapped by leaves of `level`."""
        self.leaf_pages[level] += pages
        for table, below in self._below.items():
            if level < table:
                number = slot * self._width // self.geometry.pages(table)
                before = below[number]
                after = below[number] = before + pages
                self._tables += bool(after) - bool(before)


class MappingOverTime:
    """Follows the events of a trace about `pages` base pages; `at` says what maps them, and what an access costs."""

    __slots__ = ("_access", "_mapping", "_pages", "_pattern")

    def __init__(
        self, geometry: Geometry, pages: int, access: AccessModel | None = None, pattern: Pattern = UNIFORM
    ) -> None:
        self._mapping = MappedShares(geometry, pages)
        self._pages = pages
        self._access = AccessModel(geometry=geometry) if access is None else access
        self._pattern = pattern

    def take(self, event: Event) -> bool:
        """Take the next event; whether it changes the mapping. ValueError: it is outside the memory."""
        happening, first, count, level = event.event, event.first, event.count, event.level
        if happening not in CHANGES or first is None:
            return False
        mapping = self._mapping
        if happening is Happening.COLLAPSED and level is not None:
            count = mapping.geometry.pages(level)
        known = level in mapping.leaf_pages or (level is None and happening not in _NEED_LEVEL)
        if count is None or first < 0 or first + count > self._pages or not known:
            raise ValueError(
                f"{happening.value} of {count} pages at {first} does not fit a memory of {self._pages} pages"
            )
        if level is None or happening is Happening.ZAPPED:
            mapping.drop(first, count)
        elif happening is Happening.COLLAPSED:
            mapping.collapse(first, level)
        else:
            mapping.map(first, count, level)
        return True

    def at(self, t: int) -> MappingAt:
        """The present mapping, dated `t`."""
        leaves, page_bytes = self._mapping.leaves, self._mapping.geometry.page_bytes
        return MappingAt(
            t,
            {level: pages * page_bytes for level, pages in self._mapping.leaf_pages.items()},
            self._mapping.page_table_bytes,
            self._access.access_ns(leaves, self._pattern) if any(leaves.values()) else None,
        )


def mapping_over_time(
    events: Iterable[Event],
    geometry: Geometry,
    pages: int,
    *,
    access: AccessModel | None = None,
    pattern: Pattern = UNIFORM,
    every_ns: int = 0,
) -> Iterator[MappingAt]:
    """The mapping after each event that changes it; with `every_ns`, at most once in that time, and at the end.

    ValueError: an event is outside the `pages` of the memory.
    """
    mapping = MappingOverTime(geometry, pages, access, pattern)
    reported: int | None = None
    pending: int | None = None
    for event in events:
        if not mapping.take(event):
            continue
        pending = event.t
        if reported is None or event.t - reported >= every_ns:
            yield mapping.at(event.t)
            reported, pending = event.t, None
    if pending is not None:
        yield mapping.at(pending)
