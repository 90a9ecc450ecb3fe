"""Who touches the memory, and what waiting for it costs: workloads, blocktime, fault latency.

Importing the package registers every workload that comes with migemu.
"""

from migemu.guest import pointer_chase, replay, workload, zipf

__all__ = ["pointer_chase", "replay", "workload", "zipf"]
