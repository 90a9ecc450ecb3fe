"""Walks over a memory of any size: each page once a round, whatever the seed."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.guest.workload import Workload, WorkloadContext, workloads
from migemu.permutation import CyclicWalk, Scatter


def pages(workload: Workload, count: int) -> list[int]:
    accesses = (workload.next_access() for _ in range(count))
    return [access.page for access in accesses if access is not None]


def context(total: int, vcpu: int, vcpus: int, seed: int) -> WorkloadContext:
    return WorkloadContext(total, vcpu, vcpus, Random(seed), 0.5)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(total=st.integers(1, 700), seed=st.integers(0, 2**64))
def test_pointer_chase_is_a_permutation(total: int, seed: int) -> None:
    walk = workloads.create("pointer_chase", context(total, 0, 1, seed))
    first = pages(walk, total)
    assert sorted(first) == list(range(total))
    assert pages(walk, total) == first


@settings(derandomize=True, deadline=None, max_examples=200)
@given(size=st.integers(1, 700), seed=st.integers(0, 2**64), key=st.integers(-(2**31), 2**31))
def test_walk_and_scatter_are_permutations(size: int, seed: int, key: int) -> None:
    walk, scatter = CyclicWalk(size, Random(seed)), Scatter(size, key)
    assert sorted(walk.step() for _ in range(size)) == list(range(size))
    assert sorted(scatter.place(number) for number in range(size)) == list(range(size))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(total=st.integers(1, 300), vcpus=st.integers(1, 8), stride=st.integers(1, 400))
def test_sequential_vcpus_visit_each_page_of_the_memory_once_a_round(total: int, vcpus: int, stride: int) -> None:
    vcpus = min(vcpus, total)
    visited = []
    for vcpu in range(vcpus):
        mine = context(total, vcpu, vcpus, 1)
        walk = workloads.create(f"sequential:stride={stride}", mine)
        first = pages(walk, len(mine.share))
        assert sorted(first) == list(mine.share)
        assert pages(walk, len(mine.share)) == first
        visited += first
    assert sorted(visited) == list(range(total))
