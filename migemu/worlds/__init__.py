"""A whole migration put together: measured (two processes, real bytes) or modelled (virtual time)."""
