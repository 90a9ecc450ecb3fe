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
from collections.abc import Callable, Coroutine
from typing import Any

from dest_node.assembly import Parts
from dest_node.channels import DestinationChannels
from dest_node.standing import Standing
from migemu.errors import BrokenError, MigemuError, PeerError, because, one_line
from migemu.node.due import Due
from migemu.node.outcome import Stage, with_whereabouts
from migemu.node.patience import Patience
from migemu.ports import Clock
from migemu.wire.bitmap import parts as bitmap_parts
from migemu.wire.messages import ChannelRole, Message, Ready, Recover, Resume, Resumed
from migemu.wire.states import Legality, Role, State

#: What a source that has come back can owe: its question, the switch, that it goes on.
RECOVER, RUN, RESUME = "Recover", "Run", "Resume"


class Recovery:
    """That of one migration.

    `enter` begins a stage; `say` says something to the source; `spawn` runs a task, whose failure is the migration's;
    `lost` is told of a connection that is of no use any more; `done` ends a migration that needs no source any more.
    """

    def __init__(
        self, migration: str, clock: Clock, legality: Legality, lines: DestinationChannels, standing: Standing,
        patience: Patience, due: Due, *,
        enter: Callable[[Stage], None], say: Callable[[Message, bytes | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        lost: Callable[[ChannelRole, MigemuError], None], done: Callable[[], None],
    ) -> None:  # fmt: skip
        self._migration = migration
        self._clock = clock
        self._legality = legality
        self._lines = lines
        self._standing = standing
        self._patience = patience
        self._due = due
        self._enter = enter
        self._say = say
        self._spawn = spawn
        self._lost = lost
        self._done = done
        self._task: asyncio.Task[None] | None = None  # waits for a source, or tells it what is here

    def pause(self, error: MigemuError) -> None:
        """The source is gone, because of `error`; it may come back."""
        now = self._clock.now_ns()
        self._stop()
        for role in ChannelRole:
            self._lines.cut(role)
        self._standing.last_error = one_line(error)
        receiver = self._parts().receiver
        receiver.paused(now)
        self._patience.arrived(receiver.received.set_pages)
        self._patience.lost(now, error)
        self._enter(Stage.PAUSED)
        self._task = self._spawn(self._wait(error))

    def hold(self, error: MigemuError) -> None:
        """An operator pauses it, and `error` says so: until `release` no source is let in, and no time runs out."""
        self._legality.lost()
        self.pause(error)
        self._stop()
        self._patience.held = True

    def release(self) -> None:
        """A source may come again; it is waited for from now on."""
        self._patience.begin_again(self._clock.now_ns())
        self._task = self._spawn(self._wait(BrokenError("no source has come since its operator resumed it")))

    def replace(self) -> None:
        """A source has come, over another connection than the one that there may still seem to be."""
        self._legality.lost()
        if not self._patience.paused:
            self.pause(BrokenError("the source came again over another connection"))
        self._stop()

    async def _wait(self, error: MigemuError) -> None:
        while not (reason := self._patience.over(self._clock.now_ns())):
            await self._clock.sleep_until(self._patience.deadline_ns)
        if self._standing.complete is None:
            blamed = PeerError if isinstance(error, PeerError) else BrokenError
            raise blamed(with_whereabouts(because(one_line(error), reason), self._standing.waiting))
        self._done()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def asked(self, _recover: Recover) -> None:
        """What has arrived? All that was said before on this channel has; over the other one nothing more may.

        PeerError when the last answer is not out yet: questions are short, and bitmaps are not.
        """
        if self._task is not None and not self._task.done():
            raise PeerError("Recover came again before it was answered")
        self._due.settled(RECOVER)
        self._lines.cut(ChannelRole.PREEMPT)
        self._legality.preempt_lost()
        if self._legality.states[Role.SOURCE] is not State.RECOVER:
            self._standing.preempt_lost += 1
        else:
            self._enter(Stage.RECOVER)
            if not self._standing.times.run:
                self._say(Ready(self._migration), None)
                self._due.expect(RUN, self._clock.now_ns())
                return
        self._task = self._spawn(self._tell())

    async def _tell(self) -> None:
        """The bitmap, part by part; then, if the guest's faults may be asked for, what they wait for."""
        parts, main = self._parts(), self._lines.get(ChannelRole.MAIN)
        for part, payload in bitmap_parts(parts.receiver.received):
            if self._lines.get(ChannelRole.MAIN) is not main:
                return
            self._standing.bitmap_bytes += len(payload)
            self._say(part, payload or None)
            await asyncio.sleep(0)
        if self._legality.states[Role.SOURCE] is State.RECOVER:
            self._due.expect(RESUME, self._clock.now_ns())
        if self._legality.states[Role.DESTINATION] is State.RUNNING:
            parts.effects.carry(parts.receiver.recovered(self._clock.now_ns()))

    def listens(self) -> None:
        """The switch is made, perhaps for the second time."""
        if self._patience.paused:
            now = self._clock.now_ns()
            self._patience.resumed(now)
            self._parts().receiver.recovered(now)  # no guest has run: nobody waits

    def resume(self, _resume: Resume) -> None:
        """The source knows what is missing."""
        parts, now = self._parts(), self._clock.now_ns()
        self._patience.resumed(now)
        self._due.settled(RESUME)
        self._enter(Stage.RUN)
        self._say(Resumed(), None)
        parts.effects.carry(parts.receiver.recovered(now))

    def ended(self) -> None:
        """The source has sent everything; on the preempt channel something may still be on its way."""
        parts = self._parts()
        parts.effects.carry(parts.receiver.ended(self._clock.now_ns()))
        if not parts.receiver.received.complete:
            self._spawn(self._expect_the_rest())

    async def _expect_the_rest(self) -> None:
        """A slow piece shows by its bytes, long before it is whole; or by silence, as nothing overtakes it."""
        received, main = self._parts().receiver.received, self._lines.get(ChannelRole.MAIN)
        patience_ns = max(self._due.answer_ns, 2 * self._lines.idle_ns)
        before = None
        while not received.complete and self._lines.get(ChannelRole.MAIN) is main:
            come = (received.set_pages, self._standing.landings)
            if come == before:
                missing = received.total - received.set_pages
                self._lines.cut(ChannelRole.MAIN)
                self._lost(
                    ChannelRole.MAIN,
                    PeerError(f"the source has sent everything, and {missing} base pages have not come"),
                )
                return
            before = come
            await self._clock.sleep_until(self._clock.now_ns() + patience_ns)

    def _parts(self) -> Parts:
        assert self._standing.parts is not None, "before the memory is there nothing can be recovered"
        return self._standing.parts

    def __repr__(self) -> str:
        return f"<Recovery: {self._patience!r}>"
