"""A published result as data: what was run, what was reported, and how the same figure is read off a modelled run.

Rules of this file
    1. Every setting says where its value is from. One that no source states is an `assumption`, with the reason; none
       is chosen so that a figure comes out right.
    2. A figure is a number or a range as it was published, and a function of one result. Where a variant cannot
       be run, the reason stands in the place of its figures' counterparts.
    3. Nothing here runs anything: `cells` gives what has to be run, `judge` takes the results.

Words
    variant    one of the runs that a publication compares: the same machine with something switched on or off
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from migemu.experiment.cell import Cell, make_cell, overlay
from migemu.registry import Registry

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishedSetting:
    """The `value` of the setting `key`, and its source."""

    key: str
    value: Any
    source: str
    assumed: bool = False


def assumed(key: str, value: Any, why: str) -> PublishedSetting:
    """A setting whose value no source states, with the reason for the value."""
    return PublishedSetting(key, value, why, assumed=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """A published figure of a `variant`: `low` to `high` (equal for a single number), shown as text by `show`.

    `rounded`: the source calls it "about". `of` reads the same figure from a result; None if the result does not have
    it.
    """

    name: str
    variant: str
    low: float
    high: float
    show: Callable[[float], str]
    of: Callable[[Result], float | None]
    rounded: bool = False

    def error(self, modelled: float) -> float:
        """(modelled - published) / published: zero within a published range, outside it from its nearer end."""
        nearest = min(max(modelled, self.low), self.high)
        return (modelled - nearest) / nearest if nearest else modelled - nearest

    @property
    def published(self) -> str:
        """The figure as text, as it was published."""
        text = self.show(self.low) if self.low == self.high else f"{self.show(self.low)} to {self.show(self.high)}"
        return f"about {text}" if self.rounded else text


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of a publication: settings on top of the common ones. `histogram_us`: lower bound -> samples."""

    name: str
    description: str
    settings: tuple[PublishedSetting, ...] = ()
    histogram_us: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as data. `caveats` are assumptions that are no setting; `references` begin with [their name]."""

    title: str
    source: str
    settings: tuple[PublishedSetting, ...]
    variants: tuple[Variant, ...]
    figures: tuple[Figure, ...]
    caveats: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def cells(self, name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Cell]:
        """Variant -> the cell to run for it; `changes` are a user's settings on top. An impossible cell says why."""
        made: dict[str, Cell] = {}
        for variant in self.variants:
            title = f"{name}: {variant.name}"
            wanted = {each.key: each.value for each in (*self.settings, *variant.settings)} | dict(changes or {})
            made[variant.name] = make_cell(variant.name, {"variant": variant.name}, overlay({}, wanted), name, title)
        return made

    def assumptions(self) -> list[tuple[str, str]]:
        """(setting = value, reason) of every assumption; caveats have "" as their setting."""
        found = [(f"{each.key} = {_text(each.value)}", each.source) for each in self.settings if each.assumed]
        for variant in self.variants:
            found += [
                (f"{variant.name}: {each.key} = {_text(each.value)}", each.source)
                for each in variant.settings
                if each.assumed
            ]
        return found + [("", caveat) for caveat in self.caveats]


@dataclass(frozen=True, slots=True)
class Judged:
    """A published figure beside the modelled one, or the `problem` that prevents a modelled one."""

    figure: Figure
    modelled: float | None
    problem: str = ""


def judge(publication: Publication, results: Mapping[str, Result], problems: Mapping[str, str]) -> list[Judged]:
    """Every published figure, in order; `results` are by variant, `problems` say why others have none."""
    rows: list[Judged] = []
    for figure in publication.figures:
        if figure.variant in results:
            modelled = figure.of(results[figure.variant])
            rows.append(Judged(figure, modelled, "" if modelled is not None else "it had no faults"))
        else:
            rows.append(Judged(figure, None, problems.get(figure.variant, "not run")))
    return rows


# ----------------------------------------------------------------------------------------- figures of a histogram


def share_between(low_us: int, high_us: int | None) -> Callable[[Result], float | None]:
    """The share of faults from `low_us` to below `high_us` (None: no limit); bounds are powers of two, or 0."""

    def of(result: Result) -> float | None:
        count: int = result["fault"]["count"]
        return between(buckets(result), low_us, high_us) / count if count else None

    return of


def count_between(low_us: int, high_us: int | None) -> Callable[[Result], float | None]:
    """How many faults took from `low_us` to below `high_us`."""
    return lambda result: between(buckets(result), low_us, high_us)


def mean_ns(result: Result) -> float | None:
    """The mean fault latency of a result, in ns."""
    return float(result["fault"]["mean_ns"]) if result["fault"]["count"] else None


def buckets(result: Result) -> dict[int, int]:
    """`fault.log2_us` of a result with numbers as keys."""
    return {int(bound): count for bound, count in result["fault"]["log2_us"].items()}


def between(histogram: Mapping[int, int], low_us: int, high_us: int | None) -> int:
    """The samples in the buckets from `low_us` to below `high_us`."""
    return sum(count for bound, count in histogram.items() if low_us <= bound and (high_us is None or bound < high_us))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


publications: Final[Registry[Publication]] = Registry("published result", "migemu.publication")
