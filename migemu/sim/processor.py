"""A processor of a node: what its service does takes time, and what comes meanwhile waits.

What this models
    Each node runs its service on one thread, as in the measured world. A system call or a copy takes as long as
    `charge` says; whatever the thread does next, and whatever comes for it, waits until then. vCPUs have processors of
    their own: they are never held up by the service.

How it works
    The processor is part of the context in which a node's callbacks and tasks run. The loop looks at it before it runs
    any of them, and puts off those whose processor is busy; the node's clock is ahead of the loop's by what has been
    charged since. So neither service knows.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context, ContextVar
from typing import Any

from migemu.ports import THREAD


class Processor:
    """One thread's worth of time. `free_ns` is when it will have done what was charged."""

    __slots__ = ("busy_ns", "free_ns", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.free_ns = 0
        #: Everything charged so far.
        self.busy_ns = 0
        #: What the loop has put off until it is free, in order.
        self.waiting: deque[Any] = deque()

    def charge(self, now_ns: int, ns: int) -> int:
        """It works for `ns` from now on, or from when it is free; when it will be done."""
        self.busy_ns += ns
        self.free_ns = max(now_ns, self.free_ns) + ns
        return self.free_ns

    def __repr__(self) -> str:
        return f"<Processor {self.name}, free at {self.free_ns} ns>"


#: The processor of the node in whose context a callback runs; none is one that takes no time.
PROCESSOR: ContextVar[Processor | None] = ContextVar("processor", default=None)


def processor_of(context: Context) -> Processor | None:
    """The processor that has to run what runs in `context`; None where that takes no time, as for a vCPU."""
    processor = context.get(PROCESSOR)
    return processor if processor is not None and not context.get(THREAD) else None
