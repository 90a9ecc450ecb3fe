"""What goes wrong on purpose in a round of real processes: one harm is one thing, and when. A line of text each.

    cut main->destination Page 3 byte 5          both ends hear FIN after byte 5 of the third Page
    reset main->source Running 1                 ... RST, before anything of it
    truncate main->destination Page 3 byte 100   what follows byte 100 of it is missing; the stream goes on
    drop main->source Complete 1                 all of it is
    duplicate preempt->destination Page 4        it comes twice
    flip main->destination Zero 1 byte 8         one bit of byte 8 is turned over
    half_open main->source Request 1             whom it was for hears RST, who said it hears nothing ever
    stall main->destination Run 1 for 700ms      nothing more comes that way over that connection
    stall_both main->source Complete 1           ... either way, for as long as the connection is there
    dark main->destination Run 1 for 2s          nothing comes through any connection, nor is one made
    refuse at 300ms for 500ms                    all connections hear RST, new ones too
    strangers at 300ms                           three come to the destination: one is silent, one talks, one lies
    kill destination main->source Running 1      SIGKILL; also stop (and continue, in the end), term, hup, int
    stop source at 200ms for 1500ms

Rules
    1. Messages are counted as they come by, over all connections of a channel in one direction. Where they cannot be
       told apart (TLS), bytes are: `main->destination byte 70000`; all of them count as the main channel's then.
    2. Times count from the first connection.
    3. A harm strikes once. Without `for` it stays, until everything is healed.
    4. What is done to a node at byte N of a message is done when so much of it has been passed on.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

from migemu.wire.messages import TAGS

#: They change what comes.
CHANGES: Final = ("truncate", "drop", "duplicate", "flip")
#: They end, or hold, connections.
LOSSES: Final = ("cut", "reset", "half_open", "stall", "stall_both", "dark", "refuse")
#: They come past the network.
VISITS: Final = ("strangers",)
#: They are done to a node.
SIGNALS: Final = {
    "kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM, "hup": signal.SIGHUP, "int": signal.SIGINT,
}  # fmt: skip
#: They may last.
LASTING: Final = ("stall", "stall_both", "dark", "refuse", "stop")
#: They need no connection, and may come at a time.
AT_A_TIME: Final = ("cut", "reset", "stall_both", "dark", "refuse", *VISITS, *SIGNALS)
KINDS: Final = frozenset(kind.__name__ for kind in TAGS)

_TEXT: Final = re.compile(
    r"(?P<act>\w+)(?: (?P<node>source|destination))?"
    r" (?:at (?P<at_ms>\d+)ms|(?P<channel>main|preempt)->(?P<to>source|destination)"
    r"(?: (?P<kind>[A-Z]\w+) (?P<nth>\d+))?)"
    r"(?: byte (?P<byte>\d+))?(?: for (?P<for_ms>\d+)ms)?"
)


@dataclass(frozen=True, slots=True)
class Harm:
    """`node` is set of a signal. Either `at_ms`, or a `way` ("main->source") with `kind` and `nth`, or a byte of it."""

    act: str
    node: str = ""
    way: str = ""
    kind: str = ""
    nth: int = 0
    byte: int = 0
    at_ms: int | None = None
    for_ms: int = 0

    def __str__(self) -> str:
        when = f"at {self.at_ms}ms" if self.at_ms is not None else self.way
        words = [self.act, self.node, when, f"{self.kind} {self.nth}" if self.kind else ""]
        words += [f"byte {self.byte}" if self.byte else "", f"for {self.for_ms}ms" if self.for_ms else ""]
        return " ".join(word for word in words if word)


def parse(text: str) -> Harm:
    """The harm of a line. ValueError when it is none."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no harm: see tests/chaos/harm.py")
    given = found.groupdict()
    act, node, kind = given["act"], given["node"] or "", given["kind"] or ""
    if act not in (*CHANGES, *LOSSES, *VISITS, *SIGNALS) or (act in SIGNALS) != bool(node) or kind not in ("", *KINDS):
        raise ValueError(f"{text!r} is no harm: see tests/chaos/harm.py")
    if given["at_ms"] is not None and act not in AT_A_TIME:
        raise ValueError(f"{text!r}: {act} needs a message that it happens to")
    return Harm(
        act, node, f"{given['channel']}->{given['to']}" if given["channel"] else "", kind, int(given["nth"] or 0),
        int(given["byte"] or 0), int(given["at_ms"]) if given["at_ms"] is not None else None, int(given["for_ms"] or 0),
    )  # fmt: skip


def parse_all(text: str) -> tuple[Harm, ...]:
    """Several, separated by semicolons."""
    return tuple(parse(part) for part in text.split(";") if part.strip())


def in_one_line(harms: tuple[Harm, ...]) -> str:
    """As `parse_all` reads them."""
    return "; ".join(map(str, harms))
