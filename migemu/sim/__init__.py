"""The virtual world: an event loop whose time is a number, and what runs on it."""
