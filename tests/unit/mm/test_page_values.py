"""Page values are a bytearray that costs nothing where all are alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.page_values import PageValues

PAGES, ROW, VALUES = 32, 8, 4
_spans = st.tuples(st.integers(0, PAGES - 1), st.integers(0, PAGES))
_tables = st.lists(st.integers(0, VALUES - 1), min_size=VALUES, max_size=VALUES).map(lambda to: bytes(to) + bytes(252))


@given(changes=st.lists(st.tuples(_spans, st.integers(0, VALUES - 1) | _tables), max_size=12), asked=_spans)
def test_page_values_answer_as_bytes_would(
    changes: list[tuple[tuple[int, int], int | bytes]], asked: tuple[int, int]
) -> None:
    values, naive = PageValues(PAGES, ROW, VALUES), bytearray(PAGES)
    for (first, end), change in changes:
        count = max(0, end - first)
        before = values.copy()
        if isinstance(change, int):
            values.fill(first, count, change)
        else:
            values.translate(first, count, change)
        assert [before[page] for page in range(PAGES)] == list(naive), "a copy is its own"
        here = slice(first, first + count)
        naive[here] = bytes([change]) * count if isinstance(change, int) else naive[here].translate(change)
    assert [values[page] for page in range(PAGES)] == list(naive)
    for value in range(VALUES):
        assert values.find(value, *asked) == naive.find(value, *asked)
        assert values.count(value, *asked) == naive.count(value, *asked)
        assert values.find(value) == naive.find(value)
    assert repr(values) == f"<PageValues of 32 base pages, {naive.count(0)} of them 0>"


def test_rows_that_have_become_alike_are_shared() -> None:
    values = PageValues(1 << 16, 512, 3)
    for first in range(0, 1 << 16, 256):
        values.fill(first, 256, 2)
    assert len({id(row) for row in values._rows}) == 1
    values.fill(5, 1, 1)
    values.translate(0, 1 << 16, bytes([0, 2, 2]) + bytes(253))
    assert len({id(row) for row in values._rows}) == 1


def test_rows_are_whole() -> None:
    for pages, row in ((12, 8), (12, 6)):
        with pytest.raises(ValueError, match="are not whole rows"):
            PageValues(pages, row, 2)
