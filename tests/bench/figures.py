"""What the runs add up to: medians, ratios, targets, and their form in bench.json, whose keys stay."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any, Final, Literal

from migemu.guest.latency import FaultLatency
from migemu.units import MIB

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of all runs of one side, in `unit`."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Median, extremes and every value."""
        return {
            "unit": self.unit, "median": self.median, "min": min(self.values), "max": max(self.values),
            "runs": list(self.values),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ratio:
    """B against A, and what is asked of it. `target` is None for a ratio that is only reported."""

    name: str
    value: float
    pairs: tuple[float, ...]
    target: float | None
    sense: Literal["at least", "at most"]
    baseline: Series
    migemu: Series

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Its entry in bench.json."""
        return {
            "value": self.value, "min": min(self.pairs), "max": max(self.pairs), "target": self.target,
            "sense": self.sense, "met": self.met,
            "baseline": self.baseline.as_json(), "migemu": self.migemu.as_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """What is asked of a figure that has no B to be compared with."""

    value: float
    sense: Literal["at least", "at most"] = "at least"

    def met(self, series: Series) -> bool:
        """Whether the median is within it."""
        return series.median >= self.value if self.sense == "at least" else series.median <= self.value


#: What is asked of the models: a second, but for memory in bytes.
BOUNDS: Final = {
    "continue_1": Bound(500_000), "continue_64": Bound(5_000_000), "trace_events": Bound(100_000),
    "tib_at_4k": Bound(256 * MIB, "at most"),
    "sim_1g": Bound(2, "at most"), "sim_64g": Bound(60, "at most"), "sim_1t": Bound(600, "at most"),
    "sim_1t_mib": Bound(2048, "at most"),
}  # fmt: skip
_UNITS: Final = {
    "tib_at_4k": "bytes", "sim_1g": "s", "sim_64g": "s", "sim_1t": "s",
    **{f"{name}_s_per_gib": "s" for name in ("sim_1g", "sim_64g", "sim_1t")},
    **{f"{name}_mib": "MiB" for name in ("sim_1g", "sim_64g", "sim_1t")},
}  # fmt: skip


def rates(runs: Sequence[dict[str, Any]]) -> dict[str, Series]:
    """The figures of the models, of all runs."""
    names = runs[0] if runs else ()
    return {name: Series(tuple(run[name] for run in runs), _UNITS.get(name, "1/s")) for name in names}


def throughput(
    name: str, target: float | None, baseline: Sequence[dict[str, Any]], migemu: Sequence[dict[str, Any]], moved: int
) -> Ratio:
    """Bytes per second of paired runs: the median of the pairs' ratios."""
    rates = [[moved * 1e9 / run["span_ns"] for run in runs] for runs in (baseline, migemu)]
    pairs = tuple(b / a for a, b in zip(*rates, strict=True))
    return Ratio(
        name, median(pairs), pairs, target, "at least",
        Series(tuple(rates[0]), "bytes/s"), Series(tuple(rates[1]), "bytes/s"),
    )  # fmt: skip


def latency(
    name: str, target: float | None, per_mille: int,
    baseline: Sequence[dict[str, Any]], migemu: Sequence[dict[str, Any]],
) -> Ratio:  # fmt: skip
    """A percentile of latencies: of all values of all runs. The series hold the percentile of each run."""
    pooled, series = [], []
    for runs in (baseline, migemu):
        rows = [FaultLatency(run["latencies_ns"]) for run in runs]
        everything = FaultLatency()
        for row in rows:
            everything.merge(row)
        pooled.append(everything.percentile(per_mille) or 0)
        series.append(Series(tuple((row.percentile(per_mille) or 0) / 1000 for row in rows), "us"))
    pairs = tuple(b / a for a, b in zip(series[0].values, series[1].values, strict=True) if a)
    return Ratio(name, pooled[1] / max(1, pooled[0]), pairs, target, "at most", series[0], series[1])


def cpu(runs: Sequence[dict[str, Any]], moved: int) -> dict[str, Series]:
    """Processor seconds that each side used per GiB."""
    return {
        side: Series(tuple(run[key] / 1e9 * 2**30 / moved for run in runs), "s/GiB")
        for side, key in (("source", "source_cpu_ns"), ("destination", "cpu_ns"))
    }


def machine(cores: int, pinned: bool, congestion: str) -> dict[str, Any]:
    """What these figures are figures of."""
    return {
        "cores": cores,
        "pinned": pinned,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "congestion_control": congestion,
    }
