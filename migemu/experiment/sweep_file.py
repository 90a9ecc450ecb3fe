"""The sweep file: which cells, which seeds. TOML, read once, checked as a whole before anything runs.

    [sweep]
    name = "pieces"
    scenario = "base.toml"              # optional: a file beside this one, or the name of a shipped scenario
    seeds = [1, 2, 3]                   # every cell runs with each of them
    [base.link]                         # settings of all cells, on top of the scenario
    rate = "25Gbit"
    [[axis]]                            # the grid is the product of the axes
    setting = "push.piece"
    values = ["4K", "2M"]
    [[axis]]                            # an axis may move several settings at once
    name = "distance"
    values = [{name = "rack", set = {"link.delay" = "25us", "return_link.delay" = "25us"}}]
    [[cell]]                            # cells beside the grid
    name = "no guest"
    set = {"guest.vcpus" = 0}

Rules of this file
    1. What is wrong with the file, the base, a seed or the name of a setting is an error: nothing runs.
    2. A value that makes no scenario, alone or with its neighbours, makes its cells impossible: they are kept with the
       reason, and the rest can run.
    3. Seeds are paired: the same in every cell, so that cells differ by their settings alone.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from migemu import named
from migemu.errors import ScenarioError
from migemu.experiment.cell import Cell, Settings, known_settings, make_cell, overlay
from migemu.scenario.scenario import from_mapping
from migemu.scenario.shipped_scenarios import shipped
from migemu.values import refusal, unknown

CELLS_MAX: Final = 10_000
_TABLES: Final = ("sweep", "base", "axis", "cell")
_SWEEP: Final = ("name", "description", "scenario", "seeds")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis: its name, and the settings that it stands for."""

    name: str
    assignments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of the grid."""

    name: str
    description: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A checked sweep. `text` is the file as it was read."""

    name: str
    description: str
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    text: str

    @property
    def impossible(self) -> list[Cell]:
        """The cells that make no valid scenario."""
        return [cell for cell in self.cells if cell.scenario is None]


def load_sweep(path: Path) -> Sweep:
    """Read and check a sweep file. ScenarioError by rule 1."""
    text = _text(path)
    return _Reader(path, _toml(text, str(path)), text).sweep()


