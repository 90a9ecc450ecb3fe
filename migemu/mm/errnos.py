"""How a refusal looks: the kernel's errno in an OSError, and what an errno alone cannot say.

What this models
    A system call that fails answers with an errno. The model raises `OSError(errno.X, reason)`, so that Python's own
    subclasses apply (FileExistsError for EEXIST, BlockingIOError for EAGAIN); the reason names the rule.

Words
    partial    some pieces were done and the next one failed: userspace sees EAGAIN and the bytes done (SEMANTICS 1.3)
    would sleep  the calling thread would sleep in a page fault; the model has no thread to put to sleep
"""

from __future__ import annotations

import errno


class PartialError(BlockingIOError):
    """EAGAIN after some progress: `mapped` bytes are done and stay done, `cause` stopped the rest (SEMANTICS 1.3)."""

    def __init__(self, mapped: int, cause: OSError) -> None:
        super().__init__(errno.EAGAIN, f"{mapped} bytes done, then: {cause.strerror}")
        self.mapped = mapped
        self.cause = cause


class WouldSleepError(RuntimeError):
    """A madvise call met a fault that userfaultfd must answer, or a page that is being migrated.

    Nobody else runs here, so it would sleep for ever.
    """


class ValidationError(AssertionError):
    """The model contradicts itself; the message begins with the invariant of SEMANTICS 8.1 that broke, or its name."""
