"""Page faults, messages and waiters: SEMANTICS 1.1, 3.1, 3.2, 3.4."""

from __future__ import annotations

import pytest

from migemu.mm import MADV_COLLAPSE, MADV_HWPOISON, MADV_SPLIT, FaultOutcome, UffdFeature, UffdPagefault
from tests.unit.mm.guest import Guest

WRITE, MINOR = UffdPagefault.WRITE, UffdPagefault.MINOR


@pytest.mark.parametrize(
    ("continued", "page", "expected"),
    [
        (None, 5, "UUUUUUUUUUUUUUUU"),  # untouched: one leaf
        ((0, 8), 13, "MMMMMMMM....MMMM"),  # first half by 2M: 2M elsewhere
        ((0, 1), 1, "tt.............."),  # next to a 4K: 4K
        ((0, 1), 9, "t.......MMMM...."),  # another, empty 2M slot: 2M
        ((0, 4), 2, "MMMM............"),  # mapped already
    ],
)
def test_a_fault_installs_at_the_level_where_its_walk_ends(
    make_guest: Guest, continued: tuple[int, int] | None, page: int, expected: str
) -> None:
    """It never allocates tables (SEMANTICS 3.1)."""
    guest = make_guest()
    if continued:
        guest.continue_(*continued)
    guest.uffd.unregister(guest.base, guest.length)
    tables = guest.tables
    assert guest.space.fault(0, guest.at(page), write=True) is FaultOutcome.MAPPED
    assert (guest.map(), guest.tables) == (expected, tables)


@pytest.mark.parametrize(
    ("populated", "minor", "missing", "outcome", "flags"),
    [
        (True, True, True, FaultOutcome.WAITING, WRITE | MINOR),
        (True, True, False, FaultOutcome.WAITING, WRITE | MINOR),
        (True, False, True, FaultOutcome.MAPPED, None),
        (False, True, True, FaultOutcome.WAITING, WRITE),
        (False, False, True, FaultOutcome.WAITING, WRITE),
        (False, True, False, FaultOutcome.MAPPED, None),
        (False, False, False, FaultOutcome.MAPPED, None),
        (True, False, False, FaultOutcome.MAPPED, None),
    ],
)
def test_minor_or_missing(
    make_guest: Guest, populated: bool, minor: bool, missing: bool, outcome: FaultOutcome, flags: UffdPagefault | None
) -> None:
    """Cached and registered MINOR, or not cached and registered MISSING; else the kernel maps it (SEMANTICS 3.2)."""
    guest = make_guest(populated=populated, minor=minor, missing=missing)
    assert guest.space.fault(3, guest.at(1), write=True) is outcome
    msg = guest.uffd.read()
    assert (None if msg is None else msg.flags) == flags
    assert guest.space.is_mapped(guest.at(1)) == (outcome is FaultOutcome.MAPPED)


@pytest.mark.parametrize(
    ("split", "populated", "features", "reported"),
    [
        (True, True, 0, 0x6000),  # minor under HGM: 4K
        (False, True, 0, 0x0),  # minor without: the hugepage
        (True, False, 0, 0x0),  # missing: the hugepage, also under HGM
        (True, True, UffdFeature.EXACT_ADDRESS, 0x6123),
        (False, True, UffdFeature.EXACT_ADDRESS, 0x6123),
        (True, False, UffdFeature.EXACT_ADDRESS, 0x6123),
    ],
)
def test_the_reported_address(make_guest: Guest, split: bool, populated: bool, features: int, reported: int) -> None:
    """Rounded as SEMANTICS 1.1 says; the read flag of a read is not WRITE."""
    guest = make_guest(split=split, populated=populated, features=features, missing=True)
    guest.space.fault(3, guest.base + 0x6123, write=False)
    msg = guest.uffd.read()
    assert msg.address == guest.base + reported
    assert not msg.flags & WRITE


def test_the_thread_is_named_only_if_asked_for(make_guest: Guest) -> None:
    for features, ptid in ((0, 0), (UffdFeature.THREAD_ID, 9)):
        guest = make_guest(features=features)
        guest.space.fault(9, guest.base, write=False)
        assert guest.uffd.read().ptid == ptid


def test_every_fault_queues_its_own_message_oldest_first(guest: Guest) -> None:
    """Faults on one page are not merged."""
    for vcpu, page in enumerate((5, 2, 5)):
        assert guest.space.fault(vcpu, guest.at(page), write=False) is FaultOutcome.WAITING
    assert [guest.uffd.read().address for _ in range(3)] == [guest.at(5), guest.at(2), guest.at(5)]
    assert guest.uffd.read() is None
    guest.continue_(5, 1)
    assert guest.woken == [(0, 5), (2, 5)]


