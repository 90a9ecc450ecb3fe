"""What maps the memory, over time: bytes by level, page tables, and what an access to it costs.

What this models
    The destination's mapping as its events tell it: `continued` maps pieces, `collapsed` puts one leaf in place of what
    a span had, `zapped` drops. Pure: a reducer over the events of a trace, measured or modelled.

Rules (sections of kernel-semantics)
    1. A piece that is continued is one leaf of its level, or nothing where anything is mapped already (EEXIST, 1.3).
       A collapse maps its whole span, holes included (0.2).
    2. A table of PTEs counts while any leaf below 2M lies under it, one of PMDs while any leaf below 1G does (3.6): 8
       bytes a 4K entry, 2 MiB and 4 KiB for 1G all at 4K.

Simplified
    Hugepages of 1G. Tables without any leaf, which a walk may leave behind, are not known from events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from migemu.mm.access import UNIFORM, AccessModel, Pattern
from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening

#: What changes a mapping.
CHANGES: Final = (Happening.CONTINUED, Happening.COLLAPSED, Happening.ZAPPED)
_NEED_LEVEL: Final = (Happening.CONTINUED, Happening.COLLAPSED)


class MappingAt(NamedTuple):
    """The mapping from `t` on."""

    t: int
    mapped_bytes: dict[Level, int]
    page_table_bytes: int
    access_ns: float | None
    """The expected time of an access to what is mapped; None while nothing is."""


class Mapping:
    """Leaves and tables of a memory of `pages` base pages. One byte a base page: 0, or its leaf's level and one.

    The bytes stand in rows, one a PMD slot; rows of one value are shared.
    """

    __slots__ = ("_alike", "_below", "_rows", "_width", "geometry", "leaf_pages")

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self.geometry = geometry
        self._width = geometry.pages(Level.PMD)
        self._alike = [bytes((value,)) * self._width for value in range(Level.PUD + 2)]
        self._rows: list[bytes | bytearray] = [self._alike[0]] * -(-pages // self._width)
        #: Base pages mapped by leaves of each level.
        self.leaf_pages = dict.fromkeys(geometry.levels, 0)
        # Per table of PTEs (a PMD slot) and of PMDs (a PUD slot): base pages mapped by leaves below that slot's level.
        self._below = {level: [0] * -(-pages // geometry.pages(level)) for level in (Level.PMD, Level.PUD)}

    def map(self, first: PageIndex, count: int, level: Level) -> None:
        """Leaves of `level` over `count` pages; of those that would lie over something mapped, none."""
        end = first + count
        if self._blank(first, end):
            self._set(first, end, level + 1)
            return
        size = self.geometry.pages(level)
        for at in range(first, end, size):
            if self._blank(at, at + size):
                self._set(at, at + size, level + 1)

    def collapse(self, first: PageIndex, level: Level) -> None:
        """One leaf of `level` in place of whatever maps its pages."""
        self._set(first, first + self.geometry.pages(level), level + 1)

    def drop(self, first: PageIndex, count: int) -> None:
        """Nothing maps these pages any more."""
        self._set(first, first + count, 0)

    @property
    def leaves(self) -> dict[Level, int]:
        """Leaves by level, as `AddressSpace.leaves` counts them."""
        return {level: pages // self.geometry.pages(level) for level, pages in self.leaf_pages.items()}

    @property
    def page_table_bytes(self) -> int:
        """Bytes of the tables that the leaves need."""
        return sum(len(row) - row.count(0) for row in self._below.values()) * self.geometry.page_bytes

    def _set(self, first: PageIndex, end: PageIndex, value: int) -> None:
        """One PMD slot after the other, so that each table's pages are counted."""
        width = self._width
        while first < end:
            slot, at = divmod(first, width)
            count = min(end - first, width - at)
            self._count(slot, at, count, -1)
            if count == width:
                self._rows[slot] = self._alike[value]
            else:
                row = self._rows[slot] = bytearray(self._rows[slot])
                row[at : at + count] = self._alike[value][:count]
                if row.count(value) == width:
                    self._rows[slot] = self._alike[value]
            self._count(slot, at, count, 1)
            first += count

    def _blank(self, first: PageIndex, end: PageIndex) -> bool:
        """Whether nothing maps any of these pages."""
        while first < end:
            slot, at = divmod(first, self._width)
            count = min(end - first, self._width - at)
            if self._rows[slot].count(0, at, at + count) != count:
                return False
            first += count
        return True

    def _count(self, slot: int, at: int, count: int, sign: int) -> None:
        """Add or take away the leaves of `count` pages of a PMD slot from `at` on."""
        row = self._rows[slot]
        left = count - row.count(0, at, at + count)
        for level in self.leaf_pages:
            if not left:
                return
            pages = row.count(level + 1, at, at + count)
            left -= pages
            self.leaf_pages[level] += sign * pages
            for table, below in self._below.items():
                if level < table:
                    below[slot * self._width // self.geometry.pages(table)] += sign * pages


class MappingOverTime:
    """Follows the events of a trace about `pages` base pages, and says on demand what the mapping is like."""

    __slots__ = ("_access", "_mapping", "_pages", "_pattern")

    def __init__(
        self, geometry: Geometry, pages: int, access: AccessModel | None = None, pattern: Pattern = UNIFORM
    ) -> None:
        self._mapping = Mapping(geometry, pages)
        self._pages = pages
        self._access = AccessModel(geometry=geometry) if access is None else access
        self._pattern = pattern

    def take(self, event: Event) -> bool:
        """The next event; whether it changes the mapping. ValueError: it lies outside the memory."""
        happening, first, count, level = event.event, event.first, event.count, event.level
        if happening not in CHANGES or first is None:
            return False
        mapping = self._mapping
        if happening is Happening.COLLAPSED and level is not None:
            count = mapping.geometry.pages(level)
        if count is None or first < 0 or first + count > self._pages or (level is None and happening in _NEED_LEVEL):
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
        """The mapping as it stands, as of `t`."""
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
    """The mapping after each event that changes it, or, with `every_ns`, at most once in that time and at the end.

    ValueError: an event outside the `pages` of the memory.
    """
    mapping = MappingOverTime(geometry, pages, access, pattern)
    told: int | None = None
    pending: int | None = None
    for event in events:
        if not mapping.take(event):
            continue
        pending = event.t
        if told is None or event.t - told >= every_ns:
            yield mapping.at(event.t)
            told, pending = event.t, None
    if pending is not None:
        yield mapping.at(pending)
