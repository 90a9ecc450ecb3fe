"""Choices picked by name: which pages the source pushes next, when the destination collapses what."""
