"""Page faults: what a fault on a hugetlb mapping does, and the vCPUs that sleep until userspace has answered.

What this models
    hugetlb_fault under HGM, and the two queues of a userfaultfd: faults not read yet, and faults read and not woken.

Rules (sections of kernel-semantics)
    1. A fault walks to the first entry that is not a table and installs a leaf at that level; it never allocates lower
       tables. Only CONTINUE makes fine mappings (3.1).
    2. In the page cache and registered MINOR: minor event. Not in it and registered MISSING: missing event (3.2).
    3. Every fault queues a message of its own, also when another thread waits at the same address.
    4. A waiter is matched by the address reported in its message (1.3); a message that was not read before its waiter
       was woken is never read.

Words
    waiter  a vCPU asleep in a fault; its message carries the reported address, it knows the exact one

Simplified
    Nothing runs in between, so the rechecks under PTL (3.3) never see a change. Waiters of one range are woken by
    address, then in the order in which they fell asleep; the kernel promises no order.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, IntFlag
from typing import Final, NamedTuple

from migemu.mm.hugetlb_file import CACHED, HWPOISON
from migemu.mm.page_table import LEAF, POISON
from migemu.mm.vma import Vma


class FaultOutcome(Enum):
    """What became of an access: it may proceed, the vCPU sleeps, or it is killed by a signal."""

    MAPPED = "mapped"
    WAITING = "waiting"
    SIGBUS = "sigbus"
    SIGSEGV = "sigsegv"


class Handling(Enum):
    """What hugetlb_fault leaves to be done."""

    DONE = "done"  # a leaf is there now
    MINOR = "minor"  # userfaultfd must answer: bytes are there, the entry is not
    MISSING = "missing"  # userfaultfd must answer: no bytes
    HWPOISON = "hwpoison"  # SIGBUS, BUS_MCEERR_AR


class UffdPagefault(IntFlag):
    """UFFD_PAGEFAULT_FLAG_* of `<linux/userfaultfd.h>`."""

    NONE = 0
    WRITE = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2


class UffdMsg(NamedTuple):
    """A UFFD_EVENT_PAGEFAULT message. `ptid` is the vCPU with UFFD_FEATURE_THREAD_ID, else 0."""

    address: int
    flags: UffdPagefault
    ptid: int


class Waiter(NamedTuple):
    """A vCPU asleep in a fault at `addr`; `serial` orders the waiters of one userfaultfd by age."""

    msg: UffdMsg
    serial: int
    vcpu: int
    addr: int


_FLAGS: Final = {
    (handling, write): (UffdPagefault.MINOR if handling is Handling.MINOR else UffdPagefault.NONE)
    | (UffdPagefault.WRITE if write else UffdPagefault.NONE)
    for handling in (Handling.MINOR, Handling.MISSING)
    for write in (False, True)
}


def hugetlb_fault(vma: Vma, addr: int) -> Handling:
    """Handle a fault at `addr`: install a leaf at the level where the walk ends, or say who must (3.1, 3.2)."""
    table, file = vma.mapping.table, vma.mapping.file
    page = vma.page(addr)
    level, kind = table.walk_end(page)
    if kind >= LEAF:
        return Handling.DONE
    hugepage = vma.hugepage(addr)
    folio = file.folios[hugepage]
    if kind == POISON or folio & HWPOISON:  # 3.4
        return Handling.HWPOISON
    if not folio & CACHED:
        if vma.missing:
            return Handling.MISSING
        file.populate(hugepage, hugepage + 1)  # a fresh hugepage of zeros
    elif vma.minor:
        return Handling.MINOR
    table.install(page, level)
    return Handling.DONE


class WaitQueue:
    """The waiters of one userfaultfd."""

    __slots__ = ("_asleep", "_at", "_serial", "_unread")

    def __init__(self) -> None:
        self._asleep: dict[int, Waiter] = {}  # by vCPU
        self._unread: dict[int, Waiter] = {}  # by serial, oldest first
        self._at: dict[int, list[Waiter]] = {}  # by reported address
        self._serial = 0

    def sleep(self, vcpu: int, addr: int, msg: UffdMsg) -> None:
        """Put `vcpu` asleep and queue its message."""
        waiter = Waiter(msg, self._serial, vcpu, addr)
        self._serial += 1
        self._asleep[vcpu] = self._unread[waiter.serial] = waiter
        self._at.setdefault(msg.address, []).append(waiter)

    def read(self) -> UffdMsg | None:
        """The oldest message that nobody has read, or None."""
        for serial, waiter in self._unread.items():
            del self._unread[serial]
            return waiter.msg
        return None

    def addresses(self, start: int, end: int) -> list[int]:
        """The reported addresses in `[start, end)` at which somebody waits, lowest first."""
        return sorted(address for address in self._at if start <= address < end)

    def take(self, addresses: list[int]) -> list[Waiter]:
        """Remove and return those who wait at `addresses`."""
        woken = []
        for address in addresses:
            for waiter in self._at.pop(address):
                del self._asleep[waiter.vcpu]
                self._unread.pop(waiter.serial, None)
                woken.append(waiter)
        return woken

    def __contains__(self, vcpu: int) -> bool:
        return vcpu in self._asleep

    def __len__(self) -> int:
        return len(self._asleep)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._asleep.values())

    def __repr__(self) -> str:
        return f"<WaitQueue of {len(self._asleep)}, {len(self._unread)} not read>"


def pagefault(handling: Handling, vma: Vma, addr: int, write: bool, exact: bool, ptid: int) -> UffdMsg:
    """The message of a fault at `addr`, with the address as the kernel reports it (1.1).

    Exact with UFFD_FEATURE_EXACT_ADDRESS; else rounded to 4K for a minor fault on a VMA with HGM, to the hugepage
    otherwise.
    """
    if not exact:
        geometry = vma.mapping.file.geometry
        small = vma.hgm and handling is Handling.MINOR
        addr &= -(geometry.page_bytes if small else vma.hugepage_bytes)
    return UffdMsg(addr, _FLAGS[handling, write], ptid)
