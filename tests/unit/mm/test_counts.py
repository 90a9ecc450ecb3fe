"""Mapcount schemes, references and their overflow, smaps of contiguous sizes (SEMANTICS 1.3, 3.5)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from migemu.mm import (
    ARM64_4K,
    MADV_COLLAPSE,
    MADV_POPULATE_WRITE,
    X86_64,
    AddressSpace,
    FaultOutcome,
    Level,
    PartialError,
)
from tests.unit.mm.guest import Guest, MakeGuest, refused


@pytest.mark.parametrize(
    ("hgm", "scheme", "small", "mixed", "whole", "twice"),
    [
        # 512 x 4K in a 2M page; half of it; one leaf; one leaf in two mappings
        ("v2", None, 1, (1, 0), 1, 2),
        ("v1", None, 512, (256, 256), 1, 2),
        ("v2", "head_only", 512, (256, 256), 1, 2),
        ("v2", "thp_like", 1, (1, 0), 1, 2),
        ("v2", "hstate", 1, (1, 1), 1, 2),
    ],
)
def test_the_schemes(
    make_guest: MakeGuest, hgm: str, scheme: str | None, small: int, mixed: tuple[int, int], whole: int, twice: int
) -> None:
    """The table of SEMANTICS 3.5."""
    guest = make_guest(X86_64, Level.PMD, 2, hgm=hgm, mapcount=scheme)
    assert guest.space.mapcount(guest.at(0)) == 0
    guest.uffd.continue_run(guest.at(512), Level.PTE, 256)
    assert (guest.space.mapcount(guest.at(512)), guest.space.mapcount(guest.at(1000))) == mixed
    guest.uffd.continue_run(guest.at(0), Level.PTE, 512)
    assert guest.space.mapcount(guest.at(7)) == small
    guest.advise(0, 512, MADV_COLLAPSE)
    assert guest.space.mapcount(guest.at(7)) == whole
    alias = guest.space.mmap_hugetlb(guest.length, Level.PMD, file=guest.file)
    guest.space.fault(0, alias, write=False)
    assert guest.space.mapcount(guest.at(7)) == twice


@pytest.mark.parametrize("scheme", ["hstate", "head_only", "thp_like"])
def test_what_maps_nothing_does_not_count(make_guest: MakeGuest, scheme: str) -> None:
    guest = make_guest(mapcount=scheme, wp=True)
    guest.protect(0, 16)
    guest.continue_(16, 16)
    guest.file.try_to_migrate(1)
    assert (guest.space.mapcount(guest.at(0)), guest.space.mapcount(guest.at(16))) == (0, 0)


def test_options_are_checked() -> None:
    for option in ({"mapcount": "none"}, {"hwpoison": "4k"}, {"hgm": "v3"}):
        with pytest.raises(ValueError, match="is not accepted"):
            AddressSpace(X86_64, **option)  # type: ignore[arg-type]


def at_the_limit(guest: Guest, left: int) -> None:
    guest.file.refs_max = sum(guest.space.leaves(guest.base).values()) + left


def test_one_leaf_too_many(make_guest: MakeGuest) -> None:
    """CONTINUE: EFAULT. A fault: SIGBUS. What is mapped already stays, and EEXIST is told first (SEMANTICS 1.3)."""
    guest = make_guest()
    guest.continue_(0, 2)
    at_the_limit(guest, 0)
    for first, count in ((2, 1), (4, 4)):
        with refused(errno.EFAULT):
            guest.continue_(first, count)
    with refused(errno.EFAULT):
        guest.uffd.continue_run(guest.at(2), Level.PTE, 2)
    with pytest.raises(FileExistsError):
        guest.continue_(0, 1)
    assert guest.uffd.continue_run(guest.at(0), Level.PTE, 2) == (0, 2)
    guest.uffd.unregister(guest.base, guest.length)
    assert guest.space.fault(0, guest.at(3), write=False) is FaultOutcome.SIGBUS
    with refused(errno.EFAULT):
        guest.advise(3, 1, MADV_POPULATE_WRITE)
    assert guest.file.refs == [2, 0]
    guest.space.validate()


@pytest.mark.parametrize(("count", "mapped"), [(3, 2), (2, 2)])
def test_a_range_goes_as_far_as_the_count(make_guest: MakeGuest, count: int, mapped: int) -> None:
    guest = make_guest()
    at_the_limit(guest, 2)
    if count == mapped:
        assert guest.continue_(1, count) == mapped
        return
    with pytest.raises(PartialError) as caught:
        guest.continue_(1, count)
    assert (caught.value.mapped, caught.value.cause.errno) == (2 * 4096, errno.EFAULT)
    with refused(errno.EFAULT):
        guest.uffd.continue_run(guest.at(1), Level.PTE, 3)
    guest.advise(0, 16, MADV_COLLAPSE)  # many references become one
    assert guest.file.refs == [1, 0]


def test_a_run_goes_as_far_as_the_count(make_guest: MakeGuest) -> None:
    guest = make_guest()
    at_the_limit(guest, 3)
    with refused(errno.EFAULT):
        guest.uffd.continue_run(guest.at(2), Level.PTE, 6)
    assert guest.map() == "..ttt..........."


def test_a_run_at_the_limit_still_counts_what_exists(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.continue_(0, 4)
    guest.continue_(5, 2)
    at_the_limit(guest, 1)
    assert guest.uffd.continue_run(guest.at(0), Level.PTE, 7) == (1, 6)


def test_8192_mappings_of_a_1g_page_at_4k_would_overflow(make_guest: MakeGuest) -> None:
    """2^18 references each, in a count of 31 bits."""
    guest = make_guest(X86_64, hugepages=1)
    guest.uffd.continue_run(guest.base, Level.PTE, 262_144)
    assert guest.file.refs[0] * 8191 <= guest.file.refs_max < guest.file.refs[0] * 8192


@pytest.mark.parametrize(("hgm", "checked"), [("v1", False), ("v2", True)])
def test_the_check_came_with_v2(make_guest: MakeGuest, hgm: str, checked: bool) -> None:
    assert (make_guest(hgm=hgm).file.refs_max == 2**31 - 1) == checked


def test_copy_needs_a_reference_too(make_guest: MakeGuest) -> None:
    guest = make_guest(populated=False, missing=True)
    guest.file.refs_max = 0
    with refused(errno.EFAULT):
        guest.uffd.copy(guest.base, 65536)


def fields(guest: Guest) -> dict[str, Any]:
    smaps = guest.space.smaps(guest.base)
    return {name.removeprefix("Hugetlb").removesuffix("Mapped"): kb for name, kb in smaps.items() if "Mapped" in name}


def test_contiguous_sizes_count_at_their_level(make_guest: MakeGuest) -> None:
    guest = make_guest(ARM64_4K, hugepages=1)
    guest.continue_(0, 8192 + 512 + 16 + 1)  # 32M + 2M + 64K + 4K
    assert guest.space.leaves(guest.base) == dict.fromkeys(ARM64_4K.levels[:4], 1) | {Level.PUD: 0}
    assert fields(guest) == {"Pud": 0, "Pmd": 34 << 10, "Pte": 68}
    assert guest.file.refs == [4]


@pytest.mark.parametrize("call", ["mapcount", "is_uffd_wp"])
def test_outside_every_mapping_is_efault(guest: Guest, call: str) -> None:
    with refused(errno.EFAULT):
        getattr(guest.space, call)(guest.base - 4096)
    assert not guest.space.is_writable(guest.base - 4096)
