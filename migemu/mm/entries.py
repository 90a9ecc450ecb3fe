"""One entry of a page table: what it can be, and how one kind becomes another.

What this models
    The software view of an entry: empty, uffd-wp marker, pointer to a table, migration entry, poison entry, leaf. An
    entry is one byte here: a kind, and two flags.

Rules
    1. A slot is one of these kinds at a time (SEMANTICS I1).
    2. Blank entries are empty or a uffd-wp marker; only they are ever split (SEMANTICS 3.3).
    3. A contiguous entry is always a leaf, or what became of one, and all entries of its group are alike
       (SEMANTICS 3.7).

Words
    wp      write-protected for userfaultfd: a leaf that may be read, or a migration entry that will be such a leaf
    cont    the contiguous bit of arm64: this entry is one of a group that maps memory as one leaf
    blank   empty or marker

Sources
    What zapping, protecting and migrating make of each kind is __unmap_hugepage_range, hugetlb_change_protection and
    try_to_migrate_one of Linux 6.6 (mm/hugetlb.c, mm/rmap.c): SEMANTICS 1.6, 1.7, 3.8.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Final, NamedTuple

from migemu.mm.pages import Level


class EntryKind(IntEnum):
    """What an entry is. Values up to WP_MARKER are blank, values from LEAF on map memory."""

    NONE = 0
    WP_MARKER = 1
    TABLE = 2
    MIGRATION = 3
    POISON = 4
    LEAF = 0x80


class Entry(NamedTuple):
    """Where a walk ends: the level of the entry and its kind."""

    level: Level
    kind: EntryKind


# The hot paths compare plain ints; an attribute of an Enum class costs as much as the comparison.
NONE: Final = int(EntryKind.NONE)
WP_MARKER: Final = int(EntryKind.WP_MARKER)
TABLE: Final = int(EntryKind.TABLE)
MIGRATION: Final = int(EntryKind.MIGRATION)
POISON: Final = int(EntryKind.POISON)
LEAF: Final = int(EntryKind.LEAF)

#: Flags of leaf and migration entries; poison entries have CONT alone.
WP: Final = 0x10
CONT: Final = 0x20
_FLAGS: Final = (0, WP, CONT, WP | CONT)

#: Every byte that is an entry.
ENTRIES: Final = bytes(
    (NONE, WP_MARKER, TABLE, POISON, POISON | CONT, *(kind | flags for kind in (MIGRATION, LEAF) for flags in _FLAGS))
)
BLANK: Final = bytes((NONE, WP_MARKER))

#: A row of entries. `bytes` are all alike and shared, see `uniform_table`; a bytearray is anything.
Table = bytes | bytearray


@cache
def uniform_table(entry: int, width: int) -> bytes:
    """The shared row of `width` entries that are all `entry`."""
    return bytes((entry,)) * width


def compact(row: Table) -> Table:
    """`row`, or the shared row like it when its entries are all alike."""
    return uniform_table(row[0], len(row)) if row.count(row[0]) == len(row) else row


def rewritten(row: Table, mapping: bytes) -> Table:
    """`row` with `mapping[entry]` in place of each entry, shared if all are alike then."""
    if isinstance(row, bytes):
        return uniform_table(mapping[row[0]], len(row))
    return compact(row.translate(mapping))


def kind_of(entry: int) -> EntryKind:
    """The kind, without the flags."""
    return EntryKind(entry & ~(WP | CONT))


def is_wp(entry: int) -> bool:
    """Whether the entry is a uffd-wp marker or carries the uffd-wp bit."""
    return entry == WP_MARKER or bool(entry & WP)


def _mapping(becomes: Callable[[int], int]) -> bytes:
    """A translation: tables stay, every other entry is what `becomes` says."""
    return bytes(becomes(entry) if entry in ENTRIES and entry != TABLE else entry for entry in range(256))


def _protected(entry: int) -> int:
    if entry == NONE:
        return WP_MARKER
    return entry | WP if kind_of(entry) in (LEAF, MIGRATION) else entry


#: What becomes of every entry of a hugepage ...
ZAPPED: Final = _mapping(lambda entry: WP_MARKER if is_wp(entry) else NONE)  # ... by MADV_DONTNEED: protection stays
CLEARED: Final = _mapping(lambda _: NONE)  # ... by munmap
PROTECTED: Final = _mapping(_protected)  # ... by UFFDIO_WRITEPROTECT
UNPROTECTED: Final = _mapping(lambda entry: NONE if entry == WP_MARKER else entry & ~WP)  # ... and without its mode
MIGRATING: Final = _mapping(lambda entry: entry ^ LEAF | MIGRATION if entry & LEAF else entry)  # ... by try_to_migrate
MIGRATED: Final = _mapping(lambda entry: entry & ~MIGRATION | LEAF if kind_of(entry) == MIGRATION else entry)
POISONED: Final = _mapping(lambda entry: entry & CONT | POISON if entry & LEAF else entry)  # ... by memory_failure
