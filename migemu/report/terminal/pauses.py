"""What a person is told of pauses: that one has begun, why, and what to do about it; and that it is over.

Rules
    1. A pause is told once, when it is seen. One too short to be seen is told when it is over.
    2. An operator's pause is told without advice: whoever made it knows how it ends.
    3. Whoever only looks now and then misses nothing that matters: recoveries are counted by the node.
"""

from __future__ import annotations

from typing import Final

from migemu.errors import sentences
from migemu.wire.states import Stage

_STAGES: Final = (Stage.PAUSED, Stage.RECOVER)


class Pauses:
    """Which lines about pauses a node has printed for one migration."""

    def __init__(self) -> None:
        self._recoveries = 0
        self._is_reported = self._is_held = False

    def see(self, stage: Stage, recoveries: int, last_error: str, advice: str, held: bool = False) -> str | None:
        """The line to print for the present stage, None if none; `held`: an operator paused the migration.

        `advice` says what the user can do now.
        """
        if held is not self._is_held:
            self._is_held = self._is_reported = held
            return "paused by an operator, until migemu resume" if held else "resumed by an operator"
        if recoveries > self._recoveries:
            line = "goes on" if self._is_reported else f"goes on, after a short pause: {last_error}"
            self._recoveries, self._is_reported = recoveries, False
            return line
        if stage in _STAGES and not self._is_reported:
            self._is_reported = True
            return sentences(f"paused: {last_error}", advice)
        return None

    def __repr__(self) -> str:
        return f"<Pauses after {self._recoveries} recoveries{', in one' if self._is_reported else ''}>"
