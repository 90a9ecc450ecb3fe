"""The source is lost, and found again: what a destination does meanwhile.

    pause     nobody can be asked; vCPUs run on where their pages are here, faults wait, and so does this side
    asked     a source has come back and asks (Recover): it is told what has arrived, or that Run was not heard
    resume    the source knows: all that faults wait for is asked for, again

    ended     the source has sent everything: when nothing comes any more, what is not here was lost on the way (a piece
              that came for another page, where no digests guard it); it is sent again after a pause

With the preempt channel alone lost there is no pause: `asked` is all that happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from dest_node.assembly import Assembly
from dest_node.channels import DestinationChannels
from dest_node.incoming_status import IncomingStatus
from migemu.errors import BrokenError, MigemuError, PeerError, because, one_line
from migemu.node.outcome import with_whereabouts
from migemu.node.patience import Patience
from migemu.ports import Clock
from migemu.wire.bitmap import parts as bitmap_parts
from migemu.wire.messages import MAIN_CHANNEL, PREEMPT_CHANNEL, ChannelId, Message, Ready, Recover, Resume, Resumed
from migemu.wire.states import Legality, Role, Stage

#: What a source that has come back can owe: its question, the switch, that it goes on.
RECOVER, RUN, RESUME = "Recover", "Run", "Resume"


class RecoverableMigration(Protocol):
    """The incoming migration, as its recovery needs it."""

    migration: str

    def enter(self, stage: Stage) -> None:
        """Begin `stage`: it is traced, and shown by the status."""

    def say(self, message: Message, payload: bytes | None = None) -> None:
        """Say something to the source, if it is connected. PeerError when it may not be said now: a bug."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task whose failure is the migration's."""

    def channel_lost(self, channel_id: ChannelId, error: MigemuError) -> None:
        """A connection is of no use any more, because of `error`."""

    def complete(self) -> None:
        """The migration has ended verified: it needs no source any more."""


class Recovery:
    """What one incoming migration does while its source is gone, and when it comes back."""

    def __init__(
        self, owner: RecoverableMigration, clock: Clock, legality: Legality, channels: DestinationChannels,
        status: IncomingStatus, patience: Patience,
    ) -> None:  # fmt: skip
        self._owner = owner
        self._clock = clock
        self._legality = legality
        self._channels = channels
        self._status = status
        self._patience = patience
        self._task: asyncio.Task[None] | None = None  # waits for a source, or tells it what is here

    def pause(self, error: MigemuError) -> None:
        """The source is gone, because of `error`; it may come back."""
        now = self._clock.now_ns()
        self._stop()
        self._channels.cut_all()
        self._status.lost(error)
        receiver = self._assembly().receiver
        receiver.paused(now)
        self._patience.arrived(receiver.received.set_pages)
        self._patience.lost(now, error)
        self._owner.enter(Stage.PAUSED)
        self._task = self._owner.spawn(self._wait(error))

    def hold(self, error: MigemuError) -> None:
        """An operator pauses it, and `error` says so: until `release` no source is let in, and no time runs out."""
        self._legality.lost()
        self.pause(error)
        self._stop()
        self._patience.held = True

    def release(self) -> None:
        """A source may come again; it is waited for from now on."""
        self._patience.begin_again(self._clock.now_ns())
        self._task = self._owner.spawn(self._wait(BrokenError("no source has come since its operator resumed it")))

    def replace(self) -> None:
        """A source has come, over another connection than the one that there may still seem to be."""
        self._legality.lost()
        if not self._patience.paused:
            self.pause(BrokenError("the source came again over another connection"))
        self._stop()

    async def _wait(self, error: MigemuError) -> None:
        while (reason := self._patience.over(self._clock.now_ns())) is None:
            await self._clock.sleep_until(self._patience.deadline_ns)
        if self._status.verdict is None:
            blamed = PeerError if isinstance(error, PeerError) else BrokenError
            raise blamed(with_whereabouts(because(one_line(error), reason), self._status.waiting))
        self._owner.complete()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def asked(self, _recover: Recover) -> None:
        """The source asks what has arrived. All that it said before on this channel has; nothing else may any more.

        PeerError when the last answer is not out yet: questions are short, and bitmaps are not.
        """
        if self._task is not None and not self._task.done():
            raise PeerError("Recover came again before it was answered")
        self._channels.due.settled(RECOVER)
        self._channels.cut(PREEMPT_CHANNEL)
        self._legality.preempt_lost()
        if self._legality.states[Role.SOURCE] is not Stage.RECOVER:
            self._status.lost_preempt()
        else:
            self._owner.enter(Stage.RECOVER)
            if not self._status.times.run:
                self._owner.say(Ready(self._owner.migration))
                self._channels.due.expect(RUN, self._clock.now_ns())
                return
        self._task = self._owner.spawn(self._send_bitmap())

    async def _send_bitmap(self) -> None:
        """The bitmap, part by part; then, if the guest's faults may be asked for, what they wait for."""
        assembly, main = self._assembly(), self._channels.get(MAIN_CHANNEL)
        for part, payload in bitmap_parts(assembly.receiver.received):
            if self._channels.get(MAIN_CHANNEL) is not main:
                return
            self._status.sent_bitmap(len(payload))
            self._owner.say(part, payload or None)
            await asyncio.sleep(0)
        if self._legality.states[Role.SOURCE] is Stage.RECOVER:
            self._channels.due.expect(RESUME, self._clock.now_ns())
        if self._legality.states[Role.DESTINATION] is Stage.RUNNING:
            assembly.executor.carry(assembly.receiver.recovered(self._clock.now_ns()))

    def listens(self) -> None:
        """The source makes the switch, perhaps for the second time; in that case a pause is over."""
        if self._patience.paused:
            now = self._clock.now_ns()
            self._patience.resumed(now)
            self._assembly().receiver.recovered(now)  # no guest has run: nobody waits

    def resume(self, _resume: Resume) -> None:
        """The source knows what is missing."""
        assembly, now = self._assembly(), self._clock.now_ns()
        self._patience.resumed(now)
        self._channels.due.settled(RESUME)
        self._owner.enter(Stage.RUNNING)
        self._owner.say(Resumed())
        assembly.executor.carry(assembly.receiver.recovered(now))

    def ended(self) -> None:
        """The source has sent everything: see to it that all comes. On the preempt channel some may be on its way."""
        assembly = self._assembly()
        assembly.executor.carry(assembly.receiver.ended(self._clock.now_ns()))
        if not assembly.receiver.received.complete:
            self._owner.spawn(self._expect_the_rest())

    async def _expect_the_rest(self) -> None:
        """A slow piece shows by its bytes, long before it is whole; or by silence, as nothing overtakes it."""
        received, main = self._assembly().receiver.received, self._channels.get(MAIN_CHANNEL)
        patience_ns = max(self._channels.due.answer_ns, 2 * self._channels.idle_ns)
        before = None
        while not received.complete and self._channels.get(MAIN_CHANNEL) is main:
            come = (received.set_pages, self._status.landings)
            if come == before:
                missing = received.total - received.set_pages
                self._channels.cut(MAIN_CHANNEL)
                self._owner.channel_lost(
                    MAIN_CHANNEL,
                    PeerError(f"the source has sent everything, and {missing} base pages have not arrived"),
                )
                return
            before = come
            await self._clock.sleep_until(self._clock.now_ns() + patience_ns)

    def _assembly(self) -> Assembly:
        assert self._status.assembly is not None, "before the memory is there nothing can be recovered"
        return self._status.assembly

    def __repr__(self) -> str:
        return f"<Recovery: {self._patience!r}>"
