"""The measured world as a cell of a sweep: both nodes as processes over real sockets, as `migemu run` does it.

It needs the main thread of its process (for signals), so it runs here and in worker processes, not on a Dask cluster.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from migemu import named
from migemu.errors import EXIT_INTERRUPTED, BrokenError
from migemu.report.terminal.progress import Progress
from migemu.scenario.scenario import Scenario
from migemu.transport.shaper import check_link
from migemu.worlds.pair import Pair, PairOutcome


def run_cell(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """The result of one real run (kind "measured"). BrokenError when there is none."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="migemu-") as folder:
            return run_cell(scenario, Path(folder))
    check_link("link", scenario.link)
    check_link("return_link", scenario.return_link)
    outcome = asyncio.run(_pair(scenario, directory))
    if outcome.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    try:
        result: dict[str, Any] = json.loads(named.read_text(directory / "result.json"))
    except (OSError, ValueError):
        raise BrokenError(outcome.error or "the run left no result") from None
    if outcome.error:
        result |= {"status": "failed", "error": outcome.error}
    return result


async def _pair(scenario: Scenario, directory: Path) -> PairOutcome:
    with Progress(Console(quiet=True), scenario.scenario.name, quiet=True) as progress:
        return await Pair(scenario, directory, progress, trace=False).run()
