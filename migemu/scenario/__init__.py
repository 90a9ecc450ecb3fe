"""A run described: every setting, its unit, its default, its rules."""