def _text(path: Path) -> str:
    try:
        return named.read_text(path, named.SETTINGS_BYTES_MAX, once=True)
    except OSError as error:
        raise ScenarioError(str(path), "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(str(path), "", f"is not TOML: {error}") from None


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(where, "", f"is not TOML: {error}") from None


class _Reader:
    """Checks one file; each method returns what is right, or raises ScenarioError."""

    def __init__(self, path: Path, values: dict[str, Any], text: str) -> None:
        self._path, self._where, self._text = path, str(path), text
        self._values = values
        self._known = frozenset(known_settings())
        self._only("", values, _TABLES)
        self._head = self._table("sweep", values.get("sweep", {}))
        self._only("sweep", self._head, _SWEEP)

    def sweep(self) -> Sweep:
        """The sweep of the whole file."""
        name = self._word("sweep.name", self._head.get("name", self._path.stem))
        description = self._word("sweep.description", self._head.get("description", ""), empty=True)
        seeds, base, axes = self._seeds(), self._base(), self._axes()
        count = math.prod(len(axis.values) for axis in axes)
        if count > CELLS_MAX:
            raise self._wrong("axis", f"{count:,} cells, more than {CELLS_MAX:,}; leave out values")
        cells = tuple(self._cells(name, base, axes))
        for cell_name, times in Counter(cell.name for cell in cells).items():
            if times > 1:
                raise self._wrong("cell", f"there are two cells {cell_name!r}; give each a name of its own")
        return Sweep(name, description, seeds, axes, cells, self._text)

    def _seeds(self) -> tuple[int, ...]:
        seeds = self._head.get("seeds", [1])
        if not isinstance(seeds, list) or not seeds:
            raise self._wrong("sweep.seeds", refusal(seeds, "a list of seeds such as [1, 2, 3]"))
        for seed in seeds:
            try:
                from_mapping({"scenario": {"seed": seed}}, self._where)
            except ScenarioError as error:
                problem = str(error).removeprefix(f"{self._where}: scenario.seed: ")
                raise self._wrong("sweep.seeds", problem) from None
            if seeds.count(seed) > 1:
                raise self._wrong("sweep.seeds", f"{seed} is there twice; the same seed gives the same run")
        return tuple(int(seed) for seed in seeds)

    def _base(self) -> Settings:
        base: Settings = {}
        if "scenario" in self._head:
            name = self._word("sweep.scenario", self._head["scenario"])
            beside = self._path.parent / name
            file = beside if beside.exists() else shipped().get(name, beside)
            base = _toml(_text(file), str(file))
            from_mapping(base, str(file))
        inline = self._table("base", self._values.get("base", {}))
        for section, settings in inline.items():
            for key in self._table(f"base.{section}", settings):
                self._setting(f"base.{section}", f"{section}.{key}")
        merged = overlay(base, {f"{s}.{key}": value for s, values in inline.items() for key, value in values.items()})
        from_mapping(merged, f"{self._where}: base")
        return merged

    def _axes(self) -> tuple[Axis, ...]:
        axes: list[Axis] = []
        for number, raw in enumerate(self._list("axis"), 1):
            where = f"axis {number}"
            self._only(where, raw, ("name", "description", "setting", "values"))
            setting = raw.get("setting")
            if setting is not None:
                self._setting(where, self._word(where, setting))
            name = self._axis_name(where, raw.get("name", setting), axes)
            values = raw.get("values")
            if not isinstance(values, list) or not values:
                raise self._wrong(f"{where} ({name})", 'values: give a list such as ["4K", "2M"]')
            made = tuple(self._value(f"{where} ({name})", setting, value) for value in values)
            labels = [value.name for value in made]
            if len({*labels}) < len(labels):
                raise self._wrong(f"{where} ({name})", "values: the same one is there twice; name them apart")
            moved = {setting for value in made for setting in value.assignments}
            for axis in axes:
                if twice := moved & {setting for value in axis.values for setting in value.assignments}:
                    problem = f"{min(twice)}: the axis {axis.name!r} sets it too; set it in one of them"
                    raise self._wrong(f"{where} ({name})", problem)
            description = self._word(f"{where}.description", raw.get("description", ""), empty=True)
            axes.append(Axis(name, description, made))
        return tuple(axes)

    def _axis_name(self, where: str, name: Any, axes: Collection[Axis]) -> str:
        if name is None:
            raise self._wrong(where, "give it a setting, or a name and values that set several")
        word = self._word(f"{where}.name", name)
        if set(word) & set("=,"):
            raise self._wrong(f"{where}.name", f"{word!r}: no = and no comma, cells are selected as axis=value,...")
        if word in ("cell", *(axis.name for axis in axes)):
            raise self._wrong(f"{where}.name", f"there is another axis {word!r}; name them apart")
        return word

    def _value(self, where: str, setting: str | None, value: Any) -> Value:
        if isinstance(value, Mapping):
            self._only(where, value, ("name", "set"))
            assignments = self._assignments(where, value.get("set"))
            return Value(self._word(where, value.get("name", "")), assignments)
        if setting is None:
            raise self._wrong(where, f"{value!r}: without a setting, a value is {{name = ..., set = {{...}}}}")
        return Value(_label(value), {setting: value})

    def _assignments(self, where: str, raw: Any) -> dict[str, Any]:
        """The settings of `{"push.piece" = "4K"}` or `{push = {piece = "4K"}}`, as TOML reads dotted keys."""
        flat: dict[str, Any] = {}
        for name, value in self._table(f"{where}: set", raw).items():
            nested = {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, Mapping) else {}
            given = nested or {name: value}
            if twice := flat.keys() & given.keys():
                raise self._wrong(where, f"{min(twice)}: it is given twice; give it once")
            flat |= given
        for setting in flat:
            self._setting(where, setting)
        return flat

    def _cells(self, title: str, base: Settings, axes: tuple[Axis, ...]) -> Iterator[Cell]:
        explicit = self._list("cell")
        if axes or not explicit:
            for values in itertools.product(*(axis.values for axis in axes)):
                coordinates = {axis.name: value.name for axis, value in zip(axes, values, strict=True)}
                assignments = {key: inner for value in values for key, inner in value.assignments.items()}
                name = ", ".join(f"{axis}={value}" for axis, value in coordinates.items()) or "base"
                settings = overlay(base, assignments)
                yield make_cell(name, coordinates, settings, self._where, f"{title}: {name}")
        for number, raw in enumerate(explicit, 1):
            where = f"cell {number}"
            self._only(where, raw, ("name", "set"))
            name = self._word(f"{where}.name", raw.get("name", ""))
            settings = overlay(base, self._assignments(where, raw.get("set", {})))
            yield make_cell(name, {"cell": name}, settings, self._where, f"{title}: {name}")

    # ------------------------------------------------------------------------------------------------- small checks

    def _setting(self, where: str, setting: str) -> None:
        if setting == "scenario.seed":
            raise self._wrong(where, "scenario.seed: seeds stand in sweep.seeds, they are paired")
        if setting == "scenario.name":
            raise self._wrong(where, "scenario.name: a run of a sweep is called after its cell")
        if setting not in self._known:
            problem = unknown("setting", setting, sorted(self._known), "`migemu list --settings` shows them all")
            raise self._wrong(where, problem)

    def _only(self, where: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                raise self._wrong(where, unknown("key", key, known))

    def _table(self, where: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(where, f"{value!r} is not a table")
        return value

    def _list(self, name: str) -> list[Mapping[str, Any]]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            raise self._wrong(name, f"write [[{name}]], once for each")
        return value

    def _word(self, where: str, value: Any, empty: bool = False) -> str:
        if not isinstance(value, str) or not (value.strip() or empty):
            raise self._wrong(where, refusal(value, "a text"))
        return value.strip()

    def _wrong(self, where: str, problem: str) -> ScenarioError:
        return ScenarioError(self._where, where, problem)


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
