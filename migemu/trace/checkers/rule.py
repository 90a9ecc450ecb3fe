"""What a rule is: a name, a reason, a table of the events that it looks at, and what it answers.

A rule is a class whose docstring gives the reason why it must hold; its first line is what `migemu check --list`
shows. It is made with the account of the trace, and answers to each event it looks at with None or an `Objection`.
Its own state is kept in its attributes: numbers, texts, named tuples, and bytearrays, marks, dicts, sets and lists of
them, no deeper, so that `copy` is cheap.

    class MappedWithinReceived(Rule):
        \"""...\"""
        needs = ((Happening.CONTINUED,),)

        def looks(self):
            return {Happening.CONTINUED: self.continued}

        def continued(self, event, first, count):
            hole = self.account.received.find(0, first, first + count)
            return None if hole < 0 else Objection("...", hole)

Third parties register theirs as `[project.entry-points."migemu.checker"]` of their package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, NamedTuple, Self

from migemu.mm.marks import Marks
from migemu.mm.pages import PageIndex
from migemu.registry import Registry
from migemu.trace.checkers.account import Account, Witness
from migemu.trace.events import Happening


class Objection(NamedTuple):
    """Why an event breaks a rule, and what that is about: `count` base pages from `first` on, a vCPU.

    `witness` is the event that is at fault, where that is not the one being looked at.
    """

    reason: str
    first: PageIndex | None = None
    count: int = 1  # type: ignore[assignment]  # hides tuple.count
    vcpu: int | None = None
    witness: Witness | None = None


#: Looks at an event that is about `count` base pages from `first` on (-1 and 0 where it is about none).
Look = Callable[..., Objection | None]


class Rule:
    """Base of all rules. `needs`: of each group, one must have happened, or there is nothing that could be judged."""

    needs: ClassVar[tuple[tuple[Happening, ...], ...]] = ()

    def __init__(self, account: Account) -> None:
        self.account = account

    def looks(self) -> Mapping[Happening, Look]:
        """The events that this rule looks at, and what looks at them: `(event, first, count) -> Objection | None`."""
        return {}

    def over(self, cut: bool) -> Iterable[Objection]:
        """What is wrong if nothing more happens.

        `cut`: more may have happened that is not told; else everything that was begun has been carried out.
        """
        return ()

    def unjudged(self, happened: Mapping[Happening, int]) -> str:
        """Why this trace gave the rule nothing to judge; "" if it did. `happened` counts the events."""
        for group in self.needs:
            if not any(happened.get(one) for one in group):
                return f"no `{'` or `'.join(one.value for one in group)}`"
        return ""

    def copy(self, account: Account) -> Self:
        """The same rule in the same state over `account`, a copy of its own."""
        twin = object.__new__(type(self))
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, bytearray | dict | set | list | Marks) else value
        twin.account = account
        return twin

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.account!r}>"


checkers: Final = Registry[Rule]("checker", "migemu.checker")
