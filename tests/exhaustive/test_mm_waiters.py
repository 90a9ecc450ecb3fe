"""Every state of who sleeps, what is unread, which VMAs there are, and what a child got."""

from __future__ import annotations

import pytest

from migemu.mm import Level
from tests.exhaustive.explorer import Explorer, on
from tests.exhaustive.naive_uffd import (
    EVENT_REMOVE,
    EVENT_UNMAP,
    EXACT_ADDRESS,
    SIGBUS,
    THREAD_ID,
    WP_ASYNC,
)
from tests.exhaustive.twin_mm import Call, Twins
from tests.exhaustive.worlds import SMALLEST, post_copy

MAPPING = ("continue_", "collapse")


def awake(twins: Twins, call: Call) -> bool:
    """A vCPU that sleeps faults no more; nobody reads an event twice."""
    uffd = twins.naive.uffds[0]
    if call[0] == "fault":
        return all(waiter.vcpu != call[1] for waiter in uffd.waiters)
    return call[0] not in ("dontneed", "munmap") or len(uffd.events) < 2


def faults(*pages: int, vcpus: tuple[int, ...] = (1, 2)) -> list[Call]:
    return [("fault", vcpu, page, write) for vcpu in vcpus for page in pages for write in (False, True)]


@pytest.mark.parametrize(
    ("features", "found"), [(0, (393, 3504)), (EXACT_ADDRESS | THREAD_ID, (393, 3504)), (SIGBUS, (9, 144))]
)
def test_two_vcpus_and_their_messages(features: int, found: tuple[int, int]) -> None:
    """1.1, 1.3, 3.2: the address reported, who is woken by what, the order of reading; minor faults."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, features=features), [], awake)
    calls = [
        *faults(0, 3),
        ("read",),
        *on(("wake",), ((0, 1), (1, 3), (0, 4))),
        *on(("continue_",), ((0, 1), (3, 1), (2, 2))),
        ("continue_", 0, 2, True),
    ]
    assert explorer.all_of(calls) == found


def test_events_stop_what_fills_pages() -> None:
    """While one is unread; faults that came after it are read first. Collapse wakes nobody (SEMANTICS 1.4, 2.1)."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, features=EVENT_REMOVE | EVENT_UNMAP), [], awake)
    calls = [*faults(0, 3, vcpus=(1,)), ("read",), ("dontneed", 2, 2), ("munmap", 0, 2), *on(MAPPING, ((0, 1), (0, 4)))]
    assert explorer.all_of(calls) == (147, 999)


@pytest.mark.parametrize(
    ("features", "found"), [(0, (712, 8296)), (EXACT_ADDRESS, (712, 8296)), (WP_ASYNC, (512, 6032))]
)
def test_write_protect_faults_and_their_messages(features: int, found: tuple[int, int]) -> None:
    """Missing, then protected: a hugepage's address is reported, and UFFDIO_WRITEPROTECT off wakes."""
    world = post_copy(SMALLEST, Level.PMD, 2, ("missing", "wp"), features=features, cached=0)
    explorer = Explorer(world, [], awake)
    calls = [
        *faults(1, vcpus=(1,)),
        *faults(3, vcpus=(2,)),
        ("read",),
        ("copy", 0, 2),
        ("copy", 2, 2, False, True),
        ("copy", 0, 4, True, True),
        ("continue_", 3, 1, False, True),
        *on(("writeprotect",), ((0, 2), (0, 4)), True),
        *on(("writeprotect",), ((2, 2), (0, 4)), False),
        ("writeprotect", 0, 2, False, True),
        ("wake", 0, 2),
    ]
    assert explorer.all_of(calls) == found


def test_vmas_split_registered_and_unmapped_in_parts() -> None:
    """Three hugepages: advice and registration on some of them, holes between them, events unread."""
    twins = post_copy(SMALLEST, Level.PMD, 3, (), features=EVENT_REMOVE | EVENT_UNMAP, split=0)
    calls: list[Call] = [
        *on(("split",), ((2, 2), (0, 6), (1, 2), (3, 3))),
        *on(("munmap",), ((2, 2), (1, 2))),
        *on(("register",), ((2, 2), (0, 6)), "minor", "wp"),
        *on(("unregister",), ((0, 6), (3, 2))),
        *on(("continue_", "collapse"), ((0, 6), (2, 1))),
        *on(("dontneed",), ((0, 6), (2, 3), (3, 3))),
        *on(("writeprotect",), ((0, 6), (2, 2), (1, 2)), True),
        ("read",),
    ]
    explorer = Explorer(twins, [], awake)
    for _ in range(5):
        explorer.step(calls)
    assert explorer.found == (619, 5703)


def test_process_madvise_stops_at_the_first_error() -> None:
    """SEMANTICS 6.1: the bytes of the ranges done, else the errno; ranges inside a larger leaf fail (SEMANTICS 2.1)."""
    explorer = Explorer(post_copy(SMALLEST, hugepages=2), [])
    some = ((0, 1), (0, 2), (2, 2), (0, 4), (4, 4), (5, 3), (8, 2))
    calls: list[Call] = [("process_collapse", first, second) for first in some for second in some]
    assert explorer.all_of([*calls, ("continue_", 0, 1), ("continue_", 4, 2)]) == (24, 1224)
