"""mmap, MADV_SPLIT, MADV_POPULATE_WRITE, MADV_HWPOISON, registration, smaps and validate."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest

from migemu.mm import (
    ARM64_4K,
    MADV_COLLAPSE,
    MADV_HWPOISON,
    MADV_POPULATE_WRITE,
    MADV_SPLIT,
    TINY,
    X86_64,
    AddressSpace,
    FaultOutcome,
    Level,
    UffdFeature,
    WouldSleepError,
)
from tests.unit.mm.guest import Guest, refused

HUGE = TINY.size(Level.PUD)


def test_mmap_rounds_up_to_hugepages_and_refuses_nothing() -> None:
    space = AddressSpace(X86_64)
    addr = space.mmap_hugetlb(1, Level.PUD)
    assert space.smaps(addr)["Size"] == 1 << 20
    with refused(errno.EINVAL):
        space.mmap_hugetlb(0)
    with refused(errno.EINVAL):
        space.mmap_hugetlb(1 << 21, Level.PMD, file=space.file(addr))
    with refused(errno.ENOMEM):
        space.mmap_hugetlb(2 << 30, file=space.file(addr))


def test_geometries_and_versions_that_are_not_modelled_are_refused() -> None:
    for hstate in (Level.CONT_PTE, Level.CONT_PMD):
        with pytest.raises(ValueError, match="not modelled"):
            AddressSpace(ARM64_4K).mmap_hugetlb(1 << 30, hstate)
    with pytest.raises(ValueError, match="not modelled"):
        AddressSpace(X86_64).mmap_hugetlb(1 << 30, Level.PTE)
    with pytest.raises(ValueError, match="v1"):
        AddressSpace(X86_64, hgm="v3")  # type: ignore[arg-type]


def test_the_alias_shares_the_page_cache_not_the_entries(guest: Guest) -> None:
    """The recipe of SEMANTICS 1.1: the alias stays hugely mapped, the primary is continued by 4K."""
    alias = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file)
    guest.space.madvise(alias, guest.length, MADV_POPULATE_WRITE)
    guest.continue_(3, 1)
    assert guest.space.leaves(alias) == {Level.PTE: 0, Level.PMD: 0, Level.PUD: 2}
    assert guest.space.leaves(guest.base) == {Level.PTE: 1, Level.PMD: 0, Level.PUD: 0}
    assert guest.file.refs == [2, 1]
    guest.file.poison(0)
    assert guest.space.fault(0, alias, write=False) is FaultOutcome.SIGBUS_MCEERR
    assert guest.file.refs == [0, 1]
    guest.space.validate()


def test_every_mapping_answers_for_itself(guest: Guest) -> None:
    """is_mapped remembers the mapping that it was asked about last."""
    other = guest.space.mmap_hugetlb(guest.length, Level.PUD)
    guest.continue_(0, 1)
    for _ in range(2):
        assert guest.space.is_mapped(guest.at(0))
        assert not guest.space.is_mapped(other)
    guest.space.fault(0, other, write=True)
    assert guest.space.is_mapped(other)


def test_split_permits_and_splits_nothing(make_guest: Guest) -> None:
    guest = make_guest(split=False)
    guest.continue_(0, 16)
    guest.advise(0, 32, MADV_SPLIT)
    assert guest.map() == "U" * 16
    assert guest.continue_(16, 1) == 1


def test_the_permission_survives_collapse(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.advise(0, 32, MADV_COLLAPSE)
    assert guest.continue_(17, 1) == 1


@pytest.mark.parametrize("hgm", ["v1", "v2"])
def test_split_of_a_private_mapping_is_einval(hgm: Any) -> None:
    space = AddressSpace(TINY, hgm=hgm)
    addr = space.mmap_hugetlb(HUGE, Level.PUD, shared=False)
    with refused(errno.EINVAL):
        space.madvise(addr, HUGE, MADV_SPLIT)


def test_split_of_a_part_splits_the_vma(make_guest: Guest) -> None:
    guest = make_guest(hugepages=3, split=False)
    guest.advise(16, 16, MADV_SPLIT)
    assert [(vma.start - guest.base) // HUGE for vma in guest.space.vmas.vmas] == [0, 1, 2]
    assert guest.continue_(17, 1) == 1
    with refused(errno.EINVAL):
        guest.continue_(1, 1)
    guest.space.validate()


@pytest.mark.parametrize(("first", "count", "vmas"), [(1, 15, 1), (16, 17, 2), (0, 1, 1)])
def test_split_inside_a_hugepage_fails_late(make_guest: Guest, first: int, count: int, vmas: int) -> None:
    """EINVAL when the VMA is to be split; a split at a good start is done by then (SEMANTICS 1.1)."""
    guest = make_guest(hugepages=3, split=False)
    with refused(errno.EINVAL):
        guest.advise(first, count, MADV_SPLIT)
    assert len(guest.space.vmas.vmas) == vmas
    with refused(errno.EINVAL):
        guest.continue_(first, 1)


def test_split_again_changes_nothing_even_inside_a_hugepage(guest: Guest) -> None:
    guest.advise(1, 1, MADV_SPLIT)
    assert len(guest.space.vmas.vmas) == 1


def test_split_over_a_hole_does_the_rest_and_says_enomem(make_guest: Guest) -> None:
    guest = make_guest(split=False)
    with refused(errno.ENOMEM):
        guest.advise(0, 48, MADV_SPLIT)
    assert guest.continue_(1, 1) == 1


@pytest.mark.parametrize(
    ("offset", "length", "advice", "number"),
    [
        (1, 4096, MADV_SPLIT, errno.EINVAL),
        (0, -1, MADV_SPLIT, errno.EINVAL),
        (0, 4096, 9999, errno.EINVAL),
        (1, 0, MADV_COLLAPSE, errno.EINVAL),
        (-(1 << 30), 4096, MADV_SPLIT, errno.ENOMEM),
        (-(1 << 30), 4096, MADV_POPULATE_WRITE, errno.ENOMEM),
        (-(1 << 30), 4096, MADV_HWPOISON, errno.EFAULT),
    ],
)
def test_madvise_refuses(guest: Guest, offset: int, length: int, advice: int, number: int) -> None:
    with refused(number):
        guest.space.madvise(guest.base + offset, length, advice)


@pytest.mark.parametrize("advice", [MADV_SPLIT, MADV_COLLAPSE, MADV_POPULATE_WRITE, MADV_HWPOISON])
def test_madvise_of_nothing_is_fine(guest: Guest, advice: int) -> None:
    guest.space.madvise(guest.base - (1 << 30), 0, advice)
    assert guest.map() == "." * 16


def test_populate_write_faults_everything_in(make_guest: Guest) -> None:
    """Each fault installs what its walk finds (SEMANTICS 3.1); hugepages of zeros enter the page cache."""
    guest = make_guest(hugepages=3, minor=False, populated=False)
    guest.advise(5, 20, MADV_POPULATE_WRITE)
    assert guest.space.leaves(guest.base)[Level.PUD] == 2
    assert bytes(guest.file.folios) == b"\1\1\0"
    guest.file.poison(0)
    with refused(133):
        guest.advise(0, 16, MADV_POPULATE_WRITE)


def test_a_madvise_that_would_wait_for_userfaultfd_says_so(make_guest: Guest) -> None:
    """There is no thread to put to sleep; with the SIGBUS feature the kernel answers EFAULT."""
    with pytest.raises(WouldSleepError, match="minor fault"):
        make_guest().advise(0, 1, MADV_POPULATE_WRITE)
    guest = make_guest(features=UffdFeature.SIGBUS)
    with refused(errno.EFAULT):
        guest.advise(0, 1, MADV_POPULATE_WRITE)


def test_hwpoison_takes_whole_hugepages_and_not_twice(make_guest: Guest) -> None:
    guest = make_guest(hugepages=3, minor=False)
    guest.advise(3, 14, MADV_HWPOISON)
    assert [bool(folio & 2) for folio in guest.file.folios] == [True, False, False]
    guest.advise(19, 14, MADV_HWPOISON)
    assert [bool(folio & 2) for folio in guest.file.folios] == [True, True, False]
    with refused(errno.EFAULT):
        guest.advise(0, 1, MADV_HWPOISON)
    guest.space.validate()


@pytest.mark.parametrize(
    ("offset", "length", "modes", "number"),
    [
        (0, HUGE, {}, errno.EINVAL),
        (0, 0, {"minor": True}, errno.EINVAL),
        (4096, HUGE, {"minor": True}, errno.EINVAL),
        (0, 4096, {"minor": True}, errno.EINVAL),
        (1, HUGE, {"minor": True}, errno.EINVAL),
        (8 * HUGE, HUGE, {"minor": True}, errno.EINVAL),
    ],
)
def test_register_refuses(make_guest: Guest, offset: int, length: int, modes: dict[str, bool], number: int) -> None:
    """Whole hugepages, also under HGM."""
    guest = make_guest(minor=False)
    with refused(number):
        guest.uffd.register(guest.base + offset, length, **modes)


def test_a_second_userfaultfd_is_ebusy(guest: Guest) -> None:
    other = guest.space.userfaultfd()
    with refused(errno.EBUSY):
        other.register(guest.base, HUGE, minor=True)


def test_register_replaces_the_modes_unless_they_are_covered(make_guest: Guest) -> None:
    guest = make_guest(minor=True, missing=True)
    guest.uffd.register(guest.base, guest.length, minor=True)
    vma = guest.space.vmas.vmas[0]
    assert (vma.minor, vma.missing) == (True, True)
    guest.uffd.unregister(guest.base, guest.length)
    guest.uffd.register(guest.base, guest.length, missing=True)
    guest.uffd.register(guest.base, guest.length, minor=True)
    assert (vma.minor, vma.missing) == (True, False)


def test_unknown_features_are_einval() -> None:
    with refused(errno.EINVAL):
        AddressSpace(TINY).userfaultfd(1 << 40)


def test_smaps_counts_by_level_in_kb(make_guest: Guest) -> None:
    guest = make_guest(X86_64, hugepages=2)
    guest.continue_(1, 1024)
    guest.continue_(512 * 512, 512 * 512)
    assert guest.space.smaps(guest.base) == {
        "Size": 2 << 20,
        "KernelPageSize": 1 << 20,
        "MMUPageSize": 1 << 20,
        "HugetlbPudMapped": 1 << 20,
        "HugetlbPmdMapped": 2 << 10,
        "HugetlbPteMapped": 512 * 4,
    }


@pytest.mark.parametrize("hstate", [Level.PMD, Level.PUD])
def test_smaps_is_of_one_vma(make_guest: Guest, hstate: Level) -> None:
    guest = make_guest(hstate=hstate, minor=False)
    guest.space.madvise(guest.base, guest.length, MADV_POPULATE_WRITE)
    guest.uffd.register(guest.base, guest.length // 2, minor=True)
    for addr in (guest.base, guest.base + guest.length // 2):
        fields = guest.space.smaps(addr)
        assert fields[f"Hugetlb{hstate.name.capitalize()}Mapped"] == fields["Size"]


@pytest.mark.parametrize("call", ["walk", "leaves", "smaps", "page_table_bytes", "file"])
def test_looking_outside_every_mapping_is_efault(guest: Guest, call: str) -> None:
    with refused(errno.EFAULT):
        getattr(guest.space, call)(guest.base - 4096)


def test_populate_outside_is_efault(guest: Guest) -> None:
    with refused(errno.EFAULT):
        guest.space.populate(guest.at(31), 4097)


def test_a_terabyte_at_4k_shares_its_full_tables(make_guest: Guest) -> None:
    """Full PTE tables are one shared object, so 1 TiB fits in a few MiB."""
    guest = make_guest(X86_64, hugepages=2)
    for pmd in range(1024):
        guest.uffd.continue_run(guest.at(pmd * 512), Level.PTE, 511)
        guest.continue_(pmd * 512 + 511, 1)
    table = guest.space.vmas.vmas[0].mapping.table
    assert len({id(each) for each in table.ptes}) == 1
    assert sum(map(sys.getsizeof, (table.ptes, table.access, table.pte_fill))) / 2 < 16 << 10


def test_the_windows_show_what_matters(guest: Guest) -> None:
    """repr is for people who debug."""
    guest.space.fault(0, guest.at(1), write=False)
    assert "v2, 1 VMAs" in repr(guest.space)
    assert "1 asleep" in repr(guest.uffd)
    assert "1 not read" in repr(guest.uffd.waiters)
    assert "2/2 cached" in repr(guest.file)
