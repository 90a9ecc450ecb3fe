"""fork: what the child has of the parent's mappings (4, "fork")."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import MADV_COLLAPSE, MADV_HWPOISON, FaultOutcome, Level, UffdEvent, UffdFeature
from tests.unit.mm.guest import Guest, MakeGuest, refused

FORK = UffdFeature.EVENT_FORK


@pytest.mark.parametrize(
    ("modes", "features", "copied", "watched"),
    [
        ({"wp": True, "minor": True}, FORK, True, True),
        ({"wp": True, "minor": False}, FORK, True, True),
        ({"wp": True, "minor": True}, 0, False, False),  # without the event the child is not watched at all
        ({"minor": True}, FORK, False, True),  # no protection in the entries: the child faults them in again
        ({"minor": False}, FORK, False, False),
    ],
)
def test_tables_are_copied_only_for_write_protection(
    make_guest: MakeGuest, modes: dict[str, bool], features: int, copied: bool, watched: bool
) -> None:
    guest = make_guest(features=features, **modes)
    if any(modes.values()):
        guest.continue_(0, 4)
        guest.continue_(5, 1)
    child = guest.space.fork()
    assert guest.map(child) == ("MMMM.t.........." if copied else "." * 16)
    assert child.page_table_bytes(guest.base) == (2 * 4096 if copied else 0)
    vma = child.vmas.vmas[0]
    assert (vma.uffd is not None) == watched == (guest.uffd.read() is not None)
    assert (vma.hgm, vma.minor, vma.wp) == (True, watched and modes["minor"], watched and modes.get("wp", False))
    assert guest.file.refs[0] == (2 * (1 + copied) if any(modes.values()) else 0)
    guest.space.validate()
    child.validate()


def test_the_copy_is_the_childs_own(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK)
    guest.continue_(0, 1)
    guest.protect(0, 16)
    child = guest.space.fork()
    theirs = guest.uffd.read().uffd
    theirs.continue_(guest.at(1), 4096)
    guest.protect(0, 16, on=False)
    guest.continue_(2, 1)
    assert (guest.map(), guest.protected()) == ("t.t.............", "." * 16)
    assert (guest.map(child), guest.protected(child)) == ("tt" + "w" * 14, "w." + "w" * 14)
    child.madvise(guest.base, 65536, MADV_COLLAPSE)
    assert guest.map() == "t.t............."
    assert guest.file.refs == [3, 0]
    guest.space.validate()
    child.validate()


@pytest.mark.parametrize("hstate", [Level.PMD, Level.PUD])
def test_only_the_vmas_that_are_protected(make_guest: MakeGuest, hstate: Level) -> None:
    guest = make_guest(hstate=hstate, hugepages=2, minor=False, features=FORK)
    half = guest.length // 2
    guest.uffd.register(guest.base, half, minor=True)
    guest.uffd.register(guest.base + half, half, minor=True, wp=True)
    for addr in (guest.base, guest.base + half):
        guest.uffd.continue_(addr, 4096)
    child = guest.space.fork()
    assert not child.is_mapped(guest.base)
    assert child.is_mapped(guest.base + half)
    child.validate()
    assert guest.file.refs == [1, 2]


def test_every_userfaultfd_with_the_event_has_a_child(make_guest: MakeGuest) -> None:
    guest = make_guest(minor=False, features=FORK)
    other = guest.space.userfaultfd(FORK)
    guest.uffd.register(guest.base, 65536, minor=True)
    other.register(guest.at(16), 65536, minor=True)
    child = guest.space.fork()
    events = guest.uffd.read(), other.read()
    assert [event.event for event in events] == [UffdEvent.FORK] * 2
    assert [vma.uffd for vma in child.vmas.vmas] == [event.uffd for event in events] == child.uffds
    assert guest.uffd.read() is None


def test_the_child_has_listeners_and_vcpus_of_its_own(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK)
    guest.space.fault(0, guest.at(1), write=False)
    woken: list[int] = []
    child = guest.space.fork(on_wake=lambda vcpu, _: woken.append(vcpu))
    guest.uffd.read()
    theirs = guest.uffd.read().uffd
    assert child.fault(0, guest.at(1), write=False) is FaultOutcome.WAITING
    assert theirs.read().address == guest.at(1)
    theirs.continue_(guest.at(1), 4096)
    assert (woken, guest.woken) == ([0], [])


def test_poison_and_migration_reach_the_child(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK, hwpoison="page")
    guest.continue_(0, 16)
    child = guest.space.fork()
    guest.file.try_to_migrate(0)
    assert guest.map(child) == "m" * 16
    grandchild = child.fork()
    guest.file.remove_migration_ptes(0)
    assert guest.map(child) == "U" * 16 == guest.map(grandchild)
    guest.advise(5, 1, 100)
    assert guest.map(child) == "MMMMtPttMMMMMMMM" == guest.map(grandchild)
    for space in (guest.space, child, grandchild):
        space.validate()


def test_a_child_that_exits_gives_its_references_back(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK)
    guest.continue_(0, 5)
    guest.space.fork().exit()
    assert guest.file.refs == [2, 0]
    guest.space.validate()


def test_no_reference_left_is_enomem_and_no_child(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK)
    guest.continue_(0, 5)
    guest.continue_(16, 5)
    guest.file.refs_max = 3
    with refused(errno.ENOMEM):
        guest.space.fork()
    assert guest.file.refs == [2, 2]
    assert guest.uffd.read() is None
    guest.space.validate()


def test_a_child_that_got_half_of_it_gives_that_back(make_guest: MakeGuest) -> None:
    """The first hugepage is copied, the second has no reference left."""
    guest = make_guest(wp=True, features=FORK)
    guest.continue_(0, 1)
    guest.continue_(16, 5)
    guest.file.refs_max = 2
    with refused(errno.ENOMEM):
        guest.space.fork()
    assert guest.file.refs == [1, 2]
    assert len(guest.file.i_mmap) == 1, "nobody but the parent maps the file"
    guest.space.validate()


@pytest.mark.parametrize("page", [0, 15, 16, 31])
def test_a_bad_page_under_a_leaf_that_could_not_be_split_is_so_in_the_child(make_guest: MakeGuest, page: int) -> None:
    """The first and the last page of each hugepage."""
    guest = make_guest(wp=True, features=FORK, hwpoison="page", tables_max=1)
    guest.continue_(page & ~15, 16)
    guest.advise(page, 1, MADV_HWPOISON)
    child = guest.space.fork()
    for space in (guest.space, child):
        assert space.is_mapped(guest.at(page))
        space.validate()


def test_the_childs_mmap_and_munmap_are_its_own(make_guest: MakeGuest) -> None:
    guest = make_guest(wp=True, features=FORK)
    guest.continue_(0, 5)
    child = guest.space.fork()
    child.munmap(guest.base, 65536)
    assert guest.map() == "MMMMt..........."
    assert child.mmap_hugetlb(65536, Level.PUD) == guest.space.mmap_hugetlb(65536, Level.PUD)


def test_a_forked_guest(guest: Guest) -> None:
    """Options are inherited."""
    child = guest.space.fork()
    assert (child.hgm, child.hwpoison, child.mapcount_scheme) == ("v2", "hugepage", "thp_like")
