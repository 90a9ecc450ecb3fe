"""A small number for every base page, at the cost of a pointer for each 2M where all are alike.

What this models
    Nothing of the kernel's: what is known of each page, for those who keep it of a large memory, of which most is all
    mapped or all unmapped. A plain bytearray takes 256 MiB for each TiB.

Rules
    1. A row of pages, a 2M, is a byte a page. Rows of one value are shared.
    2. It is asked as a bytearray would be.
"""

from __future__ import annotations

from migemu.mm.pages import PageIndex


class PageValues:
    """The values of `pages` base pages, 0 at first."""

    __slots__ = ("_alike", "_rows", "_shift", "_width", "pages")

    def __init__(self, pages: int, row_pages: int, values: int) -> None:
        """Each value is below `values`; `row_pages` is a power of two that divides `pages`."""
        if row_pages & (row_pages - 1) or pages % row_pages:
            raise ValueError(f"{pages} base pages are not whole rows of {row_pages}, a power of two")
        self.pages = pages
        self._width = row_pages
        self._shift = row_pages.bit_length() - 1
        self._alike = [bytes((value,)) * row_pages for value in range(values)]
        self._rows: list[bytes | bytearray] = [self._alike[0]] * (pages >> self._shift)

    def __getitem__(self, page: PageIndex) -> int:
        """The value of `page`."""
        return self._rows[page >> self._shift][page & (self._width - 1)]

    def fill(self, first: PageIndex, count: int, value: int) -> None:
        """Give `value` to `count` pages from `first` on."""
        rows, width, alike = self._rows, self._width, self._alike[value]
        while count > 0:
            number, at = first >> self._shift, first & (width - 1)
            here = min(count, width - at)
            if here == width:
                rows[number] = alike
            else:
                row = rows[number]
                if isinstance(row, bytes):
                    row = rows[number] = bytearray(row)
                row[at : at + here] = alike[:here]
                if row.count(value) == width:
                    rows[number] = alike
            first += here
            count -= here

    def translate(self, first: PageIndex, count: int, table: bytes) -> None:
        """Change the values of `count` pages from `first` on as bytes.translate does."""
        for number in range(first >> self._shift, -(-(first + count) >> self._shift)):
            begin = number << self._shift
            at, end = max(0, first - begin), min(self._width, first + count - begin)
            row = bytearray(self._rows[number])
            row[at:end] = row[at:end].translate(table)
            self._rows[number] = self._alike[row[0]] if row.count(row[0]) == self._width else row

    def find(self, value: int, start: PageIndex = 0, end: PageIndex | None = None) -> PageIndex:
        """The first page in `[start, end)` that has `value`; -1 if there is none."""
        width = self._width
        end = self.pages if end is None else end
        while start < end:
            number, at = start >> self._shift, start & (width - 1)
            until = min(width, at + end - start)
            found = self._rows[number].find(value, at, until)
            if found >= 0:
                return start + found - at
            start += until - at
        return -1

    def count(self, value: int, start: PageIndex = 0, end: PageIndex | None = None) -> int:
        """How many pages in `[start, end)` have `value`."""
        width, found = self._width, 0
        end = self.pages if end is None else end
        while start < end:
            number, at = start >> self._shift, start & (width - 1)
            until = min(width, at + end - start)
            found += self._rows[number].count(value, at, until)
            start += until - at
        return found

    def copy(self) -> PageValues:
        """The same values, on their own."""
        twin = PageValues(self.pages, self._width, len(self._alike))
        twin._rows = [row if isinstance(row, bytes) else bytearray(row) for row in self._rows]
        return twin

    def __repr__(self) -> str:
        return f"<PageValues of {self.pages} base pages, {self.count(0)} of them 0>"
