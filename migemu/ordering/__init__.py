"""A kit to try collapse policies with: every order of events on a small memory, or one drawn from a seed on any.

    explore(policy)          every interleaving, by state, on one hugetlb page of 16 base pages
    run(scenario, ...)       one migration through both pure cores, every event judged by every checker

Both raise `OrderingError`, a failed assertion, as soon as a rule is broken, with the way there and a line to replay it.
`migemu.ordering.plugin` makes fixtures of them; pytest loads it wherever migemu is installed, so that nothing else is
loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migemu.ordering.broken import OrderingError
    from migemu.ordering.exploration import Exploration, TooManyStatesError, explore
    from migemu.ordering.seeded_run import RunResult, run

__all__ = ["Exploration", "OrderingError", "RunResult", "TooManyStatesError", "explore", "run"]

_HOME = {
    "OrderingError": "broken", "Exploration": "exploration", "TooManyStatesError": "exploration",
    "explore": "exploration", "RunResult": "seeded_run", "run": "seeded_run",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
