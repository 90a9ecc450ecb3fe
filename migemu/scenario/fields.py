"""The kinds of setting: each function makes one attrs field with converter, validator and a line of documentation.

Rules of this file
    1. A converter takes what a user writes (text from `--set`, text or a number from TOML) and what it has made of
       that before; it answers in base units.
    2. A refusal is a ValueError that repeats the value and says what is accepted.
    3. `metadata["shown"]` turns a converted value into plain text or a number that the converter accepts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from migemu.mm.pages import Level
from migemu.registry import Registry
from migemu.units import GIB, KIB, MIB, MS, SECOND, TIB, UNLIMITED, US, parse_rate, parse_size, parse_time

_Shown = Callable[[Any], Any]


def _setting(
    default: Any, doc: str, converter: Callable[[Any], Any], check: Callable[[Any], str | None] | None = None,
    shown: _Shown = lambda value: value,
) -> Any:  # fmt: skip
    """One setting. `check` answers what is wrong with a converted value, or None."""

    def validate(_instance: object, _attribute: attrs.Attribute[Any], value: Any) -> None:
        problem = check(value) if check is not None else None
        if problem is not None:
            raise ValueError(f"{shown(value)!r} is not accepted here: give {problem}")

    return attrs.field(
        default=default, converter=converter, validator=validate, metadata={"doc": doc, "shown": shown, "text": default}
    )


def _exact(value: int, units: tuple[tuple[str, int], ...]) -> str:
    return next(f"{value // scale}{unit}" for unit, scale in units if value % scale == 0 and value >= scale)


def time(default: str, doc: str, *, least: str = "0") -> Any:
    """A time in ns, at least `least`."""
    floor = parse_time(least)
    return _setting(default, doc, parse_time, lambda value: f"at least {least}" if value < floor else None, _time)


def spans(default: str, doc: str) -> Any:
    """Times from-to in order, as pairs of ns: `"10ms-20ms, 1s-1100ms"`."""
    accepted = 'times in order such as "10ms-20ms, 1s-1100ms", or nothing'

    def convert(value: Any) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        refusal = ValueError(f"{value!r} is not accepted here: give {accepted}")
        pairs: list[tuple[int, int]] = []
        for part in filter(None, (part.strip() for part in _as_text(value).split(","))):
            begin, dash, end = part.partition("-")
            try:
                pairs.append((parse_time(begin), parse_time(end)))
            except ValueError:
                raise refusal from None
            edges = [edge for pair in pairs for edge in pair]
            if not dash or edges != sorted(set(edges)):
                raise refusal
        return tuple(pairs)

    return _setting(
        default, doc, convert, shown=lambda pairs: ", ".join(f"{_time(begin)}-{_time(end)}" for begin, end in pairs)
    )


def _time(value: int) -> str:
    return _exact(value, (("s", SECOND), ("ms", MS), ("us", US), ("ns", 1))) if value else "0s"


def _size(value: int) -> str:
    return _exact(value, (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB), ("", 1))) if value else "0"


def _rate(value: int) -> str:
    return _exact(value, (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3), ("bit", 1))) if value else UNLIMITED


def size(default: str, doc: str, *, least: str = "0", whole: str = "", most: str = "") -> Any:
    """A size in bytes, from `least` to `most`, in whole multiples of `whole`."""

    def check(value: int) -> str | None:
        if value < parse_size(least):
            return f"at least {least}"
        if most and value > parse_size(most):
            return f"at most {most}"
        if whole and value % parse_size(whole):
            return f"a whole multiple of {whole}"
        return None

    return _setting(default, doc, parse_size, check, _size)


def rate(default: str, doc: str) -> Any:
    """A rate in bits per second; 0 is no limit."""
    return _setting(default, doc, parse_rate, shown=_rate)


def number(kind: type[int] | type[float], default: float, doc: str, least: float, most: float) -> Any:
    """A plain number from `least` to `most`."""

    def convert(value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, float) and kind is int):
            raise ValueError(f"{value!r} is not accepted here: give {accepted}")
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{value!r} is not accepted here: give {accepted}") from None

    accepted = f"{'a whole number' if kind is int else 'a number'} from {least} to {most}"
    return _setting(default, doc, convert, lambda value: None if least <= value <= most else accepted)


def switch(default: bool, doc: str) -> Any:
    """On or off."""
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}

    def convert(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise ValueError(f"{value!r} is not accepted here: give on or off")

    return _setting(default, doc, convert)


def choice(default: str, doc: str, known: Iterable[str]) -> Any:
    """One of a few words."""
    accepted = tuple(known)
    return _setting(
        default, doc, _as_text, lambda value: None if value in accepted else f"one of {', '.join(accepted)}"
    )


def spec(default: str, doc: str, registry: Registry[Any], *arguments: Any) -> Any:
    """One choice of a registry, made once with `arguments` on trial, so that its factory can refuse a setting here."""

    def convert(value: Any) -> str:
        try:
            registry.create(_as_text(value), *arguments)
        except OSError:
            pass  # a file that it needs is missed when it is needed; this scenario may be meant for another machine
        return str(value)

    return _setting(default, doc, convert)


def piece(default: str, doc: str) -> Any:
    """A piece size: 4K or 2M, as a `Level`."""

    def convert(value: Any) -> Level:
        if isinstance(value, Level):
            return value
        try:
            return {4 * KIB: Level.PTE, 2 * MIB: Level.PMD}[parse_size(value)]
        except (KeyError, ValueError):
            raise ValueError(f"{value!r} is not accepted here: give 4K or 2M") from None

    return _setting(default, doc, convert, shown=lambda level: {Level.PTE: "4K", Level.PMD: "2M"}[level])


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not accepted here: give a text")
    return value


def text(default: str, doc: str) -> Any:
    """Any text."""
    return _setting(default, doc, _as_text)
