"""Where the guest is said to be when a destination ends that has all of its memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dest_node.incoming_status import IncomingStatus
from migemu.node.outcome import Whereabouts
from migemu.node.patience import Patience
from migemu.scenario.recovery_settings import RecoverySettings


@pytest.mark.parametrize(
    ("checkpoint", "where", "says"),
    [
        (None, Whereabouts.LOST, "The guest is lost: all of its memory had come here, and was not compared"),
        (SimpleNamespace(lost="no space"), Whereabouts.LOST, "The guest is lost: all of its memory had come here"),
        (SimpleNamespace(lost=None), Whereabouts.DESTINATION, "The guest is in its checkpoint, to go on from"),
    ],
)
def test_a_guest_that_nothing_keeps_is_lost_whatever_has_come(checkpoint: Any, where: Whereabouts, says: str) -> None:
    channels: Any = SimpleNamespace()
    assembly: Any = SimpleNamespace(receiver=SimpleNamespace(received=SimpleNamespace(complete=True)))
    limits: Any = SimpleNamespace()
    clock: Any = SimpleNamespace(now_ns=lambda: 7)
    status = IncomingStatus(clock, channels, Patience(RecoverySettings()), limits, checkpoint)
    status.assembled(assembly)
    status.began(run=8)
    assert status.whereabouts is Whereabouts.DESTINATION
    assert status.waiting.startswith(says)
    status.finished()
    assert status.whereabouts is where
