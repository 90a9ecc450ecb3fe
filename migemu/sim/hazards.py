"""What goes wrong on purpose in a simulated world: one hazard is one fault, where, and when. A line of text each.

    cut main->destination Page 3 byte 5             the connection ends after byte 5 of the third Page
    cut main->source at 5ms byte 0                  ... between two messages, 5 ms after the world began
    truncate main->destination Page 3 byte 100      what follows byte 100 of it is missing; the stream goes on
    lose main->destination Run 1                    it does not come, and whatever follows it does
    duplicate preempt->destination message 4        the fourth message of any kind comes twice
    corrupt main->destination Zero 1 byte 8         byte 8 of it is another one
    delay main->source Request 2 by 5ms             it comes 5 ms later, and so does whatever follows it
    slow main->destination when source run 1 to 8Mbit    no more than that gets through from then on
    hold main->destination Page 3                   nothing comes from it on, until
    release main->destination at 20ms               everything that was held does
    half_open main->source Request 1                nothing comes that way any more, and neither end is told
    crash source main->destination Page 9 for 5ms   SIGKILL as that comes; started again after 5 ms
    crash destination at 7ms for 5ms
    dark main->source Running 1                     nothing comes any more, either way, on any connection, for good
    dark at 7ms
    fail_recovery 3                                 the next three attempts to recover are cut short

Rules
    1. Messages are counted as they come out of the link, over all connections of a channel in one direction.
    2. A fault that hits a message (truncate, lose, duplicate, corrupt, delay) and comes due by time or stage hits the
       next one that way. All others act on the connection at once.
    3. A hazard strikes once. What stays (hold, slow) stays until it is healed; half_open until the connection is over;
       dark for good.
    4. Bytes of a message are counted as they are encoded: 6 of its prefix, its header, its payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from migemu.errors import InputError
from migemu.units import parse_rate, parse_time
from migemu.wire.messages import TAGS, ChannelRole, Message


class Fault(Enum):
    """What a hazard does when it strikes; the values are the words of its text form."""

    CUT = "cut"
    TRUNCATE = "truncate"
    LOSE = "lose"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    DELAY = "delay"
    SLOW = "slow"
    HOLD = "hold"
    RELEASE = "release"
    HALF_OPEN = "half_open"
    CRASH_SOURCE = "crash source"
    CRASH_DESTINATION = "crash destination"
    DARK = "dark"
    FAIL_RECOVERY = "fail_recovery"

    __hash__ = object.__hash__


#: They hit one message; all others act on a connection, or on a node.
ON_A_MESSAGE: Final = (Fault.TRUNCATE, Fault.LOSE, Fault.DUPLICATE, Fault.CORRUPT, Fault.DELAY)
#: They may come due without any connection.
ON_NONE: Final = (Fault.CRASH_SOURCE, Fault.CRASH_DESTINATION, Fault.DARK)
#: Whom it kills.
CRASHES: Final = {Fault.CRASH_SOURCE: "source", Fault.CRASH_DESTINATION: "destination"}
NODES: Final = ("source", "destination")


class Way(NamedTuple):
    """A channel, and the node that it brings messages to."""

    channel: ChannelRole
    to: str

    def __str__(self) -> str:
        return f"{self.channel.value}->{self.to}"


class OnMessage(NamedTuple):
    """The `nth` message of `kind` that comes that way, of any kind if that is None; counted from 1."""

    kind: type[Message] | None
    nth: int

    def __str__(self) -> str:
        return f"{'message' if self.kind is None else self.kind.__name__} {self.nth}"


class AtTime(NamedTuple):
    """So many ns after the world began."""

    ns: int

    def __str__(self) -> str:
        return f"at {self.ns}ns"


class OnStage(NamedTuple):
    """A node enters `stage` for the `nth` time, counted from 1. Stages are those of the trace."""

    node: str
    stage: str
    nth: int

    def __str__(self) -> str:
        return f"when {self.node} {self.stage} {self.nth}"


When = OnMessage | AtTime | OnStage


class _Amount(NamedTuple):
    """The number that a fault takes: the word before it, how it is read, its unit."""

    word: str
    parse: Callable[[str], int]
    unit: str


_BYTE: Final = _Amount("byte", int, "")
_AMOUNTS: Final[dict[Fault, _Amount]] = {
    Fault.CUT: _BYTE,
    Fault.TRUNCATE: _BYTE,
    Fault.CORRUPT: _BYTE,
    Fault.DELAY: _Amount("by", parse_time, "ns"),
    Fault.SLOW: _Amount("to", parse_rate, "bit"),
    Fault.CRASH_SOURCE: _Amount("for", parse_time, "ns"),
    Fault.CRASH_DESTINATION: _Amount("for", parse_time, "ns"),
    Fault.FAIL_RECOVERY: _Amount("", int, ""),
}


@dataclass(frozen=True, slots=True)
class Hazard:
    """One thing that goes wrong. `str` of it is the line that `parse` reads back."""

    fault: Fault
    way: Way | None = None
    when: When | None = None
    amount: int = 0

    def __post_init__(self) -> None:
        """InputError: what makes no sense."""
        if reason := self._nonsense():
            raise InputError(f"hazard {self}: {reason}")

    def _nonsense(self) -> str:
        if self.fault is Fault.FAIL_RECOVERY:
            return "say how often, and no more" if self.way or self.when or self.amount < 1 else ""
        if self.when is None:
            return 'say when: a message such as "Page 3", "at 5ms", or "when source run 1"'
        needs_way = self.fault not in ON_NONE or isinstance(self.when, OnMessage)
        if needs_way != (self.way is not None):
            return 'say which way: "main->destination"' if needs_way else "it needs no way"
        if isinstance(self.when, OnMessage | OnStage) and self.when.nth < 1:
            return "count from 1"
        if self.fault is Fault.SLOW and not self.amount:
            return "a rate of 0 would be no limit; use hold"
        return "" if self.amount >= 0 else "give no less than 0"

    def __str__(self) -> str:
        parts = [self.fault.value, *(str(part) for part in (self.way, self.when) if part is not None)]
        if (amount := _AMOUNTS.get(self.fault)) is not None:
            parts += [*filter(None, [amount.word]), f"{self.amount}{amount.unit}"]
        return " ".join(parts)


_KINDS: Final = {"message": None, **{kind.__name__: kind for kind in TAGS}}
_LINE: Final = re.compile(
    rf"(?P<fault>{'|'.join(sorted((fault.value for fault in Fault), key=len, reverse=True))})"
    rf"(?: (?P<channel>{'|'.join(role.value for role in ChannelRole)})->(?P<to>{'|'.join(NODES)}))?"
    rf"(?: (?P<kind>{'|'.join(_KINDS)}) (?P<nth>\d+)| at (?P<at>[\d.]+\w+)"
    rf"| when (?P<node>{'|'.join(NODES)}) (?P<stage>[a-z-]+) (?P<times>\d+))?"
    rf"(?P<amount>(?: (?:{'|'.join({each.word: 0 for each in _AMOUNTS.values() if each.word})}))? [\d.]\w*)?"
)


def parse(line: str) -> Hazard:
    """The hazard of a line. InputError repeats the line and says what is wrong with it."""
    match = _LINE.fullmatch(" ".join(line.split()))
    if match is None:
        raise InputError(
            f"hazard {line!r} is none; write a fault ({', '.join(fault.value for fault in Fault)}), which way, when, "
            'and how much, as in "cut main->destination Page 3 byte 5"'
        )
    fault = Fault(match["fault"])
    way = Way(ChannelRole(match["channel"]), match["to"]) if match["channel"] else None
    try:
        return Hazard(fault, way, _when(match), _amount(fault, match["amount"]))
    except ValueError as error:
        raise InputError(f"hazard {line!r}: {error}") from None


def _when(match: re.Match[str]) -> When | None:
    if match["kind"]:
        return OnMessage(_KINDS[match["kind"]], int(match["nth"]))
    if match["at"]:
        return AtTime(parse_time(match["at"]))
    return OnStage(match["node"], match["stage"], int(match["times"])) if match["node"] else None


def _amount(fault: Fault, given: str | None) -> int:
    """ValueError: a fault without its amount, or with one that is not its own."""
    amount = _AMOUNTS.get(fault)
    words = (given or "").split()
    if amount is None:
        if words:
            raise ValueError(f"{fault.value} takes no amount")
        return 0
    expected = [amount.word] if amount.word else []
    if len(words) != len(expected) + 1 or words[:-1] != expected:
        raise ValueError(f'{fault.value} ends in "{" ".join([*expected, "N" + amount.unit])}"')
    return amount.parse(words[-1])


def parse_all(text: str) -> tuple[Hazard, ...]:
    """The hazards of a text: a line each, or several on one with a semicolon between them."""
    return tuple(parse(line) for line in re.split(r"[;\n]", text) if line.strip())


def in_one_line(hazards: tuple[Hazard, ...]) -> str:
    """Hazards as one line of text, which `parse_all` reads back."""
    return "; ".join(str(hazard) for hazard in hazards)
