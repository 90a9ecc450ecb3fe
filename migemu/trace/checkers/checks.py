"""Checks: every rule over a trace, event by event. `check` does it for a whole sequence of events.

Rules
    1. What an event says of pages is judged first: pages outside the memory, counts below 1, pieces off their
       boundaries. Such an event breaks `counts_conserved`, which is therefore always among the rules, and no other
       rule or account hears of it.
    2. The history of a violation is looked for in a second pass, so that the first one keeps little.
    3. A rule that has nothing to judge in this trace is told as such, with what it missed; it does not pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.checkers.account import Account, Witness
from migemu.trace.checkers.rule import Look, Objection, Rule, checkers
from migemu.trace.events import Event, Happening

COUNTS: Final = "counts_conserved"
HISTORY_MAX: Final = 8
HISTORY_FEW: Final = 4
#: How the pages of an event follow from it, where `count` does not give them.
_ONE_PAGE: Final = frozenset((Happening.FAULTED, Happening.WOKEN, Happening.KILLED, Happening.READ, Happening.WRITTEN))
_ONE_ENTRY: Final = frozenset((Happening.COLLAPSED, Happening.REFUSED, Happening.FAILED))
_LANDMARKS: Final = frozenset((Happening.STATE, Happening.LOST, Happening.ENDED, Happening.POLICY))


class Violation(NamedTuple):
    """A rule broken by an event. `line` is the event's number, from 1 on; in a file, its line."""

    rule: str
    event: Event
    line: int
    reason: str
    history: tuple[Witness, ...] = ()
    #: What it is about: base pages `[first, first + count)` if not None, a vCPU if not None.
    first: PageIndex | None = None
    count: int = 1  # type: ignore[assignment]  # hides tuple.count
    vcpu: int | None = None


class Checks:
    """The chosen rules over one trace. Give it every event, in order, with `see`; ask `ended` at the end."""

    def __init__(self, geometry: Geometry, pages: int, rules: Iterable[str] | None = None, line: int = 0) -> None:
        """`rules` are names or specs (default: all); ValueError names those that exist. `line`: see `Account`."""
        self.account = Account(geometry, pages, line)
        specs = [entry.name for entry in checkers] if rules is None else list(rules)
        if not any(spec.partition(":")[0] == COUNTS for spec in specs):
            specs.insert(0, COUNTS)
        self.rules: dict[str, Rule] = {
            spec.partition(":")[0]: checkers.create(spec, self.account) for spec in dict.fromkeys(specs)
        }
        self.happened = dict.fromkeys(Happening, 0)
        self._tell()

    def _tell(self) -> None:
        self._looks: dict[Happening, tuple[tuple[str, Look], ...]] = dict.fromkeys(Happening, ())
        for name, rule in self.rules.items():
            for happening, look in rule.looks().items():
                self._looks[happening] += ((name, look),)

    def see(self, event: Event) -> Sequence[Violation]:
        """The next event; what it breaks."""
        account = self.account
        account.line += 1
        happening = event.event
        self.happened[happening] += 1
        first = event.first
        if first is None:
            first, count = -1, 0
        else:
            count = 1 if happening in _ONE_PAGE else self.extent(event)
            if first < 0 or count <= 0 or first + count > account.pages or event.level:
                problem = self._impossible(event, first, count)
                if problem:
                    return (Violation(COUNTS, event, account.line, problem, vcpu=event.vcpu),)
        found: tuple[Violation, ...] = ()
        for name, look in self._looks[happening]:
            objection = look(event, first, count)
            if objection is not None:
                found += (self._violation(name, objection, event),)
        account.note(event, first, count)
        return found

    def ended(self, *, cut: bool = False) -> Sequence[Violation]:
        """What is wrong if nothing more happens: the trace is over, or, on the way, nothing is left to be done.

        `cut`: the last events may be missing, as those of a node that was killed are.
        """
        return [
            self._violation(name, objection, None) for name, rule in self.rules.items() for objection in rule.over(cut)
        ]

    def unjudged(self) -> dict[str, str]:
        """The rules to which this trace gave nothing to judge, and why."""
        reasons = {name: rule.unjudged(self.happened) for name, rule in self.rules.items()}
        return {name: reason for name, reason in reasons.items() if reason}

    def copy(self) -> Checks:
        """Checks of their own, as they stand."""
        twin = object.__new__(Checks)
        twin.account = self.account.copy()
        twin.rules = {name: rule.copy(twin.account) for name, rule in self.rules.items()}
        twin.happened = self.happened.copy()
        twin._tell()
        return twin

    def __deepcopy__(self, _memo: object) -> Checks:
        return self.copy()

    def extent(self, event: Event) -> int:
        """How many base pages an event with a `first` is about."""
        happening = event.event
        if happening in _ONE_PAGE:
            return 1
        if happening in _ONE_ENTRY:
            return self.account.geometry.pages(event.level or Level.PTE)
        count = event.count
        if count is None:
            return 1
        if happening is Happening.FREED:
            return min(count, 1)  # it counts tables, under one page
        if happening is Happening.CLEARED:
            return count * self.account.geometry.pages(event.level or Level.PTE)
        return count

    def _impossible(self, event: Event, first: PageIndex, count: int) -> str:
        """Why no memory of this size can have had this event; "" if it can."""
        account = self.account
        per_piece = account.geometry.pages(event.level or Level.PTE)
        if not per_piece:
            return f"{event.level.name if event.level else ''} is no level of {account.geometry.name}"
        told = event.count if event.count is not None else count
        if told <= 0:
            return f"a count of {told}: an errno or nothing at all was counted as pages"
        if first < 0 or first + count > account.pages:
            return f"pages {first} to {first + count - 1} of a memory of {account.pages}"
        if first % per_piece or count % per_piece:
            return f"pages {first} to {first + count - 1} are not whole pieces of {per_piece} pages"
        return ""

    def _violation(self, rule: str, objection: Objection, event: Event | None) -> Violation:
        witness = objection.witness
        if witness is None:
            assert event is not None, f"{rule} objects at the end without a witness"
            witness = Witness(event, self.account.line)
        return Violation(
            rule, witness.event, witness.line, objection.reason, (), objection.first, objection.count, objection.vcpu
        )

    def __repr__(self) -> str:
        return f"<Checks {', '.join(self.rules)} at {self.account!r}>"


