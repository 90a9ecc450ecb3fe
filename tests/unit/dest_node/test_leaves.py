"""Which entries above 4K the destination knows of, where the largest of them is 1G and where it is 2M."""

from __future__ import annotations

from dataclasses import replace

from dest_node.core.leaves import Leaves
from migemu.mm.pages import TINY, Level, PageBitmap, Span


def test_where_2m_is_the_largest_it_is_counted_as_one_and_maps_its_whole_unit() -> None:
    leaves = Leaves(replace(TINY, name="tiny_2m", largest=Level.PMD), 16)
    leaves.put(4, 8, Level.PMD)
    assert [leaves.pmds(first, 4) for first in (0, 4, 8, 12)] == [0, 1, 1, 0]
    assert [leaves.holds(Span(first, Level.PMD)) for first in (0, 4, 8, 12)] == [False, True, True, False]
    assert leaves.overview(PageBitmap(TINY, 16), 4) == "0mm0"
    assert repr(leaves) == "<Leaves 2 of 2M, 2 of the largest>"


def test_a_1g_holds_its_2m_and_is_none_of_them() -> None:
    leaves = Leaves(TINY, 32)
    leaves.put(16, 16, Level.PUD)
    assert leaves.holds(Span(20, Level.PMD))
    assert leaves.holds(Span(16, Level.PUD))
    assert not leaves.holds(Span(0, Level.PUD))
    assert leaves.pmds(0, 32) == 0
    assert repr(leaves) == "<Leaves 0 of 2M, 1 of the largest>"
