"""The facts of the kernel's own selftests, and of J. Yan's: SEMANTICS 4.1, a test each."""

from __future__ import annotations

import pytest

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_HWPOISON,
    MADV_POPULATE_WRITE,
    MADV_SPLIT,
    X86_64,
    AddressSpace,
    FaultOutcome,
    Level,
    UffdEvent,
    UffdFeature,
    UffdPagefault,
)
from tests.unit.mm.guest import KIB4, Guest, MakeGuest

MIB2, GIB = 1 << 21, 1 << 30
FEATURES = UffdFeature.SIGBUS | UffdFeature.EXACT_ADDRESS | UffdFeature.EVENT_FORK
SIGBUS, MCEERR, MAPPED = FaultOutcome.SIGBUS, FaultOutcome.SIGBUS_MCEERR, FaultOutcome.MAPPED


@pytest.fixture(params=[Level.PMD, Level.PUD])
def guest(request: pytest.FixtureRequest) -> Guest:
    """Two hugepages, registered MISSING | WP | MINOR (hugetlb-hgm.c)."""
    return Guest(X86_64, request.param, missing=True, minor=True, wp=True, features=FEATURES)


def sizes(guest: Guest) -> list[tuple[int, int]]:
    """Pieces of half the range, a quarter ... 4K back to back: (address, bytes). The last 4K of the range is left."""
    pieces, addr, size = [], guest.base, guest.length // 2
    while size >= KIB4:
        pieces.append((addr, size))
        addr, size = addr + size, size // 2
    return pieces


def map_sizes(guest: Guest) -> None:
    for addr, size in sizes(guest):
        assert guest.uffd.continue_(addr, size) == size


def last(guest: Guest) -> int:
    return guest.base + guest.length - 1


def test_sizes(guest: Guest) -> None:
    map_sizes(guest)
    for addr, size in sizes(guest):
        assert guest.space.fault(0, addr, write=True) is MAPPED
        assert guest.space.fault(0, addr + size - 1, write=False) is MAPPED
    assert guest.space.walk(guest.base).level == guest.space.vmas.vmas[0].hstate  # exactly one hugepage
    assert guest.space.fault(0, last(guest), write=False) is SIGBUS
    guest.space.validate()


def test_fork(guest: Guest) -> None:
    """Child and parent see the same, and get SIGBUS at the last byte."""
    map_sizes(guest)
    child = guest.space.fork()
    assert guest.uffd.read().event is UffdEvent.FORK
    for space in (guest.space, child):
        for addr, _ in sizes(guest):
            assert space.fault(0, addr, write=False) is MAPPED
            assert space.walk(addr) == guest.space.walk(addr)
        assert space.fault(0, last(guest), write=False) is SIGBUS
        space.validate()


def test_collapse(guest: Guest) -> None:
    """Returns 0, and the last 4K can be read: zeros, for it was never written."""
    map_sizes(guest)
    guest.space.madvise(guest.base, guest.length, MADV_COLLAPSE)
    assert sum(guest.space.leaves(guest.base).values()) == 2
    assert guest.space.fault(0, last(guest), write=False) is MAPPED


def test_write_protect(make_guest: MakeGuest) -> None:
    """Without MINOR: a write to the first page is SIGBUS by protection, not by a missing page."""
    guest = make_guest(X86_64, minor=False, missing=True, wp=True, features=FEATURES)
    guest.uffd.writeprotect(guest.base, guest.length, True)
    assert guest.space.fault(0, guest.base, write=True) is SIGBUS
    guest = make_guest(X86_64, minor=False, missing=True, wp=True, features=FEATURES)
    guest.uffd.writeprotect(guest.base, guest.length, True)
    map_sizes(guest)
    for addr, _ in sizes(guest):
        assert guest.space.fault(0, addr, write=True) is MAPPED
    assert guest.space.is_uffd_wp(last(guest))  # preserved through every split
    assert guest.space.fault(0, last(guest), write=True) is SIGBUS
    child = guest.space.fork()
    guest.uffd.read()
    assert child.fault(0, last(guest), write=True) is SIGBUS
    for space in (guest.space, child):
        space.madvise(guest.base, guest.length, MADV_COLLAPSE)
        assert space.fault(0, last(guest), write=True) is MAPPED
        space.validate()


