"""What a trace has told so far of every base page and every vCPU: the state that all rules look at.

Rules
    1. An event changes the account after the rules have looked at it: they see the state that it found.
    2. Everything here follows from events alone; the account believes what it is told, right or wrong.
    3. Of a page it is kept whether it was sent, whether its bytes came (`received`), and whether an access needs no
       fault (`mapped`: NOT, MAPPED, or GONE and POISON where an entry was, or could be, and no access goes through).
    4. Of a 2M of pages it is kept which level of entry maps it as a whole (`leaf`: 0, or the level's number).

Words
    witness   an event with the line where it stands
"""

from __future__ import annotations

from typing import Final, NamedTuple

from migemu.mm.marks import Marks
from migemu.mm.page_values import PageValues
from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening
from migemu.wire.states import Stage

NOT: Final = 0
MAPPED: Final = 1
GONE: Final = 2
POISON: Final = 3
#: What a zap makes of `mapped`: an entry that gave access is gone.
_ZAP: Final = bytes([NOT, GONE, GONE, POISON]) + bytes(252)


class Witness(NamedTuple):
    """An event, and the number of its line in the trace file."""

    event: Event
    line: int


class Account:
    """The state of one memory of `pages` base pages. `leaf` holds one byte a 2M."""

    def __init__(self, geometry: Geometry, pages: int, line: int = 0) -> None:
        """`line` is that of the last event seen; of a file's header it is 1."""
        if pages <= 0 or pages % geometry.largest_pages:
            raise ValueError(f"{pages} base pages are not whole hugetlb pages of {geometry.name}")
        self.geometry = geometry
        self.pages = pages
        self.line = line
        self.sent = Marks(pages, geometry.pages(Level.PMD))
        self.received = Marks(pages, geometry.pages(Level.PMD))
        self.mapped = PageValues(pages, geometry.pages(Level.PMD), POISON + 1)
        self.leaf = bytearray(pages // geometry.pages(Level.PMD))
        #: Who sleeps: vCPU -> where it faulted.
        self.asleep: dict[int, Witness] = {}
        #: The last stage of each node, the last word of the collapse policy.
        self.stage: dict[str, str] = {}
        self.policy = ""
        self.ended = False
        self.lost: Witness | None = None
        #: The line of the last event that reached the destination from outside: a message, a fault, an access.
        self.turn = line

    def promises(self, word: str) -> bool:
        """Whether the collapse policy has promised `word`."""
        return word in self.policy.split()[1:]

    @property
    def completed(self) -> bool:
        """Whether the destination has said that the migration is complete."""
        return self.stage.get("destination") == Stage.COMPLETED.value

    def note(self, event: Event, first: PageIndex, count: int) -> None:
        """An event happened to `count` base pages from `first` on."""
        happening = event.event
        if happening in _ACCESSES:
            self.turn = self.line
            if happening is Happening.FAULTED:
                assert event.vcpu is not None
                self.asleep[event.vcpu] = Witness(event, self.line)
            elif happening in _AWAKE:
                self.asleep.pop(event.vcpu, None)  # type: ignore[arg-type]
        elif happening in _UNNOTED:
            return
        elif happening is Happening.SENT:
            self.sent.put(first, count, 1)
        elif happening is Happening.RECEIVED:
            self.received.put(first, count, 1)
            self.turn = self.line
        elif happening is Happening.CONTINUED or happening is Happening.COLLAPSED:
            self.mapped.fill(first, count, MAPPED)
            assert event.level is not None
            if event.level >= Level.PMD:
                self._set_leaf(first, count, event.level)
        elif happening is Happening.POISONED:
            self.mapped.fill(first, count, POISON)
            self._set_leaf(first, count, 0)
        elif happening is Happening.ZAPPED:
            self.mapped.translate(first, count, _ZAP)
            self._set_leaf(first, count, 0)
        elif first < 0:
            self._note_node(event)

    def _note_node(self, event: Event) -> None:
        detail = event.detail or ""
        if event.event is Happening.STATE:
            self.stage[event.node] = detail
            if event.node == "destination":
                self.turn = self.line
        elif event.event is Happening.POLICY:
            self.policy = detail
        elif event.event is Happening.ENDED:
            self.ended = True
            self.turn = self.line
        elif event.event is Happening.LOST and event.node == "destination":
            self.lost = Witness(event, self.line)
            self.turn = self.line

    def _set_leaf(self, first: PageIndex, count: int, level: int) -> None:
        per_pmd = self.geometry.pages(Level.PMD)
        start, end = first // per_pmd, -(-(first + count) // per_pmd)
        self.leaf[start:end] = bytes([level]) * (end - start)

    def copy(self) -> Account:
        """An account of its own, as it stands."""
        twin = object.__new__(Account)
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, bytearray | dict | Marks | PageValues) else value
        return twin

    def __repr__(self) -> str:
        return f"<Account of {self.pages} pages after line {self.line}: {self.mapped.count(MAPPED)} mapped>"


#: What changes nothing here.
_UNNOTED: Final = frozenset((Happening.CARRIED, Happening.ASKED, Happening.REQUESTED, Happening.WAKE))
_AWAKE: Final = frozenset((Happening.WOKEN, Happening.KILLED))
_ACCESSES: Final = frozenset((Happening.FAULTED, Happening.WOKEN, Happening.KILLED, Happening.READ, Happening.WRITTEN))
