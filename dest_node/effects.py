"""Carries out what the receiver decides, on the guest's memory and the return path.

Effects are carried out in order, each one's consequences before the next one: a stack, not a queue, so that a collapse
that leads to a larger one is done before whatever was decided after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dest_node.receiver import Ask, Collapse, Continue, Effect, Finish, Receiver, Wake
from migemu.mm.pages import Level, PieceRun
from migemu.ports import Clock, GuestMemory, Tracer
from migemu.trace.events import Event, Happening

NODE = "destination"


class Effects:
    """The hands of one receiver. `ask` requests a run from the source; `finish` is called once, at the end."""

    def __init__(
        self,
        receiver: Receiver,
        memory: GuestMemory,
        clock: Clock,
        tracer: Tracer | None,
        ask: Callable[[PieceRun], None],
        finish: Callable[[], None],
    ) -> None:
        #: The most bytes of page tables seen, looked at before each collapse.
        self.table_bytes_max = 0
        self._receiver = receiver
        self._memory = memory
        self._clock = clock
        self._tracer = tracer
        self._ask_source = ask
        self._finish_migration = finish
        self._hands: dict[type[Effect], Callable[..., int]] = {
            Continue: self._continue,
            Collapse: self._collapse,
            Wake: self._wake,
            Ask: self._ask,
            Finish: self._finish,
        }

    def carry(self, effects: Sequence[Effect]) -> None:
        """Carry out effects and all that follows from them. OSError where the memory refuses what it must not."""
        stack = list(reversed(effects))
        while stack:
            effect = stack.pop()
            existing = self._hands[type(effect)](effect)
            consequences = self._receiver.done(effect, existing)
            if consequences:
                stack += reversed(consequences)

    def look_at_tables(self) -> int:
        """Bytes of page tables now; remembers the most."""
        table_bytes = self._memory.table_bytes()
        self.table_bytes_max = max(self.table_bytes_max, table_bytes)
        return table_bytes

    def _continue(self, effect: Continue) -> int:
        run = effect.run
        existing = self._memory.uffdio_continue(run).existing
        if self._tracer is not None:
            self._emit(Happening.CONTINUED, run.first, self._pages(run), run.level)
        return existing

    def _collapse(self, effect: Collapse) -> int:
        self.look_at_tables()
        self._memory.madvise_collapse(effect.spans)
        if self._tracer is not None:
            for span in effect.spans:
                self._emit(Happening.COLLAPSED, span.first, level=span.level)
        return 0

    def _wake(self, effect: Wake) -> int:
        if self._tracer is not None:
            self._emit(Happening.WAKE, effect.first, effect.count)
        self._memory.uffdio_wake(effect.first, effect.count)
        return 0

    def _ask(self, effect: Ask) -> int:
        if self._tracer is not None:
            self._emit(Happening.REQUESTED, effect.run.first, self._pages(effect.run), effect.run.level)
        self._ask_source(effect.run)
        return 0

    def _finish(self, _finish: Finish) -> int:
        self._finish_migration()
        return 0

    def _pages(self, run: PieceRun) -> int:
        return run.count * self._memory.geometry.pages(run.level)

    def _emit(self, event: Happening, first: int, count: int | None = None, level: Level | None = None) -> None:
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, event, first, count, level))
