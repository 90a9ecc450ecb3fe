"""Write protection and its markers: SEMANTICS 1.3, 1.6, 2.1, 3.3."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_POPULATE_WRITE,
    X86_64,
    FaultOutcome,
    Level,
    UffdFeature,
    UffdPagefault,
    WouldSleepError,
)
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest, refused

WRITE, WP, MINOR = UffdPagefault.WRITE, UffdPagefault.WP, UffdPagefault.MINOR


@pytest.fixture
def guest() -> Guest:
    return Guest(wp=True)


def test_an_empty_hugepage_gets_one_marker_and_no_table(guest: Guest) -> None:
    guest.protect(0, 16)
    assert (guest.map(), guest.protected(), guest.tables) == ("w" * 16, "w" * 16, 0)
    assert guest.space.walk(guest.at(16)).kind.name == "NONE"
    assert not guest.space.is_mapped(guest.at(0))


def test_every_entry_is_protected_at_its_own_level(guest: Guest) -> None:
    """Leaves stay leaves, empty entries of every level become markers; nothing is split (SEMANTICS 1.2)."""
    guest.continue_(0, 4)
    guest.continue_(5, 2)
    tables = guest.tables
    guest.protect(0, 16)
    assert (guest.map(), guest.protected(), guest.tables) == ("MMMMwttwwwwwwwww", "w" * 16, tables)
    assert guest.space.walk(guest.at(9)).level == Level.PMD
    assert guest.space.is_mapped(guest.at(5))
    assert not guest.space.is_writable(guest.at(5))
    guest.protect(0, 16, on=False)
    assert (guest.map(), guest.protected()) == ("MMMM.tt.........", "." * 16)
    assert guest.space.is_writable(guest.at(5))


@pytest.mark.parametrize(
    ("first", "count", "expected", "tables"),
    [
        (0, 16, "UUUUUUUUUUUUUUUU", 0),
        (0, 4, "MMMMwwwwwwwwwwww", 1),
        (1, 1, "wtwwwwwwwwwwwwww", 2),
        (2, 4, "wwttttwwwwwwwwww", 3),
    ],
)
def test_continue_consumes_the_markers_of_its_pieces(
    guest: Guest, first: int, count: int, expected: str, tables: int
) -> None:
    """Splitting a marker copies it to all children (SEMANTICS 3.3); markers elsewhere survive (SEMANTICS 1.3)."""
    guest.protect(0, 16)
    guest.continue_(first, count)
    assert (guest.map(), guest.tables) == (expected, tables)
    assert guest.space.is_writable(guest.at(first))
    assert guest.protected() == "".join("w" if letter == "w" else "." for letter in expected)
    guest.space.validate()


def test_continue_with_its_own_protection(guest: Guest, make_guest: MakeGuest) -> None:
    """UFFDIO_CONTINUE_MODE_WP, on a VMA registered for it."""
    guest.continue_(0, 7, wp=True)
    assert (guest.map(), guest.protected()) == ("MMMMttt.........", "wwwwwww.........")
    guest.continue_(7, 1)
    assert guest.protected() == "wwwwwww........."
    guest.space.validate()
    with refused(errno.EINVAL):
        make_guest().continue_(0, 1, wp=True)


@pytest.mark.parametrize(
    ("level", "count", "expected"), [(Level.PTE, 4, (4, 0)), (Level.PTE, 8, (8, 0)), (Level.PMD, 1, (0, 1))]
)
def test_a_run_consumes_markers_too(guest: Guest, level: Level, count: int, expected: tuple[int, int]) -> None:
    guest.continue_(15, 1)
    guest.continue_(0, 1)
    guest.protect(0, 16)
    guest.uffd.writeprotect(guest.at(0), 16 * 4096, False)
    guest.protect(0, 16)
    first = 4 if level == Level.PTE else 0
    assert guest.uffd.continue_run(guest.at(first), level, count) == expected
    assert guest.protected().count("w") == 16 - sum(expected[:1])


@pytest.mark.parametrize("page", [0, 5, 12])
def test_a_write_to_a_protected_leaf_is_an_event_and_a_read_is_not(guest: Guest, page: int) -> None:
    guest.continue_(0, 4)
    guest.continue_(5, 1)
    guest.continue_(12, 4)
    guest.protect(0, 16)
    assert guest.space.fault(0, guest.at(page), write=False) is FaultOutcome.MAPPED
    assert guest.space.fault(0, guest.at(page), write=True) is FaultOutcome.WAITING
    msg = guest.uffd.read()
    assert (msg.address, msg.flags) == (guest.base, WP | WRITE)  # rounded to the hugepage: it is not a minor fault


def test_unprotecting_wakes_and_the_write_goes_through(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.protect(0, 16)
    guest.space.fault(3, guest.at(0), write=True)
    guest.uffd.writeprotect(guest.base, 65536, False, dontwake=True)
    assert guest.woken == []
    guest.protect(0, 16, on=False)
    assert guest.woken == [(3, 0)]
    assert guest.space.fault(3, guest.at(0), write=True) is FaultOutcome.MAPPED
    guest.protect(0, 16)
    assert guest.woken == [(3, 0)]


@pytest.mark.parametrize(
    ("modes", "populated", "write", "outcome", "flags", "expected"),
    [
        ({"minor": True}, True, True, FaultOutcome.WAITING, MINOR | WRITE, "w" * 16),
        ({"minor": False}, True, False, FaultOutcome.MAPPED, None, "U" * 16),  # a protected leaf
        ({"minor": False}, True, True, FaultOutcome.WAITING, WP | WRITE, "U" * 16),
        ({"minor": False, "missing": True}, False, True, FaultOutcome.WAITING, WRITE, "w" * 16),
        ({"minor": False}, False, False, FaultOutcome.MAPPED, None, "U" * 16),
    ],
)
def test_a_fault_on_a_marker(
    make_guest: MakeGuest, modes: dict[str, bool], populated: bool, write: bool, outcome: FaultOutcome,
    flags: UffdPagefault | None, expected: str,
) -> None:  # fmt: skip
    """Minor or missing as without one; a leaf that the kernel installs keeps the protection."""
    guest = make_guest(wp=True, populated=populated, **modes)
    guest.protect(0, 16)
    assert guest.space.fault(0, guest.at(5), write=write) is outcome
    msg = guest.uffd.read()
    assert (None if msg is None else msg.flags) == flags
    assert (guest.map(), guest.protected()) == (expected, "w" * 16)


def test_the_sigbus_feature_and_the_async_one(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, minor=False, features=UffdFeature.SIGBUS)
    guest.protect(0, 16)
    assert guest.space.fault(0, guest.at(1), write=True) is FaultOutcome.SIGBUS
    with refused(errno.EFAULT):
        guest.advise(0, 1, MADV_POPULATE_WRITE)
    guest = make_guest(wp=True, features=UffdFeature.WP_ASYNC)
    guest.continue_(0, 1)
    guest.continue_(1, 1)
    guest.protect(0, 16)
    assert guest.space.fault(0, guest.at(0), write=True) is FaultOutcome.MAPPED
    assert guest.protected() == "." + "w" * 15  # of this leaf alone
    assert guest.uffd.read() is None


def test_populate_would_wait_for_the_reader(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.protect(0, 16)
    with pytest.raises(WouldSleepError, match="write-protect"):
        guest.advise(0, 1, MADV_POPULATE_WRITE)


@pytest.mark.parametrize("count", [4, 16])
def test_collapse_drops_markers_and_protection_under_a_table(guest: Guest, count: int) -> None:
    """The result is writable (SEMANTICS 2.1)."""
    guest.continue_(0, 1)
    guest.protect(0, 16)
    guest.advise(0, count, MADV_COLLAPSE)
    assert guest.protected() == "." * count + "w" * (16 - count)
    assert guest.space.is_writable(guest.at(3))
    guest.space.validate()


def test_collapse_skips_a_marker_and_a_protected_leaf_of_its_size(guest: Guest) -> None:
    guest.protect(0, 16)
    guest.advise(0, 16, MADV_COLLAPSE)
    assert guest.map() == "w" * 16
    guest.continue_(0, 16, wp=True)
    guest.advise(0, 16, MADV_COLLAPSE)
    assert guest.protected() == "w" * 16


def test_unregistering_takes_the_protection_away(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.protect(0, 32)
    guest.uffd.unregister(guest.base, guest.length)
    assert (guest.map(), guest.protected()) == ("t" + "." * 15, "." * 16)
    guest.space.validate()


def test_registering_again_without_it_leaves_leaves_that_a_write_makes_writable(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.protect(0, 16)
    guest.uffd.unregister(guest.at(16), 16 * 4096)
    guest.space.vmas.vmas[0].watch(guest.uffd, minor=True)  # what UFFDIO_REGISTER with fewer modes does
    assert guest.space.fault(0, guest.at(0), write=True) is FaultOutcome.MAPPED
    assert guest.space.is_writable(guest.at(0))


@pytest.mark.parametrize(
    ("offset", "length", "modes", "number"),
    [
        (0, 4096, {"wp": True}, errno.EINVAL),  # hugepages only
        (4096, 65536, {"wp": True}, errno.EINVAL),
        (0, 0, {"wp": True}, errno.EINVAL),
        (1, 65536, {"wp": True}, errno.EINVAL),
        (0, 65536, {"minor": True}, errno.ENOENT),  # not registered for it
        (1 << 31, 65536, {"wp": True}, errno.ENOENT),  # no VMA
    ],
)
def test_writeprotect_refuses(
    make_guest: MakeGuest, offset: int, length: int, modes: dict[str, bool], number: int
) -> None:
    guest = make_guest(**{"minor": False, **modes})
    with refused(number):
        guest.uffd.writeprotect(guest.base + offset, length, True)
    assert guest.protected() == "." * 16


def test_protecting_without_a_wake_is_einval(guest: Guest) -> None:
    with refused(errno.EINVAL):
        guest.uffd.writeprotect(guest.base, 65536, True, dontwake=True)


def test_vmas_before_one_that_fails_stay_protected(make_guest: MakeGuest) -> None:
    guest = make_guest(minor=False)
    guest.uffd.register(guest.base, 65536, wp=True)
    with refused(errno.ENOENT):
        guest.protect(0, 32)
    assert guest.protected() == "w" * 16


def test_wp_replaces_no_larger_registration(make_guest: MakeGuest) -> None:
    guest = make_guest(minor=True, wp=True)
    guest.uffd.register(guest.base, guest.length, wp=True)
    vma = guest.space.vmas.vmas[0]
    assert (vma.minor, vma.wp) == (True, True)


@pytest.mark.parametrize("hstate", [Level.PMD, Level.PUD])
def test_other_hugepage_sizes_and_geometries(make_guest: MakeGuest, hstate: Level) -> None:
    guest = make_guest(TINY_CONT, hstate, 4, wp=True)
    guest.continue_(0, 2)
    guest.protect(0, 4 if hstate == Level.PMD else 16)
    assert guest.map()[:4] == "ccww"
    guest.continue_(3, 1)
    assert guest.map()[:4] == "ccwt"
    guest.space.validate()


def test_without_split_the_whole_hugepage_is_protected(make_guest: MakeGuest) -> None:
    guest = make_guest(X86_64, Level.PMD, 2, split=False, wp=True)
    guest.uffd.continue_(guest.base, 1 << 21)
    guest.protect(0, 1024)
    assert guest.space.fault(0, guest.at(7), write=True) is FaultOutcome.WAITING
    guest.uffd.continue_(guest.at(512), 1 << 21)
    assert guest.space.is_writable(guest.at(512))
    guest.space.validate()
