"""What a program gives as the settings of a run: mappings, files and names of shipped scenarios, one above the other.

Rules
    1. Each of them stands above those before it, as `--set` stands above a file.
    2. A mapping has dotted keys (`{"guest.vcpus": 8}`), or sections (`{"guest": {"vcpus": 8}}`); values are those of a
       scenario file: texts with units, numbers, True and False.
    3. A mistake is a ScenarioError that names the setting, the value and what is accepted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from migemu.errors import ScenarioError
from migemu.scenario.scenario import Scenario, from_mapping, read_settings
from migemu.values import refusal

#: A mapping of settings, the path of a scenario file, or the name of a shipped scenario.
Settings: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]
#: How a mistake in a mapping begins, where that in a file begins with the file's name.
WHERE = "settings"


def make_scenario(layers: Iterable[Settings], seed: int | None = None) -> Scenario:
    """The scenario of these settings (none: the defaults), with `seed` in the place of theirs. ScenarioError."""
    own = {} if seed is None else {"scenario.seed": seed}
    return from_mapping(layered([*layers, own]), WHERE)


def layered(layers: Iterable[Settings]) -> dict[str, dict[str, Any]]:
    """Section -> key -> value of these settings by rule 1, as they were written. ScenarioError."""
    values: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, settings in _sections(layer).items():
            values.setdefault(section, {}).update(settings)
    return values


def nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Section -> key -> value of a mapping by rule 2. ScenarioError where it has another form."""
    values: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, dot, key = name.partition(".") if isinstance(name, str) else ("", "", "")
        if dot:
            given = {key: value}
        elif section and isinstance(value, Mapping):
            given = {str(inner): each for inner, each in value.items()}
        else:
            raise ScenarioError(WHERE, str(name), 'write {"section.key": value}, for example {"guest.vcpus": 8}')
        values.setdefault(section, {}).update(given)
    return values


def _sections(layer: Settings) -> dict[str, dict[str, Any]]:
    if isinstance(layer, Mapping):
        return nested(layer)
    try:
        path = Path(layer)
    except TypeError:
        known = "a mapping of settings, the path of a scenario file, or the name of a scenario"
        raise ScenarioError(WHERE, "", refusal(layer, known)) from None
    return read_settings(path)
