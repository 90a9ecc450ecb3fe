"""The order of clears, flush and frees: SEMANTICS 2.3, and the counts of SEMANTICS 2.4 and 3.6."""

from __future__ import annotations

import pytest

from migemu.mm import MADV_COLLAPSE, MADV_DONTNEED, X86_64, GatherKind, GatherStep, Level
from migemu.mm.gather import GATHER_BATCH
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest, refused

K = GatherKind
OPEN, CLEARED, INSTALLED, CLOSE, FLUSHED, FREED = (
    K.NOTIFIER_START, K.CLEARED, K.INSTALLED, K.NOTIFIER_END, K.FLUSHED, K.FREED,
)  # fmt: skip


def told(guest: Guest) -> list[tuple[GatherKind, int, int, Level | None, int]]:
    """The steps, with pages instead of addresses; they are forgotten."""
    seen = [
        (step.kind, (step.start - guest.base) >> 12, (step.end - guest.base) >> 12, step.level, step.count)
        for step in guest.steps
    ]
    guest.steps.clear()
    return seen


def test_v2_frees_after_the_notifier_window(make_guest: MakeGuest) -> None:
    guest = make_guest(hgm="v2")
    guest.continue_(0, 1)
    guest.continue_(5, 2)
    guest.advise(0, 8, MADV_COLLAPSE)
    assert told(guest) == [
        (OPEN, 0, 8, None, 0),
        (CLEARED, 0, 4, Level.PTE, 1),
        (INSTALLED, 0, 4, Level.PMD, 1),
        (CLEARED, 4, 8, Level.PTE, 2),
        (INSTALLED, 4, 8, Level.PMD, 1),
        (CLOSE, 0, 8, None, 0),
        (FLUSHED, 0, 8, None, 0),
        (FREED, 0, 8, None, 2),
    ]


def test_v1_frees_inside_the_notifier_window(make_guest: MakeGuest) -> None:
    guest = make_guest(hgm="v1")
    guest.continue_(0, 1)
    guest.advise(0, 16, MADV_COLLAPSE)
    assert told(guest) == [
        (OPEN, 0, 16, None, 0),
        (CLEARED, 0, 4, Level.PTE, 1),
        (INSTALLED, 0, 16, Level.PUD, 1),
        (FLUSHED, 0, 16, None, 0),
        (FREED, 0, 16, None, 2),
        (CLOSE, 0, 16, None, 0),
    ]


def test_every_vma_of_a_call_has_a_window_of_its_own(make_guest: MakeGuest) -> None:
    guest = make_guest(minor=False)
    guest.uffd.register(guest.base, 65536, minor=True)
    guest.uffd.register(guest.at(16), 65536, minor=True)
    guest.advise(0, 32, MADV_COLLAPSE)
    assert told(guest) == [(OPEN, 0, 16, None, 0), (CLOSE, 0, 16, None, 0),
                           (OPEN, 16, 32, None, 0), (CLOSE, 16, 32, None, 0)]  # fmt: skip


