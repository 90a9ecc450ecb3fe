"""What the peer owes: the answers that are due, since when, and until when. Pure; the same for both nodes.

That a peer says Alive tells that it is there, not that it gets on with anything: of whoever waits for a particular
answer, or for what the next message has to be, that is asked besides.

Rules
    1. What is owed has a limit of its own: `net.answer_timeout`, and more where the whole memory has to be worked
       through for it (populated, collapsed, compared), at `WORK_BYTES_PER_S`.
    2. A part of it that has come (`progressed`) begins the wait anew.
    3. An answer that is late may have been lost: the connection counts as lost, and of the time for recovery
       (`recovery.timeout`) `net.answer_timeout` is gone. Working time is not: it was no silence.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from migemu.errors import OverdueError
from migemu.units import MIB, SECOND, format_time

#: Assumed: a fifth of the slowest host measured, which populated and checked some 160 MiB in a second.
WORK_BYTES_PER_S: Final = 32 * MIB


class _Wait(NamedTuple):
    """Since when, and for how long at most."""

    since_ns: int
    most_ns: int


class Due:
    """What one peer owes. `peer` is "the source" or "the destination"."""

    def __init__(self, peer: str, answer_ns: int) -> None:
        self._peer = peer
        self.answer_ns = answer_ns
        self._waits: dict[str, _Wait] = {}

    def expect(self, what: str, now: int, work_bytes: int = 0, answers: int = 1) -> None:
        """From now on `what` is due; memory of `work_bytes` has to be worked through for it.

        `answers`: so many have to be waited for, by one side and the other, before it can come.
        """
        self._waits[what] = _Wait(now, answers * self.answer_ns + work_bytes * SECOND // WORK_BYTES_PER_S)

    def progressed(self, what: str, now: int) -> None:
        """A part of it has come, if it is due."""
        if (wait := self._waits.get(what)) is not None:
            self._waits[what] = wait._replace(since_ns=now)

    def settled(self, *what: str) -> None:
        """That is not due any more; without a name, nothing is."""
        for each in what or tuple(self._waits):
            self._waits.pop(each, None)

    def is_due(self, what: str) -> bool:
        """Whether it is waited for."""
        return what in self._waits

    def overdue(self, now: int) -> OverdueError | None:
        """The error of what is late."""
        for what, (since_ns, most_ns) in self._waits.items():
            if now - since_ns >= most_ns:
                return OverdueError(
                    f"{self._peer} is there, and for {format_time(most_ns)} {what} has not come (net.answer_timeout)",
                    now - self.answer_ns,
                )
        return None

    def __repr__(self) -> str:
        return f"<Due of {self._peer}: {', '.join(self._waits) or 'nothing'}>"
