"""`python -m tests.bench [--runs N] [--only NAME] [--json PATH] [--set section.key=value]`

Runs the pairs in turn, shows the table, writes bench.json. What is measured, and how, is told in the package.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from migemu.errors import MigemuError
from migemu.scenario.scenario import load
from tests import certificates
from tests.bench import figures, quiet, simulated, table
from tests.bench.nodes import MEMORY_BYTES, Pair

#: Lone faults of one run, and how long the push is held back for them (they take 0.1 to 0.3 ms each).
LONE_FAULTS: Final = 2000
_LONE_HOLD: Final = "1200ms"
_ONE_VCPU: Final = ("guest.vcpus=1", "guest.workload=uniform", "guest.rate=0")
_LONE: Final = (*_ONE_VCPU, f"push.hold={_LONE_HOLD}", f"guest.accesses_max={LONE_FAULTS}")
_NO_GUEST: Final = ("guest.vcpus=0",)
_TLS: Final = tuple(f"security.{key}={value}" for key, value in certificates.security().items())
#: What A is set to where it is migemu too.
_OF_A: Final = dict.fromkeys(("push_tls", "push_digests"), (*_NO_GUEST, "push.piece=4K"))

#: name of a measurement -> the pairs (A, B) of one round; B with its scenario.
_PAIRS: Final[dict[str, tuple[tuple[str, str, str, tuple[str, ...]], ...]]] = {
    "push_4k": (("bare_bulk", "push", "push_4k", (*_NO_GUEST, "push.piece=4K")),),
    "push_2m": (("bare_bulk", "push", "push_2m", (*_NO_GUEST, "push.piece=2M")),),
    "push_tls": (("push", "push", "push_tls", (*_NO_GUEST, "push.piece=4K", *_TLS)),),
    "push_digests": (
        ("push", "push", "push_digests", (*_NO_GUEST, "push.piece=4K", "integrity.digests=on")),
    ),
    "fault_rtt": (
        ("bare_rtt", "fault", "fault_rtt", _LONE),
    ),
    "fault_under_push": (
        ("bare_loaded", "loaded", "fault_under_push_preempt", (*_ONE_VCPU, "pull.preempt=on")),
        ("bare_loaded", "loaded", "fault_under_push_shared", (*_ONE_VCPU, "pull.preempt=off")),
    ),
}  # fmt: skip
#: Measurements of the models, without a pair.
_ALONE: Final = ("page_table", "trace")
#: Migrations in virtual time, in this process. The large ones take minutes: once, and only when asked for.
_SIMULATED: Final = {"sim": simulated.measure, "sim_large": simulated.measure_large}
_TARGETS: Final = {"push_4k": 0.80, "push_2m": 0.90, "fault_rtt": 1.4}

Results = dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]
#: How often a pair that was disturbed is measured again, how long each may wait for a quiet moment, and after how much
#: time in all the benchmark takes the machine as it is.
_TRIES_MAX: Final = 2
_PATIENCE_S: Final = 1.0
_INDULGENCE_S: Final = 75.0


def _collect(pair: Pair, names: list[str], runs: int, extra: tuple[str, ...], console: Console) -> Results:
    """Each name's runs of A and of B. The first round warms up."""
    results: Results = defaultdict(lambda: ([], []))
    deadline = time.monotonic() + _INDULGENCE_S
    for number in range(runs + 1):
        for name in names:
            for bare, served, key, assignments in _PAIRS.get(name, ()):
                with console.status(f"{key}, {'warming up' if number == 0 else f'run {number} of {runs}'}"):
                    for _ in range(_TRIES_MAX):
                        patient = number > 0 and time.monotonic() < deadline
                        if patient:
                            quiet.settle(pair.pids, _PATIENCE_S)
                        a = pair.measure(bare, (*_OF_A.get(key, ()), *extra), LONE_FAULTS)
                        b = pair.measure(served, (*assignments, *extra))
                        if not patient or max(a["foreign"], b["foreign"]) <= quiet.FOREIGN_MAX:
                            break
                if number:
                    results[key][0].append(a)
                    results[key][1].append(b)
    return results


