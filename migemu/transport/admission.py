"""The door of a listener: how many may be in at once, and who has to give way when it is full.

Who connects stands **at the door** until the first message has been accepted: a TLS handshake that never ends, a key
that is never shown, a Hello that never comes all happen there. From then on it is **inside**.

    - At most `places` connections are held, at the door and inside together.
    - When all places are taken, the newcomer takes that of somebody at the door: of the host with the most there, the
      one that has stood the longest. So half-open handshakes never close the door: a flood only wears itself out, and
      from one host it does not reach another host's handshake. An honest one is through in a few milliseconds.
    - Nobody inside is ever disturbed. When all are inside, the newcomer is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, TypeVar

from migemu.errors import PeerError

#: What is said of somebody who had to go.
GAVE_WAY: Final = "it had not said what it wants when its place was needed for a newer one (limits.connections_max)"

Visitor = TypeVar("Visitor")


class Door(Generic[Visitor]):
    """Who is in. Hosts are texts; visitors can be keys of a dict."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: dict[Visitor, str] = {}
        self._inside: dict[Visitor, None] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._inside)

    def enter(self, visitor: Visitor, host: str) -> Visitor | None:
        """A newcomer; who has to go for it, and is let go here. PeerError when nobody can be."""
        gone = None
        if len(self) >= self._places:
            if not self._waiting:
                raise PeerError(f"too many connections ({self._places}, limits.connections_max)")
            crowd = Counter(self._waiting.values())
            most = max(crowd.values())
            gone = next(each for each, where in self._waiting.items() if crowd[where] == most)
            del self._waiting[gone]
        self._waiting[visitor] = host
        return gone

    def admit(self, visitor: Visitor) -> None:
        """Its first message was accepted."""
        if self._waiting.pop(visitor, None) is not None:
            self._inside[visitor] = None

    def leave(self, visitor: Visitor) -> None:
        """Its connection is over. Safe to call twice."""
        self._waiting.pop(visitor, None)
        self._inside.pop(visitor, None)

    def __repr__(self) -> str:
        return f"<Door {len(self._waiting)} waiting, {len(self._inside)} inside, {self._places} places>"
