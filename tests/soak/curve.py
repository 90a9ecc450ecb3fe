"""Samples of a process over time, and whether what they show is flat.

Growth is the median of the last third less that of the first, after a warm-up in which memory of every kind is used for
the first time, and for as long as all processes are there: what one of them gives back when the other has ended would
hide what it had grown by. A median is not moved by what comes and goes: a migration's memory, a connection and its
successor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from migemu.units import MIB

#: Warm-up: this share of the samples, and at least so many seconds of the process (interpreters take one to start).
WARM_UP: Final = 0.1
WARM_UP_S: Final = 3.0
#: What still counts as flat. The slow guest remembers what it has written, which is some 3 MiB (`limits`, README).
RSS_GROWTH_MAX: Final = 16 * MIB
DESCRIPTORS_GROWTH_MAX: Final = 2
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """Of one process, `seconds` after the soak began."""

    seconds: float
    process: str
    rss_bytes: int
    descriptors: int


def sample(seconds: float, process: str, pid: int) -> Sample | None:
    """How it stands now; None if it has ended."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (OSError, IndexError):
        return None
    return Sample(seconds, process, resident * _PAGE_BYTES, descriptors)


class Growth(NamedTuple):
    """Of one figure of one process: where it stood in the first and in the last third, and the most there was."""

    process: str
    figure: str
    first: float
    last: float
    most: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it has grown by no more than is allowed."""
        return self.last - self.first <= self.allowed


def growths(samples: Sequence[Sample], process: str) -> tuple[Growth, Growth]:
    """Of the memory and the descriptors of `process`. ValueError when there are too few samples to tell."""
    last_s = {each.process: each.seconds for each in samples}  # of each, the last one counts
    end_s = min(last_s.values(), default=0.0)
    own = [each for each in samples if each.process == process and each.seconds <= end_s]
    begin_s = max(own[0].seconds + WARM_UP_S, own[int(len(own) * WARM_UP)].seconds) if own else 0.0
    warm = [each for each in own if each.seconds >= begin_s]
    third = len(warm) // 3
    if not third:
        raise ValueError(f"{len(own)} samples of the {process} are too few")

    def growth(figure: str, values: list[int], allowed: int) -> Growth:
        return Growth(process, figure, median(values[:third]), median(values[-third:]), max(values), allowed)

    return (
        growth("rss_bytes", [each.rss_bytes for each in warm], RSS_GROWTH_MAX),
        growth("descriptors", [each.descriptors for each in warm], DESCRIPTORS_GROWTH_MAX),
    )
