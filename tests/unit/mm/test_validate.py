"""validate() finds each kind of damage, and names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from migemu.mm import Level, ValidationError
from migemu.mm.entries import CONT, LEAF, MIGRATION, POISON, TABLE, WP, WP_MARKER
from migemu.mm.hugetlb_file import CACHED, HWPOISON, ISOLATED, UNMAPPED
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest

Damage = Callable[[Any, Guest], None]


def count(table: Any, guest: Guest) -> None:
    table.leaves[0] += 1


def fill(table: Any, guest: Guest) -> None:
    table.pte_fill[0] -= 1


def pmd_fill(table: Any, guest: Guest) -> None:
    table.pmd_fill[0] += 1


def refs(table: Any, guest: Guest) -> None:
    guest.file.refs[0] = 0


def slot(table: Any, guest: Guest) -> None:
    table.ptes[0] = bytearray()


def kind(table: Any, guest: Guest) -> None:
    table.pmds[0][3] = 77


def table_in_table(table: Any, guest: Guest) -> None:
    table.ptes[0][3] = 2


def width(table: Any, guest: Guest) -> None:
    table.ptes[0] = table.access[0] = bytearray(table.ptes[0][:3])


def cache(table: Any, guest: Guest) -> None:
    guest.file.folios[0] = 0


def access(table: Any, guest: Guest) -> None:
    table.access[1] = bytes((LEAF,)) * 4


def access_wp(table: Any, guest: Guest) -> None:
    guest.continue_(4, 4, wp=True)
    table.access[1] = bytes((LEAF,)) * 4


def access_copy(table: Any, guest: Guest) -> None:
    table.access[0] = bytearray(table.ptes[0])


def shared_row(table: Any, guest: Guest) -> None:
    table.ptes[0] = table.access[0] = bytes(table.ptes[0])


def tables(table: Any, guest: Guest) -> None:
    table.tables += 1


def tables_max(table: Any, guest: Guest) -> None:
    table.tables_max = 1


def vma(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].end -= 4096


def empty_vma(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].end = guest.base


def overlap(table: Any, guest: Guest) -> None:
    vmas = guest.space.vmas
    vmas.insert(replace(vmas.vmas[0], start=guest.at(16)))


def pud(table: Any, guest: Guest) -> None:
    table.puds[1] = TABLE


def modes(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].uffd = None


def reverse_map(table: Any, guest: Guest) -> None:
    guest.file.i_mmap.clear()


def waiter(table: Any, guest: Guest) -> None:
    guest.space.fault(0, guest.at(9), write=False)
    guest.space.vmas.vmas[0].watch(None)


def twice(table: Any, guest: Guest) -> None:
    guest.space.fault(0, guest.at(9), write=False)
    guest.space.uffds.append(guest.uffd)


def permission(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].hgm = False


def protection(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].watch(None)
    table.pmds[0][2] = WP_MARKER


def protected_leaf(table: Any, guest: Guest) -> None:
    guest.space.vmas.vmas[0].watch(None)
    table.ptes[0][1] = LEAF | WP


def migration(table: Any, guest: Guest) -> None:
    table.pmds[0][2] = MIGRATION


def not_isolated(table: Any, guest: Guest) -> None:
    guest.file.folios[1] = CACHED | UNMAPPED


def poison(table: Any, guest: Guest) -> None:
    table.ptes[0][0] = POISON


def mapped_poison(table: Any, guest: Guest) -> None:
    guest.file.folios[0] |= HWPOISON


def mapped_bad_page(table: Any, guest: Guest) -> None:
    guest.file.folios[0] |= HWPOISON
    guest.file.bad[0] = {1}


def unmarked_bad_page(table: Any, guest: Guest) -> None:
    guest.file.bad[1] = {17}


def contiguous(table: Any, guest: Guest) -> None:
    table.ptes[0][2:4] = bytes((LEAF | CONT,)) * 2


def contiguous_pud(table: Any, guest: Guest) -> None:
    table.puds[1] = LEAF | CONT


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (count, "counts: 1 leaves"),
        (fill, "counts: (leaves of PTE table 0|0 leaves)"),
        (pmd_fill, "counts: leaves of PMD table 0"),
        (refs, "counts: references of hugepage 0"),
        (slot, "I1: PMD 0"),
        (kind, "I1: PMD table 0"),
        (table_in_table, "I1: an entry of PTE table 0"),
        (width, "I1: PTE table 0 has 3 entries"),
        (cache, "I3: hugepage 0"),
        (access, "counts: access to PMD 1"),
        (access_wp, "counts: access to PMD 1"),
        (access_copy, "counts: access to PMD 0 is of another table"),
        (shared_row, "counts: PTE table 0 is shared"),
        (tables, "counts: 2 tables"),
        (tables_max, "counts: 2 tables are too many"),
        (vma, "VMAs"),
        (empty_vma, "VMAs: .*empty"),
        (overlap, "VMAs: .*overlaps"),
        (pud, "I1: PUD 1 is 2"),
        (modes, "VMAs: .*modes"),
        (twice, "waiters: vCPU 0 waits twice"),
        (reverse_map, "VMAs: .*reverse map"),
        (waiter, "waiters"),
        (permission, "I1: .*small leaves without MADV_SPLIT"),
        (protection, "protection: hugepage 0"),
        (protected_leaf, "protection: hugepage 0"),
        (migration, "migration: entries of hugepage 0"),
        (not_isolated, "migration: hugepage 1 is not isolated"),
        (poison, "poison: entries below hugepage 0"),
        (mapped_poison, "I1: hugepage 0 is poisoned and still mapped"),
        (mapped_bad_page, "poison: bad page 1 is mapped"),
        (unmarked_bad_page, "poison: hugepage 1 is not marked"),
        (contiguous, "I1: PTE table 0 has contiguous entries"),
        (contiguous_pud, "I1: PUD 1 has the contiguous bit"),
    ],
)
def test_validate_names_what_is_broken(make_guest: MakeGuest, damage: Damage, named: str) -> None:
    guest = make_guest(wp=True)
    guest.continue_(1, 1)
    guest.space.validate()
    damage(guest.space.vmas.vmas[0].mapping.table, guest)
    with pytest.raises(ValidationError, match=f"^{named}"):
        guest.space.validate()


@pytest.mark.parametrize(("level", "first"), [("PTE", 0), ("PMD", 8)])
def test_a_torn_group_is_found(make_guest: MakeGuest, level: str, first: int) -> None:
    guest = make_guest(TINY_CONT)
    guest.continue_(0, 2)
    guest.continue_(8, 8)
    guest.space.validate()
    table = guest.space.vmas.vmas[0].mapping.table
    if level == "PTE":
        table.ptes[0][1] ^= WP
    else:
        table.pmds[0][3] = LEAF
    with pytest.raises(ValidationError, match=f"^I1: {level} table 0 has a contiguous group at entry {first >> 2}"):
        guest.space.validate()


def test_a_leaf_larger_than_the_hugepage_is_found(make_guest: MakeGuest) -> None:
    guest = make_guest(hstate=Level.PMD, hugepages=4)
    table = guest.space.vmas.vmas[0].mapping.table
    table.puds[0], table.pmds[0] = LEAF, bytearray()
    table.access[:] = [bytes((LEAF,)) * 4] * 4
    table.leaves[Level.PUD] = 1
    with pytest.raises(ValidationError, match=r"^I1: a leaf larger than the hugepage"):
        guest.space.validate()


def test_a_hugepage_that_is_isolated_and_being_migrated_is_sound(make_guest: MakeGuest) -> None:
    guest = make_guest()
    guest.continue_(0, 3)
    guest.file.try_to_migrate(0)
    assert guest.file.folios[0] == CACHED | ISOLATED | UNMAPPED
    guest.space.validate()


def test_the_windows_show_what_matters(make_guest: MakeGuest) -> None:
    """repr is for people who debug."""
    guest = make_guest()
    guest.space.fault(0, guest.at(1), write=False)
    assert "v2, 1 VMAs" in repr(guest.space)
    assert "1 asleep" in repr(guest.uffd)
    assert "1 not read, 0 events" in repr(guest.uffd.waiters)
    assert "2/2 cached" in repr(guest.file)
    assert repr(guest.space.vmas) == "<VmaTree of 1>"
