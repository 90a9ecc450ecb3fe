"""Migration entries: what a folio looks like while it is being moved (SEMANTICS 2.1 step 3, 3.8)."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HWPOISON,
    MADV_POPULATE_WRITE,
    FaultOutcome,
    Level,
    WouldSleepError,
)
from migemu.mm.hugetlb_file import CACHED, HWPOISON, ISOLATED
from migemu.mm.memory_failure import memory_failure
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest, refused


@pytest.fixture
def guest() -> Guest:
    guest = Guest(wp=True)
    guest.continue_(0, 4)
    guest.continue_(5, 2)
    return guest


def test_every_leaf_becomes_an_entry_of_its_level_and_back(guest: Guest) -> None:
    """The map is the same afterwards: a wrong size in a restored entry would show (4, migration.c)."""
    alias = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file)
    guest.space.fault(0, alias, write=True)
    was = guest.space.leaves(guest.base), guest.file.refs[:]
    guest.file.try_to_migrate(0)
    assert guest.map() == "mmmm.mm........."
    assert guest.space.walk(guest.at(0)).level == Level.PMD
    assert guest.space.walk(alias) == (Level.PUD, 3)
    assert guest.file.refs == [0, 0]
    guest.space.validate()
    guest.file.remove_migration_ptes(0)
    assert guest.map() == "MMMM.tt........."
    assert (guest.space.leaves(guest.base), guest.file.refs) == was
    guest.space.validate()


def test_protection_survives(guest: Guest) -> None:
    guest.protect(0, 16)
    guest.file.try_to_migrate(0)
    assert guest.protected() == "w" * 16
    guest.protect(0, 16, on=False)
    guest.protect(0, 16)
    guest.file.remove_migration_ptes(0)
    assert (guest.map(), guest.protected()) == ("MMMMwttwwwwwwwww", "w" * 16)
    guest.space.validate()


def test_an_access_waits_and_tries_again(guest: Guest) -> None:
    guest.file.try_to_migrate(0)
    for write in (False, True):
        assert guest.space.fault(0, guest.at(1), write) is FaultOutcome.RETRY
    assert not guest.space.is_mapped(guest.at(1))
    for advice in (MADV_POPULATE_WRITE, MADV_HWPOISON):
        with pytest.raises(WouldSleepError, match="migrated"):
            guest.advise(0, 1, advice)
    assert guest.uffd.read() is None
    guest.file.remove_migration_ptes(0)
    assert guest.space.fault(0, guest.at(1), write=True) is FaultOutcome.MAPPED


def test_continue_is_eexist_and_collapse_ebusy(guest: Guest) -> None:
    guest.file.try_to_migrate(0)
    for first, count in ((0, 4), (1, 1), (5, 1)):
        with pytest.raises(FileExistsError):
            guest.continue_(first, count)
    with refused(errno.EBUSY):
        guest.advise(0, 16, MADV_COLLAPSE)
    with refused(errno.EEXIST):
        guest.advise(0, 2, MADV_COLLAPSE)  # the entry is above the wanted level
    guest.advise(0, 4, MADV_COLLAPSE)  # not present: skipped
    assert guest.continue_(8, 4) == 4  # a hole is filled as ever


def test_dontneed_drops_the_entries_and_keeps_their_protection(guest: Guest) -> None:
    guest.protect(0, 16)
    guest.continue_(8, 4)
    guest.file.try_to_migrate(0)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.map() == "wwwwwwww....wwww"
    guest.file.remove_migration_ptes(0)
    assert guest.file.refs == [0, 0]
    guest.space.validate()


def test_contiguous_entries(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY_CONT)
    guest.continue_(0, 10)
    guest.file.try_to_migrate(0)
    assert guest.space.walk(guest.at(5)) == (Level.CONT_PMD, 3)
    assert guest.space.walk(guest.at(9)) == (Level.CONT_PTE, 3)
    guest.file.remove_migration_ptes(0)
    assert guest.map() == "CCCCCCCCcc......"
    guest.space.validate()


def test_isolation_by_itself(guest: Guest) -> None:
    guest.file.isolate(0)
    assert guest.map() == "MMMM.tt........."
    guest.file.try_to_migrate(0)
    with pytest.raises(ValueError, match="migration entries"):
        guest.file.putback(0)
    with pytest.raises(ValueError, match="already"):
        guest.file.try_to_migrate(0)
    with pytest.raises(ValueError, match="being migrated"):
        guest.file.poison(0)
    with pytest.raises(ValueError, match="being migrated"):
        memory_failure(guest.file, 0)
    guest.file.remove_migration_ptes(0)
    guest.advise(0, 16, MADV_COLLAPSE)
    assert guest.map() == "U" * 16


@pytest.mark.parametrize("call", ["putback", "remove_migration_ptes"])
def test_nothing_to_undo(guest: Guest, call: str) -> None:
    with pytest.raises(ValueError, match="hugepage 1"):
        getattr(guest.file, call)(1)


def test_what_cannot_be_isolated(make_guest: MakeGuest) -> None:
    guest = make_guest(populated=False)
    with pytest.raises(ValueError, match="cannot be isolated"):
        guest.file.try_to_migrate(0)
    guest.space.populate(guest.base, 1)
    guest.file.poison(0)
    with pytest.raises(ValueError, match="cannot be isolated"):
        guest.file.isolate(0)


def test_poisoning_waits_when_a_hole_was_faulted_in_meanwhile(make_guest: MakeGuest) -> None:
    for unit in ("hugepage", "page"):
        guest = make_guest(minor=False, hwpoison=unit)
        guest.file.try_to_migrate(0)
        with pytest.raises(WouldSleepError, match="migrated"):
            guest.advise(3, 1, MADV_HWPOISON)


def test_a_folio_that_turns_bad_while_isolated_is_still_isolated_and_cached(guest: Guest) -> None:
    """The bit of the poison is one more: migration puts the folio back, and nobody reads a fresh zero page."""
    guest.file.isolate(0)
    guest.file.poison(0)
    assert guest.file.folios[0] == CACHED | HWPOISON | ISOLATED
    guest.file.putback(0)
    assert guest.file.folios[0] == CACHED | HWPOISON
    assert guest.space.fault(0, guest.at(3), write=False) is FaultOutcome.SIGBUS_MCEERR
    guest.space.validate()
