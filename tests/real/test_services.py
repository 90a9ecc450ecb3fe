"""Both services in one loop over real TCP, traced: what must hold of every migration, whatever the order of events."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from random import Random

import pytest

from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import GEOMETRIES, TINY, Geometry, Level
from migemu.node.outcome import Outcome
from migemu.ports import GuestMemory
from migemu.scenario.scenario import Scenario, load
from migemu.store.allocate import allocate
from migemu.store.image import pattern
from migemu.store.mapped import MappedMemory
from migemu.trace.events import Event, Happening
from migemu.trace.recorder import MemoryRecorder
from migemu.transport.clock import MonotonicClock
from migemu.transport.shaper import Shaper
from migemu.transport.tcp import TcpNetwork
from migemu.units import MIB
from source_node.service import Source
from source_node.source_outcome import SourceOutcome
from tests.addresses import ANY_PORT
from tests.conformance.bounced import BouncedMemory
from tests.conformance.vcpu_kinds import TASKS, THREADS, Kind
from tests.observers import Noticing


async def migrate(scenario: Scenario, kind: Kind = TASKS) -> tuple[Outcome, SourceOutcome, list[Event]]:
    """One whole migration within this loop, its events in the order in which they happened; of vCPUs of this kind."""
    recorder, clock = MemoryRecorder(), MonotonicClock()

    async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
        memories.append(kind.memory(geometry, memory_bytes, allocate(memory_bytes, scenario.memory.backing)))
        return GuestMemory.of(memories[-1])

    memories: list[MappedMemory] = []
    shaper = Shaper(scenario.link, clock, Random(1), scenario.net.high_water) if scenario.link.shaped else None
    vcpus = kind.accelerator(scenario, clock, NO_FILES)
    setup = DestinationSetup(
        scenario=scenario,
        clock=clock,
        allocate=provide,
        accelerator=vcpus,
        tracer=recorder,
    )
    destination = Destination(TcpNetwork(scenario.net, clock), setup, Noticing(pytest.fail))
    memory = pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)
    source = Source(scenario, TcpNetwork(scenario.net, clock, shaper), clock, memory, "0" * 32, recorder)
    listener = await destination.listen(ANY_PORT)
    try:
        async with asyncio.timeout(30):
            outcome, sent = await asyncio.gather(destination.serve(), source.run(listener.address))
    finally:
        if shaper is not None:
            shaper.close()
    memories[0].validate()
    return outcome, sent, recorder.events


WORLDS = [
    (),
    ("push.run=4K", "pull.resend=on", "guest.rate=0", "guest.accesses_max=3000", "guest.workload=uniform"),
    ("pull.preempt=off", "push.order=random", "collapse.policy=direct", "guest.workload=uniform"),
    ("push.piece=2M", "pull.piece=4K", "push.order=fill_pmd", "guest.write_share=1", "guest.workload=uniform"),
    ("push.piece=4K", "pull.piece=2M", "push.order=bubbling", "collapse.policy=batched:spans=2"),
    ("link.rate=200Mbit", "link.delay=1ms", "pull.resend=on", "guest.workload=uniform", "guest.write_share=0.5"),
]


@pytest.mark.parametrize("settings", WORLDS, ids=" ".join)
async def test_what_must_hold_of_every_migration(settings: tuple[str, ...]) -> None:
    """mapped within received within sent at every event; nobody is left asleep; every page is counted once."""
    scenario = load(None, ["memory.geometry=tiny", "memory.size=4M", *settings])
    outcome, sent, events = await migrate(scenario)
    assert outcome.verified
    assert sent.verified
    assert sent.digest == outcome.digest
    total = scenario.memory.size // 4096
    pages: dict[Happening, set[int]] = defaultdict(set)
    dropped = 0
    waiting: dict[int, int] = {}
    for event in events:
        if event.event in (Happening.SENT, Happening.RECEIVED, Happening.CONTINUED):
            assert event.first is not None
            assert event.count is not None
            span = set(range(event.first, event.first + event.count))
            if event.event is Happening.RECEIVED:
                assert span <= pages[Happening.SENT]
                assert not span & pages[Happening.RECEIVED], "what had come before was stored again"
            if event.event is Happening.CONTINUED:
                assert span <= pages[Happening.RECEIVED]
                assert not span & pages[Happening.CONTINUED], "a piece was mapped twice"
            pages[event.event] |= span
        elif event.event is Happening.DROPPED:
            assert event.first in pages[Happening.RECEIVED]
            dropped += event.count or 0
        elif event.event is Happening.COLLAPSED:
            assert event.first is not None
            assert event.level is not None
            covered = set(range(event.first, event.first + scenario.geometry.pages(event.level)))
            assert covered <= pages[Happening.RECEIVED], "an entry gave access to what had not arrived"
        elif event.event is Happening.FAULTED:
            assert event.vcpu is not None
            assert event.vcpu not in waiting
            waiting[event.vcpu] = event.first or 0
        elif event.event is Happening.WOKEN:
            assert event.vcpu is not None
            assert waiting.pop(event.vcpu) == event.first
            assert event.first in pages[Happening.CONTINUED]
        elif event.event is Happening.WRITTEN:
            assert event.first in pages[Happening.CONTINUED]
    assert len(pages[Happening.CONTINUED]) == total
    receiver = outcome.snapshot.receiver
    assert receiver is not None
    assert len(pages[Happening.RECEIVED]) == total
    assert dropped == receiver.pages_duplicate
    assert outcome.snapshot.leaves[Level.PUD] == total // 16
    assert not waiting


async def test_a_guest_of_threads_migrates_like_one_of_tasks() -> None:
    """The destination knows the seam alone: vCPUs that sleep outside of its loop are served, stopped and verified."""
    scenario = load(None, [
        "memory.geometry=tiny", "memory.size=4M", "guest.vcpus=3", "guest.rate=0", "guest.accesses_max=2000",
        "guest.workload=uniform", "guest.write_share=0.5", "push.hold=20ms",
    ])  # fmt: skip
    outcome, sent, events = await migrate(scenario, THREADS)
    assert outcome.verified
    assert sent.digest == outcome.digest
    assert outcome.blocktime is not None
    assert outcome.blocktime.faults > 0
    assert outcome.reads + outcome.writes == sum(each.accesses for each in outcome.blocktime.vcpus)
    asked = {event.first for event in events if event.event is Happening.REQUESTED}
    assert asked <= {event.first for event in events if event.event is Happening.FAULTED}
    assert asked
    assert outcome.snapshot.leaves[Level.PUD] == scenario.memory.size // scenario.geometry.size(Level.PUD)


async def test_a_piece_that_comes_twice_is_counted_and_touches_no_memory() -> None:
    """With `resend` urgent copies overtake what stands in the link's queue; guest writes to them survive."""
    scenario = load(
        None,
        [
            "memory.geometry=tiny", "memory.size=4M", "memory.zero_share=0", "link.rate=100Mbit", "link.delay=1ms",
            "pull.resend=on", "guest.workload=uniform", "guest.write_share=1", "guest.rate=0",
        ],
    )  # fmt: skip
    outcome, sent, _ = await migrate(scenario)
    assert outcome.verified
    receiver = outcome.snapshot.receiver
    assert receiver is not None
    assert receiver.pages_duplicate == sent.sender.pages_resent > 0
    assert outcome.writes > 0


