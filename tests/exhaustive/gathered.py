"""Whether the steps of a collapse or a zap came in an order that SEMANTICS 2.3 allows, and add up to what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from migemu.mm import GatherKind, GatherStep, Level


def check_gathered(steps: Sequence[GatherStep], cleared: Counter[Level], freed: int, *, flush_first: bool) -> None:
    """SEMANTICS I6 and I7, and where the notifier ends: after the last flush if `flush_first`, as in v1, or before.

    `cleared` and `freed` are what the naive model counted.
    """
    counts = Counter[Level]()
    open_window, dirty, freed_steps = False, False, 0
    window = range(0)
    for step in steps:
        kind = step.kind
        if kind is GatherKind.NOTIFIER_START:
            assert not open_window, steps
            open_window, window = True, range(step.start, step.end)
        elif kind is GatherKind.NOTIFIER_END:
            assert open_window, steps
            assert not (flush_first and dirty), f"v1 flushes before the notifier ends: {steps}"
            open_window = False
        elif kind in (GatherKind.CLEARED, GatherKind.INSTALLED):
            assert open_window, steps
            assert window.start <= step.start < step.end <= window.stop, f"outside the notifier's window: {steps}"
            if kind is GatherKind.CLEARED:
                assert step.level is not None
                counts[step.level] += step.count
                dirty = True
        elif kind is GatherKind.FLUSHED:
            dirty = False
        elif kind is GatherKind.FREED:
            assert not dirty, f"a table freed before the flush that follows its clears: {steps}"
            freed_steps += step.count
    assert not open_window, steps
    assert not dirty, steps
    assert +counts == +cleared, f"cleared {counts}, by the book {cleared}"
    assert freed_steps == freed, f"freed {freed_steps} tables, by the book {freed}"