def _ratios(results: Results) -> list[figures.Ratio]:
    ratios = []
    for key, (a, b) in results.items():
        if key.startswith("push"):
            ratios.append(figures.throughput(f"{key}_ratio", _TARGETS.get(key), a, b, MEMORY_BYTES))
        elif key == "fault_rtt":
            ratios.append(figures.latency(f"{key}_ratio", _TARGETS[key], 500, a, b))
            ratios.append(figures.latency(f"{key}_ratio_p99", None, 990, a, b))
        else:
            target = 2.0 if key.endswith("preempt") else None
            ratios.append(figures.latency(f"{key}_ratio_p50", target, 500, a, b))
            ratios.append(figures.latency(f"{key}_ratio_p99", None, 990, a, b))
            ratios.append(figures.throughput(f"{key}_ratio_push", None, a, b, MEMORY_BYTES))
    return ratios


def _cpus(results: Results) -> dict[str, dict[str, figures.Series]]:
    cpus = {}
    bare = [run for key, (a, _) in results.items() if key.startswith("push") and key not in _OF_A for run in a]
    if bare:
        cpus["bare"] = figures.cpu(bare, MEMORY_BYTES)
    for key, (_, b) in results.items():
        if key.startswith("push"):
            cpus[key] = figures.cpu(b, MEMORY_BYTES)
    return cpus


@click.command()
@click.option("--runs", type=click.IntRange(1, 1000), default=5, show_default=True, help="Runs of each side.")
@click.option(
    "--only", multiple=True, type=click.Choice([*_PAIRS, *_ALONE, *_SIMULATED]), help="Only this; repeatable."
)
@click.option("--json", "path", type=click.Path(path_type=Path), default=Path("bench.json"), show_default=True)
@click.option("--set", "extra", multiple=True, metavar="section.key=value", help="A setting of migemu; repeatable.")
def main(runs: int, only: tuple[str, ...], path: Path, extra: tuple[str, ...]) -> None:
    """Measure migemu against bare uvloop processes."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    names = list(only) or [*_PAIRS, *_ALONE, "sim"]
    congestion, models = "", {}
    try:
        load(None, extra)
        with Pair() as pair:
            results = _collect(pair, names, runs, extra, console)
            for name in _ALONE:
                if name in names:
                    models |= figures.rates([pair.alone(name) for _ in range(runs)])
            pinned = pair.pinned
        for name, measure in _SIMULATED.items():
            if name in names:
                models |= figures.rates([measure() for _ in range(runs if name == "sim" else 1)])
    except (MigemuError, RuntimeError) as error:
        console.print(f"failed: {error}", markup=False)
        sys.exit(1)
    for a, _ in results.values():
        congestion = a[0].get("source_congestion", congestion)
    machine = figures.machine(len(os.sched_getaffinity(0)), pinned, congestion)
    pairs = [both for runs_of in results.values() for both in zip(*runs_of, strict=True)]
    machine["disturbed_runs"] = sum(max(a["foreign"], b["foreign"]) > quiet.FOREIGN_MAX for a, b in pairs)
    ratios, cpus = _ratios(results), _cpus(results)
    table.show(console, ratios, cpus, models, machine)
    bench = {
        "schema_version": figures.SCHEMA_VERSION,
        "kind": "measured",
        "machine": machine,
        "runs": runs,
        "settings": list(extra),
        "ratios": {ratio.name: ratio.as_json() for ratio in ratios},
        "cpu_s_per_gib": {
            name: {side: series.as_json() for side, series in sides.items()} for name, sides in cpus.items()
        },
        "models": {name: series.as_json() for name, series in models.items()},
    }  # fmt: skip
    path.write_text(json.dumps(bench, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}", style="dim", markup=False)


if __name__ == "__main__":
    main()
