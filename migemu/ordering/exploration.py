"""Explore every order of events for a collapse policy, on a hugetlb page of 16 base pages.

What this models
    A breadth-first search over the states of `Adversary`: every state once, from each every step that may come next.
    What is judged in every state and at every step stands in `ordering.rules`. No state is skipped for looking alike;
    two that are the same in all that decides what can still happen are one.

Rules
    1. The search ends when every reachable state within the bounds has been seen, or at the first rule that is broken:
       an OrderingError with the shortest row of steps that breaks it. More states than `states_max` are an error too.
    2. The same policy and bounds give the same states in the same order.

Simplified
    TINY, one hugetlb page, few accesses (`Bounds`): what needs two hugetlb pages to go wrong is left to
    `migemu.ordering.run`, which draws one order at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

from dest_node.core.receiver import Receiver
from migemu.errors import MigemuError
from migemu.mm.pages import TINY
from migemu.ordering.adversary import Adversary, AdversaryState, Bounds, Step
from migemu.ordering.broken import BrokenRuleError, OrderingError
from migemu.ordering.halves import PAGES, Halves
from migemu.ordering.policies import DEAR, PolicyChoice, make_policy, policy_name
from migemu.ordering.rules import Judge
from migemu.ordering.step_texts import in_words
from migemu.policy.collapse_policy import promises


class TooManyStatesError(MigemuError):
    """The search was given up after `states_max` states. It proves nothing."""


class Exploration(NamedTuple):
    """The result of a complete search: every order within the bounds was tried, and no rule is broken."""

    policy: str
    states: int
    transitions: int
    receiver_states: int


def explore(
    policy: PolicyChoice,
    *,
    receiver: Callable[..., Receiver] = Receiver,
    refusals: Literal["forbid", "allow"] = "forbid",
    ignore: Collection[str] = (),
    **bounds: Any,
) -> Exploration:
    """Try every order of events that `bounds` (the fields of `Bounds`) allow.

    `receiver` makes the receiver, from the arguments of `Receiver`: to check that a wrong one is found. With
    `refusals="allow"` the policy may propose what the receiver refuses. `ignore` names attributes (of the policy or of
    anything in it) that only count or remember, and decide nothing.

    OrderingError: a rule is broken. TooManyStatesError: more than `states_max` states. ValueError: a bound or a spec is
    invalid.
    """
    made = make_policy(policy, TINY)
    allowed = Bounds(**bounds)
    first = receiver(TINY, PAGES, made, urgent_piece=allowed.urgent_piece, collapse_ns=DEAR.collapse_ns)
    halves = Halves(first, frozenset(ignore))
    adversary = Adversary(halves, allowed, Judge(promises(made), refusals == "allow"))
    options = {"receiver": receiver, "refusals": refusals, "ignore": ignore, **bounds}
    default: dict[str, Any] = {"receiver": Receiver, "refusals": "forbid", "ignore": ()}
    arguments = [f"{name}={_said(value)}" for name, value in options.items() if value != default.get(name)]
    search = _StateSearch(adversary, allowed.states_max)
    collecting = gc.isenabled()
    gc.disable()  # millions of tuples without a cycle among them
    try:
        search.run()
    except BrokenRuleError as broken:
        steps = list(in_words(adversary, search.way))
        head = f"in {len(steps)} steps, the fewest there are; {len(search.states)} states seen:"
        replay = f"migemu.ordering.explore({', '.join([_said(policy), *arguments])})"
        raise OrderingError(broken.rule, broken.reason, [head, *steps], replay) from broken.__cause__
    finally:
        if collecting:
            gc.enable()
    return Exploration(
        policy_name(policy),
        len(search.states),
        search.transitions,
        halves.receiver_states,
    )


class _StateSearch:
    """A breadth-first search. `way` are the steps that lead to the state or the step that is being judged."""

    def __init__(self, adversary: Adversary, states_max: int) -> None:
        self._adversary = adversary
        self._states_max = states_max
        self.states: dict[AdversaryState, int] = {}
        self.transitions = 0
        self._came: list[tuple[int, Step]] = []  # from which state, by which step

    def run(self) -> None:
        """Search to the end. BrokenRuleError at the first rule that is broken; TooManyStatesError."""
        take, ways_on, check, known = (
            self._adversary.take, self._adversary.ways_on, self._adversary.check, self.states,
        )  # fmt: skip
        self._at: tuple[int, Step] = (-1, ())
        queue = [self._adversary.start()]
        known[queue[0]] = 0
        self._came.append(self._at)
        for number, state in enumerate(queue):  # it grows meanwhile
            for step in ways_on(state):
                self._at = (number, step)
                after = take(state, step)
                self.transitions += 1
                if after not in known:
                    check(after)
                    known[after] = len(queue)
                    queue.append(after)
                    self._came.append(self._at)
            if len(queue) > self._states_max:
                raise TooManyStatesError(
                    f"more than {self._states_max} states, of which the receiver and its policy have "
                    f"{self._adversary.halves.receiver_states}; give smaller bounds, a larger states_max, or, where "
                    "the policy keeps count of something that decides nothing, name that attribute in ignore=(...)"
                )

    @property
    def way(self) -> Sequence[Step]:
        """The steps from the start to where the search is."""
        number, step = self._at
        steps = [step]
        while number > 0:
            number, step = self._came[number]
            steps.append(step)
        return steps[::-1]


def _said(value: object) -> str:
    """`value` as Python source, for the call that repeats the search."""
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{name}" if name else repr(value)
