"""What a collapse or a zap does to entries and tables, step by step: the mmu_gather and the MMU notifier around it.

What this models
    The order in which leaves are cleared, the new leaf is set, the TLB is flushed and table pages are freed. Nothing
    here takes time; whoever listens (`AddressSpace(on_gather=...)`) may count, charge or check.

Rules (sections of kernel-semantics)
    1. A table page is freed after a flush that follows its clears, never before (2.3; I6).
    2. The notifier window covers the whole requested range (2.3; I7).
    3. v1: notifier start, gather, lock, loop, unlock, flush and free, notifier end. v2: gather, notifier start, loop,
       notifier end, flush and free (2.3).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from migemu.mm.pages import Level


class GatherKind(Enum):
    """What happened. The comment names what `level` and `count` say."""

    NOTIFIER_START = "notifier_start"  # nothing more: from here on vCPUs that fault in the range retry (I7)
    CLEARED = "cleared"  # leaves of `level` cleared, `count` of them
    INSTALLED = "installed"  # leaves of `level` set, `count` of them
    NOTIFIER_END = "notifier_end"
    FLUSHED = "flushed"  # the TLB holds nothing of the range that was cleared before
    FREED = "freed"  # `count` table pages given back


class GatherStep(NamedTuple):
    """One step over bytes `[start, end)`."""

    kind: GatherKind
    start: int
    end: int
    level: Level | None = None
    count: int = 0  # type: ignore[assignment]  # hides tuple.count


OnGather = Callable[[GatherStep], None]
