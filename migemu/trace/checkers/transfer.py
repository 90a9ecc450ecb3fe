"""Rules about what crosses the wire: sent, received, counted, and the end of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from migemu.mm.pages import PageIndex
from migemu.trace.checkers.account import NOT, Account, Witness
from migemu.trace.checkers.rule import Look, Objection, Rule, checkers
from migemu.trace.events import Event, Happening
from migemu.wire.states import Stage


@checkers.register("counts_conserved")
class CountsConserved(Rule):
    """Every count is of pages that exist, and what came in sums up to what was sent.

    A negative errno taken for a number of bytes, a partial result taken for a whole one, or a page counted as new twice
    makes progress out of nothing: the migration believes that it is complete, and is not. This rule also guards all
    others: events about impossible pages are kept from them.
    """

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.sent = self.received = 0

    def looks(self) -> Mapping[Happening, Look]:
        """Events that change the sums of pages, and those at which they must agree."""
        return {
            Happening.MEMORY: self.memory,
            Happening.SENT: self.sends,
            Happening.RECEIVED: self.receives,
            Happening.ENDED: self.ends,
            Happening.STATE: self.enters,
        }

    def memory(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """Both nodes mean the same memory."""
        account = self.account
        if (event.count, event.detail) != (account.pages, account.geometry.name):
            return Objection(f"a memory of {event.count} pages of {event.detail}, not {account.pages} pages")
        return None

    def sends(self, _event: Event, _first: PageIndex, count: int) -> None:
        """Add to the base pages sent."""
        self.sent += count

    def receives(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """No more pages are new than there are."""
        self.received += count
        if self.received > self.account.pages:
            return Objection(f"{self.received} base pages were new, in a memory of {self.account.pages}", first, count)
        return None

    def ends(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """The source has sent the whole memory."""
        if event.count != self.account.pages:
            return Objection(f"the source says it sent {event.count} base pages of {self.account.pages}")
        return None

    def enters(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """When the destination is complete, object unless all pages were received, and as many sent."""
        if event.node != "destination" or event.detail != Stage.COMPLETED.value:
            return None
        if self.received != self.account.pages:
            missing = self.account.received.find(0)
            first = missing if missing >= 0 else None
            return Objection(f"complete, but {self.received} base pages of {self.account.pages} were received", first)
        if 0 < self.sent < self.received:
            return Objection(f"{self.sent} base pages were sent, but {self.received} were received")
        return None


@checkers.register("received_within_sent")
class ReceivedWithinSent(Rule):
    """What is received was sent.

    Bytes that nobody sent are bytes of another page, or of another migration. In a merged trace a node that was killed
    has lost its last events; what arrived after them is not held against it.
    """

    needs = ((Happening.SENT,), (Happening.RECEIVED,))

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.suspect: tuple[Witness, PageIndex] | None = None
        self.heard = self.reported = False

    def looks(self) -> Mapping[Happening, Look]:
        """What came, and what shows that the source's events go on."""
        return {
            Happening.RECEIVED: self.received,
            Happening.SENT: self.goes_on,
            Happening.STATE: self.goes_on,
            Happening.LOST: self.goes_on,
        }

    def received(self, event: Event, first: PageIndex, count: int) -> Objection | None:
        """Only what was sent; a suspicion until the source is known to have told everything up to here."""
        unsent = self.account.sent.find(0, first, first + count)
        if unsent < 0 or self.suspect is not None:
            return None
        self.suspect = (Witness(event, self.account.line), unsent)
        return self.confirmed() if self.account.stage.get("source") == Stage.END.value else None

    def goes_on(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """A later event of the source: it had told everything before."""
        if event.node != "source":
            return None
        self.heard = True
        return self.confirmed()

    def confirmed(self) -> Objection | None:
        """The objection to a page that was received and not sent, once; None if there is none, or it was made."""
        if self.suspect is None or self.reported:
            return None
        self.reported = True
        witness, page = self.suspect
        return Objection(f"page {page} was received, but not sent", page, witness=witness)

    def over(self, cut: bool) -> Iterable[Objection]:
        """A migration that completed has lost no events; the destination's alone tell of no sending."""
        objection = self.confirmed() if self.heard and (self.account.completed or not cut) else None
        return () if objection is None else (objection,)


@checkers.register("completion_is_told")
class CompletionIsTold(Rule):
    """A migration is complete when the source says so and every page is mapped, not when the connection ends.

    A source that dies closes its connection as one that is done does. Whoever takes the end of the stream for
    completion runs a guest on memory of which the rest reads as zeros.
    """

    def looks(self) -> Mapping[Happening, Look]:
        """The events that this rule judges: the stages of a node."""
        return {Happening.STATE: self.enters}

    def enters(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """Completed only after the end was told, and with everything there."""
        if event.node != "destination" or event.detail != Stage.COMPLETED.value:
            return None
        account = self.account
        if not account.ended:
            cause = f" ({account.lost.event.detail})" if account.lost else ""
            return Objection(f"complete, but the source never said that it had sent everything{cause}")
        if (missing := account.mapped.find(NOT)) >= 0:
            return Objection(f"complete, but nothing maps page {missing}", missing)
        return None

    def unjudged(self, happened: Mapping[Happening, int]) -> str:
        """Only a migration that calls itself complete."""
        return "" if self.account.completed else "the migration did not complete"
