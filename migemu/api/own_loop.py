"""Work that runs an event loop of its own, called where another one may be running: in a notebook, in a service.

Rules
    1. One thread has one running loop. Where none runs, the work is done in this thread; else in a thread of its own,
       while this one waits. Whoever calls sees no difference: no await, and the same result.
    2. Ctrl-C ends the work in order: it is asked to, and KeyboardInterrupt is raised when it has ended. A second Ctrl-C
       does not wait for that.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


def do(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """The result of `work`, or what it raises; `interrupt` asks it to end with KeyboardInterrupt."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with _heard(interrupt):
            return work()
    thread = _WorkThread(work)
    with _heard(lambda: thread.ask(interrupt)):
        thread.start()
        thread.join()
    return thread.result()


class _WorkThread(threading.Thread, Generic[T]):
    """Does the work; `result` gives its result or raises its error in the thread that asks."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="migemu", daemon=True)
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._asked = False

    def run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # whatever it is, it is raised where the work was asked for
            self._error = error

    def ask(self, interrupt: Callable[[], None]) -> None:
        """Ask it to end. KeyboardInterrupt the second time."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        try:
            interrupt()
        except KeyboardInterrupt:
            pass  # meant for the thread that works, which has been asked

    def result(self) -> T:
        """The result, once it has ended."""
        if self._error is not None:
            raise self._error
        return self._results[0]


@contextmanager
def _heard(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C means `interrupt` meanwhile, unless the program has a handler of its own."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or not _is_pythons(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _is_pythons(handler: object) -> bool:
    """Whether it is Python's own, or the one by which asyncio.run cancels its task: that waits for us."""
    of_runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler is signal.default_int_handler or isinstance(of_runner, asyncio.Runner)
