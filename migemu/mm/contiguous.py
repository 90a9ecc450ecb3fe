"""Contiguous groups: rows of entries that map memory as one leaf, 64K of PTEs and 32M of PMDs on arm64.

What this models
    CONT_PTE and CONT_PMD as SEMANTICS 3.7 and 1.3 need them: sizes between the levels of the table, made of entries of
    the level below with the contiguous bit.

Rules
    1. Contiguous entries are always leaves (SEMANTICS 3.7), or the migration and poison entries that leaves have
       become. All entries of such a group are alike, and the group counts as one leaf and holds one reference.
    2. A walk that targets a group starts at its first entry (SEMANTICS 3.7).
    3. A group behaves as a table of its own: alike and blank is blank, the contiguous bit is one leaf, anything else is
       a table. This is our reading; no version of HGM could install contiguous entries (SEMANTICS 3.7).
    4. A walk that targets no level knows a contiguous size by the bit alone, so an empty entry is one of the plain
       level: faults install plain entries (SEMANTICS 3.1, 3.7).
"""

from __future__ import annotations

from typing import Final

from migemu.mm.entries import BLANK, CONT, LEAF, TABLE, WP, Table
from migemu.mm.pages import Level

#: The contiguous level made of entries of a plain level.
WITH_CONT: Final = {Level.PTE: Level.CONT_PTE, Level.PMD: Level.CONT_PMD}
CONTIGUOUS: Final = tuple(WITH_CONT.values())


def group_entry(row: Table, at: int, width: int) -> int:
    """The group of `width` entries around `row[at]` as one entry, without the contiguous bit."""
    first = at & -width
    group = row[first : first + width]
    entry = group[0]
    if entry & CONT:
        return entry & ~CONT
    return entry if entry in BLANK and group.count(entry) == width else TABLE


def count_groups(row: Table, width: int) -> int:
    """How many leaves the contiguous entries of `row` are."""
    return (row.count(LEAF | CONT) + row.count(LEAF | CONT | WP)) // width


def torn_group(row: Table, width: int) -> int | None:
    """The first entry of a group that has the contiguous bit and is not all alike, or None if every group is sound."""
    for first in range(0, len(row), width):
        group = row[first : first + width]
        if group.count(group[0]) != width and any(entry & CONT for entry in group):
            return first
    return None
