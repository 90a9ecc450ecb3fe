"""Page faults: what a fault on a hugetlb mapping does, and what it leaves for userspace to answer.

What this models
    hugetlb_fault and hugetlb_no_page under HGM.

Rules
    1. A fault walks to the first entry that is not a table and installs a leaf at that level; it never allocates lower
       tables, except around a bad base page (SEMANTICS 3.4). Only CONTINUE makes fine mappings (SEMANTICS 3.1).
    2. In the page cache and registered MINOR: minor event. Not in it and registered MISSING: missing event
       (SEMANTICS 3.2).
    3. A poison entry, a poisoned folio or a bad base page: SIGBUS with BUS_MCEERR_AR. A migration entry: wait until it
       has gone, then try again (SEMANTICS 3.4, 3.8).
    4. A marker that the kernel resolves by itself becomes a protected leaf; a write then meets the protection, which is
       a write-protect event (SEMANTICS 3.2).
    5. No reference left on the head page: SIGBUS (SEMANTICS 3.2).

Simplified
    Nothing runs in between, so the rechecks under PTL (SEMANTICS 3.3) never see a change.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from migemu.mm.entries import LEAF, MIGRATION, WP, WP_MARKER, is_wp, kind_of
from migemu.mm.hugetlb_file import CACHED
from migemu.mm.memory_failure import largest_healthy
from migemu.mm.uffd_msg import UffdMsg, UffdPagefault
from migemu.mm.vma import Vma


class FaultOutcome(Enum):
    """What became of an access: it may proceed, the vCPU sleeps, it is killed by a signal, or it must try again."""

    MAPPED = "mapped"
    WAITING = "waiting"
    SIGBUS = "SIGBUS"
    SIGBUS_MCEERR = "BUS_MCEERR_AR"
    SIGSEGV = "SIGSEGV"
    RETRY = "retry"  # it met a migration entry and waited until that had gone


class Handling(Enum):
    """What hugetlb_fault leaves to be done."""

    DONE = "done"  # the access may proceed
    MINOR = "minor"  # userfaultfd must answer: bytes are there, the entry is not
    MISSING = "missing"  # userfaultfd must answer: no bytes
    WP = "write-protect"  # userfaultfd must answer: a write to a protected leaf
    HWPOISON = "hwpoison"  # SIGBUS, BUS_MCEERR_AR
    SIGBUS = "sigbus"  # no reference left (SEMANTICS 3.2)
    MIGRATION = "migration"  # wait for it


#: The faults that userfaultfd must answer.
USERFAULTS: Final = (Handling.MINOR, Handling.MISSING, Handling.WP)

_REASON: Final = {
    Handling.MINOR: UffdPagefault.MINOR, Handling.MISSING: UffdPagefault.NONE, Handling.WP: UffdPagefault.WP,
}  # fmt: skip
_FLAGS: Final = {
    (handling, write): reason | (UffdPagefault.WRITE if write else UffdPagefault.NONE)
    for handling, reason in _REASON.items()
    for write in (False, True)
}


def hugetlb_fault(vma: Vma, addr: int, write: bool) -> Handling:
    """Handle a fault at `addr`: install a leaf where the walk ends, or say who must (SEMANTICS 3.1, 3.2)."""
    page = vma.page(addr)
    entry = vma.mapping.table.walk_end(page)[1]
    if entry <= WP_MARKER:
        handling = _no_page(vma, addr)
        if handling is not Handling.DONE:
            return handling
        entry = vma.mapping.table.walk_end(page)[1]
    if entry >= LEAF:
        if not (write and entry & WP):
            return Handling.DONE
        if vma.wp and not vma.wp_async:
            return Handling.WP
        vma.mapping.table.unprotect(page)
        return Handling.DONE
    return Handling.MIGRATION if kind_of(entry) == MIGRATION else Handling.HWPOISON


def _no_page(vma: Vma, addr: int) -> Handling:
    """hugetlb_no_page: the entry is blank."""
    table, file = vma.mapping.table, vma.mapping.file
    page, hugepage = vma.page(addr), vma.hugepage(addr)
    if not file.healthy(page, 1) or (hugepage in file.bad and not vma.mapping.shared):
        return Handling.HWPOISON  # SEMANTICS 3.4
    if not file.folios[hugepage] & CACHED:
        if vma.missing:
            return Handling.MISSING
    elif vma.minor:
        return Handling.MINOR
    if file.refs[hugepage] >= file.refs_max:
        return Handling.SIGBUS
    file.populate(hugepage, hugepage + 1)  # if it was not there: a fresh hugepage of zeros
    level, entry = table.walk_end(page)
    if hugepage in file.bad:
        level = largest_healthy(vma, page, level)
        page &= -vma.mapping.file.geometry.pages(level)
    table.install(page, level, LEAF | WP if is_wp(entry) else LEAF)
    return Handling.DONE


def handle_userfault(vma: Vma, vcpu: int, addr: int, write: bool, handling: Handling) -> FaultOutcome:
    """Put `vcpu` asleep with a message queued, or SIGBUS if the feature of that name was asked for (SEMANTICS 1.4)."""
    uffd = vma.uffd
    assert uffd is not None  # only a registered VMA hands a fault to userspace
    if uffd.sigbus:
        return FaultOutcome.SIGBUS
    msg = _pagefault(handling, vma, addr, write, uffd.exact_address, vcpu if uffd.thread_id else 0)
    uffd.waiters.sleep(vcpu, addr, msg)
    return FaultOutcome.WAITING


def _pagefault(handling: Handling, vma: Vma, addr: int, write: bool, exact: bool, ptid: int) -> UffdMsg:
    """The message of a fault at `addr`, with the address as the kernel reports it (SEMANTICS 1.1)."""
    if not exact:
        geometry = vma.mapping.file.geometry
        small = vma.hgm and handling is Handling.MINOR
        addr &= -(geometry.page_bytes if small else vma.hugepage_bytes)
    return UffdMsg(addr, _FLAGS[handling, write], ptid)
