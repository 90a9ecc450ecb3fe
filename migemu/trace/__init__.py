"""What happened, as events: one vocabulary, one JSON line each."""
