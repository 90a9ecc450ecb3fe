"""Checkers: what must hold of every trace, one small rule each, with its reason.

`check` judges a sequence of events, `Checks` judges them one by one as they happen, `checkers` knows all rules by name.
"""

from migemu.trace.checkers import accesses as guest
from migemu.trace.checkers import mapped_pages as mapping
from migemu.trace.checkers import sleepers, transfer
from migemu.trace.checkers.account import Account, Witness
from migemu.trace.checkers.checks import Checks, Violation, check, with_history
from migemu.trace.checkers.rule import Objection, Rule, checkers

__all__ = ["Account", "Checks", "Objection", "Rule", "Violation", "Witness", "check", "checkers", "with_history"]
__all__ += ["guest", "mapping", "sleepers", "transfer"]
