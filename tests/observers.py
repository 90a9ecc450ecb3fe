"""Who follows a destination in tests."""

from __future__ import annotations

from collections.abc import Callable

from dest_node.service import NoObserver


class Noticing(NoObserver):
    """Hands each line on to a function."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def notice(self, line: str) -> None:
        self._tell(line)
