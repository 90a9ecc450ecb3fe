"""A destination that is gone after its verdict: that stands, whether its source has heard of it or not.

The directory is copied at the moment at which the verdict is durable and nobody has been told; another destination
goes on with the copy.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from dest_node.checkpointing import CheckpointInUse, opened
from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination, NoObserver
from dest_node.setup import DestinationSetup
from migemu.checkpoint.writer import Keeper
from migemu.guest.workload import NO_FILES
from migemu.node.outcome import Outcome
from migemu.scenario.scenario import Scenario, load
from migemu.store.image import ImageMemory, pattern
from migemu.transport.clock import MonotonicClock
from migemu.transport.tcp import TcpNetwork
from source_node.service import Source
from tests.addresses import ANY_PORT

SETTINGS = ("memory.geometry=tiny", "memory.size=2M", "guest.write_share=0.5", "recovery.backoff_min=5ms")
MIGRATION = "0" * 32


def memory_of(scenario: Scenario) -> ImageMemory:
    return pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)


def source_of(scenario: Scenario) -> Source:
    clock = MonotonicClock()
    return Source(scenario, TcpNetwork(scenario.net, clock), clock, memory_of(scenario), MIGRATION)


def destination_of(scenario: Scenario, kept: CheckpointInUse) -> Destination:
    clock = MonotonicClock()
    vcpus = TaskAccelerator(scenario, clock, NO_FILES)
    setup = DestinationSetup(
        scenario=scenario, clock=clock, allocate=lambda *_: kept.provide(destination.incoming), accelerator=vcpus,
        checkpoint=kept.keeper, restored=kept.restored,
    )  # fmt: skip
    destination = Destination(TcpNetwork(scenario.net, clock), setup, NoObserver())
    return destination


@pytest.fixture
async def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a destination has left that ended between its verdict and the source's hearing of it."""
    verified, copy = Keeper.verified, tmp_path / "left"

    async def and_gone(self: Keeper, digest: str) -> None:
        await verified(self, digest)
        shutil.copytree(tmp_path / "kept", copy)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "verified", and_gone)
        scenario = load(None, SETTINGS)
        async with opened(tmp_path / "kept", scenario, MonotonicClock(), lambda _: None) as kept:
            destination = destination_of(scenario, kept)
            listener = await destination.listen(ANY_PORT)
            outcome, _ = await asyncio.gather(
                destination.serve(), source_of(scenario).run(listener.address)
            )  # fmt: skip
            assert outcome.verified
    return copy


async def comes_back(left: Path, *settings: str, source: bool) -> tuple[Outcome, Any]:
    """Another destination goes on there; its outcome, and that of the source if that comes back too."""
    scenario = load(None, [*SETTINGS, *settings])
    async with asyncio.timeout(30), opened(left, scenario, MonotonicClock(), lambda _: None) as kept:
        assert kept.restored is not None
        assert kept.restored.verdict is not None
        destination = destination_of(scenario, kept)
        listener = await destination.listen(ANY_PORT)
        sends = source_of(scenario).recover(listener.address, 1) if source else asyncio.sleep(0)
        outcome, sent = await asyncio.gather(destination.serve(), sends)
        kept.may_go()
    assert list(left.iterdir()) == []
    return outcome, sent


async def test_a_source_that_has_not_heard_the_verdict_is_told_it_and_signs(left: Path) -> None:
    outcome, sent = await comes_back(left, source=True)
    assert outcome.certificate is not None
    assert outcome.certificate.countersigned
    assert outcome.certificate.digest == sent.digest
    assert sent.verified


async def test_a_source_that_has_heard_it_does_not_come_and_the_verdict_stands(left: Path) -> None:
    outcome, _ = await comes_back(left, "recovery.timeout=100ms", source=False)
    assert outcome.verified
    assert outcome.certificate is not None
    assert not outcome.certificate.countersigned


@pytest.mark.parametrize("text", ["", "0" * 31, "z" * 32, "0" * 33])
async def test_half_a_verdict_is_none(left: Path, text: str) -> None:
    (left / "verified").write_text(text)
    async with opened(left, load(None, SETTINGS), MonotonicClock(), lambda _: None) as kept:
        assert kept.restored is not None
        assert kept.restored.verdict is None
