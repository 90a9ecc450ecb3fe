"""The source of a migration: decides what to send (sender, pure) and sends it (service)."""
