"""A kit to try collapse policies with: every order of events on a small memory, or one drawn from a seed on any.

    explore(policy)          every interleaving, by state, on one hugetlb page of 16 base pages
    run(scenario, ...)       one migration through both pure cores, every event judged by every checker

Both raise `OrderingError`, a failed assertion, as soon as a rule is broken, with the way there and a line to replay it.
`migemu.pytest_plugin` makes fixtures of them.
"""

from migemu.ordering.broken import OrderingError
from migemu.ordering.explore import Exploration, TooManyStatesError, explore
from migemu.ordering.run import RunResult, run

__all__ = ["Exploration", "OrderingError", "RunResult", "TooManyStatesError", "explore", "run"]
