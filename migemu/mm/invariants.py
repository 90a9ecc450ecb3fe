"""The invariants of section 8, checked over a whole address space by counting everything again.

What this models
    What must hold between two system calls. The page table keeps running counts so that nobody has to scan; here they
    are compared with a scan.

Numbering
    I1, I2 and I3 as in section 8 of kernel-semantics. I5 is userspace's business, I4 and I6-I11 are about transitions
    and are tested as such. "counts", "VMAs" and "waiters" are our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from migemu.mm.errnos import ValidationError
from migemu.mm.hugetlb_file import CACHED, HWPOISON, HugetlbFile
from migemu.mm.page_table import LEAF, PMD, PTE, PUD, TABLE, EntryKind, PageTable
from migemu.mm.vma import Vma, VmaTree

if TYPE_CHECKING:
    from migemu.mm.userfaultfd import Userfaultfd

_KINDS = bytes(EntryKind)
_MAPS = bytes(kind >= LEAF for kind in range(256))


def check_space(vmas: VmaTree, uffds: Iterable[Userfaultfd]) -> None:
    """ValidationError naming the first invariant that does not hold."""
    previous = None
    tables: dict[int, PageTable] = {}
    for vma in vmas.vmas:
        _require(vma.start < vma.end, f"VMAs: {vma} is empty")
        _require(not (vma.start | vma.end) % vma.hugepage_bytes, f"VMAs: {vma} does not hold whole hugepages (1.1)")
        _require(previous is None or previous.end <= vma.start, f"VMAs: {previous} overlaps {vma}")
        _require((vma.uffd is None) == (not (vma.missing or vma.minor)), f"VMAs: {vma} has modes but no userfaultfd")
        _check_permission(vma)
        tables[id(vma.mapping.table)] = vma.mapping.table
        previous = vma
    for table in tables.values():
        check_table(table)
    for file in {id(vma.mapping.file): vma.mapping.file for vma in vmas.vmas}.values():
        _check_file(file)
    _check_waiters(vmas, uffds)


def _check_file(file: HugetlbFile) -> None:
    """I3 and the references of each hugepage."""
    for hugepage, folio in enumerate(file.folios):
        leaves = sum(table.leaves_of(hugepage) for table in file.tables if hugepage < table.hugepages)
        _require(leaves == file.refs[hugepage], f"counts: references of hugepage {hugepage}, which has {leaves} leaves")
        _require(not leaves or bool(folio & CACHED), f"I3: hugepage {hugepage} is mapped but not in the page cache")
        _require(not (leaves and folio & HWPOISON), f"I1: hugepage {hugepage} is poisoned and still mapped (3.4)")


def check_table(table: PageTable) -> None:
    """I1 and the running counts of one page table."""
    tables = 0
    leaves = {PTE: 0, PMD: 0, PUD: table.puds.count(LEAF)}
    for pud, kind in enumerate(table.puds):
        pmds = table.pmds[pud]
        _require((kind == TABLE) == bool(pmds), f"I1: PUD {pud} is {kind} and its table has {len(pmds)} entries")
        _require(table.pmd_fill[pud] == pmds.count(LEAF), f"counts: leaves of PMD table {pud}")
        _check_kinds(pmds, f"PMD table {pud}")
        leaves[PMD] += pmds.count(LEAF)
        tables += table.hstate == PUD and kind == TABLE
        for slot in range(table.pmd_width):
            pmd = pud * table.pmd_width + slot
            below = table.ptes[pmd]
            is_table = bool(pmds) and pmds[slot] == TABLE
            _require(is_table == bool(below), f"I1: PMD {pmd} and its table of {len(below)} entries disagree")
            if below:
                _require(len(below) == table.pte_width, f"I1: PTE table {pmd} has {len(below)} entries")
                _require(TABLE not in below, f"I1: an entry of PTE table {pmd} is a table")
                _check_kinds(below, f"PTE table {pmd}")
                tables += 1
            above = pmds[slot] if pmds else kind
            seen = below or bytes((above,)) * table.pte_width
            _require(table.access[pmd].translate(_MAPS) == seen.translate(_MAPS), f"counts: access to PMD {pmd}")
            _require(not below or table.access[pmd] is below, f"counts: access to PMD {pmd} is of another table")
            filled = below.count(LEAF)
            _require(table.pte_fill[pmd] == filled, f"counts: leaves of PTE table {pmd}")
            leaves[PTE] += filled
    _check_kinds(table.puds, "PUDs")
    _require(tables == table.tables, f"counts: {tables} tables, not {table.tables}")
    for level, count in leaves.items():
        _require(count == table.leaves[level], f"counts: {count} leaves at {level!r}, not {table.leaves[level]}")
    _require(table.hstate == PUD or not leaves[PUD], "I1: a leaf larger than the hugepage")


def _check_kinds(entries: bytes | bytearray, where: str) -> None:
    strangers = entries.translate(None, _KINDS)
    _require(not strangers, f"I1: {where} holds entries that are nothing: {bytes(strangers[:8])!r}")


def _check_permission(vma: Vma) -> None:
    """Without MADV_SPLIT a hugepage is mapped as one (1.1)."""
    if vma.hgm:
        return
    table = vma.mapping.table
    counts = table.count_leaves(vma.page(vma.start), vma.page(vma.end))
    small = [level for level, count in enumerate(counts) if count and level < table.hstate]
    _require(not small, f"I1: {vma} has small leaves without MADV_SPLIT (1.1)")


def _check_waiters(vmas: VmaTree, uffds: Iterable[Userfaultfd]) -> None:
    seen: set[int] = set()
    for uffd in uffds:
        for waiter in uffd.waiters:
            _require(waiter.vcpu not in seen, f"waiters: vCPU {waiter.vcpu} waits twice")
            seen.add(waiter.vcpu)
            vma = vmas.find(waiter.addr)
            _require(vma is not None and vma.uffd is uffd, f"waiters: {waiter} waits where nobody watches")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValidationError(otherwise)
