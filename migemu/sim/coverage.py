"""Which faults have hit which message in which state: what was reached of all that can be, as a table.

What can be follows from the tables of `migemu.wire.states`: whatever a role may say in a state, on either channel, can
be hit by every fault that acts on a message, on its connection, or on a node while it is on its way.

Rules
    1. The state is that of the speaker before it says the message, as told by what has arrived so far.
    2. A fault at a byte counts by where that is: `between` two messages, in the `header`, in the `payload`.
    3. Alive can be said in every state; it is counted in those that last (`running`). Failed is a connection's last
       word, and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from rich.table import Table

from migemu.sim.hazards import Fault, Way
from migemu.wire.messages import (
    Alive,
    ChannelRole,
    DeviceState,
    Digests,
    Message,
    Page,
    ReceivedBitmap,
)
from migemu.wire.states import PREEMPT_TRANSITIONS, TRANSITIONS, Role, Stage

#: Those that may have a payload.
_CARRIERS: Final = (DeviceState, Page, Digests, ReceivedBitmap)
_PARTED: Final = {
    Fault.CUT: ("between", "header", "payload"),
    Fault.TRUNCATE: ("header", "payload"),
    Fault.CORRUPT: ("header", "payload"),
}
#: They are not about a message: release undoes, fail_recovery cuts. What is dark is never healed, and judged otherwise.
_APART: Final = (Fault.RELEASE, Fault.FAIL_RECOVERY, Fault.DARK)


class Said(NamedTuple):
    """A message of a role on a channel, said in a state of the protocol."""

    channel: ChannelRole
    role: Role
    state: Stage
    kind: type[Message]

    def __str__(self) -> str:
        where = "" if self.channel is ChannelRole.MAIN else " (preempt)"
        return f"{self.role.value} {self.state.value}: {self.kind.__name__}{where}"


class Seen(NamedTuple):
    """Where a message came: the `nth` of its kind that way, so many bytes of header, so many in all."""

    way: Way
    nth: int
    header_bytes: int
    size: int


class Kind(NamedTuple):
    """A fault, and in which part of a message, where that is told."""

    fault: Fault
    part: str = ""

    def __str__(self) -> str:
        return f"{self.fault.value} {self.part}".strip()


#: As heads of narrow columns.
_HEADS: Final = {
    Fault.TRUNCATE: ["trunc-", "ate"], Fault.DUPLICATE: ["dupli-", "cate"], Fault.CORRUPT: ["cor-", "rupt"],
    Fault.HALF_OPEN: ["half-", "open"], Fault.CRASH_SOURCE: ["crash", "src"],
    Fault.CRASH_DESTINATION: ["crash", "dest"],
}  # fmt: skip
KINDS: Final = tuple(Kind(fault, part) for fault in Fault if fault not in _APART for part in _PARTED.get(fault, ("",)))


def part_of(fault: Fault, byte: int, header_bytes: int) -> str:
    """In which part of a message with so many bytes of prefix and header a fault at `byte` is."""
    if fault not in _PARTED:
        return ""
    if fault is Fault.CUT and byte == 0:
        return "between"
    return "header" if byte < header_bytes else "payload"


def can_be() -> dict[Said, tuple[Kind, ...]]:
    """Every message in every state in which it may be said, with the faults that can hit it."""
    rows = [Said(ChannelRole.MAIN, *key) for key in TRANSITIONS]
    rows += [Said(ChannelRole.MAIN, role, Stage.RUNNING, Alive) for role in Role]
    rows += [Said(ChannelRole.PREEMPT, Role.SOURCE, *key) for key in PREEMPT_TRANSITIONS]
    return {said: tuple(kind for kind in KINDS if kind.part != "payload" or _carries(said)) for said in rows}


def _carries(said: Said) -> bool:
    """Whether it may have a payload; the bitmap of a memory that is complete has none."""
    return said.kind in _CARRIERS and (said.kind, said.state) != (ReceivedBitmap, Stage.END)


class Coverage:
    """How often each kind of fault has struck each message in each state."""

    def __init__(self) -> None:
        self.counts: dict[tuple[Said, Kind], int] = {}
        #: The first of each message that came in a state; with a payload, and without.
        self.seen: dict[tuple[Said, bool], Seen] = {}

    def hit(self, said: Said, kind: Kind) -> None:
        """Count that a fault of `kind` has struck the message `said`."""
        self.counts[said, kind] = self.counts.get((said, kind), 0) + 1

    def add(self, other: Coverage) -> None:
        """Add the counts of another coverage to these."""
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count

    def missing(self) -> list[tuple[Said, Kind]]:
        """Every combination that the protocol allows and no fault has struck yet."""
        return [(said, kind) for said, kinds in can_be().items() for kind in kinds if (said, kind) not in self.counts]

    def table(self) -> Table:
        """A row for each message in a state, a column for each fault: how often; `-` where it was not reached."""
        rows = can_be()
        table = Table(title=str(self), title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("state: message", no_wrap=True)
        for kind in KINDS:
            table.add_column("\n".join([*_HEADS.get(kind.fault, [kind.fault.value]), kind.part]), justify="right")
        for said, kinds in rows.items():
            table.add_row(str(said), *(self._cell(said, kind, kinds) for kind in KINDS))
        return table

    def _cell(self, said: Said, kind: Kind, kinds: Iterable[Kind]) -> str:
        if kind not in kinds:
            return ""
        return str(self.counts.get((said, kind), "-"))

    def __str__(self) -> str:
        total = sum(len(kinds) for kinds in can_be().values())
        return f"{total - len(self.missing())} of {total} combinations of state, message and fault reached"
