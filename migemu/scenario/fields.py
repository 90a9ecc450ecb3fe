"""The fields of a section: each function makes one attrs field of a kind of value and a line of documentation.

How values are written, refused and shown is the grammar of `migemu.values`; a converted value is in base units.
`metadata` of a field has its `kind`, its `default` as a user would write it, and `doc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import attrs

from migemu import values
from migemu.mm.pages import Level
from migemu.registry import Registry
from migemu.units import KIB, MIB, parse_size
from migemu.values import ValueKind


def _setting(default: Any, doc: str, kind: ValueKind[Any]) -> Any:
    return attrs.field(
        default=default, converter=kind.parse, metadata={"doc": doc, "kind": kind, "default": default}
    )  # fmt: skip


def time(default: str, doc: str, *, least: str = "0") -> Any:
    """A time in ns, at least `least`."""
    return _setting(default, doc, values.time(least))


def spans(default: str, doc: str) -> Any:
    """Times from-to in order, as pairs of ns: `"10ms-20ms, 1s-1100ms"`."""
    return _setting(default, doc, values.spans())


def size(default: str, doc: str, *, least: str = "0", whole: str = "", most: str = "") -> Any:
    """A size in bytes, from `least` to `most`, in whole multiples of `whole`."""
    return _setting(default, doc, values.size(least, most, whole))


def rate(default: str, doc: str) -> Any:
    """A rate in bits per second; 0 is no limit."""
    return _setting(default, doc, values.rate())


def number(kind: type[int] | type[float], default: float, doc: str, least: float, most: float, unit: str) -> Any:
    """A plain number of `unit`, from `least` to `most`."""
    made = values.whole(int(least), int(most), unit) if kind is int else values.number(least, most, unit)
    return _setting(default, doc, made)


def switch(default: bool, doc: str) -> Any:
    """An attrs field for a setting that is on or off; `doc` is shown by `migemu list --settings`."""
    return _setting(default, doc, values.switch())


def choice(default: str, doc: str, known: Mapping[str, str]) -> Any:
    """One of a few words, each with what it means in a line."""
    return _setting(default, doc, values.choice(known))


def text(default: str, doc: str, unit: str) -> Any:
    """Any text; `unit` says what it is: `"path of a file"`."""
    return _setting(default, doc, values.text(unit))


@dataclass(frozen=True, slots=True)
class SpecKind:
    """A choice of a registry with its settings, as text. It is made once with `arguments` on trial."""

    registry: Registry[Any]
    arguments: tuple[Any, ...]

    @property
    def accepted(self) -> str:
        """As `ValueKind.accepted`."""
        return f"one of {', '.join(self.words)}; with settings: NAME:key=value,key=value (see migemu list)"

    @property
    def words(self) -> Mapping[str, str]:
        """The names of the registry, each with the first line of its docstring."""
        return {entry.name: entry.summary for entry in self.registry}

    @property
    def unit(self) -> str:
        """Empty: a choice counts nothing."""
        return ""

    def parse(self, value: object) -> str:
        """As `ValueKind.parse`: its factory can refuse a setting here."""
        spec = values.text().parse(value)
        try:
            self.registry.create(spec, *self.arguments)
        except OSError:
            pass  # a file that it needs is missed when it is needed; this scenario may be meant for another machine
        return spec

    def show(self, value: str) -> str:
        """As `ValueKind.show`: the text as it was written."""
        return value


def spec(default: str, doc: str, registry: Registry[Any], *arguments: Any) -> Any:
    """One choice of a registry, made once with `arguments` on trial, so that its factory can refuse a setting here."""
    return _setting(default, doc, SpecKind(registry, arguments))


def piece(default: str, doc: str) -> Any:
    """A piece size: 4K or 2M, as a `Level`."""
    levels = {4 * KIB: Level.PTE, 2 * MIB: Level.PMD}

    def read(value: Any) -> Level:
        if isinstance(value, Level):
            return value
        size_bytes = parse_size(value)
        if size_bytes not in levels:
            raise ValueError
        return levels[size_bytes]

    names = {Level.PTE: "4K", Level.PMD: "2M"}
    meanings = {"4K": "a base page", "2M": "512 base pages at once"}
    return _setting(default, doc, values.Plain("4K or 2M", read, shown=names.__getitem__, words=meanings))