def check(
    events: Sequence[Event], *, geometry: Geometry, pages: int, rules: Iterable[str] | None = None, cut: bool = False
) -> list[Violation]:
    """All violations of a trace, in order, each with its history. Lines are counted from 1 on; `cut` as in `ended`."""
    checks = Checks(geometry, pages, rules)
    found = [violation for event in events for violation in checks.see(event)]
    found += checks.ended(cut=cut)
    return with_history(found, events, checks)


def with_history(
    violations: Sequence[Violation], events: Iterable[Event], checks: Checks, line: int = 0
) -> list[Violation]:
    """The violations, each with the last few events before it that are about the same pages or vCPU.

    `events` are those of the whole trace, again; `line` as for `Checks`. Stages and ends go with them.
    """
    searches = [_CheckSearch(violation, checks) for violation in violations]
    open_searches = searches
    for number, event in enumerate(events, line + 1):
        open_searches = [search for search in open_searches if number < search.violation.line]
        if not open_searches:
            break
        extent = 0 if event.first is None else checks.extent(event)
        for search in open_searches:
            search.look(event, number, extent)
    return [search.violation._replace(history=search.found()) for search in searches]


class _CheckSearch:
    """What led to one violation: events about its pages or vCPU, and if those are few, about all that its event covers.

    With them go the last stages.
    """

    def __init__(self, violation: Violation, checks: Checks) -> None:
        self.violation = violation
        event = violation.event
        self.around_first = -1 if event.first is None else event.first
        self.around_count = 0 if event.first is None else checks.extent(event)
        self.about: deque[Witness] = deque(maxlen=HISTORY_MAX)
        self.around: deque[Witness] = deque(maxlen=HISTORY_FEW)
        self.landmarks: deque[Witness] = deque(maxlen=2)

    def look(self, event: Event, line: int, extent: int) -> None:
        """Keep the event if it is about what the violation is about."""
        first, vcpu = self.violation.first, self.violation.vcpu
        begin = event.first
        if begin is None:
            if event.event in _LANDMARKS:
                self.landmarks.append(Witness(event, line))
            return
        same_vcpu = vcpu is not None and event.vcpu == vcpu
        if same_vcpu or (first is not None and begin < first + self.violation.count and first < begin + extent):
            self.about.append(Witness(event, line))
        elif begin < self.around_first + self.around_count and self.around_first < begin + extent:
            self.around.append(Witness(event, line))

    def found(self) -> tuple[Witness, ...]:
        """The events found so far, in the order of the trace, `HISTORY_MAX` at most."""
        few = list(self.around)[len(self.about) - HISTORY_FEW :] if len(self.about) < HISTORY_FEW else []
        return tuple(sorted((*self.landmarks, *self.about, *few), key=_line)[-HISTORY_MAX:])


def _line(witness: Witness) -> int:
    return witness.line
