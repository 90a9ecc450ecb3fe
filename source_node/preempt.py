"""Sees to it that there is a preempt channel; if it is lost alone, learns what went with it, and has that sent again.

While there is none urgent pieces go over the main channel. What was sent on the lost one may have arrived or not: the
main channel, which keeps its order, carries the question (Recover), and what is sent from then on is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, Protocol

from migemu.address import Address
from migemu.errors import BrokenError, PeerError
from migemu.node.patience import Backoff
from migemu.ports import Clock
from migemu.scenario.scenario import Scenario
from migemu.wire.bitmap import BitmapReader
from migemu.wire.messages import PREEMPT_CHANNEL, Hello
from source_node.conversation import Conversation
from source_node.core.sender import Sender
from source_node.pusher import Pusher


class PreemptOwner(Protocol):
    """The migration that the preempt channel belongs to."""

    def heard_of(self, bitmap: BitmapReader) -> None:
        """`bitmap` says what has arrived at the destination."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Run `work` as a task that ends with the session; where it fails, the migration does."""


class PreemptChannel:
    """Keeps one migration's preempt channel open, as long as there is to be one (`tend`)."""

    def __init__(
        self, owner: PreemptOwner, scenario: Scenario, clock: Clock, talk: Conversation, sender: Sender, pusher: Pusher,
        migration: str,
    ) -> None:  # fmt: skip
        """`migration` is the name that its Hello bears."""
        self._owner = owner
        self._clock = clock
        self._talk = talk
        self._sender = sender
        self._pusher = pusher
        self._migration = migration
        self._gone = asyncio.Event()
        self._backoff = Backoff(scenario.recovery, Random(f"{scenario.scenario.seed} preempt"))

    def lost(self) -> None:
        """The preempt connection is gone, and the main one is not: `tend` makes another."""
        self._talk.preempt_lost()
        self._gone.set()

    async def tend(self, address: Address) -> None:
        """Open it whenever it is lost, until cancelled. BrokenError when the main channel is lost."""
        while True:
            if self._talk.channels.get(PREEMPT_CHANNEL) is None:
                if self._sender.urgent_channel == PREEMPT_CHANNEL:
                    await self._recover_lost()
                try:
                    await self._talk.channels.connect(PREEMPT_CHANNEL, address, once=True)
                except (BrokenError, PeerError):
                    await self._wait()
                    continue
                self._talk.say(Hello(PREEMPT_CHANNEL.role, self._migration, True), PREEMPT_CHANNEL)
                self._sender.preempt_back()
                self._pusher.urgent()  # what was asked for meanwhile, and waited for room on the main channel
            self._gone.clear()
            await self._gone.wait()

    async def _recover_lost(self) -> None:
        self._sender.preempt_lost()
        bitmap = await self._talk.ask_what_is_there(self._sender.sent)
        assert bitmap is not None, "a guest that runs is not started again"
        self._sender.preempt_recovered(bitmap.received)
        self._owner.heard_of(bitmap)
        if not self._pusher.pushing:
            self._owner.spawn(self._pusher.push(self._talk.main()))
        await self._wait()

    async def _wait(self) -> None:
        await self._clock.sleep_until(self._clock.now_ns() + self._backoff.next_ns())

    def __repr__(self) -> str:
        return f"<PreemptChannel {'lost' if self._talk.channels.get(PREEMPT_CHANNEL) is None else 'open'}>"
