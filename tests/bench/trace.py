"""How fast a trace is judged: read from its file, and every rule over every event.

    events      events of a trace like that of a run over 1 GiB pages in 4K pieces, with faults and collapses, a second
    read        the same without the rules

The file is written before, and in the page cache.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from migemu.trace.findings import judge_file
from migemu.trace.reading import read_trace
from migemu.units import SECOND
from tests.bench.nodes import Seat
from tests.unit.trace.traces import long_trace, write_lines

EVENTS: Final = 1_000_000


async def measure(_seat: Seat) -> dict[str, Any]:
    """One run of both."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(Path(folder) / "trace.jsonl", long_trace(EVENTS))
        begin = time.monotonic_ns()
        verdict = judge_file(path)
        judged_ns = time.monotonic_ns() - begin
        assert not verdict.violations
        begin = time.monotonic_ns()
        with read_trace(path) as trace:
            events = sum(len(block) for block in trace.events())
        read_ns = time.monotonic_ns() - begin
    return {"trace_events": events * SECOND / judged_ns, "trace_read": events * SECOND / read_ns}
