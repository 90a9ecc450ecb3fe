"""Choices, each picked by name: what to push next, when to collapse what."""

from migemu.policy import budget
from migemu.policy import collapse_policy as collapse
from migemu.policy import push_order as push

__all__ = ["budget", "collapse", "push"]
