"""A yes or no for every base page, at the cost of a word for each 2M where all say the same.

What this models
    Nothing of the kernel's: sets of base pages, for those who keep several of a large memory. A byte a page is faster
    (`mm.pages.PageBitmap`), but 256 MiB for each TiB.

Rules
    1. A row of pages, a 2M, is an integer with one bit a page. Rows that are full share one, and so do empty ones.
    2. It is asked as a bytearray of zeros and ones would be.
"""

from __future__ import annotations

from migemu.mm.pages import PageIndex


class Marks:
    """Marks on `pages` base pages, none at first."""

    __slots__ = ("_full", "_rows", "_shift", "_width", "pages")

    def __init__(self, pages: int, row_pages: int) -> None:
        """`row_pages` is a power of two that divides `pages`."""
        if row_pages & (row_pages - 1) or pages % row_pages:
            raise ValueError(f"{pages} base pages are not whole rows of {row_pages}, a power of two")
        self.pages = pages
        self._width = row_pages
        self._shift = row_pages.bit_length() - 1
        self._full = (1 << row_pages) - 1
        self._rows = [0] * (pages >> self._shift)

    def __getitem__(self, page: PageIndex) -> int:
        """1 if `page` is marked, else 0."""
        return self._rows[page >> self._shift] >> (page & (self._width - 1)) & 1

    def put(self, first: PageIndex, count: int, mark: int) -> None:
        """Mark `count` pages from `first` on, or with a `mark` of 0 take their marks away."""
        rows, width, full = self._rows, self._width, self._full
        while count > 0:
            row, at = first >> self._shift, first & (width - 1)
            here = min(count, width - at)
            bits = ((1 << here) - 1) << at
            marked = rows[row] | bits if mark else rows[row] & ~bits
            rows[row] = full if marked == full else marked
            first += here
            count -= here

    def find(self, mark: int, start: PageIndex = 0, end: PageIndex | None = None) -> PageIndex:
        """The first page in `[start, end)` whose mark is `mark`, 0 or 1; -1 if there is none."""
        rows, width, full = self._rows, self._width, self._full
        end = self.pages if end is None else end
        while start < end:
            row, at = start >> self._shift, start & (width - 1)
            bits = (rows[row] if mark else rows[row] ^ full) >> at
            if bits:
                found = start + (bits & -bits).bit_length() - 1
                return found if found < end else -1
            start += width - at
        return -1

    def count(self, mark: int, start: PageIndex = 0, end: PageIndex | None = None) -> int:
        """How many pages in `[start, end)` have the mark `mark`, 0 or 1."""
        rows, width = self._rows, self._width
        end = self.pages if end is None else end
        pages, marked = max(0, end - start), 0
        while start < end:
            row, at = start >> self._shift, start & (width - 1)
            here = min(end - start, width - at)
            marked += (rows[row] >> at & ((1 << here) - 1)).bit_count()
            start += here
        return marked if mark else pages - marked

    def copy(self) -> Marks:
        """The same marks, on their own."""
        twin = Marks(self.pages, self._width)
        twin._rows = self._rows.copy()
        return twin

    def __repr__(self) -> str:
        return f"<Marks on {self.count(1)} of {self.pages} base pages>"
