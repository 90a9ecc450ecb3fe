"""Carries out what the receiver decides, on the guest's memory and the return path.

Effects are carried out in order, each one's consequences before the next one: a stack, not a queue, so that a collapse
that leads to a larger one is done before whatever was decided after it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from errno import errorcode
from typing import Any, Protocol

from dest_node.core.effects import NODE, Ask, Collapse, Continue, Effect, Finish, Keep, Refuse, Wake
from dest_node.core.receiver import Receiver
from migemu.costs.collapse_cost import CostModel
from migemu.costs.operations import calls_of, of_steps
from migemu.mm.gather import GatherKind, GatherStep
from migemu.mm.pages import Level, PieceRun
from migemu.ports import Clock, Collapsed, MappingCalls, Tracer
from migemu.trace.events import Event, Happening


class ExecutorHost(Protocol):
    """The migration whose receiver decides: what the executor cannot do by itself."""

    def ask_source(self, run: PieceRun, again: bool = False) -> None:
        """Ask the source for a run of pieces, urgently; `again`: they have come, and were corrupt."""

    def everything_mapped(self) -> None:
        """All has arrived and is mapped as the policy wants it. Called once."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Run `work` as a task whose failure is the migration's."""


class EffectExecutor:
    """Carries out the effects of one receiver, and counts what collapses cost."""

    def __init__(
        self,
        receiver: Receiver,
        mapping: MappingCalls,
        costs: CostModel,
        clock: Clock,
        tracer: Tracer | None,
        host: ExecutorHost,
    ) -> None:
        #: The most bytes of page tables seen, looked at before each collapse.
        self.table_bytes_max = 0
        #: What collapses would have taken on a kernel, by the cost model: all calls, and the longest wait of a vCPU.
        self.collapse_ns = self.collapse_stall_ns_max = 0
        self._receiver = receiver
        self._mapping = mapping
        self._costs = costs
        self._clock = clock
        self._tracer = tracer
        self._host = host
        self._waiting = False  # for the receiver's deadline
        self._hands: dict[type[Effect], Callable[..., int | Collapsed | None]] = {
            Continue: self._continue,
            Keep: self._keep,
            Collapse: self._collapse,
            Wake: self._wake,
            Ask: self._ask,
            Refuse: self._refuse,
            Finish: self._finish,
        }

    def arrived(self, run: PieceRun, urgent: bool, zero: bool) -> None:
        """The bytes of `run` are in their place, or it is zero: tell the receiver, and carry out what it wants."""
        effects = self._receiver.arrived(run, self._clock.now_ns(), zero=zero)
        if self._tracer is not None:
            self._trace_arrived(run, effects, urgent, "zero" if zero else None)
        self.carry(effects)

    def carry(self, effects: Sequence[Effect]) -> None:
        """Carry out effects and all that follows from them. OSError where the memory refuses what it must not."""
        stack = list(reversed(effects))
        while stack:
            effect = stack.pop()
            result = self._hands[type(effect)](effect)
            consequences = self._receiver.done(effect, self._clock.now_ns(), result)
            if consequences:
                stack += reversed(consequences)
        if not self._waiting and self._receiver.deadline() is not None:
            self._waiting = True
            self._host.spawn(self._wait())

    async def _wait(self) -> None:
        """Tell the receiver when its deadline has come, as long as it has one."""
        while (deadline := self._receiver.deadline()) is not None:
            await self._clock.sleep_until(deadline)
            self.carry(self._receiver.timeout(self._clock.now_ns()))
        self._waiting = False

    def look_at_tables(self) -> int:
        """Bytes of page tables now; remembers the most."""
        table_bytes = self._mapping.table_bytes()
        self.table_bytes_max = max(self.table_bytes_max, table_bytes)
        return table_bytes

    def _continue(self, effect: Continue) -> int:
        run = effect.run
        existing = self._mapping.install(run).existing
        if self._tracer is not None:
            self._emit(Happening.CONTINUED, run.first, self._pages(run), run.level)
        return existing

    def _keep(self, _keep: Keep) -> None:
        """Nothing to do: its bytes have landed, and stay unmapped."""

    def _collapse(self, effect: Collapse) -> Collapsed:
        self.look_at_tables()
        result = self._mapping.madvise_collapse(effect.spans)
        for call in calls_of(result.steps):
            stall = self._costs.stall(of_steps(call))
            self.collapse_ns += stall.call_ns
            self.collapse_stall_ns_max = max(self.collapse_stall_ns_max, stall.longest_ns)
        if self._tracer is not None:
            for step in result.steps:
                self._trace_step(step)
            if result.errno:
                failed = effect.spans[result.done]
                name = errorcode.get(result.errno, str(result.errno))
                self._emit(Happening.FAILED, failed.first, level=failed.level, detail=name)
        return result

    def _wake(self, effect: Wake) -> None:
        if self._tracer is not None:
            self._emit(Happening.WAKE, effect.first, effect.count)
        self._mapping.uffdio_wake(effect.first, effect.count)

    def _ask(self, effect: Ask) -> None:
        if self._tracer is not None:
            self._emit(Happening.REQUESTED, effect.run.first, self._pages(effect.run), effect.run.level)
        self._host.ask_source(effect.run)

    def _refuse(self, refuse: Refuse) -> None:
        if self._tracer is not None:
            self._emit(Happening.REFUSED, refuse.span.first, level=refuse.span.level, detail=refuse.reason)

    def _finish(self, _finish: Finish) -> None:
        self._host.everything_mapped()

    def _trace_arrived(self, run: PieceRun, effects: Sequence[Effect], urgent: bool, detail: str | None) -> None:
        """What of `run` was new, which is what gets kept or mapped, and what had come before."""
        at, end = run.first, run.first + self._pages(run)
        kept = [effect for effect in effects if isinstance(effect, Keep)]
        for effect in kept or effects:  # without HGM what is mapped is a hugetlb page, of which this was the last
            if isinstance(effect, Continue | Keep):
                first, pages = effect.run.first, self._pages(effect.run)
                if at < first:
                    self._emit(Happening.DROPPED, at, first - at, detail="duplicate")
                self._emit(Happening.RECEIVED, first, pages, effect.run.level, detail, urgent)
                at = first + pages
        if at < end:
            self._emit(Happening.DROPPED, at, end - at, detail="duplicate")

    def _trace_step(self, step: GatherStep) -> None:
        """A step of a collapse as an event; the notifier's window is none."""
        page_bytes = self._mapping.geometry.page_bytes
        first = step.start // page_bytes
        if step.kind is GatherKind.CLEARED:
            self._emit(Happening.CLEARED, first, step.count, step.level)
        elif step.kind is GatherKind.INSTALLED:
            assert step.level is not None
            for each in range(first, step.end // page_bytes, self._mapping.geometry.pages(step.level)):
                self._emit(Happening.COLLAPSED, each, level=step.level)
        elif step.kind is GatherKind.FLUSHED:
            self._emit(Happening.FLUSHED, first, step.end // page_bytes - first)
        elif step.kind is GatherKind.FREED:
            self._emit(Happening.FREED, first, step.count)

    def _pages(self, run: PieceRun) -> int:
        return run.count * self._mapping.geometry.pages(run.level)

    def _emit(
        self, event: Happening, first: int, count: int | None = None, level: Level | None = None,
        detail: str | None = None, urgent: bool | None = None,
    ) -> None:  # fmt: skip
        if self._tracer is not None:
            now = self._clock.now_ns()
            self._tracer.emit(Event(now, NODE, event, first, count, level, None, None, urgent, detail))
