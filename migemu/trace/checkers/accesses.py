"""Rules about what the guest has done to its memory: written, protected, dropped; and what was poisoned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from migemu.mm.marks import Marks
from migemu.mm.pages import Level, PageIndex
from migemu.trace.checkers.account import Account
from migemu.trace.checkers.rule import Look, Objection, Rule, checkers
from migemu.trace.events import Event, Happening


@checkers.register("writes_kept")
class WritesKept(Rule):
    """No piece is stored over what the guest has written.

    A page can be on its way twice, pushed and asked for. The copy that comes second is older than what the guest has
    written since the first: stored, it undoes the write, and nobody notices until the guest reads it.
    """

    needs = ((Happening.WRITTEN,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.theirs = Marks(account.pages, account.geometry.pages(Level.PMD))

    def looks(self) -> Mapping[Happening, Look]:
        """Writes of the guest, and of the destination."""
        return {
            Happening.WRITTEN: self.written,
            Happening.RECEIVED: self.received,
            Happening.ZAPPED: self.dropped,
            Happening.REMOVED: self.dropped,
        }

    def written(self, _event: Event, first: PageIndex, _count: int) -> None:
        """From now on it is the guest's."""
        self.theirs.put(first, 1, 1)

    def received(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """Object to bytes stored over a page that the guest has written to."""
        page = self.theirs.find(1, first, first + count)
        return (
            None if page < 0 else Objection(f"a piece was stored over page {page}, which the guest had written", page)
        )

    def dropped(self, _event: Event, first: PageIndex, count: int) -> None:
        """The guest has given up what it had written."""
        self.theirs.put(first, count, 0)


_MARKER: Final = 1
_FOR_GOOD: Final = 2


# SEMANTICS 2.1, 3.4
@checkers.register("poison_unreadable")
class PoisonUnreadable(Rule):
    """Poison is never readable: nothing maps it, nothing reads it.

    A poisoned page has lost its bytes. Whoever maps something over it, because EEXIST on the poison entry looked like
    a page that had come before or because a large entry covers it, has the guest go on with garbage instead of the
    signal that it needs.
    """

    needs = ((Happening.POISONED,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.pages = bytearray()  # one byte each, from the first that is told of

    def looks(self) -> Mapping[Happening, Look]:
        """What poisons, what maps, what reads."""
        return {
            Happening.POISONED: self.poisoned,
            Happening.ZAPPED: self.zapped,
            Happening.CONTINUED: self.covered,
            Happening.COLLAPSED: self.covered,
            Happening.READ: self.covered,
            Happening.WRITTEN: self.covered,
        }

    def poisoned(self, event: Event, first: PageIndex, count: int) -> None:
        """No bytes here from now on."""
        self.pages = self.pages or bytearray(self.account.pages)
        self.pages[first : first + count] = bytes([_MARKER if event.detail == "marker" else _FOR_GOOD]) * count

    def zapped(self, _event: Event, first: PageIndex, count: int) -> None:
        """A marker stands in the page table and goes with it; hwpoison is the memory's."""
        if self.pages:
            self.pages[first : first + count] = self.pages[first : first + count].replace(b"\1", b"\0")

    def covered(self, event: Event, first: PageIndex, count: int) -> Objection | None:
        """Object to an entry over a poisoned page, and to an access to one."""
        if not self.pages or self.pages.count(0, first, first + count) == count:
            return None
        page = next(page for page in range(first, first + count) if self.pages[page])
        return Objection(f"{event.event.value} over page {page}, which is poisoned", page)


# SEMANTICS 2.1
@checkers.register("protection_kept")
class ProtectionKept(Rule):
    """Write-protection is never lost silently.

    MADV_COLLAPSE drops every uffd-wp marker and protection in its range and makes one writable entry: whoever tracks
    writes by it misses all that come after. It has to be taken off, and said to be off, before.
    """

    needs = ((Happening.PROTECTED,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.pages = bytearray()  # one byte each, from the first that is told of

    def looks(self) -> Mapping[Happening, Look]:
        """On, off, and what would lose it or shows that it was lost."""
        return {
            Happening.PROTECTED: self.protected,
            Happening.UNPROTECTED: self.unprotected,
            Happening.COLLAPSED: self.collapsed,
            Happening.WRITTEN: self.written,
        }

    def protected(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note pages whose writes have to fault from now on."""
        self.pages = self.pages or bytearray(self.account.pages)
        self.pages[first : first + count] = b"\1" * count

    def unprotected(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note pages that may be written to again."""
        if self.pages:
            self.pages[first : first + count] = bytes(count)

    def collapsed(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """Object to a collapse over write-protected pages: its entry is writable."""
        page = self.pages.find(1, first, first + count) if self.pages else -1
        return None if page < 0 else Objection(f"a collapse took the write-protection off page {page}", page)

    def written(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """A write that should have been a fault."""
        if not self.pages or not self.pages[first]:
            return None
        return Objection(f"vCPU {event.vcpu} wrote to page {first}, which is write-protected", first)


_DROPPED: Final = 1
_SERVED: Final = 2
_DROP: Final = bytes([_DROPPED, _DROPPED, _SERVED]) + bytes(253)
_SERVE: Final = bytes([0, _SERVED, _SERVED]) + bytes(253)
_UNSERVE: Final = bytes([0, _DROPPED, _DROPPED]) + bytes(253)


@checkers.register("dropped_stays_dropped")
class DroppedStaysDropped(Rule):
    """What the guest has dropped is not mapped again with the source's bytes.

    A page that a balloon or MADV_DONTNEED gave up reads as zeros. The event that tells of it can be read after a fault
    that follows it (faults are read first), and the handler that answers that fault from the source brings the old
    bytes back. They may be stored while nobody knows; once mapped they are the guest's.
    """

    needs = ((Happening.ZAPPED, Happening.REMOVED),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.pages = bytearray()  # one byte each, from the first that is told of

    def looks(self) -> Mapping[Happening, Look]:
        """What is dropped, what is stored there, what maps it."""
        return {
            Happening.ZAPPED: self.gone,
            Happening.REMOVED: self.gone,
            Happening.RECEIVED: self.received,
            Happening.DROPPED: self.discarded,
            Happening.CONTINUED: self.mapped,
            Happening.COLLAPSED: self.mapped,
        }

    def gone(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note pages that the guest has dropped: what the source has of them is stale."""
        self.pages = self.pages or bytearray(self.account.pages)
        self._turn(first, count, _DROP)

    def received(self, event: Event, first: PageIndex, count: int) -> None:
        """Zeros are right, anything else is stale."""
        if self.pages:
            self._turn(first, count, bytes(256) if event.detail == "zero" else _SERVE)

    def discarded(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note that stale bytes were thrown away before they were mapped."""
        if self.pages:
            self._turn(first, count, _UNSERVE)

    def mapped(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """Object to an entry that gives access to stale bytes."""
        page = self.pages.find(_SERVED, first, first + count) if self.pages else -1
        return None if page < 0 else Objection(f"page {page} is mapped with bytes of before the guest dropped it", page)

    def _turn(self, first: PageIndex, count: int, table: bytes) -> None:
        self.pages[first : first + count] = self.pages[first : first + count].translate(table)
