"""Pages, levels and what has been counted of them: the vocabulary of every other room.

What this models
    A hugetlb mapping seen as a row of **base pages** (4K on the geometries here), numbered from 0: a *page index*.
    Everything that crosses a module border is a page index or a count of base pages; bytes appear at the edges only.

Words
    level     a size at which one entry can map memory: PTE 4K, CONT_PTE 64K, PMD 2M, CONT_PMD 32M, PUD 1G
    geometry  how large the levels are, and which of them can map a memory; TINY is a "1G page" of 16 base pages, for
              exhaustive tests
    largest   the level of the largest leaf that a memory can have: PUD of hugetlb pages of 1G
    span      a naturally aligned range of one entry: (first page, level)
    piece     what is sent as one: a span; a *run* is several neighbouring pieces of one size behind one header

Simplified
    One base-page size per geometry; the 16K and 64K granules of arm64 are not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

PageIndex = int


class Level(IntEnum):
    """A page-table level, smallest first. CONT_* are contiguous-entry groups of arm64 (SEMANTICS 3.7)."""

    PTE = 0
    CONT_PTE = 1
    PMD = 2
    CONT_PMD = 3
    PUD = 4

    __hash__ = int.__hash__  # Enum's own is Python code, and levels are looked up for every piece


@dataclass(frozen=True, slots=True)
class Geometry:
    """The levels of an architecture, and what of them a memory can be mapped by.

    `shifts[level]` is log2 of the bytes that one entry maps. `largest` is the level of the largest leaf: the size in
    which memory is announced and compared, and to which it is collapsed in the end. Everything outside of `migemu.mm`
    asks it here. Kinds of memory: hugetlb pages of 1G have PUD, hugetlb pages of 2M and THP have PMD.
    """

    name: str
    shifts: dict[Level, int]
    largest: Level = Level.PUD
    _pages: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """ValueError: leaves of another level than PMD or PUD are not modelled as the largest."""
        if self.largest not in (Level.PMD, Level.PUD):
            raise ValueError(f"{self.name}: {self.largest.name} as the largest leaf is not modelled; give PMD or PUD")
        base = self.shifts[Level.PTE]
        pages = tuple(1 << (self.shifts[level] - base) if level in self.shifts else 0 for level in Level)
        object.__setattr__(self, "_pages", pages)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that a leaf can have, smallest first."""
        return tuple(level for level in sorted(self.shifts) if level <= self.largest)

    @property
    def largest_pages(self) -> int:
        """Base pages that the largest leaf maps."""
        return self._pages[self.largest]

    @property
    def largest_bytes(self) -> int:
        """Bytes that the largest leaf maps."""
        return 1 << self.shifts[self.largest]

    @property
    def page_bytes(self) -> int:
        """Bytes of a base page."""
        return 1 << self.shifts[Level.PTE]

    def size(self, level: Level) -> int:
        """Bytes that one entry of `level` maps."""
        return 1 << self.shifts[level]

    def pages(self, level: Level) -> int:
        """Base pages that one entry of `level` maps."""
        return self._pages[level]

    def level_of(self, size_bytes: int) -> Level:
        """The level whose entries map `size_bytes`. ValueError when there is none."""
        for level in self.levels:
            if self.size(level) == size_bytes:
                return level
        raise ValueError(f"{self.name} has no entry of {size_bytes} bytes")

    def __hash__(self) -> int:
        return hash(self.name)


X86_64: Final = Geometry("x86_64", {Level.PTE: 12, Level.PMD: 21, Level.PUD: 30})
ARM64_4K: Final = Geometry(
    "arm64_4k", {Level.PTE: 12, Level.CONT_PTE: 16, Level.PMD: 21, Level.CONT_PMD: 25, Level.PUD: 30}
)
#: A hugetlb page of 16 base pages in 4 "PMDs" of 4: small enough to try every order of events.
TINY: Final = Geometry("tiny", {Level.PTE: 12, Level.PMD: 14, Level.PUD: 16})

GEOMETRIES: Final = {geometry.name: geometry for geometry in (X86_64, ARM64_4K, TINY)}


class Span(NamedTuple):
    """A naturally aligned range of one entry: its first base page and its level."""

    first: PageIndex
    level: Level