def test_an_empty_table_is_freed_after_a_flush_too(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.continue_(0, 1)
    guest.advise(0, 16, MADV_DONTNEED)
    guest.steps.clear()
    guest.advise(0, 4, MADV_COLLAPSE)
    assert [step[0] for step in told(guest)] == [OPEN, INSTALLED, CLOSE, FLUSHED, FREED]


def test_a_call_that_fails_closes_its_window_and_frees_what_it_took(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.continue_(0, 1)
    guest.continue_(16, 1)
    guest.file.isolate(1)
    with refused(16):
        guest.advise(0, 32, MADV_COLLAPSE)
    assert [step[0] for step in told(guest)] == [OPEN, CLEARED, INSTALLED, CLOSE, FLUSHED, FREED]


def test_a_full_batch_is_flushed_early_and_its_tables_go_with_it(make_guest: MakeGuest) -> None:
    """4K to 2M of one 1G page: 262,144 leaves cleared, 512 tables freed, 512 leaves set (SEMANTICS 2.4)."""
    guest = make_guest(X86_64, hugepages=1)
    guest.uffd.continue_run(guest.base, Level.PTE, 262_144)
    guest.advise(0, 512, MADV_COLLAPSE)
    guest.steps.clear()
    guest.advise(512, 262_144 - 1024, MADV_COLLAPSE)
    steps = list(guest.steps)
    assert sum(step.count for step in steps if step.kind is CLEARED) == 510 * 512
    assert sum(step.count for step in steps if step.kind is INSTALLED) == 510
    assert sum(step.count for step in steps if step.kind is FREED) == 510
    assert sum(step.kind is FLUSHED for step in steps) == 26  # 25 of 20 tables, and the last 10
    check_order(steps)


def test_4k_to_1g_frees_513_tables_at_the_end_only(make_guest: MakeGuest) -> None:
    """The tables of one step are handed over when all its leaves are cleared."""
    guest = make_guest(X86_64, hugepages=1)
    guest.uffd.continue_run(guest.base, Level.PTE, 262_144)
    guest.advise(0, 262_144, MADV_COLLAPSE)
    assert [step.count for step in guest.steps if step.kind is FREED] == [513]
    assert sum(step.count for step in guest.steps if step.kind is CLEARED) == 262_144
    assert all(step.count <= GATHER_BATCH + 512 for step in guest.steps if step.kind is CLEARED)
    check_order(guest.steps)


def check_order(steps: list[GatherStep]) -> None:
    """SEMANTICS I6: what is freed was cleared before the last flush."""
    waiting: list[GatherStep] = []
    for step in steps:
        if step.kind is CLEARED:
            waiting.append(step)
        elif step.kind is FLUSHED:
            waiting = [each for each in waiting if not (step.start <= each.start and each.end <= step.end)]
            assert not waiting
        elif step.kind is FREED:
            assert not any(each.start < step.end and step.start < each.end for each in waiting)


def test_a_zap_clears_flushes_and_frees_nothing(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY_CONT)
    guest.continue_(0, 8)
    guest.continue_(8, 2)
    guest.continue_(11, 1)
    guest.continue_(12, 4)
    guest.continue_(16, 16)
    guest.advise(0, 32, MADV_DONTNEED)
    assert told(guest) == [
        (OPEN, 0, 32, None, 0),
        (CLEARED, 0, 8, Level.CONT_PMD, 1),
        (CLEARED, 8, 12, Level.PTE, 1),
        (CLEARED, 8, 12, Level.CONT_PTE, 1),
        (CLEARED, 12, 16, Level.PMD, 1),
        (CLEARED, 16, 32, Level.PUD, 1),
        (CLOSE, 0, 32, None, 0),
        (FLUSHED, 0, 32, None, 0),
    ]
    guest.advise(0, 32, MADV_DONTNEED)
    assert [step[0] for step in told(guest)] == [OPEN, CLOSE]


def test_munmap_frees_the_tables_last(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.continue_(0, 1)
    guest.space.munmap(guest.base, guest.length)
    assert told(guest) == [
        (OPEN, 0, 32, None, 0),
        (CLEARED, 0, 4, Level.PTE, 1),
        (CLOSE, 0, 32, None, 0),
        (FLUSHED, 0, 16, None, 0),
        (FREED, 0, 16, None, 2),
    ]


@pytest.mark.parametrize("advice", [MADV_COLLAPSE, MADV_DONTNEED])
def test_without_a_listener_the_result_is_the_same(make_guest: MakeGuest, advice: int) -> None:
    listened, unheard = make_guest(), make_guest()
    unheard.space.on_gather = None
    for guest in (listened, unheard):
        guest.continue_(1, 9)
        guest.advise(0, 16, advice)
    assert (listened.map(), listened.tables) == (unheard.map(), unheard.tables)
    assert not unheard.steps
