"""A trace into figures: where the time of every fault went, series over time, what maps the memory, Perfetto."""
