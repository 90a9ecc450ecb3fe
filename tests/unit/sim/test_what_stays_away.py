"""The source has sent everything, and not all has come: what a destination waits for, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dest_node.landing import Arrivals
from dest_node.recovery import Recovery
from migemu.mm.pages import TINY, Level, PageBitmap
from migemu.node.due import Due
from migemu.node.patience import Patience
from migemu.scenario.recovery_settings import RecoverySettings as Settings
from migemu.sim.loop import VirtualLoop
from migemu.sim.virtual_clock import VirtualClock
from migemu.trace.events import Event, Happening
from migemu.units import MS, SECOND
from migemu.wire.messages import Page
from migemu.wire.states import Legality
from tests.unit.sim.played import LIVELY, scenario
from tests.unit.sim.test_recovery import play, whole

#: The third zero page comes under another one's number, which has come already; no digests guard it.
MISPLACED = "corrupt main->destination Zero 3 byte 8"
ZEROS = {**LIVELY, "push.hold": "10ms", "memory.zero_share": 0.6}
#: A piece of 2M takes 16 s, a part of it (64K) half a second; all has been said on the main channel long before.
SLOW = {
    "memory.geometry": "x86_64", "memory.size": "1G", "memory.zero_share": 0, "device.state": 0, "guest.vcpus": 1,
    "guest.workload": "uniform", "guest.rate": 1000, "guest.accesses_max": 20, "push.hold": "20ms", "push.piece": "2M",
    "pull.piece": "2M", "link.rate": "100Gbit",
}  # fmt: skip


def _lost(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.t, event.detail or "") for event in events if event.event is Happening.LOST]


def test_what_was_lost_on_the_way_is_sent_again_when_nothing_comes_any_more() -> None:
    outcome, events, _ = play(scenario(ZEROS, net__answer_timeout="2s", net__idle_timeout="500ms"), MISPLACED)
    whole(outcome, events)
    at, reason = _lost(events)[0]
    assert reason == "main: the source has sent everything, and 1 base pages have not arrived"
    (ended, *_) = [event.t for event in events if event.event is Happening.ENDED]
    last_ns = max(event.t for event in events if event.event is Happening.RECEIVED and event.t < at)
    assert at - last_ns >= 2 * SECOND
    assert at - ended <= 2 * 2 * SECOND + 10 * MS
    assert (outcome.recovery.count, outcome.recovery.pages_lost) == (1, 1)


@pytest.mark.parametrize(("idle_s", "preempt_lost"), [(20, 0), (3, 1)])
def test_a_slow_piece_is_waited_for(idle_s: int, preempt_lost: int) -> None:
    """In virtual time it comes as a whole: nobody sees its bytes. Who takes that for silence asks for it again."""
    settings = scenario(SLOW, recovery__timeout="4s", net__idle_timeout=f"{idle_s}s")
    outcome, events, world = play(settings, "slow preempt->destination Page 1 to 1000000bit")
    assert world.injection is not None
    assert len(world.injection.struck) == 1
    received = [event.t for event in events if event.event is Happening.RECEIVED]
    assert max(received) - received[-2] > min(idle_s, 14) * SECOND, "or nothing was slow"
    assert outcome.verified
    assert (outcome.recovery.count, outcome.recovery.preempt_lost) == (0, preempt_lost)
    assert len(_lost(events)) == 2 * preempt_lost


@pytest.mark.parametrize(
    ("landings_ms", "received_ms", "main_lost_ms", "lost_at_ms"),
    [
        ([], None, None, 2000),
        ([1900], None, None, 4000),
        (list(range(500, 20_000, 1500)), None, None, 22_000),  # as long as bytes come, and a whole wait longer
        ([], 1900, None, None),
        ([], None, 1900, None),  # another connection has other pieces
        (list(range(500, 20_000, 1500)), 20_000, None, None),
    ],
)
def test_bytes_that_land_are_waited_on(
    landings_ms: list[int], received_ms: int | None, main_lost_ms: int | None, lost_at_ms: int | None
) -> None:
    """`landings_ms`: when some came; then when the last page was whole, and when the connection was another one."""
    loop = VirtualLoop(time_max_ns=60 * SECOND)  # type: ignore[abstract]  # what it lacks it refuses
    received = PageBitmap(TINY, 16)
    received.add(0, 15)
    lost_at: list[int] = []
    channels: Any = SimpleNamespace(
        idle_ns=500 * MS, main=object(), cut=lambda _: None, due=Due("the source", 2 * SECOND)
    )
    channels.get = lambda _: channels.main
    receiver = SimpleNamespace(received=received, ended=lambda _: [])
    assembly = SimpleNamespace(receiver=receiver, executor=SimpleNamespace(carry=lambda _: None))
    status: Any = SimpleNamespace(landings=7, assembly=assembly)
    owner: Any = SimpleNamespace(
        spawn=loop.create_task, channel_lost=lambda channel_id, _: lost_at.append(loop.now_ns)
    )  # fmt: skip

    async def main() -> None:
        patience = Patience(Settings(timeout="4s"))
        recovery = Recovery(owner, VirtualClock(loop), Legality(), channels, status, patience)
        for at in landings_ms:
            loop.call_at_ns(at * MS, lambda: setattr(status, "landings", status.landings + 1))
        if received_ms is not None:
            loop.call_at_ns(received_ms * MS, received.add, 15, 1)
        if main_lost_ms is not None:
            loop.call_at_ns(main_lost_ms * MS, lambda: setattr(channels, "main", object()))
        recovery.ended()
        await VirtualClock(loop).sleep_until(50 * SECOND)

    loop.run(main())
    assert lost_at == ([] if lost_at_ms is None else [lost_at_ms * MS])


def test_bytes_of_a_piece_count_as_they_land_not_when_it_is_whole() -> None:
    memory = SimpleNamespace(
        geometry=TINY, landing=lambda _first, count: memoryview(bytearray(count * TINY.page_bytes))
    )
    assembly: Any = SimpleNamespace(
        memory=SimpleNamespace(bytes=memory), receiver=SimpleNamespace(fresh_until=lambda _, end: end)
    )
    landed: list[None] = []
    status: Any = SimpleNamespace(landed=lambda: landed.append(None))
    arrivals = Arrivals(assembly, status, VirtualClock(), None, SimpleNamespace())  # type: ignore[arg-type]  # not asked
    for offset in range(0, 4 * TINY.page_bytes, TINY.page_bytes):
        arrivals.landing(Page(0, 4, Level.PTE, True), offset)
    assert len(landed) == 4
