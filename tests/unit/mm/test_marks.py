"""Marks are a bytearray of zeros and ones that costs nothing where all are alike."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.marks import Marks

PAGES, ROW = 32, 8
_spans = st.tuples(st.integers(0, PAGES - 1), st.integers(0, PAGES)).map(lambda span: (span[0], min(span[1], PAGES)))


@given(puts=st.lists(st.tuples(_spans, st.integers(0, 1)), max_size=12), asked=_spans)
def test_marks_answer_as_bytes_would(puts: list[tuple[tuple[int, int], int]], asked: tuple[int, int]) -> None:
    marks, naive = Marks(PAGES, ROW), bytearray(PAGES)
    for (first, end), mark in puts:
        count = max(0, end - first)
        before = marks.copy()
        marks.put(first, count, mark)
        assert [before[page] for page in range(PAGES)] == list(naive), "a copy is its own"
        naive[first : first + count] = bytes([mark]) * count
    assert [marks[page] for page in range(PAGES)] == list(naive)
    for mark in (0, 1):
        assert marks.find(mark, *asked) == naive.find(mark, *asked)
        assert marks.count(mark, *asked) == naive.count(mark, *asked)
        assert marks.find(mark) == naive.find(mark)
    assert repr(marks) == f"<Marks on {naive.count(1)} of 32 base pages>"


def test_every_mark_is_found_from_everywhere() -> None:
    """Every single mark, and every range to look in: that its end is outside is what short examples seldom meet."""
    for page in range(16):
        marks = Marks(16, 4)
        marks.put(page, 1, 1)
        for start in range(17):
            for end in range(start, 17):
                assert marks.find(1, start, end) == (page if start <= page < end else -1)


def test_full_rows_share_their_integer() -> None:
    """Else the marks of 1 TiB would take 50 MB in the end; a byte a page takes 256."""
    marks = Marks(1 << 20, 512)
    for first in range(0, 1 << 20, 256):
        marks.put(first, 256, 1)
    assert sys.getsizeof(marks._rows) < 20_000
    assert len({id(row) for row in marks._rows}) == 1


def test_rows_are_whole() -> None:
    for pages, row in ((12, 8), (12, 6)):
        with pytest.raises(ValueError, match="are not whole rows"):
            Marks(pages, row)