class PieceRun(NamedTuple):
    """`count` neighbouring pieces of the size of `level`, from base page `first` on."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level


class PageBitmap:
    """Which base pages have had something happen to them (sent, received, mapped), counted per 2M and per largest leaf.

    One byte a page rather than one bit: slices of a bytearray are set, counted and searched at memory speed, and a
    full hugetlb page costs 256 KiB. Counters answer "is this span full?" without looking at the pages again.
    """

    __slots__ = (
        "_counted", "_counts", "_largest_counts", "_ones", "_per_largest", "_per_pmd", "_pmd_counts", "geometry",
        "pages", "set_pages", "total",
    )  # fmt: skip

    def __init__(self, geometry: Geometry, total: int) -> None:
        """All clear. `total` is in base pages and covers whole hugetlb pages (spans of the largest leaf)."""
        if total <= 0 or total % geometry.largest_pages:
            raise ValueError(f"{total} base pages are not whole hugetlb pages of {geometry.name}")
        self.geometry = geometry
        self.total = total
        self.pages = bytearray(total)
        self.set_pages = 0
        self._per_pmd, self._per_largest = geometry.pages(Level.PMD), geometry.largest_pages
        self._pmd_counts = [0] * (total // self._per_pmd)
        self._largest_counts = [0] * (total // self._per_largest)
        self._counted = {Level.PMD: self._per_pmd, geometry.largest: self._per_largest}
        self._counts = {Level.PMD: self._pmd_counts, geometry.largest: self._largest_counts}
        self._ones = bytes([1]) * self._per_pmd

    def add(self, first: PageIndex, count: int) -> int:
        """Set `count` pages from `first` on; the number of them that were clear before."""
        per_pmd, pmd_counts, largest_counts = self._per_pmd, self._pmd_counts, self._largest_counts
        if count == 1:
            if self.pages[first]:
                return 0
            self.pages[first] = 1
            pmd_counts[first // per_pmd] += 1
            largest_counts[first // self._per_largest] += 1
            self.set_pages += 1
            return 1
        pmds_per_largest = self._per_largest // per_pmd
        added = 0
        while count > 0:
            pmd = first // per_pmd
            here = min(count, (pmd + 1) * per_pmd - first)
            fresh = here - self.pages.count(1, first, first + here)
            if fresh:
                self.pages[first : first + here] = self._ones[:here]
                pmd_counts[pmd] += fresh
                largest_counts[pmd // pmds_per_largest] += fresh
                added += fresh
            first += here
            count -= here
        self.set_pages += added
        return added

    def count(self, first: PageIndex, count: int) -> int:
        """How many of `count` pages from `first` on are set."""
        return self.pages.count(1, first, first + count)

    def full(self, span: Span) -> bool:
        """Whether every page of `span` is set."""
        pages = self._counted.get(span.level)
        if pages is not None:
            return self._counts[span.level][span.first // pages] == pages
        pages = self.geometry.pages(span.level)
        return self.pages.count(1, span.first, span.first + pages) == pages

    def empty(self, span: Span) -> bool:
        """Whether no page of `span` is set."""
        pages = self._counted.get(span.level)
        if pages is not None:
            return self._counts[span.level][span.first // pages] == 0
        return self.pages.find(1, span.first, span.first + self.geometry.pages(span.level)) < 0

    @property
    def complete(self) -> bool:
        """Whether every page is set."""
        return self.set_pages == self.total

    def next_clear(self, start: PageIndex, end: PageIndex | None = None) -> PageIndex | None:
        """The first clear page in `[start, end)`, or None."""
        found = self.pages.find(0, start, self.total if end is None else end)
        return found if found >= 0 else None

    def clear_until(self, start: PageIndex, end: PageIndex) -> PageIndex:
        """Where the row of clear pages that begins at `start` ends, at most `end`."""
        found = self.pages.find(1, start, end)
        return found if found >= 0 else end

    def clear_runs(self, first: PageIndex, count: int) -> Iterator[tuple[PageIndex, int]]:
        """The rows of clear pages within `count` pages from `first` on, as (first, count)."""
        end = first + count
        while (start := self.pages.find(0, first, end)) >= 0:
            first = self.clear_until(start, end)
            yield start, first - start

    def __repr__(self) -> str:
        return f"<PageBitmap {self.set_pages}/{self.total} {self.geometry.name}>"
