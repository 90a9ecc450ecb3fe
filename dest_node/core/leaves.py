"""Which 2M, and which 1G where leaves can be so large, one entry maps, as the destination knows it. Pure.

What one 4K entry maps is what is mapped at all, and kept elsewhere. A 2M within a 1G leaf counts as one of its own too
only if it was one before.
"""

from __future__ import annotations

from typing import Final

from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, Span

#: What `overview` writes for a cell that entries of one level map.
_LETTERS: Final = {Level.PMD: "m", Level.PUD: "g"}


class Leaves:
    """The leaves above 4K of `pages` base pages, none at first."""

    def __init__(self, geometry: Geometry, pages: int) -> None:
        """`pages` in whole hugetlb pages."""
        self._largest = geometry.largest
        self._per_pmd, self._per_largest = geometry.pages(Level.PMD), geometry.largest_pages
        self._pmd = bytearray(pages // self._per_pmd)
        self._whole = self._pmd if self._largest == Level.PMD else bytearray(pages // self._per_largest)

    def put(self, first: PageIndex, pages: int, level: Level) -> None:
        """`pages` base pages from `first` on are mapped by entries of `level`, above PTE, from now on."""
        each, marks = (self._per_largest, self._whole) if level == self._largest else (self._per_pmd, self._pmd)
        for leaf in range(first // each, (first + pages) // each):
            marks[leaf] = 1

    def holds(self, span: Span) -> bool:
        """Whether one entry above 4K maps all of `span`: of its level or a larger one."""
        if self._whole[span.first // self._per_largest]:
            return True
        return span.level <= Level.PMD and bool(self._pmd[span.first // self._per_pmd])

    def pmds(self, first: PageIndex, pages: int) -> int:
        """How many entries of 2M map some of `pages` base pages from `first` on, which are whole 2M."""
        return sum(self._pmd[first // self._per_pmd : (first + pages) // self._per_pmd])

    def overview(self, mapped: PageBitmap, cells_max: int) -> str:
        """The memory as at most `cells_max` letters: `g` and `m` where entries of 1G and 2M map all of a cell.

        Elsewhere a digit from 0 to 8, by the share of it that is `mapped`.
        """
        pmds = len(self._pmd)
        width = -(-pmds // cells_max)
        per_largest = self._per_largest // self._per_pmd
        cells = []
        for first in range(0, pmds, width):
            last = min(first + width, pmds)
            if all(self._whole[first // per_largest : (last - 1) // per_largest + 1]):
                cells.append(_LETTERS[self._largest])
            elif all(self._pmd[first:last]):
                cells.append(_LETTERS[Level.PMD])
            else:
                pages = (last - first) * self._per_pmd
                cells.append(str(mapped.count(first * self._per_pmd, pages) * 8 // pages))
        return "".join(cells)

    def __repr__(self) -> str:
        return f"<Leaves {sum(self._pmd)} of 2M, {sum(self._whole)} of the largest>"