def test_a_message_nobody_read_goes_with_its_waiter(guest: Guest) -> None:
    guest.space.fault(0, guest.at(1), write=False)
    guest.space.fault(1, guest.at(2), write=False)
    guest.continue_(1, 1)
    assert guest.uffd.read().address == guest.at(2)
    assert guest.uffd.read() is None


@pytest.mark.parametrize(
    ("first", "count", "dontwake", "woken"),
    [(0, 4, False, [(0, 1), (1, 3)]), (0, 3, False, [(0, 1)]), (0, 4, True, []), (4, 4, False, [])],
)
def test_continue_wakes_its_range_unless_told_not_to(
    guest: Guest, first: int, count: int, dontwake: bool, woken: list[tuple[int, int]]
) -> None:
    guest.space.fault(0, guest.at(1), write=False)
    guest.space.fault(1, guest.at(3), write=False)
    guest.continue_(first, count, dontwake)
    assert guest.woken == woken


def test_a_partial_continue_wakes_what_it_mapped(guest: Guest) -> None:
    guest.continue_(3, 1)
    for vcpu, page in enumerate((1, 2, 4)):
        guest.space.fault(vcpu, guest.at(page), write=False)
    with pytest.raises(BlockingIOError):
        guest.continue_(1, 4)
    assert guest.woken == [(0, 1), (1, 2)]


def test_a_missing_fault_rounded_to_the_hugepage_is_not_woken_by_its_own_4k(make_guest: Guest) -> None:
    """A waiter is matched by the address in its message (SEMANTICS 1.3)."""
    guest = make_guest(populated=False, missing=True)
    guest.space.fault(0, guest.at(6), write=False)
    guest.space.populate(guest.base, 1)
    guest.continue_(6, 1)
    assert guest.woken == []
    guest.uffd.wake(guest.at(0), 4096)
    assert guest.woken == [(0, 6)]


def test_a_woken_vcpu_may_fault_again_at_once(guest: Guest) -> None:
    again = []
    guest.uffd.on_wake = lambda vcpu, addr: again.append(guest.space.fault(vcpu, addr + 4096, write=False))
    guest.space.fault(0, guest.at(0), write=False)
    guest.space.fault(1, guest.at(1), write=False)
    guest.uffd.wake(guest.base, 2 * 4096)
    assert again == [FaultOutcome.WAITING] * 2
    assert [guest.uffd.read().address for _ in range(2)] == [guest.at(1), guest.at(2)]
    guest.space.validate()


def test_a_sleeping_vcpu_cannot_fault(guest: Guest) -> None:
    guest.space.fault(0, guest.at(0), write=False)
    with pytest.raises(ValueError, match="asleep"):
        guest.space.fault(0, guest.at(1), write=False)


def test_unregister_wakes_who_waits_there(guest: Guest) -> None:
    guest.space.fault(0, guest.at(0), write=False)
    guest.space.fault(1, guest.at(17), write=False)
    guest.uffd.unregister(guest.at(16), 16 * 4096)
    assert guest.woken == [(1, 17)]
    assert guest.space.fault(1, guest.at(17), write=False) is FaultOutcome.MAPPED
    guest.space.validate()


def test_the_sigbus_feature_replaces_sleeping(make_guest: Guest) -> None:
    guest = make_guest(features=UffdFeature.SIGBUS)
    assert guest.space.fault(0, guest.at(0), write=False) is FaultOutcome.SIGBUS
    assert guest.uffd.read() is None


def test_outside_every_mapping_is_sigsegv(guest: Guest) -> None:
    assert guest.space.fault(0, guest.base - 1, write=False) is FaultOutcome.SIGSEGV
    assert not guest.space.is_mapped(guest.base - 1)
    assert not guest.space.is_mapped(guest.base + guest.length)


@pytest.mark.parametrize("page", [0, 1, 5, 15])
def test_a_poisoned_hugepage_is_sigbus_everywhere_before_and_after_collapse(guest: Guest, page: int) -> None:
    """Poison entries and holes alike; no minor event (SEMANTICS 3.4)."""
    guest.continue_(0, 1)
    guest.continue_(4, 4)
    guest.advise(0, 16, MADV_HWPOISON)
    for _ in range(2):
        assert guest.space.fault(0, guest.at(page), write=False) is FaultOutcome.SIGBUS_MCEERR
        guest.advise(0, 16, MADV_COLLAPSE)
    assert guest.space.fault(0, guest.at(16), write=False) is FaultOutcome.WAITING
    assert guest.file.refs == [0, 0]
    guest.space.validate()


def test_prefaulting_before_continue_makes_it_one_leaf(make_guest: Guest) -> None:
    """Only CONTINUE makes fine mappings (SEMANTICS 3.1)."""
    guest = make_guest(minor=False)
    guest.space.fault(0, guest.at(3), write=True)
    guest.advise(0, 16, MADV_SPLIT)
    guest.uffd.register(guest.base, guest.length, minor=True)
    with pytest.raises(FileExistsError):
        guest.continue_(3, 1)
