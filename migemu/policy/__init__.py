"""Choices, each picked by name: what to push next, when to collapse what."""

from migemu.policy import budget, collapse, push  # so that every policy is registered, whichever is imported

__all__ = ["budget", "collapse", "push"]
