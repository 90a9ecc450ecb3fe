"""Gates: `fault.p99_ns > +5%` says which difference is too much.

    KEY OP LIMIT
    KEY     a dotted path into result.json
    OP      > >= < <=
    LIMIT   +5%  -3%       the difference, relative to the baseline
            +50us  -1M     the difference, in the key's unit (times ns us ms s, sizes K M G, else a plain number)
            500us  64M     no sign: the new figure itself, whatever the baseline is

Rules of this file: what the verdict is about
    1. The confidence interval decides, not the point in it.
       fails    all of the interval is beyond the limit: the data show it
       unsure   the limit lies within the interval: the data show neither
       holds    none of the interval is beyond
    2. `unsure` does not fail a build unless it is asked to (`--strict`), but it is told, with what would settle it.
    3. One pair has no interval: its difference decides.
    4. A cell is judged by itself: a gate fails if it fails in any.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from migemu.errors import InputError
from migemu.experiment.bootstrap import Interval
from migemu.experiment.figures import show, unit
from migemu.units import parse_size, parse_time

_GATE: Final = re.compile(
    r"\s*([A-Za-z0-9_.]+)\s*(>=|<=|>|<)\s*([+-]?)\s*([0-9.]+(?:[eE][0-9]+)?)\s*([A-Za-zµ/%]*)\s*\Z"
)
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip

About = Literal["relative", "difference", "value"]


class GateVerdict(Enum):
    """The result of a gate: fails, unsure or holds (rule 1)."""

    HOLDS = "holds"
    UNSURE = "unsure"
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Gate:
    """A parsed gate. `limit` is a share (0.05 for 5 %), or a value in the base unit of the key."""

    text: str
    key: str
    comparison: str
    about: About
    limit: float

    def verdict(self, point: float, interval: Interval | None) -> GateVerdict:
        """The verdict on one cell, from `point` and `interval` of the quantity that the gate limits (rules 1 and 3)."""
        beyond = _COMPARE[self.comparison]
        edges = (point,) if interval is None else interval
        out = [beyond(edge, self.limit) for edge in edges]
        if all(out):
            return GateVerdict.FAILS
        return GateVerdict.UNSURE if any(out) else GateVerdict.HOLDS

    def __str__(self) -> str:
        if self.about == "relative":
            return f"{self.key} {self.comparison} {self.limit * 100:+g}%"
        sign = "+" if self.about == "difference" and self.limit >= 0 else ""
        return f"{self.key} {self.comparison} {sign}{show(self.key, self.limit)}"


def parse_gate(text: str) -> Gate:
    """The gate that `text` describes. InputError says what is wrong with it."""
    match = _GATE.match(text)
    if match is None:
        raise InputError(f"{text!r} is not a gate; write KEY > LIMIT, as in 'fault.p99_ns > +5%' or '... > +50us'")
    key, comparison, sign, number, suffix = match.groups()
    scale = -1 if sign == "-" else 1
    if suffix == "%":
        if not sign:
            raise InputError(f"{text!r}: write +{number}% or -{number}%: a share is always one of the baseline")
        return Gate(text, key, comparison, "relative", scale * _number(text, number) / 100)
    about: About = "difference" if sign else "value"
    return Gate(text, key, comparison, about, scale * _quantity(text, key, number, suffix))


def _quantity(text: str, key: str, number: str, suffix: str) -> float:
    try:
        if unit(key) == "time":
            return parse_time(f"{number}{suffix}")
        if unit(key) == "size":
            return parse_size(f"{number}{suffix}")
    except ValueError as error:
        raise InputError(f"{text!r}: {error}") from None
    if suffix:
        raise InputError(f"{text!r}: {key} has no unit; give a plain number or a share such as +5%")
    return _number(text, number)


def _number(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputError(f"{text!r}: {number} is not a number")
    return value
