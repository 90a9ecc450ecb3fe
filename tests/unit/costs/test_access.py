"""What an access costs, against measured reads; `pytest -s` prints how near the model comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.costs.access import AccessModel, Pattern, WorkloadName
from migemu.costs.tlb import TLBS, TlbEntries
from migemu.guest.workload import workloads
from migemu.mm import X86_64, Level

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
CHASE, UNIFORM = Pattern("pointer_chase"), Pattern()


def all_at(level: Level, gib: int = 1) -> dict[Level, int]:
    return {level: (gib << 30) // X86_64.size(level)}


@pytest.mark.parametrize(
    ("guest", "pattern", "measured_ns"),
    [
        (PTE, CHASE, 365), (PMD, CHASE, 227), (PUD, CHASE, 208),
        (PTE, UNIFORM, 26), (PMD, UNIFORM, 19), (PUD, UNIFORM, 17.5),
    ],
)  # fmt: skip
def test_the_measured_reads(guest: Level, pattern: Pattern, measured_ns: float) -> None:
    """Random 8-byte reads over 1 GiB in a virtual machine whose host is taken to map by 4K."""
    modelled_ns = AccessModel(guest=guest).access_ns(all_at(PTE), pattern)
    ratio = modelled_ns / measured_ns
    print(
        f"\n{guest.name} {pattern.workload:<14} measured {measured_ns}, modelled {modelled_ns:.1f}, ratio {ratio:.2f}"
    )
    assert 0.9 < ratio < 1.1


@pytest.mark.parametrize(
    ("host", "expected_ns"),
    [(PTE, 220), (PMD, 97), (PUD, 95)],
)
def test_a_host_that_maps_by_more_than_4k_does_not_explain_the_measured_1g_pages(host: Level, expected_ns: int) -> None:
    assert round(AccessModel(guest=PUD).access_ns(all_at(host), CHASE)) == expected_ns


@pytest.mark.parametrize(
    ("guest", "host", "reads"),
    [
        (None, PTE, 4), (None, PMD, 3), (None, PUD, 2),
        (PTE, PTE, 24), (PTE, PMD, 19), (PMD, PTE, 19), (PMD, PMD, 15), (PMD, PUD, 11), (PUD, PUD, 8),
    ],
)  # fmt: skip
def test_reads_of_a_walk(guest: Level | None, host: Level, reads: int) -> None:
    """All tables fit the cache, so that a read is a read."""
    model = replace(AccessModel(guest=guest), entry_ns=1.0, memory_ns=1000.0, cache_bytes=1 << 40)
    assert model.walk_ns(host, all_at(host)) == reads


def test_a_table_that_the_cache_does_not_hold_comes_from_memory() -> None:
    model = replace(AccessModel(guest=None), entry_ns=0.0, memory_ns=100.0, cache_bytes=1 << 20)
    assert model.walk_ns(PTE, {PTE: 1 << 17}) == 0  # 1 MiB of entries
    assert model.walk_ns(PTE, {PTE: 1 << 19}) == 75  # 4 MiB, a quarter of which is cached
    assert model.walk_ns(PTE, {PTE: 1 << 19}, Pattern("sequential")) == 75 / 8


@pytest.mark.parametrize(
    ("pattern", "row", "share"),
    [
        (UNIFORM, TlbEntries(100, 100, 512), 1.0),
        (UNIFORM, TlbEntries(400, 100, 512), 0.25),
        (CHASE, TlbEntries(400, 100, 512), 0.25),
        (Pattern("sequential"), TlbEntries(400, 100, 1), 0.0),
        (Pattern("sequential"), TlbEntries(400, 100, 512), 511 / 512),
        (Pattern("sequential", stride=256), TlbEntries(400, 100, 512), 0.5),
        (Pattern("sequential", stride=4096), TlbEntries(400, 100, 512), 0.0),
        (Pattern("zipf"), TlbEntries(400, 0, 512), 0.0),
        (Pattern("zipf", exponent=16.0), TlbEntries(400, 1, 1), 1.0),
    ],
)
def test_hits(pattern: Pattern, row: TlbEntries, share: float) -> None:
    assert pattern.hit_share(row) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("exponent", [0.5, 0.99, 1.0, 1.5])
def test_zipf_holds_the_hottest(exponent: float) -> None:
    """Against the sum itself, of 100,000 pages of which 1,000 are held."""
    weights = [rank**-exponent for rank in range(1, 100_001)]
    share = Pattern("zipf", exponent=exponent).hit_share(TlbEntries(100_000, 1_000, 1))
    assert share == pytest.approx(sum(weights[:1_000]) / sum(weights), rel=0.1)


def test_zipf_is_worse_when_scattered_and_better_than_uniform() -> None:
    row = TlbEntries(4096, 1024, 512)
    scattered, together = (Pattern("zipf", scatter=each).hit_share(row) for each in (True, False))
    assert UNIFORM.hit_share(row) < scattered < together < 1


def test_every_workload_but_replay_has_a_cost() -> None:
    assert {entry.name for entry in workloads} - {"replay"} == set(WorkloadName.__args__)  # type: ignore[attr-defined]


WORKLOADS = st.sampled_from([Pattern(name) for name in ("uniform", "zipf", "sequential", "pointer_chase")])
GUESTS = st.sampled_from([None, PTE, PMD, PUD])


@given(st.sampled_from(sorted(TLBS)), GUESTS, WORKLOADS, st.integers(1, 2048))
def test_larger_entries_never_cost_more(name: str, guest: Level | None, pattern: Pattern, gib: int) -> None:
    model = AccessModel(tlb=TLBS[name], guest=guest)
    costs = [model.access_ns(all_at(level, gib), pattern) for level in (PUD, PMD, PTE)]
    assert costs == sorted(costs)


@given(GUESTS, st.integers(1, 200), st.integers(0, 200), st.integers(0, 511))
def test_a_collapse_never_costs_with_one_pool_for_all_levels(
    guest: Level | None, puds: int, shattered: int, pmds: int
) -> None:
    """`shattered` hugepages, `pmds` of whose 512 slots are one entry: one slot more, or one hugepage more."""
    model = AccessModel(tlb=TLBS["neoverse_n1"], guest=guest)
    before = {PUD: puds, PMD: shattered * pmds, PTE: shattered * (512 - pmds) * 512}
    one_slot = {**before, PMD: shattered * (pmds + 1), PTE: shattered * (511 - pmds) * 512}
    whole = {PUD: puds + shattered}
    costs = [model.access_ns(leaves) for leaves in (whole, one_slot, before)]
    assert costs == pytest.approx(sorted(costs))


def test_on_skylake_one_large_entry_more_can_cost() -> None:
    """Its places for 1G entries are few and used up, while all 2M entries of the last hugepage have one."""
    model = AccessModel(tlb=TLBS["skylake_sp"], guest=PUD)
    assert model.access_ns({PUD: 63, PMD: 512}) < model.access_ns({PUD: 64})


def test_miss_share() -> None:
    model = AccessModel(tlb=TLBS["ice_lake_sp"], guest=None)
    assert model.miss_share(all_at(PTE)) == pytest.approx(1 - 2048 / 262144)
    assert model.miss_share(all_at(PMD)) == 0
    assert model.miss_share({PMD: 512, PTE: 262144}) == pytest.approx((1 - (2048 - 512) / 262144) / 2)


def test_nothing_mapped_is_refused() -> None:
    for ask in (AccessModel().access_ns, AccessModel().miss_share):
        with pytest.raises(ValueError, match="nothing is mapped"):
            ask({PTE: 0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workload": "replay"}, "give uniform, zipf, sequential, pointer_chase"),
        ({"exponent": 0.0}, "exponent=0.0"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_a_wrong_pattern_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pattern(**settings)  # type: ignore[arg-type]
