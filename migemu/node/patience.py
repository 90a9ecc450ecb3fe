"""How long a paused migration is worth waiting for, and when to try again: the same for both nodes. Pure.

Rules
    1. A node gives up when `recovery.timeout` has passed without progress since a connection was lost. Progress is
       a base page that has arrived, or a connection that has lasted for as long, and was not lost because the peer
       owed an answer (`migemu.node.due`): of such a loss the time counts from when the answer was due, and the next
       one like it makes no new beginning.
    2. Whoever breaks the protocol, or brings corrupt bytes, gets `recovery.errors_max` more connections between two
       pieces of progress.
    3. An operator's pause takes as long as the operator wants; afterwards rules 1 and 2 begin anew.
    4. Tries come after `recovery.backoff_min`, then twice as long each, up to `recovery.backoff_max`, each shortened by
       up to a half at random, so that many sources do not come at once.
"""

from __future__ import annotations

from random import Random

from migemu.errors import MigemuError, OverdueError, PeerError
from migemu.scenario.recovery_settings import RecoverySettings
from migemu.units import format_time


class Backoff:
    """How long to wait before the next attempt to connect: exponential, with jitter."""

    def __init__(self, settings: RecoverySettings, rng: Random) -> None:
        self._settings = settings
        self._rng = rng
        self._tries = 0
        self._is_wanted = False

    def next_ns(self) -> int:
        """How long to wait before the next try."""
        if self._is_wanted:
            self._is_wanted = False
            return 0
        wait = min(self._settings.backoff_max, self._settings.backoff_min << min(self._tries, 32))
        self._tries += 1
        return round(wait * (1 - self._rng.random() / 2))

    def reset(self) -> None:
        """The last try was worth it."""
        self._tries = 0

    def at_once(self) -> None:
        """An operator wants a try now; after that it begins anew."""
        self._tries, self._is_wanted = 0, True

    def __repr__(self) -> str:
        return f"<Backoff after {self._tries} tries>"


class Patience:
    """When a node gives up: counts the attempts, errors and time since the connection was lost."""

    def __init__(self, settings: RecoverySettings) -> None:
        self.count = self.errors = 0
        self._settings = settings
        self._paused_ns = 0
        self._pages = -1
        self._since_ns: int | None = None  # the first loss without progress
        self._paused_at: int | None = None
        self._resumed_at: int | None = None
        self._row = 0
        self._was_late = False
        #: An operator has paused it: as long as that lasts, patience does not run out.
        self.held = False

    @property
    def paused(self) -> bool:
        """Whether the migration stands still."""
        return self._paused_at is not None

    def arrived(self, pages: int) -> bool:
        """So many base pages are known to have arrived; whether that is progress."""
        if pages <= self._pages:
            return False
        self._pages = pages
        self._since_ns, self._row = None, 0
        return True

    def lost(self, now: int, error: MigemuError | None = None) -> None:
        """The main connection was lost, because of `error`."""
        broken, late = isinstance(error, PeerError), isinstance(error, OverdueError)
        lasted = self._resumed_at is not None and now - self._resumed_at >= self._settings.timeout
        if lasted and not (late and self._was_late):
            self._since_ns, self._row = None, 0
        self._resumed_at, self._was_late = None, late
        if self._since_ns is None:
            self._since_ns = error.since_ns if isinstance(error, OverdueError) else now
        if self._paused_at is None:
            self._paused_at = now
        self.errors += broken
        self._row += broken

    def begin_again(self, now: int) -> None:
        """An operator has changed something: what was in vain before counts no more. Ends an operator's pause."""
        self.held = self._was_late = False
        self._row = 0
        if self._since_ns is not None:
            self._since_ns = now

    def resumed(self, now: int) -> None:
        """The migration goes on: begin to count anew."""
        self._paused_ns = self.paused_ns(now)
        self._paused_at, self._resumed_at = None, now
        self.count += 1

    def paused_ns(self, now: int) -> int:
        """The time spent in `paused` so far."""
        return self._paused_ns + (now - self._paused_at if self._paused_at is not None else 0)

    @property
    def deadline_ns(self) -> int:
        """Until when it is worth waiting; only after a loss."""
        assert self._since_ns is not None
        return self._since_ns + self._settings.timeout

    def over(self, now: int) -> str | None:
        """Why it is not worth waiting any longer; None if it is."""
        if self.held:
            return None
        if self._row > self._settings.errors_max:
            return f"{self._row} connections ended in errors without progress (recovery.errors_max)"
        if self._since_ns is not None and now >= self.deadline_ns:
            return f"no progress for {format_time(self._settings.timeout)} (recovery.timeout)"
        return None

    def __repr__(self) -> str:
        return f"<Patience after {self.count} recoveries, {self._row} errors in a row>"
