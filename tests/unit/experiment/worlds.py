"""Worlds for tests of experiments: functions that make up a result from the scenario and its seed, at once.

They are found by dotted name, also by worker processes. What they are to do beyond that they read from the directory
that the environment names (`STAGE`): a file, or a FIFO to wait on, since a test must not sleep.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from random import Random
from typing import Any, Final

from migemu.errors import BrokenError
from migemu.mm.pages import X86_64
from migemu.node.outcome import Outcome, Snapshot
from migemu.result import begin, build, write
from migemu.scenario.scenario import Scenario
from migemu.wire.states import Stage

STAGE: Final = "MIGEMU_TEST_STAGE"
PLAIN: Final = "tests.unit.experiment.worlds:plain"


def plain(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """Latency from piece, policy and seed; the same for the same."""
    base_us = {"4K": 100, "2M": 10_000}[scenario.resolved()["push"]["piece"]]
    if scenario.collapse.policy != "never":
        base_us += 50
    noise_us = Random(scenario.scenario.seed).randrange(20)
    snapshot = Snapshot(0, Stage.COMPLETED, X86_64, scenario.memory.size, 0, 0)
    outcome = Outcome(snapshot, True, "d", 0, json.dumps(scenario.resolved()), 0)
    result = build(outcome, scenario, "modelled", "completed")
    median_ns = (base_us + noise_us) * 1000
    result["fault"] |= {
        "count": 100, "mean_ns": median_ns, "p50_ns": median_ns, "p99_ns": median_ns * 4, "p999_ns": median_ns * 8,
        "max_ns": median_ns * 10, "log2_us": {str(1 << (base_us + noise_us).bit_length() - 1): 100},
    }  # fmt: skip
    result["bytes"]["wire"] = scenario.memory.size
    at_1g_ns = None if scenario.collapse.policy == "never" else 2 * median_ns
    result["mapping"] |= {"to_1G_ns": at_1g_ns, "access_mean_ns": 8.953}
    if directory is not None:
        write(result, begin(directory))
    return result


def failing(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """Fails with odd seeds: as the world may, and by a bug."""
    if scenario.scenario.seed % 4 == 1:
        raise BrokenError("the link was cut")
    if scenario.scenario.seed % 4 == 3:
        raise ZeroDivisionError("division by zero")
    return plain(scenario, directory)


def incomplete(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """A run that says itself that it did not complete."""
    return plain(scenario, directory) | {"status": "failed", "error": "gave up"}


def older(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """A result of a version that nobody knows."""
    return plain(scenario, directory) | {"schema_version": 99}


def deadly(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """With seed 2 its process is killed, the first time only; with seed 3 every time."""
    mark = stage() / f"died-{scenario.scenario.seed}"
    seed = scenario.scenario.seed
    if seed == 3 or (seed == 2 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(scenario, directory)


def waiting(scenario: Scenario, directory: Path | None) -> dict[str, Any]:
    """From seed 3 on: says that it has come so far, and waits until somebody opens the FIFO, if there is one."""
    if scenario.scenario.seed >= 3 and (stage() / "wait").exists():
        (stage() / "told").open("w").close()
        (stage() / "wait").open().close()
    return plain(scenario, directory)


def stage() -> Path:
    return Path(os.environ[STAGE])
