"""What a userfaultfd tells its reader, the vCPUs that sleep until it has answered, and what of it a VMA knows.

What this models
    struct uffd_msg, the queue of page faults (not read yet, and read but not woken) and the queue of events; and struct
    userfaultfd_ctx, which holds them: it is what a VMA points to. The ioctls are in `userfaultfd`.

Rules
    1. Every fault queues a message of its own, also when another thread waits at the same address (SEMANTICS 1.4).
    2. A waiter is matched by the address reported in its message (SEMANTICS 1.3, 1.4); a message that was not read
       before its waiter was woken is never read.
    3. Page faults are read before events (SEMANTICS 1.4), so a fault can be read before the remove event that
       it follows: the hazard of every handler that serves events one by one.
    4. The reported address: exact with UFFD_FEATURE_EXACT_ADDRESS; else 4K for a minor fault on a VMA with HGM, the
       hugepage otherwise (SEMANTICS 1.1).

Words
    waiter  a vCPU asleep in a fault; its message carries the reported address, it knows the exact one
    event   a change of the mappings that the reader asked to hear of

Simplified
    Who makes an event goes on at once; in the kernel it sleeps until the event is read. Waiters of one range are woken
    by address, then in the order in which they fell asleep; the kernel promises no order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

#: Called for every waiter woken: (vcpu, the exact address it faulted at). It may fault again at once.
OnWake = Callable[[int, int], None]


class UffdFeature(IntFlag):
    """UFFD_FEATURE_* of `<linux/userfaultfd.h>`. Those not named in this package are accepted and change nothing."""

    PAGEFAULT_FLAG_WP = 1 << 0
    EVENT_FORK = 1 << 1
    EVENT_REMAP = 1 << 2
    EVENT_REMOVE = 1 << 3
    MISSING_HUGETLBFS = 1 << 4
    MISSING_SHMEM = 1 << 5
    EVENT_UNMAP = 1 << 6
    SIGBUS = 1 << 7
    THREAD_ID = 1 << 8
    MINOR_HUGETLBFS = 1 << 9
    MINOR_SHMEM = 1 << 10
    EXACT_ADDRESS = 1 << 11
    WP_HUGETLBFS_SHMEM = 1 << 12
    WP_UNPOPULATED = 1 << 13
    POISON = 1 << 14
    WP_ASYNC = 1 << 15


class UffdEvent(IntEnum):
    """UFFD_EVENT_* of `<linux/userfaultfd.h>`."""

    PAGEFAULT = 0x12
    FORK = 0x13
    REMOVE = 0x15
    UNMAP = 0x16


class UffdPagefault(IntFlag):
    """UFFD_PAGEFAULT_FLAG_* of `<linux/userfaultfd.h>`."""

    NONE = 0
    WRITE = 1 << 0
    WP = 1 << 1
    MINOR = 1 << 2


class UffdMsg(NamedTuple):
    """A message. `ptid` is the vCPU of a page fault with UFFD_FEATURE_THREAD_ID, else 0.

    REMOVE and UNMAP are about bytes `[address, end)`; FORK brings the child's userfaultfd.
    """

    address: int
    flags: UffdPagefault
    ptid: int
    event: UffdEvent = UffdEvent.PAGEFAULT
    end: int = 0
    uffd: UffdContext | None = None


class Waiter(NamedTuple):
    """A vCPU asleep in a fault at `addr`; `serial` orders the waiters of one userfaultfd by age."""

    msg: UffdMsg
    serial: int
    vcpu: int
    addr: int


class WaitQueue:
    """The waiters of one userfaultfd, and the events nobody has read."""

    __slots__ = ("_asleep", "_at", "_order", "_serial", "_unread", "events")

    def __init__(self) -> None:
        self._asleep: dict[int, Waiter] = {}  # by vCPU
        self._unread: dict[int, Waiter] = {}  # by serial, oldest first
        self._at: dict[int, list[Waiter]] = {}  # by reported address
        self._order: list[int] = []  # those addresses, lowest first: each ioctl asks who waits within its range
        self._serial = 0
        self.events: deque[UffdMsg] = deque()

    def sleep(self, vcpu: int, addr: int, msg: UffdMsg) -> None:
        """Put `vcpu` asleep and queue its message."""
        waiter = Waiter(msg, self._serial, vcpu, addr)
        self._serial += 1
        self._asleep[vcpu] = self._unread[waiter.serial] = waiter
        here = self._at.get(msg.address)
        if here is None:
            self._at[msg.address] = [waiter]
            insort(self._order, msg.address)
        else:
            here.append(waiter)

    def tell(self, event: UffdEvent, start: int = 0, end: int = 0, uffd: UffdContext | None = None) -> None:
        """Queue an event about bytes `[start, end)`, or about a child's userfaultfd."""
        self.events.append(UffdMsg(start, UffdPagefault.NONE, 0, event, end, uffd))

    def read(self) -> UffdMsg | None:
        """The oldest page fault that nobody has read, else the oldest event, else None."""
        for serial, waiter in self._unread.items():
            del self._unread[serial]
            return waiter.msg
        return self.events.popleft() if self.events else None

    def addresses(self, start: int, end: int) -> list[int]:
        """The reported addresses in `[start, end)` at which somebody waits, lowest first."""
        order = self._order
        return order[bisect_left(order, start) : bisect_left(order, end)]

    def take(self, addresses: list[int]) -> list[Waiter]:
        """Remove and return those who wait at `addresses`."""
        woken = []
        for address in addresses:
            del self._order[bisect_left(self._order, address)]
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
        return f"<WaitQueue of {len(self._asleep)}, {len(self._unread)} not read, {len(self.events)} events>"


class UffdContext:
    """A userfaultfd as the VMAs see it that it watches: its features, and who waits for it."""

    __slots__ = ("exact_address", "features", "on_wake", "sigbus", "thread_id", "waiters", "wp_async")

    def __init__(self, features: UffdFeature, on_wake: OnWake | None) -> None:
        self.features = features
        self.on_wake = on_wake
        self.waiters = WaitQueue()
        self.exact_address = bool(features & UffdFeature.EXACT_ADDRESS)
        self.sigbus = bool(features & UffdFeature.SIGBUS)
        self.thread_id = bool(features & UffdFeature.THREAD_ID)
        self.wp_async = bool(features & UffdFeature.WP_ASYNC)

    def wake_range(self, start: int, end: int) -> None:
        """Wake all whose message reports an address in bytes `[start, end)`."""
        self.wake_at(self.waiters.addresses(start, end))

    def wake_at(self, addresses: list[int]) -> None:
        """Wake all whose message reports one of `addresses`."""
        woken: list[Waiter] = self.waiters.take(addresses)  # all off the queue first: on_wake may fault again
        if self.on_wake is not None:
            for waiter in woken:
                self.on_wake(waiter.vcpu, waiter.addr)
