"""The invariants of SEMANTICS 8.1, checked over a whole address space by counting everything again.

What this models
    What must hold between two system calls. The page table keeps running counts so that nobody has to scan; here they
    are compared with a scan.

Numbering
    I1, I2 and I3 as in SEMANTICS 8.1. I5 is user space's business, I4 and I6 to I11 are about transitions
    and are tested as such. "counts", "VMAs", "waiters", "poison", "migration" and "protection" are our own.
"""

from __future__ import annotations

from collections.abc import Iterable

from migemu.mm.contiguous import torn_group
from migemu.mm.entries import CONT, ENTRIES, LEAF, MIGRATION, POISON, TABLE, WP, Table, is_wp, kind_of
from migemu.mm.errnos import ValidationError
from migemu.mm.hugetlb_file import CACHED, HWPOISON, ISOLATED, UNMAPPED, HugetlbFile
from migemu.mm.page_table import CONT_PMD, CONT_PTE, PUD, PageTable
from migemu.mm.uffd_msg import UffdContext
from migemu.mm.vma import Vma, VmaTree

_MAPS = bytes(entry if entry >= LEAF else 0 for entry in range(256))


def check_space(vmas: VmaTree, uffds: Iterable[UffdContext]) -> None:
    """ValidationError naming the first invariant that does not hold."""
    previous = None
    tables: dict[int, PageTable] = {}
    for vma in vmas.vmas:
        if vma.start >= vma.end:
            raise ValidationError(f"VMAs: {vma} is empty")
        if (vma.start | vma.end) % vma.hugepage_bytes:
            raise ValidationError(f"VMAs: {vma} does not hold whole hugepages")
        if previous is not None and previous.end > vma.start:
            raise ValidationError(f"VMAs: {previous} overlaps {vma}")
        if (vma.uffd is not None) != (vma.missing or vma.minor or vma.wp):
            raise ValidationError(f"VMAs: {vma} has modes but no userfaultfd")
        if not any(each is vma for each in vma.mapping.file.i_mmap):
            raise ValidationError(f"VMAs: {vma} is not in the reverse map")
        tables[id(vma.mapping.table)] = vma.mapping.table
        previous = vma
    for table in tables.values():
        check_table(table)
    for vma in vmas.vmas:
        _check_entries(vma)
    for file in {id(vma.mapping.file): vma.mapping.file for vma in vmas.vmas}.values():
        _check_file(file)
    _check_waiters(vmas, uffds)


def _check_file(file: HugetlbFile) -> None:
    """I3 and the references of each hugepage, over every address space that maps the file."""
    leaves = [0] * file.hugepages
    for vma in file.i_mmap:
        for hugepage in range(vma.hugepage(vma.start), vma.hugepage(vma.end)):
            leaves[hugepage] += vma.table.leaves_of(hugepage)
    for hugepage, folio in enumerate(file.folios):
        count = leaves[hugepage]
        if count != file.refs[hugepage]:
            raise ValidationError(f"counts: references of hugepage {hugepage}, which has {count} leaves")
        if count and not folio & CACHED:
            raise ValidationError(f"I3: hugepage {hugepage} is mapped but not in the page cache")
        if count and folio & HWPOISON and hugepage not in file.bad:
            raise ValidationError(f"I1: hugepage {hugepage} is poisoned and still mapped")
        if folio & UNMAPPED and not folio & ISOLATED:
            raise ValidationError(f"migration: hugepage {hugepage} is not isolated")
    for hugepage, bad in file.bad.items():
        if not bad or not file.folios[hugepage] & HWPOISON:
            raise ValidationError(f"poison: hugepage {hugepage} is not marked bad")


