"""fork(): what a child's address space has of its parent's hugetlb mappings.

What this models
    dup_mmap for hugetlb VMAs: dup_userfaultfd, vma_needs_copy and copy_hugetlb_page_range.

Rules
    1. Page tables of shared mappings are copied only where the child's VMA is registered for write-protect, because the
       protection is in the entries; elsewhere the child faults everything in again (SEMANTICS 1.8).
    2. A child's VMA stays with a userfaultfd only if the parent's asked for UFFD_FEATURE_EVENT_FORK; then the child has
       a userfaultfd of its own, which the parent's reader gets with the event.
    3. The permission of MADV_SPLIT is a flag of the VMA and is inherited (SEMANTICS 1.8).
    4. Each copied leaf takes a reference on its head page (SEMANTICS 1.3, 1.8).

Simplified
    Private mappings are in the child without entries; copy-on-write is not modelled.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

from migemu.mm.hugepage_entries import copy_entries
from migemu.mm.page_table import PageTable
from migemu.mm.uffd_msg import OnWake, UffdContext, UffdEvent, UffdFeature
from migemu.mm.userfaultfd import Userfaultfd
from migemu.mm.vma import Mapping, Vma, VmaTree


def dup_mmap(parent: Iterable[Vma], child: VmaTree, on_wake: OnWake | None) -> list[Userfaultfd]:
    """Put copies of the parent's VMAs into `child`; the userfaultfds that the child has then.

    OSError ENOMEM: no reference left for a copied leaf; `child` must be thrown away then.
    """
    mappings: dict[int, Mapping] = {}
    uffds: dict[int, Userfaultfd] = {}
    notified: list[tuple[UffdContext, UffdContext]] = []
    for vma in parent:
        if id(vma.mapping) not in mappings:
            mappings[id(vma.mapping)] = _empty(vma.mapping)
        mapping = mappings[id(vma.mapping)]
        copy = replace(vma, mapping=mapping)
        copy.watch(None)
        if vma.uffd is not None and vma.uffd.features & UffdFeature.EVENT_FORK:
            uffd = uffds.get(id(vma.uffd))
            if uffd is None:
                uffd = uffds[id(vma.uffd)] = Userfaultfd(mapping.file.geometry, child, vma.uffd.features, on_wake)
                notified.append((vma.uffd, uffd))
            copy.watch(uffd, vma.missing, vma.minor, vma.wp)
        child.insert(copy)
        if copy.wp and mapping.shared:
            copy_page_range(copy, vma)
    for ours, theirs in notified:
        ours.waiters.tell(UffdEvent.FORK, uffd=theirs)
    return list(uffds.values())


def copy_page_range(vma: Vma, source: Vma) -> None:
    """Copy the entries of `source` to `vma`, its copy in the child. OSError ENOMEM as `dup_mmap`."""
    file, table = vma.mapping.file, source.mapping.table
    for hugepage in range(vma.hugepage(vma.start), vma.hugepage(vma.end)):
        if file.refs[hugepage] + table.leaves_of(hugepage) > file.refs_max:
            raise OSError(errno.ENOMEM, f"fork: the reference count of hugepage {hugepage} would overflow")
        copy_entries(vma.mapping.table, table, hugepage)


def _empty(mapping: Mapping) -> Mapping:
    """The same mapping with nothing in its page table."""
    table = mapping.table
    fresh = PageTable(table.geometry, table.hstate, table.hugepages, table.refs, table.tables_max)
    return replace(mapping, table=fresh)
