"""What the TLBs of several processors reach, by the levels that map the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.costs.tlb import TLBS, TlbEntries, held, reach_bytes
from migemu.mm import ARM64_4K, X86_64, Level
from migemu.units import GIB, KIB, MIB

PTE, CONT_PTE, PMD, CONT_PMD, PUD = Level
PLENTY = 1 << 20


@pytest.mark.parametrize(
    ("tlb", "level", "guest", "reach"),
    [
        ("skylake_sp", PTE, None, 1536 * 4 * KIB),
        ("skylake_sp", PMD, None, 1536 * 2 * MIB),
        ("skylake_sp", PUD, None, 16 * GIB),
        ("ice_lake_sp", PTE, None, 2048 * 4 * KIB),
        ("ice_lake_sp", PMD, None, 1024 * 2 * MIB),
        ("ice_lake_sp", PUD, None, 1024 * GIB),
        ("rome", PUD, None, 2048 * 2 * MIB),  # 1G pages are broken into 2M
        # Nested: the smaller of the two, whichever it is.
        ("ice_lake_sp", PUD, PMD, 1024 * 2 * MIB),
        ("ice_lake_sp", PUD, PTE, 2048 * 4 * KIB),
        ("ice_lake_sp", PTE, PUD, 2048 * 4 * KIB),
        ("ice_lake_sp", PUD, PUD, 1024 * GIB),
    ],
)
def test_reach_of_one_level(tlb: str, level: Level, guest: Level | None, reach: int) -> None:
    assert reach_bytes(TLBS[tlb], X86_64, {level: PLENTY}, guest) == reach


def test_contiguous_groups_are_one_entry() -> None:
    n1 = TLBS["neoverse_n1"]
    assert reach_bytes(n1, ARM64_4K, {CONT_PTE: PLENTY}) == 1280 * 64 * KIB
    assert reach_bytes(n1, ARM64_4K, {CONT_PMD: PLENTY}) == 1280 * 32 * MIB


def test_the_largest_come_first_and_the_rest_take_what_is_left() -> None:
    rows = held(TLBS["skylake_sp"].second, PUD, X86_64, {PTE: 5000, PMD: 1000, PUD: 20}, None)
    assert rows == {PUD: TlbEntries(20, 16, 1 << 18), PMD: TlbEntries(1000, 1000, 512), PTE: TlbEntries(5000, 536, 1)}
    rows = held(TLBS["ice_lake_sp"].second, PUD, X86_64, {PTE: 5000, PMD: 1000, PUD: 20}, None)
    assert rows[PTE] == TlbEntries(5000, 24 + 1004, 1)  # from both halves


def test_a_level_that_no_pool_takes_is_never_held() -> None:
    assert reach_bytes(TLBS["skylake_sp"], ARM64_4K, {CONT_PTE: PLENTY}) == 0


@given(
    st.sampled_from(sorted(TLBS)),
    st.dictionaries(st.sampled_from([PTE, PMD, PUD]), st.integers(0, 3000)),
    st.sampled_from([None, PTE, PMD, PUD]),
)
def test_no_more_is_held_than_is_mapped_and_than_there_are_places(
    name: str, leaves: dict[Level, int], guest: Level | None
) -> None:
    tlb = TLBS[name]
    for pools in (tlb.first, tlb.second):
        rows = held(pools, tlb.largest, X86_64, leaves, guest)
        assert rows.keys() == leaves.keys()
        assert all(0 <= row.held <= row.entries for row in rows.values())
        assert all(row.entries * row.pages == leaves[level] * X86_64.pages(level) for level, row in rows.items())
        assert sum(row.held for row in rows.values()) <= sum(pool.entries for pool in pools)
