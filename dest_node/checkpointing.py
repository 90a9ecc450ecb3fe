"""`--checkpoint DIR`: the directory, between the store that keeps it and the services that know nothing of files.

Rules
    1. A directory that holds a checkpoint is gone on with; another one is for the migration that comes.
    2. The guest that comes back is started with the settings that it had: they are part of what it does.
    3. It is over, and the files go, when the source has said so: that it has the guest, or has heard the verdict
       (`resumption.may_go`). In every other end they stay for another destination.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dest_node.incoming import Incoming
from dest_node.resumption import RestoredMigration
from migemu.checkpoint.format import Identity
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import RestoredCheckpoint
from migemu.checkpoint.writer import Keeper
from migemu.errors import InputError
from migemu.ports import Clock, GuestMemory
from migemu.scenario.scenario import Scenario
from migemu.wire.messages import Advise


class CheckpointInUse:
    """One directory in use. `restored` is what was found in it."""

    def __init__(self, directory: Path, keeper: Keeper, scenario: Scenario, restored: RestoredMigration | None) -> None:
        self.directory = directory
        self.keeper = keeper
        self.restored = restored
        self._scenario = scenario
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nobody will come back for it: its files go."""
        return self._is_over

    def may_go(self) -> None:
        """The migration has ended so that nobody comes back for it (rule 3)."""
        self._is_over = True

    async def provide(self, incoming: Incoming | None) -> GuestMemory:
        """The memory of `incoming`. InputError and BrokenError when it cannot be kept in the directory."""
        if self.keeper.memory is not None:
            return GuestMemory.of(self.keeper.memory)
        assert incoming is not None
        assert incoming.advise is not None
        scenario = self._scenario
        identity = _identity(incoming.migration, incoming.advise, guest_of(scenario))
        loop = asyncio.get_running_loop()
        return GuestMemory.of(await loop.run_in_executor(None, self.keeper.begin, identity, scenario.memory.hgm))

    def __repr__(self) -> str:
        return f"<CheckpointInUse {self.keeper!r}>"


@contextlib.asynccontextmanager
async def opened(
    directory: Path, scenario: Scenario, clock: Clock, notice: Callable[[str], None]
) -> AsyncIterator[CheckpointInUse]:
    """Use `directory` meanwhile, with a checkpoint every now and then. InputError and BrokenError when it cannot be."""
    loop = asyncio.get_running_loop()
    keeper = Keeper(directory, scenario.checkpoint, clock, notice)
    keeper.claim()
    found = await loop.run_in_executor(None, keeper.resume, scenario.memory.hgm)
    restored = None
    if found is not None:
        assert keeper.memory is not None
        _check_guest(directory, found.checkpoint.identity.guest, guest_of(scenario))
        restored = _restored(found, keeper.memory)
        notice(_going_on(directory, found, restored))
    in_use = CheckpointInUse(directory, keeper, scenario, restored)
    run = loop.create_task(keeper.run())
    try:
        yield in_use
    finally:
        run.cancel()
        await keeper.stop(discard=in_use.is_over)


def guest_of(scenario: Scenario) -> str:
    """What of a scenario makes a guest, as JSON text."""
    return json.dumps({"guest": scenario.resolved()["guest"], "scenario": {"seed": scenario.scenario.seed}})


def _check_guest(directory: Path, was: str, now: str) -> None:
    before, after = json.loads(was), json.loads(now)
    for section, settings in after.items():
        for name, value in settings.items():
            if (had := before.get(section, {}).get(name)) != value:
                raise InputError(
                    f"--checkpoint {directory}: its guest ran with {section}.{name}={had}, not {value}; start it with "
                    "the settings that it had"
                )


def _identity(migration: str, advise: Advise, guest: str) -> Identity:
    return Identity(
        migration, advise.geometry, advise.memory_bytes, advise.image_bytes, advise.device_state_bytes, advise.preempt,
        advise.scenario, guest,
    )  # fmt: skip


def _restored(read_back: RestoredCheckpoint, memory: CheckpointedMemory) -> RestoredMigration:
    identity = read_back.checkpoint.identity
    advise = Advise(
        identity.geometry, identity.memory_bytes, identity.image_bytes, identity.device_state_bytes, identity.preempt,
        identity.scenario,
    )  # fmt: skip
    return RestoredMigration(
        identity.migration, advise, read_back.ran, memory.restored_rows(), list(memory.restored_words()),
        read_back.checkpoint.statistics.generation, read_back.digest,
    )  # fmt: skip


def _going_on(directory: Path, read_back: RestoredCheckpoint, restored: RestoredMigration) -> str:
    """What has come back, in a line."""
    pages = sum(count for _, count in restored.rows)
    dropped = f"; {read_back.pages_dropped} pages had changed, and come again" if read_back.pages_dropped else ""
    verified = "; all of it was verified, and the source is waited for in case it has not heard"
    note = dropped + (verified if restored.verdict is not None else "")
    return (
        f"--checkpoint {directory}: goes on with migration {restored.migration[:8]}: {pages} of "
        f"{len(read_back.received)} base pages, {len(restored.words)} words that the guest has written{note}"
    )
