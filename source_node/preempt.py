"""Sees to it that there is a preempt channel; if it is lost alone, learns what went with it, and has that sent again.

While there is none urgent pieces go over the main channel. What was sent on the lost one may have arrived or not: the
main channel, which keeps its order, carries the question (Recover), and what is sent from then on is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from migemu.address import Address
from migemu.errors import BrokenError, PeerError
from migemu.node.patience import Backoff
from migemu.ports import Clock
from migemu.scenario.scenario import Scenario
from migemu.wire.bitmap import BitmapReader
from migemu.wire.messages import ChannelRole, Hello
from source_node.conversation import Conversation
from source_node.core.sender import Sender
from source_node.pusher import Pusher

PREEMPT = ChannelRole.PREEMPT


class PreemptChannel:
    """That of one migration. `heard_of` is told what has arrived; `spawn` runs a task."""

    def __init__(
        self, scenario: Scenario, clock: Clock, talk: Conversation, sender: Sender, pusher: Pusher, migration: str,
        heard_of: Callable[[BitmapReader], None], spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._talk = talk
        self._sender = sender
        self._pusher = pusher
        self._migration = migration
        self._heard_of = heard_of
        self._spawn = spawn
        self._gone = asyncio.Event()
        self._backoff = Backoff(scenario.recovery, Random(f"{scenario.scenario.seed} preempt"))

    def lost(self) -> None:
        """It is gone, alone."""
        self._talk.legality.preempt_lost()
        self._gone.set()

    async def tend(self, address: Address) -> None:
        """For as long as the session lasts. BrokenError when the main channel is lost."""
        while True:
            if self._talk.lines.get(PREEMPT) is None:
                if self._sender.urgent_role is PREEMPT:
                    await self._regain()
                try:
                    await self._talk.lines.connect(PREEMPT, address, once=True)
                except (BrokenError, PeerError):
                    await self._wait()
                    continue
                self._talk.say(Hello(PREEMPT, self._migration, True), PREEMPT)
                self._sender.preempt_back()
                self._pusher.urgent()  # what was asked for meanwhile, and waited for room on the main channel
            self._gone.clear()
            await self._gone.wait()

    async def _regain(self) -> None:
        self._sender.preempt_lost()
        bitmap = await self._talk.ask_what_is_there(self._sender.sent)
        assert bitmap is not None, "a guest that runs is not started again"
        self._sender.regained(bitmap.received)
        self._heard_of(bitmap)
        if not self._pusher.pushing:
            self._spawn(self._pusher.push(self._talk.main()))
        await self._wait()

    async def _wait(self) -> None:
        await self._clock.sleep_until(self._clock.now_ns() + self._backoff.next_ns())

    def __repr__(self) -> str:
        return f"<PreemptChannel {'lost' if self._talk.lines.get(PREEMPT) is None else 'open'}>"
