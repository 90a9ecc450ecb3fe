"""Rules about vCPUs that sleep on faults: woken, in time, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from migemu.mm.pages import PageIndex
from migemu.trace.checkers.account import MAPPED, NOT, Account, Witness
from migemu.trace.checkers.rule import Look, Objection, Rule, checkers
from migemu.trace.events import Event, Happening


@checkers.register("mapped_before_woken")
class MappedBeforeWoken(Rule):
    """A wake follows the mapping: whoever is woken finds an entry.

    A vCPU that is woken before its page is mapped looks again and finds nothing. With luck it faults once more; where
    something else is ready to map what it finds there, as the kernel is with transparent huge pages, it gets bytes that
    have not arrived, and no fault.
    """

    needs = ((Happening.WAKE, Happening.WOKEN),)

    def looks(self) -> Mapping[Happening, Look]:
        """Events of wakes: UFFDIO_WAKE, and vCPUs that run again."""
        return {Happening.WAKE: self.wake, Happening.WOKEN: self.woken}

    def wake(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """UFFDIO_WAKE of what has no entry."""
        hole = self.account.mapped.find(NOT, first, first + count)
        return None if hole < 0 else Objection(f"a wake for page {hole}, which nothing maps yet", hole)

    def woken(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """A vCPU that runs again, to fault again."""
        if self.account.mapped[first] != NOT:
            return None
        return Objection(f"vCPU {event.vcpu} was woken before page {first} was mapped", first, vcpu=event.vcpu)


# SEMANTICS 2.1, I10
@checkers.register("sleepers_woken")
class SleepersWoken(Rule):
    """Nobody is left asleep on a page that is mapped.

    MADV_COLLAPSE maps holes and wakes nobody; a CONTINUE that finds an entry (EEXIST) wakes nobody either. Whoever
    slept there sleeps until somebody issues UFFDIO_WAKE. Judged when all is done; in a trace that may be cut,
    what the destination did in its last turn is not held against it.
    """

    needs = ((Happening.FAULTED,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.owed: dict[int, Witness] = {}  # vCPU -> what mapped its page without waking it

    def looks(self) -> Mapping[Happening, Look]:
        """Faults, what maps, and what wakes."""
        return {
            Happening.FAULTED: self.faulted,
            Happening.COLLAPSED: self.mapped,
            Happening.CONTINUED: self.continued,
            Happening.WAKE: self.wake,
            Happening.WOKEN: self.runs,
            Happening.KILLED: self.runs,
        }

    def faulted(self, event: Event, first: PageIndex, _count: int) -> None:
        """Too late for the mapping to have woken it."""
        if self.account.mapped[first] == MAPPED and event.vcpu is not None:
            self.owed[event.vcpu] = Witness(event, self.account.line)

    def mapped(self, event: Event, first: PageIndex, count: int) -> None:
        """Note vCPUs whose page a collapse maps: it wakes none of them."""
        for vcpu, witness in self.account.asleep.items():
            page = witness.event.first
            if page is not None and first <= page < first + count and self.account.mapped[page] == NOT:
                self.owed[vcpu] = Witness(event, self.account.line)

    def continued(self, event: Event, first: PageIndex, count: int) -> None:
        """Wakes those whose page it maps, unless told not to."""
        if event.detail == "dontwake":
            self.mapped(event, first, count)
        elif self.owed:
            self.release(first, count, already_mapped=False)

    def wake(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note that every vCPU asleep on these pages is woken."""
        if self.owed:
            self.release(first, count, already_mapped=True)

    def release(self, first: PageIndex, count: int, already_mapped: bool) -> None:
        """Nothing is owed any more to those who sleep on these pages, if an entry is new or need not be."""
        for vcpu in list(self.owed):
            sleeper = self.account.asleep.get(vcpu)
            page = None if sleeper is None else sleeper.event.first
            if page is None or not first <= page < first + count:
                continue
            if already_mapped or self.account.mapped[page] != MAPPED:
                del self.owed[vcpu]

    def runs(self, event: Event, _first: PageIndex, _count: int) -> None:
        """Note that a vCPU runs again, or got a signal: nobody owes it a wake."""
        if self.owed and event.vcpu is not None:
            self.owed.pop(event.vcpu, None)

    def over(self, cut: bool) -> Iterable[Objection]:
        """Who is still owed a wake; if cut, by what something came after."""
        for vcpu, by in self.owed.items():
            sleeper = self.account.asleep.get(vcpu)
            if sleeper is None or sleeper.event.first is None:
                continue
            if not cut or by.line < self.account.turn:
                page = sleeper.event.first
                reason = f"vCPU {vcpu} sleeps on page {page}, which is mapped, and nobody has woken it"
                yield Objection(reason, page, vcpu=vcpu, witness=by)


@checkers.register("faults_resolved")
class FaultsResolved(Rule):
    """Every fault is resolved, by a wake or a signal, unless the migration was cut off while it was open.

    A fault event is read once. A handler that puts it aside (EAGAIN, a full queue) and forgets it leaves a vCPU asleep
    for ever; one that answers it twice wakes a vCPU that sleeps on something else by then.
    """

    needs = ((Happening.FAULTED, Happening.WOKEN),)

    def looks(self) -> Mapping[Happening, Look]:
        """Events of vCPUs that fall asleep or run again."""
        return {Happening.FAULTED: self.faulted, Happening.WOKEN: self.woken}

    def faulted(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """Object to a second fault of a vCPU that sleeps already."""
        if not self.account.asleep or event.vcpu not in self.account.asleep:
            return None
        before = self.account.asleep[event.vcpu].event.first
        return Objection(
            f"vCPU {event.vcpu} faults on page {first} while it sleeps on page {before}", before, vcpu=event.vcpu
        )

    def woken(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """Asleep on this page before it is woken."""
        sleeper = None if event.vcpu is None else self.account.asleep.get(event.vcpu)
        if sleeper is None:
            return Objection(f"vCPU {event.vcpu} was woken, but did not sleep", first, vcpu=event.vcpu)
        if sleeper.event.first != first:
            reason = f"vCPU {event.vcpu} was woken on page {first}, but slept on page {sleeper.event.first}"
            return Objection(reason, first, vcpu=event.vcpu)
        return None

    def over(self, cut: bool) -> Iterable[Objection]:
        """Still open though the migration is complete."""
        if not self.account.completed:
            return
        for vcpu, sleeper in self.account.asleep.items():
            page = sleeper.event.first
            if page is not None and self.account.mapped[page] == NOT:
                reason = f"the fault of vCPU {vcpu} on page {page} was never resolved"
                yield Objection(reason, page, vcpu=vcpu, witness=sleeper)
