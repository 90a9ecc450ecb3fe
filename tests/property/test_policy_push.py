"""Every push order, under requests that come at any time: ends, each page once, never over a PMD's border."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm.pages import TINY, X86_64, Geometry, Level, PageBitmap
from migemu.policy.push_order import push_orders

SPECS = (
    "sequential", "fault_follow", "random", "random:block=1", "random:block=3", "random:block=64",
    "bubbling", "bubbling:pivots=1", "bubbling:pivots=2", "bubbling:dual=off", "bubbling:pivots=1,dual=off",
    "fill_pmd", "fill_pmd:pending=1", "fill_pmd:pending=2",
)  # fmt: skip

#: What happens between two runs: a request with its page sent at once, one that is left to the push, or nothing.
Step = tuple[str, float]
STEPS = st.lists(
    st.tuples(st.sampled_from(["urgent", "request", "pull", "piece"]), st.floats(0, 1, exclude_max=True)), max_size=60
)


def push_everything(
    spec: str, geometry: Geometry, total: int, seed: int, pages_max: int, steps: list[Step]
) -> list[tuple[int, int]]:
    """All runs, each checked as it comes."""
    order = push_orders.create(spec, geometry, total, Random(seed))
    sent = PageBitmap(geometry, total)
    per_pmd = geometry.pages(Level.PMD)
    runs: list[tuple[int, int]] = []
    pending = iter(steps)
    while True:
        what, where = next(pending, ("pull", 0.0))
        page = int(where * total)
        if what in ("urgent", "request"):
            order.requested(page)
        if what == "urgent":
            sent.add(page, 1)
        if what == "piece":  # the sender rounds a run up to a whole 2M piece
            sent.add(page - page % per_pmd, per_pmd)
        if what != "pull":
            continue
        before = sent.set_pages
        run = order.next_run(sent, pages_max)
        assert (run is None) == (before == total)
        assert sent.set_pages == before, "an order marked pages by itself"
        if run is None:
            return runs
        first, count = run
        assert 1 <= count <= pages_max
        assert first >= 0
        assert first + count <= total
        assert first // per_pmd == (first + count - 1) // per_pmd, "a run crosses a PMD border"
        assert sent.add(first, count) == count, "a page was pushed twice"
        runs.append(run)


@pytest.mark.parametrize("spec", SPECS)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(hugepages=st.integers(1, 4), seed=st.integers(0, 2**32), pages_max=st.integers(1, 20), steps=STEPS)
def test_tiny(spec: str, hugepages: int, seed: int, pages_max: int, steps: list[Step]) -> None:
    total = hugepages * TINY.pages(Level.PUD)
    runs = push_everything(spec, TINY, total, seed, pages_max, steps)
    assert push_everything(spec, TINY, total, seed, pages_max, steps) == runs, "same seed, another order"


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in ("random:block=1", "random:block=3")])
@settings(derandomize=True, deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32), pages_max=st.sampled_from([37, 64, 512, 1000]), steps=STEPS)
def test_1g(spec: str, seed: int, pages_max: int, steps: list[Step]) -> None:
    push_everything(spec, X86_64, X86_64.pages(Level.PUD), seed, pages_max, steps)


@pytest.mark.parametrize("spec", SPECS)
@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), steps=STEPS, received=st.sets(st.integers(0, 31)))
def test_a_second_bitmap_is_pushed_whole_too(spec: str, seed: int, steps: list[Step], received: set[int]) -> None:
    """After a reconnect the source goes on with what the destination has received."""
    order = push_orders.create(spec, TINY, 32, Random(seed))
    first = PageBitmap(TINY, 32)
    for what, where in steps:
        if what == "pull" and (run := order.next_run(first, 3)) is not None:
            first.add(*run)
        else:
            order.requested(int(where * 32))
    second = PageBitmap(TINY, 32)
    for page in received:
        second.add(page, 1)
    pushed = 0
    while (run := order.next_run(second, 3)) is not None:
        assert second.add(*run) == run[1]
        pushed += run[1]
    assert second.complete
    assert pushed == 32 - len(received)
