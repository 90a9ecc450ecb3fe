"""GuestAccess and GuestFaults: a vCPU gets at a word only where the page table lets it, and its faults are handed on.

Positions are given in base pages and as the geometry's own sizes, so that one test speaks of a hugetlb page of 16 base
pages and of a real one.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Level, Span
from migemu.ports import Installed
from tests.conformance.guest import (
    FaultReads,
    Guest,
    awaited,
    every_store,
    run_in,
    turns,
)
from tests.conformance.stores import STORES, Store

# --- faults ---


@every_store
async def test_a_touch_of_what_is_not_mapped_faults_once_and_is_reported_once(store: Store) -> None:
    """Also where the bytes are there already: received is not mapped."""
    guest = Guest(store)
    guest.land(7)
    waiting = guest.fault(3, 7)
    await turns()
    assert guest.faults == [(3, 7, False)]
    await turns()
    assert not waiting.done()
    assert guest.faults == [(3, 7, False)]
    guest.map(7)
    await waiting
    assert guest.read(3, 7) == guest.image.word(7, 0)
    assert guest.faults == [(3, 7, False)]


@every_store
async def test_a_write_faults_as_a_write_and_does_nothing_until_it_is_tried_again(store: Store) -> None:
    guest = Guest(store)
    waiting = guest.fault(0, guest.pages - 1, stamp=99)
    await turns()
    assert guest.faults == [(0, guest.pages - 1, True)]
    assert guest.holds(guest.pages - 1) == 0
    guest.map(guest.pages - 1)
    await waiting
    assert guest.write(0, guest.pages - 1, 99) == 0
    assert guest.read(0, guest.pages - 1) == 99


@every_store
async def test_mapping_another_page_wakes_nobody(store: Store) -> None:
    guest = Guest(store)
    waiting = guest.fault(0, 5)
    guest.map(4)
    guest.map(6, 2)
    guest.memory.uffdio_wake(4, 1)
    guest.memory.uffdio_wake(6, guest.pages - 6)
    await turns()
    assert not waiting.done()
    guest.map(5)
    await waiting


@every_store
@pytest.mark.parametrize("level", [Level.PTE, Level.PMD])
async def test_a_run_wakes_whoever_waits_in_any_of_its_pieces(store: Store, level: Level) -> None:
    guest = Guest(store)
    each = store.geometry.pages(level)
    waiting = [guest.fault(vcpu, page) for vcpu, page in enumerate((0, each, 3 * each - 1, 3 * each))]
    assert guest.map(0, 3, level) == Installed(mapped=3, existing=0)
    await asyncio.gather(*waiting[:3])
    assert not waiting[3].done()
    guest.map(3 * each)
    await waiting[3]


@every_store
async def test_two_vcpus_on_one_page_are_both_reported_and_both_woken(store: Store) -> None:
    guest = Guest(store)
    first, second = guest.fault(0, 2), guest.fault(1, 2, stamp=8)
    await turns()
    assert guest.faults == [(0, 2, False), (1, 2, True)]
    guest.map(2)
    await asyncio.gather(first, second)
    assert guest.write(1, 2, 8) == 0
    assert guest.read(0, 2) == 8


@every_store
async def test_a_wake_without_a_mapping_lets_the_vcpu_fault_again(store: Store) -> None:
    guest = Guest(store)
    for _ in range(3):
        waiting = guest.fault(4, 9)
        await turns()
        guest.memory.uffdio_wake(8, 4)
        await waiting
    assert guest.faults == [(4, 9, False)] * 3


@every_store
async def test_one_vcpu_faults_on_one_page_after_the_other(store: Store) -> None:
    guest = Guest(store)
    for page in (0, guest.pmd, 1, guest.pages - 1):
        waiting = guest.fault(0, page)
        await turns()
        guest.map(page)
        await waiting
        guest.read(0, page)
    assert [page for _, page, _ in guest.faults] == [0, guest.pmd, 1, guest.pages - 1]


@every_store
async def test_faults_are_reported_to_whoever_asked_last_and_to_nobody_before(store: Store) -> None:
    memory = store()
    memory.touch(0, 1, 0, None)
    await turns()
    first, second = FaultReads(), FaultReads()
    memory.register(first)
    memory.touch(1, 2, 0, 5)
    await turns()
    memory.register(second)
    memory.touch(2, 3, 0, None)
    await turns()
    assert first.faults == first.asleep == [(1, 2, True)]
    assert second.faults == second.asleep == [(2, 3, False)]


# --- all together ---

PAGES = 2 * TINY.pages(Level.PUD)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, PAGES - 1)),
        st.tuples(st.just("read"), st.integers(0, 3), st.integers(0, PAGES - 1)),
        st.tuples(st.just("land"), st.integers(1, 6), st.integers(0, PAGES - 1)),
        st.tuples(st.just("map 2M"), st.integers(1, 3), st.integers(0, PAGES // 4 - 1)),
        st.tuples(st.just("collapse"), st.sampled_from([Level.PMD, Level.PUD]), st.integers(0, PAGES - 1)),
        st.tuples(st.just("wake"), st.integers(1, 8), st.integers(0, PAGES - 1)),
    ),
    max_size=60,
)


SMALL_STORES = [store for store in STORES if store.geometry is TINY and store.in_place]


@settings(max_examples=60)
@given(steps=steps)
@pytest.mark.parametrize("store", SMALL_STORES, ids=[store.name for store in SMALL_STORES])
def test_no_write_is_lost_and_every_read_is_what_was_landed_or_written(
    store: Store, steps: list[tuple[str, int, int]]
) -> None:
    """Whatever lands, is mapped, collapses and wakes in between. A page lands once, as the receiver sees to."""
    run_in(store, live(store, steps))


async def live(store: Store, steps: list[tuple[str, int, int]]) -> None:
    guest = Guest(store)
    words: dict[int, int] = {}  # by page, as they should be
    landed: set[int] = set()
    asleep: dict[int, asyncio.Future[None]] = {}
    for number, (step, argument, where) in enumerate(steps, 1):
        if step in ("read", "write"):
            waiting = asleep.get(argument)
            if waiting is not None and not waiting.done():
                continue
            stamp = number if step == "write" else None
            word = guest.memory.touch(argument, where, 0, stamp)
            if isinstance(word, int):
                assert word == words.get(where, 0)
                landed.add(where)  # what the guest has had its hands on must not land again
                words[where] = word if stamp is None else stamp
            else:
                asleep[argument] = asyncio.ensure_future(awaited(word))
        elif step == "land":
            for page in range(where, min(where + argument, PAGES)):
                if page not in landed:
                    landed.add(page)
                    words[page] = guest.image.word(page, 0)
                    guest.land(page)
            guest.map(where, min(argument, PAGES - where))
        elif step == "map 2M":
            guest.map(4 * where, min(argument, PAGES // 4 - where), Level.PMD)
        elif step == "wake":
            guest.memory.uffdio_wake(where, min(argument, PAGES - where))
        else:
            level = Level(argument)
            try:
                guest.memory.madvise_collapse([Span(where - where % TINY.pages(level), level)])
            except FileExistsError:
                pass  # one larger entry maps it
        await asyncio.sleep(0)
    guest.memory.uffdio_wake(0, PAGES)
    await asyncio.gather(*asleep.values())
    guest.map(0, PAGES)
    assert {page: guest.read(9, page) for page in range(PAGES)} == {page: words.get(page, 0) for page in range(PAGES)}
