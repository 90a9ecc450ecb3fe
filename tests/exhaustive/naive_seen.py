"""What can be seen of the naive model: by whoever looks at the pages, and, whole, by an explorer."""

from __future__ import annotations

from migemu.mm import Level
from tests.exhaustive.naive_mm import NaiveMm, NaiveVma
from tests.exhaustive.naive_table import CONT

Seen = tuple[list[tuple[Level, str, bool, bool, int]], list[object], list[object]]
_COUNTS_AT = {Level.CONT_PTE: Level.PTE, Level.CONT_PMD: Level.PMD}


def key(mm: NaiveMm) -> tuple[object, ...]:
    """The whole state of `mm` and of its files."""
    vmas = [(vma.first, vma.end, vma.modes, vma.uffd is None) for vma in mm.vmas]
    tables = {id(vma.table): vma.table for vma in mm.vmas}.values()
    files = {id(vma.file): vma.file for vma in mm.vmas}.values()
    in_uffds = [
        (tuple((each.vcpu, each.page, each.msg, each.unread) for each in uffd.waiters), tuple(uffd.events))
        for uffd in mm.uffds
    ]
    in_tables = [(*map(frozenset, (t.entries.items(), t.wp, t.tables, t.hgm)),) for t in tables]
    in_files = [(*map(frozenset, (file.cached, file.isolated, file.unmapped, file.bad)),) for file in files]
    return *vmas, *in_uffds, *in_tables, *in_files


def observe(mm: NaiveMm, pages: list[int]) -> Seen:
    """Each of `pages`; then by VMA: leaves by level, tables, references, poisoned base pages; and smaps."""
    mappings: list[object] = []
    for vma in mm.vmas:
        leaves = dict.fromkeys(mm.geometry.levels, 0)
        for slot in vma.table.leaves():
            leaves[slot.level] += 1
        refs = [vma.file.refs(hugepage) for hugepage in range(vma.file.hugepages)]
        mappings.append((leaves, len(vma.table.tables), refs, len(vma.file.bad)))
    return [observe_page(mm, page) for page in pages], mappings, [smaps(mm, vma) for vma in mm.vmas]


def observe_page(mm: NaiveMm, page: int) -> tuple[Level, str, bool, bool, int]:
    """Where a walk ends, whether an access needs no fault, pagemap's bit 57, and the mapcount."""
    vma = mm.here(page)
    slot = vma.table.walk(page)
    kind = vma.table.kind(slot)
    protected = kind == "wp_marker" or slot in vma.table.wp
    return slot.level, kind, kind == "leaf", protected, vma.file.mapcount(page - vma.table.first, mm.scheme)


def smaps(mm: NaiveMm, vma: NaiveVma) -> dict[str, int]:
    """3.5, in kB. Contiguous sizes count at their level."""
    kib = mm.geometry.page_bytes // 1024
    fields = {f"Hugetlb{level.name.title()}Mapped": 0 for level in mm.geometry.levels if level not in CONT}
    for slot in vma.table.leaves():
        if vma.first <= slot.first < vma.end:
            level = _COUNTS_AT.get(slot.level, slot.level)
            fields[f"Hugetlb{level.name.title()}Mapped"] += vma.table.size(slot.level) * kib
    return fields | dict.fromkeys(("KernelPageSize", "MMUPageSize"), vma.size * kib)
