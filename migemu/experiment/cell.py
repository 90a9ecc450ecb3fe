"""One cell of a sweep: its coordinates, the settings they stand for, and the scenario that these make - or why not.

Rules of this file
    1. A cell is known by its coordinates, axis -> value as text. Its name is made of them and is what people type.
    2. `digest` says whether two cells are the same experiment: it covers every resolved setting but `[scenario]`, that
       is, neither the seed nor what the run is called.
    3. A cell that no scenario can be made of is kept, with the reason: whoever runs the sweep has to name it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import attrs
import xxhash

from migemu.errors import InputError, ScenarioError
from migemu.scenario.scenario import Scenario, describe, from_mapping

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """Coordinates (axis -> value, in the order of the axes), and either a scenario or the problem that prevents one.

    The seed of the scenario is that of the sweep's base.
    """

    name: str
    coordinates: Mapping[str, str]
    scenario: Scenario | None
    problem: str = ""

    @property
    def digest(self) -> str:
        """xxh3_64 of the resolved settings, 16 hex digits; "" for an impossible cell."""
        return "" if self.scenario is None else digest(self.scenario)

    def seeded(self, seed: int) -> Scenario:
        """The scenario of the run with `seed`. InputError when the cell is impossible."""
        if self.scenario is None:
            raise InputError(f"{self.name}: {self.problem}")
        return attrs.evolve(self.scenario, scenario=attrs.evolve(self.scenario.scenario, seed=seed))


def make_cell(name: str, coordinates: Mapping[str, str], settings: Settings, where: str, title: str) -> Cell:
    """The cell of `settings` (nested, as in a scenario file); `title` is the name of its runs."""
    named = {**settings, "scenario": {**settings.get("scenario", {}), "name": title}}
    try:
        return Cell(name, coordinates, from_mapping(named, where))
    except ScenarioError as error:
        return Cell(name, coordinates, None, str(error).removeprefix(f"{where}: "))


def digest(scenario: Scenario) -> str:
    """xxh3_64 of resolved settings without `[scenario]`, 16 hex digits (rule 2)."""
    settings = {section: values for section, values in scenario.resolved().items() if section != "scenario"}
    return xxhash.xxh3_64_hexdigest(json.dumps(settings, sort_keys=True).encode())


def differing(one: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    """`section.key` -> both values, for every setting in which two resolved scenarios differ, except `[scenario]`."""
    found: dict[str, tuple[Any, Any]] = {}
    for section in (name for name in {**one, **other} if name != "scenario"):
        mine, theirs = one.get(section, {}), other.get(section, {})
        for key in {**mine, **theirs}:
            if mine.get(key) != theirs.get(key):
                found[f"{section}.{key}"] = (mine.get(key), theirs.get(key))
    return found


def overlay(base: Settings, assignments: Mapping[str, Any]) -> Settings:
    """`base` with the assignments `section.key` -> value on top of it."""
    merged: dict[str, dict[str, Any]] = {section: dict(values) for section, values in base.items()}
    for setting, value in assignments.items():
        section, _, key = setting.partition(".")
        merged.setdefault(section, {})[key] = value
    return merged


def known_settings() -> list[str]:
    """Every `section.key` that a scenario has."""
    return [f"{each.section}.{each.key}" for each in describe()]


def parse_selector(text: str, axes: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> value of the selector `axis=value,axis=value`. InputError names the existing axes.

    A value may contain commas (`collapse=batched:spans=16,dirty=no`): what follows a comma belongs to the value before
    it unless it begins with the name of an axis.
    """
    chosen: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        axis, equals, value = part.partition("=")
        if equals and axis.strip() in axes:
            last = axis.strip()
            if last in chosen:
                raise InputError(f"{text!r}: {last} is given twice; give it once")
            chosen[last] = value.strip()
        elif last:
            chosen[last] += f",{part}"
        else:
            known = ", ".join(axes) or "none: it has one cell"
            raise InputError(f"{part!r} selects no cell: write AXIS=VALUE,...; axes: {known}")
    return chosen


def selected(chosen: Mapping[str, str], coordinates: Mapping[str, str]) -> bool:
    """Whether the cell at `coordinates` matches one of the selectors."""
    return all(coordinates.get(axis) == value for axis, value in chosen.items())
