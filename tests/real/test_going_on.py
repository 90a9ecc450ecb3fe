"""Connections cut and processes killed for real: the migration goes on, over TCP, and ends verified."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from random import Random
from resource import RLIMIT_NOFILE, prlimit
from typing import Any

import pytest

from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination, NoObserver
from dest_node.setup import DestinationSetup
from migemu.address import Address, TcpAddress
from migemu.errors import InputError
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome
from migemu.ports import Channel, ChannelHandler, GuestMemory
from migemu.scenario.scenario import Scenario, load
from migemu.store.allocate import allocate
from migemu.store.image import pattern
from migemu.store.mapped import MappedMemory
from migemu.trace.checkers import Checks
from migemu.trace.events import Event
from migemu.trace.recorder import MemoryRecorder
from migemu.transport.clock import MonotonicClock
from migemu.transport.tcp import TcpNetwork
from migemu.wire.states import Stage
from source_node.record import Migration, Record
from source_node.record import load as load_migration
from source_node.service import Source
from source_node.source_outcome import SourceOutcome
from tests.addresses import ANY_PORT
from tests.real.processes import destination, source

LIVELY = (
    "memory.geometry=tiny", "memory.size=8M", "guest.workload=uniform", "guest.write_share=0.5", "push.run=16K",
    "push.rate=400Mbit", "recovery.backoff_min=5ms",
)  # fmt: skip


class Cut(TcpNetwork):
    """Real TCP whose connections from here are remembered, so that somebody can cut them."""

    def __init__(self, scenario: Scenario, clock: MonotonicClock) -> None:
        super().__init__(scenario.net, clock)
        self.made: list[Channel] = []

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> Any:
        channel = await super().connect(address, handler, once=once)
        self.made.append(channel)
        return channel


async def migrate(scenario: Scenario, times: int, seed: int) -> tuple[Outcome, SourceOutcome, list[Event]]:
    """One migration in this loop, whose connections are cut `times` times, the main one or both at random times."""
    recorder, clock, rng = MemoryRecorder(), MonotonicClock(), Random(seed)

    async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
        return GuestMemory.of(MappedMemory(geometry, memory_bytes, allocate(memory_bytes, scenario.memory.backing)))

    vcpus = TaskAccelerator(scenario, clock, NO_FILES)
    setup = DestinationSetup(
        scenario=scenario,
        clock=clock,
        allocate=provide,
        accelerator=vcpus,
        tracer=recorder,
    )
    receiving = Destination(TcpNetwork(scenario.net, clock), setup, NoObserver())
    memory = pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)
    network = Cut(scenario, clock)
    sending = Source(scenario, network, clock, memory, "0" * 32, recorder)
    listener = await receiving.listen(ANY_PORT)

    async def cut() -> None:
        for _ in range(times):
            await asyncio.sleep(0.01 + rng.random() * 0.03)
            if sending.stage is Stage.RUNNING and network.made:
                # As a broken network would: the transport goes, and whoever owned the channel is told.
                channel: Any = rng.choice(network.made[-2:])
                if channel._transport is not None:
                    channel._transport.abort()

    async with asyncio.timeout(60):
        cutter = asyncio.get_running_loop().create_task(cut())
        outcome, sent = await asyncio.gather(receiving.serve(), sending.run(listener.address))
        cutter.cancel()
    return outcome, sent, recorder.events


@pytest.mark.parametrize("settings", [(), ("pull.preempt=off",), ("integrity.digests=on",)], ids=str)
async def test_connections_cut_at_random_times_lose_nothing(settings: tuple[str, ...]) -> None:
    scenario = load(None, [*LIVELY, *settings])
    outcome, sent, events = await migrate(scenario, times=6, seed=len(settings))
    assert outcome.verified
    assert sent.verified
    assert outcome.recovery.count + outcome.recovery.preempt_lost > 0
    assert outcome.certificate is not None
    assert outcome.certificate.countersigned
    assert outcome.certificate.source_digest == outcome.certificate.digest == sent.digest
    receiver = outcome.snapshot.receiver
    assert receiver is not None
    assert receiver.pages_duplicate == 0
    checks = Checks(scenario.geometry, scenario.memory.size // 4096)
    for event in events:
        assert not checks.see(event)
    assert not checks.ended(cut=False)


THERE = TcpAddress("there", 4444)
HELD = ("--set", "push.hold=1s", "--set", "guest.rate=1000")


def test_a_source_that_was_killed_is_started_again_and_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "source"
    with destination("--out", str(tmp_path), *HELD) as dest:
        with source(dest.port, "--out", str(kept), *HELD) as first:
            dest.wait_until(lambda said: said.get("status", {}).get("received_bytes", 0))
            first.signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
        dest.wait_for_stage("paused")
        with source(dest.port, "--recover", str(kept)) as second, source(dest.port, "--recover", str(kept)) as third:
            codes = {second.wait(): second, third.wait(): third}
            assert set(codes) == {0, 2}, [second.error, third.error]
            assert f"{kept}: a source that runs has it" in codes[2].error
        assert dest.wait() == 0, dest.error
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verified"]
    assert result["recovery"]["count"] == 1
    assert result["pieces"]["duplicate"] == 0
    assert result["certificate"]["countersigned"]
    assert result["certificate"]["source_digest"] == result["certificate"]["digest"]
    with pytest.raises(InputError, match="was completed"):
        load_migration(kept).resumable()


def test_a_destination_that_was_killed_and_started_anew_says_plainly_that_the_guest_is_lost(tmp_path: Path) -> None:
    with destination(*HELD) as dest:
        port = dest.port
        with source(port, "--out", str(tmp_path), *HELD) as sender:
            dest.wait_for_stage("run")
            dest.signal(signal.SIGKILL)
            dest.wait()
            with destination("--listen", f"127.0.0.1:{port}"):
                assert sender.wait() == 3
                assert "this destination knows nothing of migration" in sender.error
                assert "if its guest had run, and nothing was kept, the guest is lost" in sender.error
                assert "The guest was at the destination" in sender.error


def test_a_source_that_cannot_keep_its_record_after_the_switch_goes_on(tmp_path: Path) -> None:
    slow = ("--set", "device.state=1M", "--set", "link.rate=8Mbit")
    with destination() as dest, source(dest.port, "--out", str(tmp_path), *slow) as sender:
        dest.wait_for_stage("listen")
        _, hard = prlimit(sender.process.pid, RLIMIT_NOFILE)
        prlimit(sender.process.pid, RLIMIT_NOFILE, (3, hard))
        assert (
            "migration.json cannot be written: Too many open files; the migration goes on" in sender.wait_for_notice()
        )
        assert sender.wait() == 3
        assert sender.error.startswith("verified, but not every file could be written: ")
        assert sender.error.endswith("migration.json cannot be written: Too many open files")
        assert dest.wait() == 0, dest.error


# --- the record of a migration ---


def record(tmp_path: Path, **changes: Any) -> Path:
    image = tmp_path / "image"
    if not image.exists():
        image.write_bytes(bytes(range(256)) * 1024)
    scenario = load(None, [f"memory.image={image}", "memory.geometry=tiny"])
    Record(tmp_path, Migration.of("0" * 32, THERE, scenario)).save(**changes)
    return image


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    image = record(tmp_path, switched=True, downtime_ns=5)
    migration = load_migration(tmp_path)
    assert (migration.address, migration.downtime_ns) == ("there:4444", 5)
    assert migration.resumable().memory.image == str(image)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, "the guest had not left"), ({"switched": True, "completed": True}, "was completed")],
)
def test_there_is_not_always_something_to_recover(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    record(tmp_path, **changes)
    with pytest.raises(InputError, match=told):
        load_migration(tmp_path).resumable()


def test_an_image_is_found_again_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = record(tmp_path)
    monkeypatch.chdir(tmp_path)
    scenario = load(None, ["memory.image=image", "memory.geometry=tiny"])
    Record(tmp_path, Migration.of("0" * 32, THERE, scenario)).save(switched=True)
    monkeypatch.chdir("/")
    assert load_migration(tmp_path).resumable().memory.image == str(image)


def test_an_image_that_has_changed_is_refused(tmp_path: Path) -> None:
    image = record(tmp_path, switched=True)
    image.write_bytes(bytes(256 * 1024))
    with pytest.raises(InputError, match="is not the image that the migration began with"):
        load_migration(tmp_path).resumable()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "x": 2}', "\xff"])
def test_what_is_no_record_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_migration(tmp_path)
    (tmp_path / "migration.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"not the record|another version"):
        load_migration(tmp_path)


def test_a_record_that_told_host_and_port_is_still_read(tmp_path: Path) -> None:
    record(tmp_path, switched=True)
    path = tmp_path / "migration.json"
    values = json.loads(path.read_text())
    del values["address"]
    path.write_text(json.dumps(values | {"version": 1, "host": "::1", "port": 4444}))
    assert load_migration(tmp_path).address == "[::1]:4444"


@pytest.mark.parametrize("address", [7, None, [], "", "there", "there:²", "unix:"])
def test_a_record_with_an_address_that_is_none_is_told_in_a_line(tmp_path: Path, address: object) -> None:
    record(tmp_path, switched=True)
    path = tmp_path / "migration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": address}))
    with pytest.raises(InputError, match="is not the record of a migration"):
        load_migration(tmp_path)