def check_table(table: PageTable) -> None:
    """I1 and the running counts of one page table."""
    tables = 0
    counts = table.count_leaves(0, table.geometry.pages(PUD) * len(table.puds))
    group, pmd_group = table.geometry.pages(CONT_PTE), table.geometry.pages(CONT_PMD) >> table.pmd_shift
    for pud, entry in enumerate(table.puds):
        pmds = table.pmds[pud]
        if (entry == TABLE) != bool(pmds):
            raise ValidationError(f"I1: PUD {pud} is {entry} and its table has {len(pmds)} entries")
        if entry & CONT:
            raise ValidationError(f"I1: PUD {pud} has the contiguous bit")
        _check_row(pmds, pmd_group, f"PMD table {pud}")
        if table.pmd_fill[pud] != _leaves(pmds, pmd_group):
            raise ValidationError(f"counts: leaves of PMD table {pud}")
        tables += table.hstate == PUD and entry == TABLE
        for slot in range(table.pmd_width):
            pmd = pud * table.pmd_width + slot
            below = table.ptes[pmd]
            if (bool(pmds) and pmds[slot] == TABLE) != bool(below):
                raise ValidationError(f"I1: PMD {pmd} and its table of {len(below)} entries disagree")
            if below:
                if len(below) != table.pte_width:
                    raise ValidationError(f"I1: PTE table {pmd} has {len(below)} entries")
                if TABLE in below:
                    raise ValidationError(f"I1: an entry of PTE table {pmd} is a table")
                _check_row(below, group, f"PTE table {pmd}")
                if isinstance(below, bytes) and below.count(below[0]) != len(below):
                    raise ValidationError(f"counts: PTE table {pmd} is shared but not all alike")
                if table.access[pmd] is not below:
                    raise ValidationError(f"counts: access to PMD {pmd} is of another table")
                tables += 1
            else:
                seen = bytes((pmds[slot] if pmds else entry,)) * table.pte_width
                if table.access[pmd].translate(_MAPS) != seen.translate(_MAPS):
                    raise ValidationError(f"counts: access to PMD {pmd}")
            if table.pte_fill[pmd] != _leaves(below, group):
                raise ValidationError(f"counts: leaves of PTE table {pmd}")
    _check_row(table.puds, 0, "PUDs")
    if tables != table.tables:
        raise ValidationError(f"counts: {tables} tables, not {table.tables}")
    if table.tables_max is not None and tables > table.tables_max:
        raise ValidationError(f"counts: {tables} tables are too many")
    for level, count in enumerate(counts):
        if count != table.leaves[level]:
            raise ValidationError(f"counts: {count} leaves at level {level}, not {table.leaves[level]}")
    if counts[PUD] and table.hstate != PUD:
        raise ValidationError("I1: a leaf larger than the hugepage")


def _check_row(row: Table, group: int, where: str) -> None:
    strangers = row.translate(None, ENTRIES)
    if strangers:
        raise ValidationError(f"I1: {where} holds entries that are nothing: {bytes(strangers[:8])!r}")
    if not group:
        if any(entry & CONT for entry in set(row)):
            raise ValidationError(f"I1: {where} has contiguous entries, which do not exist")
    elif (torn := torn_group(row, group)) is not None:
        raise ValidationError(f"I1: {where} has a contiguous group at entry {torn} that is not all alike")


def _leaves(row: Table, group: int) -> int:
    """Leaves of a row, counted one by one."""
    plain = sum(row.count(entry) for entry in (LEAF, LEAF | WP))
    return plain + (row.count(LEAF | CONT) + row.count(LEAF | CONT | WP)) // (group or 1)


def _check_entries(vma: Vma) -> None:
    """What the entries of each hugepage may be, given the VMA and the folio."""
    table, file = vma.mapping.table, vma.mapping.file
    for hugepage in range(vma.hugepage(vma.start), vma.hugepage(vma.end)):
        top = table.hugepage_entry(hugepage)
        entries = {top} if top != TABLE else _entries_below(table, hugepage)
        kinds = {kind_of(entry) for entry in entries}
        folio = file.folios[hugepage]
        # Without MADV_SPLIT a hugepage is mapped as one (SEMANTICS 1.1).
        if top == TABLE and LEAF in kinds and not vma.hgm:
            raise ValidationError(f"I1: {vma} has small leaves without MADV_SPLIT")
        if vma.uffd is None and any(is_wp(entry) for entry in entries):
            raise ValidationError(f"protection: hugepage {hugepage}, and nobody watches it")
        if MIGRATION in kinds and not folio & UNMAPPED:
            raise ValidationError(f"migration: entries of hugepage {hugepage}")
        if top == TABLE and POISON in kinds and not folio & HWPOISON:
            raise ValidationError(f"poison: entries below hugepage {hugepage}, which is not bad")
        for page in file.bad.get(hugepage, ()):
            if table.walk_end(page)[1] >= LEAF and page not in table.unsplit:
                raise ValidationError(f"poison: bad page {page} is mapped")


def _entries_below(table: PageTable, hugepage: int) -> set[int]:
    """Every entry in the tables of a hugepage."""
    first, end = hugepage << table.hstate_shift, (hugepage + 1) << table.hstate_shift
    pmd, until = first >> table.pmd_shift, end >> table.pmd_shift
    entries = set(table.pmds[first >> table.pud_shift]) if table.hstate == PUD else set()
    return entries.union(*table.ptes[pmd:until]) - {TABLE}


def _check_waiters(vmas: VmaTree, uffds: Iterable[UffdContext]) -> None:
    seen: set[int] = set()
    for uffd in uffds:
        for waiter in uffd.waiters:
            if waiter.vcpu in seen:
                raise ValidationError(f"waiters: vCPU {waiter.vcpu} waits twice")
            seen.add(waiter.vcpu)
            vma = vmas.find(waiter.addr)  # None after munmap, which wakes nobody
            if vma is not None and vma.uffd is not uffd:
                raise ValidationError(f"waiters: {waiter} waits where nobody watches")
