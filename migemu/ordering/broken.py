"""What is raised when an order of events breaks a rule: a failed assertion that tells how it came to that."""

from __future__ import annotations

from collections.abc import Sequence


class BrokenRuleError(Exception):
    """A rule does not hold any more. Used inside this package; the search adds the steps that led to it.

    `first` and `count` are the base pages, `vcpu` the vCPU that it is about, where known; `event` is the number (from 1
    on) of the event that breaks the rule, if that is not the last one.
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
    """A rule is broken. `rule` is its name, `reason` says how, `steps` led to it, `replay` is a call that repeats it.

    An AssertionError, so that a test runner shows a failed test, not a crash.
    """

    def __init__(self, rule: str, reason: str, steps: Sequence[str], replay: str) -> None:
        self.rule = rule
        self.reason = reason
        self.steps = tuple(steps)
        self.replay = replay
        super().__init__("\n".join([f"{rule}: {reason}", *(f"  {step}" for step in steps), f"replay: {replay}"]))
