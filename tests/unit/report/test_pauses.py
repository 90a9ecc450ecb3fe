"""Pauses as a person hears of them."""

from __future__ import annotations

import pytest

from migemu.report.terminal.pauses import Pauses
from migemu.wire.states import Stage

SEEN = (
    (Stage.RUNNING, 0, ""),
    (Stage.PAUSED, 0, "reset"),
    (Stage.PAUSED, 0, "refused"),
    (Stage.RECOVER, 0, "refused"),
    (Stage.RUNNING, 1, "refused"),
)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (SEEN, ["paused: reset. Wait", "goes on"]),
        ((SEEN[0], SEEN[-1]), ["goes on, after a short pause: refused"]),
        ((*SEEN, (Stage.RUNNING, 1, "refused"), (Stage.PAUSED, 1, "again"), (Stage.RUNNING, 2, "again")),
         ["paused: reset. Wait", "goes on", "paused: again. Wait", "goes on"]),
        ((SEEN[0], (Stage.PAUSED, 1, "twice"), (Stage.PAUSED, 1, "twice"), (Stage.RUNNING, 2, "twice")),
         ["goes on, after a short pause: twice", "paused: twice. Wait", "goes on"]),
        (SEEN[:1] * 3, []),
    ],
    ids=["one", "too short", "two", "one behind the other", "none"],
)  # fmt: skip
def test_each_pause_is_told_once_with_what_to_do(seen: list[tuple[Stage, int, str]], told: list[str]) -> None:
    pauses = Pauses()
    assert [line for line in (pauses.see(*each, "Wait") for each in seen) if line] == told
