"""The counts of a collapse: the operation counts of SEMANTICS 2.4, known beforehand and read off the steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.costs.operations import Operations, collapse_operations, full, of_steps
from migemu.mm import ARM64_4K, GEOMETRIES, TINY, X86_64, Geometry, Level
from migemu.mm.gather import GatherKind, GatherStep

PTE, CONT_PTE, PMD, CONT_PMD, PUD = Level


@pytest.mark.parametrize(
    ("geometry", "from_level", "to_level", "spans", "counts"),
    [
        (X86_64, PTE, PUD, 1, (262_144, 513, 1, 26)),
        (X86_64, PTE, PMD, 1, (512, 1, 1, 1)),
        (X86_64, PTE, PMD, 512, (262_144, 512, 512, 26)),
        (X86_64, PTE, PMD, 256, (131_072, 256, 256, 13)),  # one call over 512M
        (X86_64, PMD, PUD, 1, (512, 1, 1, 1)),
        (ARM64_4K, PTE, CONT_PTE, 1, (16, 0, 1, 1)),  # a contiguous group stays in its table
        (ARM64_4K, CONT_PTE, PMD, 1, (32, 1, 1, 1)),
        (ARM64_4K, PTE, CONT_PMD, 1, (8192, 16, 1, 1)),
        (ARM64_4K, PMD, CONT_PMD, 1, (16, 0, 1, 1)),
        (ARM64_4K, CONT_PMD, PUD, 1, (32, 1, 1, 1)),
        (TINY, PTE, PUD, 1, (16, 5, 1, 1)),
        (TINY, PTE, PMD, 4, (16, 4, 4, 1)),
    ],
)
def test_counts(
    geometry: Geometry, from_level: Level, to_level: Level, spans: int, counts: tuple[int, int, int, int]
) -> None:
    """Leaves cleared, tables freed, leaves set, flushes."""
    cleared, freed, installed, flushes = counts
    operations = collapse_operations(geometry, full(geometry, from_level, to_level), to_level, spans)
    assert operations == Operations({from_level: cleared}, {to_level: installed}, freed, flushes, calls=1)


def test_leaves_of_several_levels() -> None:
    """Half of the 2M slots are leaves, the other half tables of 4K."""
    operations = collapse_operations(X86_64, {PTE: 256 * 512, PMD: 256}, PUD)
    assert operations == Operations({PTE: 131_072, PMD: 256}, {PUD: 1}, 257, 13, calls=1)


@pytest.mark.parametrize("leaves", [{}, {PMD: 0}, {PMD: 1}, {PUD: 1}])
def test_what_is_a_leaf_or_empty_is_skipped(leaves: dict[Level, int]) -> None:
    assert collapse_operations(X86_64, leaves, PMD) == Operations(calls=1)


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="x86_64 has no CONT_PTE entries"):
        collapse_operations(X86_64, {PTE: 16}, CONT_PTE)


def steps_of(geometry: Geometry, from_level: Level, to_level: Level, spans: int, hgm: str) -> Iterator[GatherStep]:
    """One call as the kernel does it, span by span and slot by slot; v1 ends its window last (SEMANTICS 2.3)."""
    size = geometry.size(to_level)
    end = spans * size
    yield GatherStep(GatherKind.NOTIFIER_START, 0, end)
    gathered = tables = 0
    for span in range(spans):
        start = span * size
        for slot in range(0, size, max(geometry.size(from_level), geometry.size(PMD))):
            leaves = max(1, min(size, geometry.size(PMD)) // geometry.size(from_level))
            yield GatherStep(GatherKind.CLEARED, start + slot, start + slot + size, from_level, leaves)
            gathered += leaves
            if gathered >= 10_000:
                gathered = 0
                yield GatherStep(GatherKind.FLUSHED, 0, end)
            if from_level < PMD <= to_level:
                tables += 1
        tables += from_level < PUD <= to_level
        yield GatherStep(GatherKind.INSTALLED, start, start + size, to_level, 1)
    if hgm == "v2":
        yield GatherStep(GatherKind.NOTIFIER_END, 0, end)
    yield GatherStep(GatherKind.FLUSHED, 0, end)
    if tables:
        yield GatherStep(GatherKind.FREED, 0, end, count=tables)
    if hgm == "v1":
        yield GatherStep(GatherKind.NOTIFIER_END, 0, end)


@pytest.mark.parametrize("hgm", ["v1", "v2"])
@pytest.mark.parametrize(
    ("geometry", "from_level", "to_level", "spans"),
    [
        (X86_64, PTE, PUD, 1), (X86_64, PTE, PMD, 1), (X86_64, PTE, PMD, 256), (X86_64, PMD, PUD, 1),
        (ARM64_4K, PTE, CONT_PTE, 1), (ARM64_4K, CONT_PTE, PMD, 4), (TINY, PTE, PUD, 1), (TINY, PMD, PUD, 1),
    ],
)  # fmt: skip
def test_the_steps_come_to_the_same(
    geometry: Geometry, from_level: Level, to_level: Level, spans: int, hgm: str
) -> None:
    beforehand = collapse_operations(geometry, full(geometry, from_level, to_level), to_level, spans)
    assert of_steps(steps_of(geometry, from_level, to_level, spans, hgm)) == beforehand


def test_no_steps_are_no_operations() -> None:
    assert of_steps([]) == Operations()


@given(st.sampled_from(sorted(GEOMETRIES)), st.data())
def test_by_way_of_a_level_between_as_many_tables_go_and_more_entries(name: str, data: st.DataObject) -> None:
    geometry = GEOMETRIES[name]
    low, middle, high = sorted(
        data.draw(st.lists(st.sampled_from(geometry.levels), min_size=3, max_size=3, unique=True))
    )
    direct = collapse_operations(geometry, full(geometry, low, high), high)
    first = collapse_operations(
        geometry, full(geometry, low, middle), middle, geometry.pages(high) // geometry.pages(middle)
    )
    second = collapse_operations(geometry, full(geometry, middle, high), high)
    assert direct.tables_freed == first.tables_freed + second.tables_freed
    assert direct.leaves_cleared + second.leaves_cleared == first.leaves_cleared + second.leaves_cleared
    assert second.leaves_cleared == first.leaves_installed
