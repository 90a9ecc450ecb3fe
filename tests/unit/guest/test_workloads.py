"""Sequential, uniform and pointer chase: the pages, the writes, the settings, the refusals."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from migemu.guest.workload import Access, Workload, WorkloadContext, workloads

SHIPPED = ("pointer_chase", "replay", "sequential", "uniform", "zipf")
ENDLESS = tuple(name for name in SHIPPED if name != "replay")


def context(
    total_pages: int = 16, vcpu: int = 0, vcpus: int = 1, *, seed: int = 1, write_share: float = 0.5
) -> WorkloadContext:
    return WorkloadContext(total_pages, vcpu, vcpus, Random(seed), write_share)


def take(workload: Workload, count: int) -> list[Access]:
    accesses = []
    for _ in range(count):
        access = workload.next_access()
        assert access is not None
        accesses.append(access)
    return accesses


def pages(workload: Workload, count: int) -> list[int]:
    return [access.page for access in take(workload, count)]


def test_shipped() -> None:
    assert {entry.name for entry in workloads} >= set(SHIPPED)


@pytest.mark.parametrize(
    ("spec", "total", "vcpu", "vcpus", "expected"),
    [
        ("sequential", 4, 0, 1, [0, 1, 2, 3, 0, 1, 2, 3, 0]),
        ("sequential", 8, 1, 2, [4, 5, 6, 7, 4, 5]),
        ("sequential:stride=3", 8, 0, 1, [0, 3, 6, 1, 4, 7, 2, 5, 0, 3]),
        ("sequential:stride=2", 8, 1, 2, [4, 6, 5, 7, 4, 6]),
        ("sequential:stride=4", 4, 0, 1, [0, 1, 2, 3, 0]),
        ("sequential:stride=100", 3, 0, 1, [0, 1, 2, 0]),
        ("sequential", 3, 2, 3, [2, 2, 2]),
    ],
)
def test_sequential_pages(spec: str, total: int, vcpu: int, vcpus: int, expected: list[int]) -> None:
    assert pages(workloads.create(spec, context(total, vcpu, vcpus)), len(expected)) == expected


def test_shares_cover_the_memory_and_differ_by_one_page_at_most() -> None:
    shares = [context(16, vcpu, 5).share for vcpu in range(5)]
    assert [page for share in shares for page in share] == list(range(16))
    assert {len(share) for share in shares} == {3, 4}


def test_uniform_covers_the_memory_evenly() -> None:
    drawn = Counter(pages(workloads.create("uniform", context(16)), 16_000))
    assert set(drawn) == set(range(16))
    assert all(abs(count - 1000) < 150 for count in drawn.values())  # 5 standard deviations


@pytest.mark.parametrize("total", [1, 2, 3, 16, 48, 1000])
def test_pointer_chase_visits_each_page_once_a_round_in_the_same_order(total: int) -> None:
    walk = workloads.create("pointer_chase", context(total))
    rounds = [pages(walk, total) for _ in range(3)]
    assert sorted(rounds[0]) == list(range(total))
    assert rounds[0] == rounds[1] == rounds[2]


def test_pointer_chase_goes_nowhere_near_where_it_was() -> None:
    """Of 4096 steps through 1 GiB, 8 would stay within their 2M by chance."""
    chain = pages(workloads.create("pointer_chase", context(262_144)), 4096)
    assert sum(before // 512 == after // 512 for before, after in pairwise(chain)) < 30
    assert len({page // 512 for page in chain[:1000]}) > 400


def test_each_vcpu_has_a_chain_of_its_own() -> None:
    chains = [pages(workloads.create("pointer_chase", context(48, seed=seed)), 48) for seed in (1, 2)]
    assert chains[0] != chains[1]


@pytest.mark.parametrize("name", ENDLESS)
class TestEveryEndless:
    def test_same_seed_same_accesses(self, name: str) -> None:
        first, again, other = (take(workloads.create(name, context(1024, seed=seed)), 200) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize(("write_share", "expected"), [(0.0, {False}), (1.0, {True})])
    def test_nothing_or_everything_is_written(self, name: str, write_share: float, expected: set[bool]) -> None:
        accesses = take(workloads.create(name, context(write_share=write_share)), 300)
        assert {access.write for access in accesses} == expected

    def test_writes_come_in_their_share(self, name: str) -> None:
        accesses = take(workloads.create(name, context(write_share=0.3)), 10_000)
        assert abs(sum(access.write for access in accesses) - 3000) < 230  # 5 standard deviations

    @pytest.mark.parametrize("total", [16, 48, 268_435_456])
    def test_stays_within_the_memory(self, name: str, total: int) -> None:
        accesses = take(workloads.create(name, context(total)), 500)
        assert all(0 <= access.page < total for access in accesses)

    def test_shows_itself(self, name: str) -> None:
        assert repr(workloads.create(name, context(16))).startswith("<")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1, Random(1), 0.5), "memory of 0 pages"),
        ((16, 2, 2, Random(1), 0.5), "vCPU 2 is not one of 2: give 0 to 1"),
        ((16, -1, 2, Random(1), 0.5), "vCPU -1"),
        ((16, 0, 1, Random(1), 1.5), "write share of 1.5"),
        ((16, 0, 1, Random(1), float("nan")), "write share of nan"),
    ],
)
def test_contexts_are_judged(arguments: tuple[int, int, int, Random, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkloadContext(*arguments)


def test_settings_are_judged() -> None:
    with pytest.raises(ValueError, match="stride: '0' is not accepted here: give a whole number, at least 1"):
        workloads.create("sequential:stride=0", context())
    with pytest.raises(ValueError, match="2 pages cannot be shared out to 3 vCPUs"):
        workloads.create("sequential", context(2, 0, 3))
