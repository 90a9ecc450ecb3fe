"""A stage for short plays: one hugetlb page of the model, a source that sends, vCPUs, and the trace of it all.

What this models
    A destination's hands without its head. Every call does one thing to the real model (`migemu.mm`, TINY, one
    hugetlb page of 16 base pages) and tells in the trace what the model answered; nobody decides anything. So a handler
    that is wrong can be played in a few lines, and what the trace then says is what the kernel would have let happen.

Rules
    1. A vCPU that faults is told of as `faulted`; when the model wakes it, it tries again.
    2. `tell` puts an event on the record that the model knows nothing of: a message, or what no kernel would do.

Simplified
    No bytes are kept, only whether they came. Time is a count of events.
"""

from __future__ import annotations

import errno
from typing import Final

from migemu.mm import TINY, EntryKind, FaultOutcome, Level, PageIndex, PieceRun, Span
from migemu.mm.guest_mapping import GuestMapping
from migemu.trace.events import Event, Happening
from migemu.wire.states import Stage

PAGES: Final = TINY.largest_pages
_STEP_NS: Final = 1_000


class Script:
    """A short play on a real page table; what has happened so far is in `events`."""

    def __init__(self, policy: str = "") -> None:
        """`policy` is what the destination says of its collapse policy, if anything."""
        self.events: list[Event] = []
        self._writes: dict[int, bool] = {}
        self._woken_now: list[tuple[int, PageIndex]] = []
        self._mapping = GuestMapping(TINY, PAGES * TINY.page_bytes, self._woken)
        self.tell("memory", count=PAGES, detail=TINY.name, node="source")
        self.tell("memory", count=PAGES, detail=TINY.name)
        self.tell("state", detail=Stage.RUNNING.value)
        if policy:
            self.tell("policy", detail=policy)

    def tell(
        self, name: str, first: PageIndex | None = None, count: int | None = None, level: Level | None = None, *,
        node: str = "destination", vcpu: int | None = None, write: bool | None = None, urgent: bool | None = None,
        detail: str | None = None,
    ) -> None:  # fmt: skip
        """Put an event on the record."""
        t = len(self.events) * _STEP_NS
        self.events.append(Event(t, node, Happening(name), first, count, level, vcpu, write, urgent, detail))

    # --- the wire ---

    def send(self, first: PageIndex, count: int = 1, *, urgent: bool = False) -> None:
        """Trace that the source sends `count` base pages from `first` on."""
        self.tell("sent", first, count, Level.PTE, node="source", urgent=urgent)

    def store(self, first: PageIndex, count: int = 1, *, urgent: bool = False, zero: bool = False) -> None:
        """Their bytes are put in their place."""
        self.tell("received", first, count, Level.PTE, urgent=urgent, detail="zero" if zero else None)

    def bring(self, first: PageIndex, count: int = 1) -> None:
        """Sent, stored, and mapped: what most pages go through."""
        self.send(first, count)
        self.store(first, count)
        self.continue_(first, count)

    def end(self) -> None:
        """The source says that it has sent everything."""
        self.tell("ended", count=PAGES)

    def complete(self) -> None:
        """The destination takes the migration for complete."""
        self.tell("state", detail=Stage.COMPLETED.value)

    # --- the handler's system calls, with the kernel's answers ---

    def continue_(self, first: PageIndex, count: int = 1) -> int:
        """UFFDIO_CONTINUE one by one; how many pages found something there (EEXIST), as a late one does."""
        _, existing = self._mapping.continue_run(PieceRun(first, count, Level.PTE))
        self.tell("continued", first, count, Level.PTE)
        self._retry_woken()
        return existing

    def continue_errno(self, first: PageIndex) -> int:
        """UFFDIO_CONTINUE of one page, as the ioctl answers it to C: bytes, or minus the errno."""
        try:
            return self._mapping.continue_one(first, Level.PTE)
        except OSError as error:
            return -(error.errno or 0)

    def wake(self, first: PageIndex, count: int = 1) -> None:
        """UFFDIO_WAKE of `count` base pages from `first` on; who is woken tries its access again."""
        self.tell("wake", first, count)
        self._mapping.wake(first, count)
        self._retry_woken()

    def collapse(self, first: PageIndex, level: Level) -> None:
        """MADV_COLLAPSE of one span; on the record is what became of it."""
        _, failure, _ = self._mapping.collapse([Span(first, level)])
        if failure:
            self.tell("failed", first, level=level, detail=errno.errorcode[failure])
        elif self._mapping.walk(first) == (level, EntryKind.LEAF):
            self.tell("collapsed", first, level=level)

    # --- the guest ---

    def access(self, vcpu: int, page: PageIndex, *, write: bool = False) -> None:
        """A vCPU reads or writes: it can, or it sleeps on a fault."""
        outcome = self._mapping.fault(vcpu, page, write)
        if outcome is FaultOutcome.WAITING:
            self._writes[vcpu] = write
            self.tell("faulted", page, vcpu=vcpu, write=write)
        else:
            assert outcome is FaultOutcome.MAPPED, outcome
            self.tell("written" if write else "read", page, vcpu=vcpu)

    def _woken(self, vcpu: int, page: PageIndex) -> None:
        self._woken_now.append((vcpu, page))

    def _retry_woken(self) -> None:
        """Whoever the last call woke runs, and tries again."""
        woken, self._woken_now = self._woken_now, []
        for vcpu, page in woken:
            self.tell("woken", page, vcpu=vcpu)
            self.access(vcpu, page, write=self._writes.pop(vcpu))

    def __repr__(self) -> str:
        return f"<Stage after {len(self.events)} events>"
