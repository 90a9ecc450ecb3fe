"""An event loop in virtual time: a clock that jumps to the next deadline whenever nobody is ready.

Rules of this file
    1. Time is an integer of nanoseconds and moves only when nothing is ready. What runs, runs in no time.
    2. Order is total: callbacks run in the order in which they were asked for, timers in the order of (deadline,
       serial). A deadline that has passed counts as now, and joins those who are ready at the end.
    3. Nothing depends on addresses. Tasks hash by their serial number, so the sets of tasks that asyncio keeps
       (TaskGroup, `wait`, `all_tasks`) have the same order in every run; names are counted in each loop anew. A task
       that waits is kept, though nobody else holds it: the garbage collector comes at no time that can be repeated.
    4. Nothing is left hanging. When nobody is ready and no timer is set, the run cannot end: `DeadlockError` lists who
       waits, where, and for what. `LimitError` ends a run that goes on for too long, or stands still in time while
       callbacks chase each other. An exception that nobody catches ends the run as `CrashError`, unless an exception
       handler is set.
    5. What runs in the context of a processor (`sim.processor`) waits until that is free.
    6. There is no outside: no sockets, no threads, no signals, no subprocesses. Asking for one says so.

asyncio's own Task, Future, TaskGroup, timeout, Queue, Event, gather, sleep and Runner work on it unchanged.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from migemu.sim.generators import Generators
from migemu.sim.handles import ReadyHandle, TimerHandle, VirtualTask
from migemu.sim.outside import WithoutOutside
from migemu.sim.processor import Processor, processor_of
from migemu.sim.waiting import CrashError, DeadlockError, LimitError, describe, waiting
from migemu.units import SECOND, format_time

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Pace = Callable[[int, int], None]

#: Callbacks that may run without time passing before it counts as standing still (assumed: far beyond any real burst).
STANDSTILL_MAX: Final = 10_000_000
#: What is granted after a limit was met, so that tasks can be cancelled.
_GRACE_STEPS: Final = 1_000_000
_TASKS_SHOWN: Final = 20
#: Coroutines held before those that have ended are first looked for (assumed: some kilobytes).
_COROUTINES_MIN: Final = 256
_NEVER: Final = sys.maxsize


@dataclass(frozen=True, slots=True)
class LoopStatistics:
    """Callbacks run, times that the clock moved, timers that are set, and the time."""

    steps: int
    moves: int
    timers: int
    now_ns: int


class VirtualLoop(Generators, WithoutOutside):
    """The loop. `now_ns` is the time; everything else is asyncio's interface."""

    def __init__(
        self, *, start_ns: int = 0, time_max_ns: int = 0, steps_max: int = 0, standstill_max: int = STANDSTILL_MAX,
        pace: Pace | None = None,
    ) -> None:  # fmt: skip
        """Limits of 0 are none. `pace(from_ns, to_ns)` is called before each move of the clock and may block."""
        self.now_ns = start_ns
        self.processor: Processor | None = None  # of what runs now; None outside, and where that takes no time
        self._ready: deque[ReadyHandle | TimerHandle] = deque()
        self._timers: list[tuple[int, int, ReadyHandle | TimerHandle]] = []
        self._timers_cancelled = 0
        self._serials = itertools.count(1)
        self._task_serials = itertools.count(1)
        self._coroutines: list[Any] = []  # of the tasks; one that waits holds what wakes its task, and so the task
        self._coroutines_max = _COROUTINES_MIN
        self._time_max_ns = time_max_ns or _NEVER
        self._steps_max = steps_max or _NEVER
        self._standstill_max = standstill_max or _NEVER
        self._pace = pace
        self._steps = self._moves = 0
        self._limit = min(self._steps_max, self._standstill_max)
        self._crash: dict[str, Any] | None = None
        self._running = self._stopping = self._closed = self._debug = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        super().__init__()

    # --- what is asked of it ---

    def time(self) -> float:
        """Seconds, for asyncio; exact times are `now_ns`."""
        return self.now_ns / SECOND

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back as soon as everybody who is ready has been."""
        handle = ReadyHandle(callback, args, copy_context() if context is None else context)
        if self._closed:
            raise RuntimeError("Event loop is closed")
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at_ns(
        self, when_ns: int, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Call back at `when_ns`; with those who are ready now if that has passed."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = TimerHandle(
            when_ns, callback, args, copy_context() if context is None else context, self._timer_cancelled
        )
        if when_ns <= self.now_ns:
            self._ready.append(timer)
        else:
            heapq.heappush(self._timers, (when_ns, next(self._serials), timer))
        return timer

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As `call_at_ns`, in seconds, to the nearest nanosecond."""
        return self.call_at_ns(round(when * SECOND), callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back `delay` seconds from now, to the nearest nanosecond."""
        return self.call_at_ns(self.now_ns + round(delay * SECOND), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """asyncio's own; without a name it is called Task-1, Task-2 ... in the order of creation."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if len(self._coroutines) >= self._coroutines_max:
            self._coroutines = [each for each in self._coroutines if getattr(each, "cr_frame", None) is not None]
            self._coroutines_max = 2 * len(self._coroutines) + _COROUTINES_MIN
        self._coroutines.append(coro)
        task = VirtualTask.__new__(VirtualTask)
        task.serial = next(self._task_serials)
        task.__init__(  # type: ignore[misc]  # the serial has to be there when asyncio puts it into its sets
            coro, loop=self, name=f"Task-{task.serial}" if name is None else str(name), context=context, **options
        )
        return task

    def tasks(self) -> list[asyncio.Task[Any]]:
        """All tasks that are not done, in the order of their creation."""
        return sorted(asyncio.all_tasks(self), key=lambda task: getattr(task, "serial", 0))

    def statistics(self) -> LoopStatistics:
        """Counters of the loop, as a frozen copy."""
        return LoopStatistics(self._steps, self._moves, len(self._timers) - self._timers_cancelled, self.now_ns)

    # --- running ---

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, cancel what is left in the order of its creation, and close.

        What `main` raises; SimulationError as told at the top of this file.
        """
        try:
            result = cast(T, self.run_until_complete(main))
        except BaseException:
            self._leave(self.call_exception_handler if self._handler else lambda _: None)
            raise
        self._leave(self.call_exception_handler)
        return result

    def _leave(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Cancel everything and close; report what tasks died of when they were cancelled."""
        try:
            tasks = self.tasks()
            for task in tasks:
                task.cancel()
            if tasks:
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for task in tasks:
                if not task.cancelled() and task.exception() is not None:
                    message = f"{task.get_name()} failed when it was cancelled at the end"
                    report({"message": message, "exception": task.exception(), "task": task})
            self.run_until_complete(self.shutdown_asyncgens())
        finally:
            self.close()

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done; its result, or what it raises."""
        self._check_idle()
        is_new = not asyncio.isfuture(future)
        main = asyncio.ensure_future(future, loop=self)
        if is_new:
            main._log_destroy_pending = False  # whoever gives it up here knows
        main.add_done_callback(self._main_done)
        try:
            self.run_forever()
        except BaseException:
            if is_new and main.done() and not main.cancelled():
                main.exception()  # it has been told: what was raised here is what matters
            raise
        finally:
            main.remove_done_callback(self._main_done)
        if not main.done():
            raise RuntimeError("the loop was stopped before the future was done")
        return main.result()

    def _main_done(self, _future: asyncio.Future[Any]) -> None:
        self.stop()

    def run_forever(self) -> None:
        """Run until `stop` is called. SimulationError when nothing is left to happen."""
        self._check_idle()
        hooks = sys.get_asyncgen_hooks()
        self._running = True
        try:
            sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_dies)
            events._set_running_loop(self)
            self._turns()
        finally:
            self._running = self._stopping = False
            self.processor = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _turns(self) -> None:
        """Turn after turn: everybody who is ready, in order; then, when nobody is, the next time."""
        ready = self._ready
        popleft = ready.popleft
        while True:
            if not ready and not self._stopping:
                self._move()
            count = len(ready)
            for _ in range(count):
                handle = popleft()
                if handle._cancelled:
                    continue
                context = handle._context
                processor = self.processor = processor_of(context)
                if processor is not None and (processor.waiting or processor.free_ns > self.now_ns):
                    if not processor.waiting:
                        self._arm(processor)
                    processor.waiting.append(handle)
                    continue
                try:
                    context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)
            self._steps += count
            if self._steps > self._limit:
                self._beyond_limits()
            if self._stopping:
                return

    def _arm(self, processor: Processor) -> None:
        """Go on with what waits for `processor` when it is free."""
        free = ReadyHandle(self._freed, (processor,), Context())
        heapq.heappush(self._timers, (max(processor.free_ns, self.now_ns), next(self._serials), free))

    def _freed(self, processor: Processor) -> None:
        """What waits for `processor` runs, in order, until it is busy again."""
        self.processor = processor
        while processor.waiting:
            if processor.free_ns > self.now_ns:
                self._arm(processor)
                return
            handle = processor.waiting.popleft()
            if not handle._cancelled:
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    self._arm(processor)  # who waits behind it still has to end
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)

    def _move(self) -> None:
        """Set the clock to the next deadline; all who are due then are ready."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._timers_cancelled = max(0, self._timers_cancelled - 1)
        if not timers:
            raise DeadlockError(self.now_ns, tuple(waiting(task) for task in self.tasks()))
        when_ns = timers[0][0]
        if when_ns > self._time_max_ns:
            limit, self._time_max_ns = self._time_max_ns, _NEVER
            raise LimitError(f"the run was given {format_time(limit)} of time and is not over; {self._where()}")
        if self._pace is not None:
            self._pace(self.now_ns, when_ns)
            if self._ready:  # a signal came meanwhile
                return
        self.now_ns = when_ns
        self._moves += 1
        self._limit = min(self._steps_max, self._steps + self._standstill_max)
        while timers and timers[0][0] == when_ns:
            self._ready.append(heapq.heappop(timers)[2])

    def _timer_cancelled(self, when_ns: int) -> None:
        """Throw cancelled timers out when they are most of the heap, which holds those later than now."""
        if when_ns > self.now_ns:
            self._timers_cancelled += 1
            if self._timers_cancelled > 100 and self._timers_cancelled > len(self._timers) // 2:
                self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
                heapq.heapify(self._timers)
                self._timers_cancelled = 0

    def _beyond_limits(self) -> None:
        if self._crash is not None:
            context, self._crash = self._crash, None
            self._limit = min(self._steps_max, self._steps + self._standstill_max)
            raise CrashError(_text_of(context)) from context.get("exception")
        steps_max, self._steps_max = self._steps_max, self._steps + _GRACE_STEPS
        self._limit = self._steps_max
        if self._steps > steps_max:
            raise LimitError(f"the run was given {steps_max} steps and is not over; {self._where()}")
        self._steps_max = steps_max
        raise LimitError(f"time stands still: {self._standstill_max} steps since it last moved; {self._where()}")

    def _where(self) -> str:
        """What is next, for errors."""
        ready = [describe(handle._callback) for handle in itertools.islice(self._ready, 5) if not handle._cancelled]
        tasks = [str(waiting(task)) for task in self.tasks()[:_TASKS_SHOWN]]
        lines = [f"at {format_time(self.now_ns)} after {self._steps} steps"]
        lines += [f"  next: {each}" for each in ready] or [f"  {each}" for each in tasks]
        return "\n".join(lines)

    def stop(self) -> None:
        """Stop after the turn that runs."""
        self._stopping = True

    def is_running(self) -> bool:
        """Whether the loop is running now."""
        return self._running

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Drop whatever is still to come. Safe to call twice."""
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        self._coroutines.clear()
        self._timers_cancelled = 0

    def _check_idle(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self._running or events._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")

    # --- exceptions that nobody caught ---

    def _callback_failed(self, handle: ReadyHandle | TimerHandle, error: BaseException) -> None:
        message = f"exception in callback {describe(handle._callback)}"
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def get_exception_handler(self) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None:
        """The exception handler that was set; None if there is none."""
        return self._handler

    def set_exception_handler(self, handler: Any) -> None:
        """`handler(loop, context)` instead of ending the run; None for the latter."""
        self._handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """End the run with CrashError after this turn; the first exception counts."""
        if self._crash is None:
            self._crash = context
            self._limit = -1

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the handler; what it raises itself ends the run."""
        if self._handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._handler(self, context)
        except Exception as error:
            self.default_exception_handler({"message": "exception in the exception handler", "exception": error})

    def get_debug(self) -> bool:
        """asyncio's debug mode; it changes nothing here."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        """See `get_debug`."""
        self._debug = enabled

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._running else "idle"
        return f"<VirtualLoop {state} at {self.now_ns} ns, {len(self._ready)} ready, {len(self._timers)} timers>"


def _text_of(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context['message']}: {type(error).__name__}: {error}" if error is not None else str(context["message"])
