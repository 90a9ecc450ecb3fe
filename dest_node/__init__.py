"""The destination of a migration: decides what to do with what arrives (receiver, pure) and does it (service)."""
