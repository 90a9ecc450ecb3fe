"""Worlds drawn from seeds, with faults: `python -m tests.swarm`, or `make swarm SEEDS=5000`."""
