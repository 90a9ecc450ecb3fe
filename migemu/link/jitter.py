"""Jitter: by how much a frame's delay differs from the link's, drawn per frame.

A distribution is chosen by name (`distribution` of [link]) and scaled by `jitter`; it answers in whole nanoseconds,
early as a negative number. Whoever draws keeps frames from arriving before they are sent, and in order.

    constant   always the whole of it              uniform   up to it, either way
    normal     standard deviation, either way      pareto    a heavy tail, late only (as netem's, late by its nature)
    samples    from a file: measured extra delays, one a line, drawn at random
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from migemu import values
from migemu.registry import Registry
from migemu.units import parse_time

_SAMPLES_MAX = 1_000_000


class Jitter(Protocol):
    """The distribution by which the delay of each frame varies."""

    def draw(self) -> int:
        """Nanoseconds that the next frame is later than the link's delay."""


jitters: Registry[Jitter] = Registry("jitter distribution", "migemu.jitter")
ReadText = Callable[[str], str]


@jitters.register("constant")
class Constant:
    """the whole of it, always."""

    def __init__(self, jitter_ns: int, rng: Random, read_text: ReadText) -> None:
        self._jitter_ns = jitter_ns

    def draw(self) -> int:
        """The jitter in ns, the same for each frame."""
        return self._jitter_ns


@jitters.register("uniform")
class UniformJitter:
    """evenly from as much earlier to as much later."""

    def __init__(self, jitter_ns: int, rng: Random, read_text: ReadText) -> None:
        self._jitter_ns = jitter_ns
        self._rng = rng

    def draw(self) -> int:
        """A deviation in ns, uniform from -jitter to +jitter."""
        return self._rng.randint(-self._jitter_ns, self._jitter_ns) if self._jitter_ns else 0


@jitters.register("normal")
class Normal:
    """a bell curve around the delay; jitter is its standard deviation."""

    def __init__(self, jitter_ns: int, rng: Random, read_text: ReadText) -> None:
        self._jitter_ns = jitter_ns
        self._rng = rng

    def draw(self) -> int:
        """Either way, without a bound."""
        return round(self._rng.gauss(0, self._jitter_ns)) if self._jitter_ns else 0


@jitters.register("pareto", shape=values.number(above=1, most=100, unit="exponent of the tail"))
class Pareto:
    """late with a heavy tail: jitter x (Pareto(shape) - 1), on average jitter / (shape - 1)."""

    def __init__(self, jitter_ns: int, rng: Random, read_text: ReadText, *, shape: float = 3.0) -> None:
        """`shape` above 1: the smaller, the heavier the tail. 3 is assumed."""
        self._jitter_ns = jitter_ns
        self._rng = rng
        self._shape = shape

    def draw(self) -> int:
        """A deviation in ns, Pareto-distributed, 0 or more."""
        return round(self._jitter_ns * (self._rng.paretovariate(self._shape) - 1)) if self._jitter_ns else 0


@jitters.register("samples", path=values.text("path of a file"))
class Samples:
    """extra delays out of a file, one time a line such as 35us; jitter has to be 0."""

    def __init__(self, jitter_ns: int, rng: Random, read_text: ReadText, *, path: str = "") -> None:
        """OSError when the file cannot be read; ValueError when a line is no time, or there is none."""
        if not path:
            raise ValueError('give "samples:path=..."')
        if jitter_ns:
            raise ValueError("the samples are times already: leave jitter at 0")
        lines = [line.strip() for line in read_text(path).splitlines()]
        wanted = [line for line in lines if line and not line.startswith("#")]
        if not 0 < len(wanted) <= _SAMPLES_MAX:
            raise ValueError(f"{path} has {len(wanted)} samples; give 1 to {_SAMPLES_MAX}")
        self._samples = [int(parse_time(line)) for line in wanted]
        self._rng = rng

    def draw(self) -> int:
        """One of the samples, in ns, drawn uniformly."""
        return self._rng.choice(self._samples)
