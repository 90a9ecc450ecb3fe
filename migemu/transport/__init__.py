"""Real connections: TCP, the shaper that emulates a link on them, the clock of the machine."""