def test_poison(guest: Guest) -> None:
    """MADV_HWPOISON of the whole range after the continues; 512 samples and the last byte."""
    map_sizes(guest)
    guest.space.madvise(guest.base, guest.length, MADV_HWPOISON)
    for _ in range(2):
        for addr in (*range(guest.base, guest.base + guest.length, guest.length // 512), last(guest)):
            assert guest.space.fault(0, addr, write=False) is MCEERR
        guest.space.madvise(guest.base, guest.length, MADV_COLLAPSE)
    guest.space.validate()


@pytest.mark.parametrize("hstate", [Level.PMD, Level.PUD])
def test_raw_4k_poison(make_guest: MakeGuest, hstate: Level) -> None:
    """Yan: 3 raw pages, 128 apart; HardwareCorrupted grows by 3, all other bytes intact, also after collapse."""
    guest = make_guest(X86_64, hstate, missing=True, wp=True, features=FEATURES, hwpoison="page")
    map_sizes(guest)
    bad = [guest.at(128 * index) for index in range(3)]
    for addr in bad:
        guest.space.madvise(addr, KIB4, MADV_HWPOISON)
        assert guest.space.fault(0, addr, write=False) is MCEERR
    assert guest.file.hardware_corrupted == 3
    for _ in range(2):
        for addr in range(guest.base, guest.base + 3 * 128 * KIB4, KIB4):
            assert guest.space.fault(0, addr, write=False) is (MCEERR if addr in bad else MAPPED)
        for addr, size in sizes(guest)[1:]:
            assert guest.space.fault(0, addr + size - 1, write=True) is MAPPED
        guest.space.madvise(guest.base, guest.length, MADV_COLLAPSE)
    guest.space.validate()


def test_raw_4k_poison_before_the_first_fault_with_markers(make_guest: MakeGuest) -> None:
    """Yan's second case: protected and poisoned before anybody touched it."""
    guest = make_guest(X86_64, minor=False, wp=True, hwpoison="page")
    alias = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file)
    guest.space.madvise(alias, guest.length, MADV_POPULATE_WRITE)
    guest.uffd.writeprotect(guest.base, guest.length, True)
    for index in range(3):
        guest.space.madvise(alias + 128 * index * KIB4, KIB4, MADV_HWPOISON)
    assert guest.space.walk(guest.base) == (Level.PUD, 1)
    for page in range(384):
        expected = MAPPED if page % 128 else MCEERR
        assert guest.space.fault(0, guest.at(page), write=False) is expected
        assert guest.space.is_uffd_wp(guest.at(page))
    assert guest.space.fault(0, guest.at(1024), write=False) is MAPPED
    assert guest.space.walk(guest.at(1024)).level == Level.PMD
    guest.space.validate()


def test_minor_faults_of_4k(make_guest: MakeGuest) -> None:
    """userfaultfd.c, hugetlb_shared_hgm: each 4K minor fault is answered by CONTINUE of 4K."""
    guest = make_guest(X86_64, Level.PMD, 1, split=False)
    guest.space.madvise(guest.base, guest.length, MADV_SPLIT)
    for page in range(512):
        assert guest.space.fault(0, guest.at(page) + 123, write=False) is FaultOutcome.WAITING
        msg = guest.uffd.read()
        assert (msg.address, msg.flags) == (guest.at(page), UffdPagefault.MINOR)
        assert guest.uffd.continue_(msg.address, KIB4) == KIB4
        assert guest.woken.pop() == (0, page)
    assert guest.space.leaves(guest.base)[Level.PTE] == 512


def test_migration_of_a_hugepage_that_is_all_4k(make_guest: MakeGuest) -> None:
    """migration.c: moved back and forth while it is mapped by 4K."""
    guest = make_guest(X86_64, Level.PMD, 1)
    guest.uffd.continue_run(guest.base, Level.PTE, 512)
    for _ in range(3):
        guest.file.try_to_migrate(0)
        assert guest.space.fault(0, guest.at(77), write=True) is FaultOutcome.RETRY
        guest.file.remove_migration_ptes(0)
        assert guest.space.leaves(guest.base)[Level.PTE] == 512
        assert guest.file.refs == [512]
    guest.space.validate()


def test_split_works_on_a_fresh_mapping() -> None:
    """demand_paging_test, shared_hugetlb_hgm, asserts that MADV_SPLIT works."""
    space = AddressSpace(X86_64)
    addr = space.mmap_hugetlb(GIB, Level.PMD)
    space.madvise(addr, GIB, MADV_SPLIT)
    assert space.vmas.vmas[0].hgm
