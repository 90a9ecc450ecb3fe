"""Every entry of a hugepage at once: rewritten by a rule, or copied to another page table.

What this models
    The loops of the kernel that walk all of a hugepage and change each entry at its own level, whatever that is: zap,
    write protection, migration, poison (`entries` has their rules), and the copying of fork.

Rules
    1. No entry is split, no table is allocated or freed (SEMANTICS 3.3).
    2. Each leaf that comes or goes takes or drops a reference on the head page (SEMANTICS 1.3).
"""

from __future__ import annotations

from migemu.mm.entries import TABLE, Table, rewritten, uniform_table
from migemu.mm.page_table import NO_TABLE, PMD, PTE, PUD, PageTable


def rewrite_entries(table: PageTable, hugepage: int, mapping: bytes) -> None:
    """Put `mapping[entry]` in place of every entry of `hugepage`; the tables stay."""
    first, end = hugepage << table.hstate_shift, (hugepage + 1) << table.hstate_shift
    pud, pmd, count = first >> table.pud_shift, first >> table.pmd_shift, (end - first) >> table.pmd_shift
    before = table.count_leaves(first, end)
    slot = pmd & table.pmd_mask
    if pmds := table.pmds[pud]:
        entries: Table = pmds[slot : slot + count].translate(mapping)
        pmds[slot : slot + count] = entries
        table.pmd_fill[pud] = table.leaves_in(PMD, pmds)
    else:
        table.puds[pud] = mapping[table.puds[pud]]
        entries = uniform_table(table.puds[pud], count)
    for at, entry in enumerate(entries, pmd):
        if below := table.ptes[at]:
            table.ptes[at] = table.access[at] = below = rewritten(below, mapping)
            table.pte_fill[at] = table.leaves_in(PTE, below)
        else:
            table.access[at] = uniform_table(entry, table.pte_width)
    table.account(before, hugepage, -1)
    table.account(table.count_leaves(first, end), hugepage, +1)


def copy_entries(table: PageTable, source: PageTable, hugepage: int) -> None:
    """Make the entries of `hugepage` in `table`, where there are none yet, those of `source`, in tables of its own."""
    first, end = hugepage << table.hstate_shift, (hugepage + 1) << table.hstate_shift
    pud, pmd, until = first >> table.pud_shift, first >> table.pmd_shift, end >> table.pmd_shift
    for at in range(pmd, until):
        row = source.ptes[at]
        table.ptes[at] = bytearray(row) if row and isinstance(row, bytearray) else row
        table.access[at] = table.ptes[at] or source.access[at]
    table.pte_fill[pmd:until] = source.pte_fill[pmd:until]
    table.tables += until - pmd - table.ptes[pmd:until].count(NO_TABLE)
    if table.hstate == PUD:
        table.puds[pud] = source.puds[pud]
        table.pmds[pud] = bytearray(source.pmds[pud]) or NO_TABLE
        table.pmd_fill[pud] = source.pmd_fill[pud]
        table.tables += table.puds[pud] == TABLE
    else:
        table.pmds[pud][pmd & table.pmd_mask] = source.pmds[pud][pmd & table.pmd_mask]
        table.pmd_fill[pud] = table.leaves_in(PMD, table.pmds[pud])
    table.unsplit.update(page for page in source.unsplit if first <= page < end)
    table.account(table.count_leaves(first, end), hugepage, +1)
