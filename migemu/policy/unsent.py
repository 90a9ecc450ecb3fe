"""Where the nearest unsent page is: the search that every push order shares.

What this models
    QEMU's `migration_bitmap_find_dirty`: the next page of the bitmap that has still to go, seen from any page, in
    either direction.

Rules
    1. An answer is always right for the bitmap as it is now; what is remembered only shortens the way to it.
    2. Amortised cost does not grow with the memory. A plain scan from a fault's page to the next unsent page can pass
       over gigabytes that have gone already, once per fault. So PMDs found full are skipped for good: for each PMD the
       next one that may hold an unsent page is remembered, with path compression as in union-find (Tarjan 1975). No
       step looks at more than one PMD.
    3. Pages are only ever added to a bitmap. A bitmap that starts again (after a reconnect) is another object, and
       whoever searches it takes another finder.

Words
    start, end    as in slices: forward searches `[start, total)`, backward searches `[0, end)`
"""

from __future__ import annotations

from migemu.mm.pages import Level, PageBitmap, PageIndex


class UnsentFinder:
    """Finds unsent pages of one bitmap."""

    __slots__ = ("_after", "_before", "_pages", "_pmds", "_shift", "sent")

    def __init__(self, sent: PageBitmap) -> None:
        """Nothing is remembered yet; O(PMDs) memory."""
        self.sent = sent
        self._pages = sent.pages
        self._shift = sent.geometry.shifts[Level.PMD] - sent.geometry.shifts[Level.PTE]
        self._pmds = sent.total >> self._shift
        #: PMD -> the first PMD at or after it that was not yet found full; one more entry closes the row.
        self._after = list(range(self._pmds + 1))
        #: PMD + 1 -> the last PMD at or before it, plus 1; made on the first backward search. 0: there is none.
        self._before: list[int] | None = None

    def forward(self, start: PageIndex) -> PageIndex:
        """The first unsent page at or after `start`; -1 when there is none."""
        pages, shift, pmd = self._pages, self._shift, (start >> self._shift) + 1
        found = pages.find(0, start, pmd << shift)
        if found >= 0 or pmd > self._pmds:
            return found
        after, last, root = self._after, self._pmds, pmd
        while True:
            if (hop := after[root]) != root:
                root = hop
            elif root == last or (found := pages.find(0, root << shift, (root + 1) << shift)) >= 0:
                break
            else:
                after[root] = root + 1
        while pmd != root:
            after[pmd], pmd = root, after[pmd]
        return found

    def backward(self, end: PageIndex) -> PageIndex:
        """The last unsent page before `end`; -1 when there is none."""
        if end <= 0:
            return -1
        pages, shift = self._pages, self._shift
        slot = (end - 1) >> shift  # slot n + 1 stands for PMD n, so this is the slot of the PMD before
        found = pages.rfind(0, slot << shift, end)
        if found >= 0:
            return found
        if (before := self._before) is None:
            before = self._before = list(range(self._pmds + 1))
        root = slot
        while True:
            if (hop := before[root]) != root:
                root = hop
            elif root == 0 or (found := pages.rfind(0, (root - 1) << shift, root << shift)) >= 0:
                break
            else:
                before[root] = root - 1
        while slot != root:
            before[slot], slot = root, before[slot]
        return found

    def run_from(self, first: PageIndex, pages_max: int) -> tuple[PageIndex, int]:
        """The run of unsent pages that begins at the unsent page `first`, within its PMD, as (first, count)."""
        end = min(first + pages_max, ((first >> self._shift) + 1) << self._shift)
        sent = self._pages.find(1, first, end)
        return first, (end if sent < 0 else sent) - first

    def run_to(self, last: PageIndex, pages_max: int) -> tuple[PageIndex, int]:
        """The run of unsent pages that ends with the unsent page `last`, within its PMD, as (first, count)."""
        start = max(last + 1 - pages_max, last >> self._shift << self._shift)
        sent = self._pages.rfind(1, start, last)
        first = start if sent < 0 else sent + 1
        return first, last + 1 - first

    def __repr__(self) -> str:
        return f"<UnsentFinder {self.sent.total - self.sent.set_pages} unsent of {self.sent.total}>"
