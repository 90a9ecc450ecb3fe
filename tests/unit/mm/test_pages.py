"""Geometries by the numbers; PageBitmap against a set of page numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.pages import ARM64_4K, GEOMETRIES, TINY, X86_64, Geometry, Level, PageBitmap, Span
from migemu.units import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("geometry", "sizes"),
    [
        (X86_64, {Level.PTE: 4 * KIB, Level.PMD: 2 * MIB, Level.PUD: GIB}),
        (
            ARM64_4K,
            {
                Level.PTE: 4 * KIB, Level.CONT_PTE: 64 * KIB, Level.PMD: 2 * MIB, Level.CONT_PMD: 32 * MIB,
                Level.PUD: GIB,
            },
        ),
        (TINY, {Level.PTE: 4 * KIB, Level.PMD: 16 * KIB, Level.PUD: 64 * KIB}),
    ],
    ids=lambda value: value.name if isinstance(value, Geometry) else "",
)  # fmt: skip
def test_levels_have_their_sizes(geometry: Geometry, sizes: dict[Level, int]) -> None:
    assert geometry.levels == tuple(sorted(sizes))
    for level, size_bytes in sizes.items():
        assert geometry.size(level) == size_bytes
        assert geometry.pages(level) == size_bytes // 4096
        assert geometry.level_of(size_bytes) is level
    assert geometry.page_bytes == 4096


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda geometry: geometry.name)
def test_a_size_that_no_entry_has_is_refused(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match=f"{geometry.name} has no entry of 8192 bytes"):
        geometry.level_of(8192)


@pytest.mark.parametrize("total", [0, -16, 1, 15, 17, 24])
def test_a_bitmap_covers_whole_hugetlb_pages(total: int) -> None:
    with pytest.raises(ValueError, match="are not whole hugetlb pages of tiny"):
        PageBitmap(TINY, total)


#: A memory of hugetlb pages of "2M": 4 base pages.
TINY_2M = replace(TINY, name="tiny_2m", largest=Level.PMD)
#: The smallest bitmaps of each geometry that have several PMDs and, but for arm64, several PUDs.
CASES = [(TINY, 48), (TINY_2M, 20), (X86_64, 2 * 262_144), (ARM64_4K, 262_144)]


def test_the_largest_leaf_is_a_property_of_the_memory_and_not_of_its_tables() -> None:
    assert (TINY.largest, TINY.largest_pages, TINY.largest_bytes) == (Level.PUD, 16, 64 * KIB)
    assert (TINY_2M.largest, TINY_2M.largest_pages, TINY_2M.largest_bytes) == (Level.PMD, 4, 16 * KIB)
    assert TINY_2M.levels == (Level.PTE, Level.PMD)
    assert replace(ARM64_4K, largest=Level.PMD).levels == (Level.PTE, Level.CONT_PTE, Level.PMD)
    assert TINY_2M.pages(Level.PUD) == 16, "a table of 2M entries has as many as before"
    with pytest.raises(ValueError, match="tiny: PTE as the largest leaf is not modelled; give PMD or PUD"):
        replace(TINY, largest=Level.PTE)


def rows(clear: list[int]) -> list[tuple[int, int]]:
    """Sorted page numbers as rows of neighbours: (first, count)."""
    found: list[tuple[int, int]] = []
    for page in clear:
        if found and sum(found[-1]) == page:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((page, 1))
    return found


@pytest.mark.parametrize("geometry", [TINY, TINY_2M], ids=lambda geometry: geometry.name)
@given(
    calls=st.lists(st.tuples(st.integers(0, 47), st.integers(0, 20)), max_size=12),
    first=st.integers(0, 47),
    count=st.integers(0, 48),
)
def test_a_bitmap_answers_as_a_set_does(
    geometry: Geometry, calls: list[tuple[int, int]], first: int, count: int
) -> None:
    """Every question, after any row of additions, over any range."""
    bitmap, pages = PageBitmap(geometry, 48), set[int]()
    for start, length in calls:
        new = set(range(start, min(start + length, 48))) - pages
        assert bitmap.add(start, min(length, 48 - start)) == len(new)
        pages |= new
        assert bitmap.set_pages == len(pages)
    assert bitmap.complete == (len(pages) == 48)
    assert {page for page in range(48) if bitmap.pages[page]} == pages
    assert len(bitmap.pages) == 48

    count = min(count, 48 - first)
    end = first + count
    clear = [page for page in range(first, end) if page not in pages]
    assert bitmap.count(first, count) == count - len(clear)
    assert bitmap.next_clear(first, end) == (clear[0] if clear else None)
    assert bitmap.next_clear(first) == next((page for page in range(first, 48) if page not in pages), None)
    assert bitmap.clear_until(first, end) == next((page for page in range(first, end) if page in pages), end)
    assert list(bitmap.clear_runs(first, count)) == rows(clear)
    for level in geometry.levels:
        span = Span(first - first % geometry.pages(level), level)
        inside = set(range(span.first, span.first + geometry.pages(level)))
        assert bitmap.full(span) == (inside <= pages)
        assert bitmap.empty(span) == (not inside & pages)


@pytest.mark.parametrize(("geometry", "total"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_a_span_of_any_level_is_full_with_its_last_page(geometry: Geometry, total: int) -> None:
    for level in geometry.levels:
        bitmap, pages = PageBitmap(geometry, total), geometry.pages(level)
        span = Span(total - pages, level)
        assert bitmap.empty(span)
        assert bitmap.add(span.first, pages - 1) == pages - 1
        assert not bitmap.full(span)
        assert bitmap.empty(span) == (pages == 1)
        assert bitmap.add(span.first + pages - 1, 1) == 1
        assert bitmap.full(span)
        assert not bitmap.empty(span)
        assert bitmap.add(span.first, pages) == 0
        assert bitmap.complete == (pages == total)


@pytest.mark.parametrize(("geometry", "total"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_one_addition_can_cross_every_border(geometry: Geometry, total: int) -> None:
    bitmap = PageBitmap(geometry, total)
    bitmap.add(3, 1)
    assert bitmap.add(1, total - 2) == total - 3
    assert [bitmap.next_clear(0), bitmap.next_clear(1), bitmap.set_pages] == [0, total - 1, total - 2]
    assert bitmap.add(0, total) == 2
    assert bitmap.complete
    assert repr(bitmap) == f"<PageBitmap {total}/{total} {geometry.name}>"