async def test_the_figures_of_one_migration_agree_with_each_other() -> None:
    scenario = load(None, ["memory.geometry=tiny", "memory.size=2M", "guest.workload=uniform", "push.hold=20ms"])
    outcome, sent, events = await migrate(scenario)
    blocktime, receiver = outcome.blocktime, outcome.snapshot.receiver
    assert blocktime is not None
    assert receiver is not None
    faults = sum(event.event is Happening.FAULTED for event in events)
    assert blocktime.faults + len(blocktime.open_faults) == receiver.faults == faults
    assert sum(outcome.histogram.values()) == blocktime.faults
    assert blocktime.blocktime_ns == sum(vcpu.blocktime_ns for vcpu in blocktime.vcpus)
    assert blocktime.overlapped_blocktime_ns <= min(vcpu.blocktime_ns for vcpu in blocktime.vcpus)
    assert receiver.requests == sent.sender.requests
    assert receiver.pieces_4k + receiver.pages_zero == 512
    assert outcome.reads + outcome.writes == sum(vcpu.accesses for vcpu in blocktime.vcpus)
    times = outcome.snapshot.times
    assert times.advise <= times.ready <= times.run <= times.first_piece <= times.last_piece <= times.finish
    assert 0 < sent.downtime_ns == outcome.downtime_ns


@pytest.mark.parametrize("largest", [Level.PMD, Level.PUD], ids=lambda level: level.name)
@pytest.mark.parametrize("settings", [*WORLDS, ("integrity.digests=on", "memory.hgm=off")], ids=" ".join)
async def test_neither_the_largest_leaf_nor_how_pieces_are_installed_is_known_to_a_node(
    settings: tuple[str, ...], largest: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugetlb pages of 4 base pages or of 16, filled from a bounce buffer."""
    monkeypatch.setitem(GEOMETRIES, "tiny", replace(TINY, largest=largest))
    scenario = load(None, ["memory.geometry=tiny", "memory.size=1M", *settings])
    outcome, sent, _ = await migrate(scenario, Kind("bounced", TaskAccelerator, BouncedMemory))
    assert outcome.verified
    assert sent.digest == outcome.digest
    leaves = outcome.snapshot.leaves
    assert leaves == {**dict.fromkeys(scenario.geometry.levels, 0), largest: MIB // scenario.geometry.largest_bytes}
