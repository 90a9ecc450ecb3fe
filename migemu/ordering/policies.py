"""Whose policy is tried: by its spec, as a class, or as an object; and what it is told that collapses cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from migemu.costs.collapse_cost import CostModel
from migemu.mm.pages import TINY, Geometry
from migemu.ordering.frozen import clone
from migemu.policy.collapse_policy import CollapsePolicy, collapse_policies
from migemu.units import MS

#: A policy: its spec ("batched:spans=2"), the class or function that makes it of a geometry, or the object itself.
PolicyChoice = str | Callable[[Geometry], CollapsePolicy] | CollapsePolicy

#: What policies are told that collapses cost: 0.5 ms an entry, so that a budget of some ms is used up. Assumed.
DEAR: Final = CostModel(geometry=TINY, entry_ns=MS // 2)


def make_policy(policy: PolicyChoice, geometry: Geometry) -> CollapsePolicy:
    """A new collapse policy: made from a spec or a class, or a copy of an object. ValueError: no such spec."""
    if isinstance(policy, str):
        return collapse_policies.create(policy, geometry)
    if isinstance(policy, type) or not hasattr(policy, "mapped"):
        return cast(Callable[[Geometry], CollapsePolicy], policy)(geometry)
    return clone(cast(CollapsePolicy, policy))


def policy_name(policy: PolicyChoice) -> str:
    """A short name of a policy: its spec, or the name of its class."""
    if isinstance(policy, str):
        return policy
    kind = policy if isinstance(policy, type) or not hasattr(policy, "mapped") else type(policy)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
