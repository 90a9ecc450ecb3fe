"""What is raised when an order of events breaks a rule: a failed assertion that tells how it came to that."""

from __future__ import annotations

from collections.abc import Sequence


class BrokenRuleError(Exception):
    """A rule does not hold any more. Within this package; whoever searches or runs adds how it came to that.

    What it is about, where that is known: base pages `[first, first + count)`, a vCPU; and the number (from 1 on) of
    the event that breaks it, if it is not the last one that happened.
    """

    def __init__(
        self, rule: str, reason: str, *, first: int | None = None, count: int = 1, vcpu: int | None = None,
        line: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{rule}: {reason}")
        self.rule = rule
        self.reason = reason
        self.first, self.count, self.vcpu, self.line = first, count, vcpu, line


class OrderingError(AssertionError):
    """A rule is broken. `rule` names it, `reason` says how, `steps` led to it, `replay` is one line that repeats it.

    An AssertionError, so that a test runner shows a failed test, not a crash.
    """

    def __init__(self, rule: str, reason: str, steps: Sequence[str], replay: str) -> None:
        self.rule = rule
        self.reason = reason
        self.steps = tuple(steps)
        self.replay = replay
        super().__init__("\n".join([f"{rule}: {reason}", *(f"  {step}" for step in steps), f"replay: {replay}"]))
