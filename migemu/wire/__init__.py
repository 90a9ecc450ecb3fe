"""The migration stream, pure: what can be said (messages), in which bytes (codec), and when (states)."""
