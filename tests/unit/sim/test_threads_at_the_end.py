"""`costs.threads` of three: one may be done while another works off what it took in; the end waits for all."""

from __future__ import annotations

from typing import Any

import pytest

from migemu.trace.events import Happening
from tests.unit.sim.played import play, scenario

THREE = {
    "costs.threads": "three", "memory.geometry": "tiny", "memory.size": "128K", "link.delay": "5us",
    "return_link.delay": "5us",
}  # fmt: skip
#: What comes last is mapped or announced on a thread that is busy for longer than the others.
SLOWEST_LAST: dict[str, dict[str, Any]] = {
    "a piece on the main channel": {
        "pull.piece": "2M", "collapse.policy": "never", "guest.workload": "sequential", "link.rate": "1Gbit",
        "link.segment": "4K", "link.scheduling": "fifo", "net.high_water": "4K",
    },
    "a whole hugetlb page": {
        "scenario.seed": 1047, "memory.hgm": "off", "push.hold": "1ms", "costs.place": "copy", "device.state": "4K",
        "link.rate": "100Mbit", "return_link.delay": "200us",
    },
    "the end of the stream": {
        "scenario.seed": 2761, "memory.size": "64K", "pull.sender": "push", "device.state": "4K",
        "link.delay": "200us", "net.high_water": "4K", "link.congestion": "cubic", "return_link.delay": "0",
        "collapse.policy": "never",
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", SLOWEST_LAST.values(), ids=list(SLOWEST_LAST))
def test_nothing_is_complete_before_every_thread_is_done(settings: dict[str, Any]) -> None:
    run = play(scenario(THREE, settings))
    assert not run.world.watch.violations
    (completed,) = [event.t for event in run.trace if (event.event, event.detail) == _COMPLETED]
    assert max(event.t for event in run.trace if event.event in _WORK) <= completed


_COMPLETED = (Happening.STATE, "completed")
_WORK = (Happening.RECEIVED, Happening.CONTINUED, Happening.ENDED)
