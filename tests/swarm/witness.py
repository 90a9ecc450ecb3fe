"""Who watches a case, and knows what neither node does: the guest's memory as it has to be, and what was said when."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from dest_node.incoming import PAGES
from migemu.mm.pages import PageIndex
from migemu.ports import Stalled, Word
from migemu.sim.timed_memory import TimedMemory
from migemu.trace.events import Event, Happening
from migemu.wire.digest import first_difference


class Witness(TimedMemory):
    """The guest's memory, and what vCPUs have seen of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lies: list[str] = []
        self.left: dict[tuple[PageIndex, int], int] = {}

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """See ports.GuestAccess."""
        found = super().touch(vcpu, page, offset, stamp)
        if isinstance(found, int):
            expected = self.left.get((page, offset), self._content.word(page, offset))
            if found != expected:
                self.lies.append(f"vCPU {vcpu} found {found:#x} at byte {offset} of page {page}, not {expected:#x}")
            if stamp is not None:
                self.left[page, offset] = stamp
        return found

    def amiss(self, digests: bytes) -> str:
        """What is not as the source has it, or the guest has left it; `digests` are the source's."""
        if self.lies:
            return self.lies[0]
        words = [
            Word(page, offset, self._content.word(page, offset), current)
            for (page, offset), current in sorted(self.left.items())
        ]
        ours, found = self.digests(0, len(digests) // 8, words)
        for (page, offset, _, left), held in zip(words, found, strict=True):
            if held != left:
                return f"byte {offset} of page {page} holds {held:#x}, and the guest has left {left:#x} there"
        at = first_difference(ours, digests)
        return "" if at is None else f"page {at} is not the source's"


class Story:
    """ports.Tracer that keeps where each node has been, and what recovery has to see to.

    `needless` was sent although it was known to have arrived; `unasked` came to a vCPU that had waited for it since
    before a recovery began (the event of one that falls asleep later may not have been read by its end), and nobody had
    asked for it since; `forgotten` tells of pieces that a source has not sent which had sent
    everything, or was asked for them.
    """

    def __init__(self) -> None:
        self.entered: set[tuple[str, str]] = set()
        self.needless: list[PageIndex] = []
        self.unasked: list[PageIndex] = []
        self.forgotten: list[str] = []
        self._arrived: set[PageIndex] = set()
        self._known: set[PageIndex] = set()
        self._asleep: dict[int, PageIndex] = {}
        self._before: dict[int, PageIndex] = {}  # who was asleep as the recovery began
        self._due: set[PageIndex] = set()
        self._stage = ""

    def emit(self, event: Event) -> None:
        """See ports.Tracer."""
        if event.event is Happening.STATE:
            self._enters(event.node, event.detail or "")
        elif event.event is Happening.LOST:
            if any(what in (event.detail or "") for what in ("has sent everything", PAGES)):
                self.forgotten.append(event.detail or "")
        elif event.event is Happening.RECOVERED:
            self._known = set(self._arrived)
        elif event.event is Happening.WOKEN:
            del self._asleep[event.vcpu or 0]
        elif event.event is Happening.FAULTED:
            self._asleep[event.vcpu or 0] = event.first or 0
        elif event.first is not None and event.count is not None:
            self._moves(event.event, range(event.first, event.first + event.count))

    def _moves(self, happening: Happening, pages: range) -> None:
        if happening is Happening.RECEIVED:
            self._arrived.update(pages)
            self.unasked += self._due.intersection(pages)
        elif happening is Happening.REQUESTED:
            self._due.difference_update(pages)
        elif happening is Happening.SENT:
            self.needless += self._known.intersection(pages)

    def _enters(self, node: str, stage: str) -> None:
        self.entered.add((node, stage))
        if node == "destination":
            if stage == "recover":
                self._before = dict(self._asleep)
            elif (self._stage, stage) == ("recover", "run"):
                still = self._before.items() & self._asleep.items()
                self._due = {page for _, page in still if page not in self._arrived}
            self._stage = stage
