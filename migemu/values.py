"""The grammar of settings: how a value is written, wherever it is written.

A scenario file, `--set`, a sweep and the settings of a choice (`batched:spans=8`) take the same words for the same kind
of value, refuse the same ones, and say so in the same shape:

    '9z' is not accepted here: give a size such as "4K", "2M", "1G", "64G" (binary; units: K M G T), at least 64K

Whoever asks puts in front of that where it was (a file, `--set`) and which setting it is.

Rules of this file
    1. A value is written as text, or as TOML has it (a number, true, false); both mean the same: `"8"` and `8`.
    2. White space around a value makes no difference, nor do capitals in units and in on and off. Names and free text
       are taken as they stand.
    3. A `ValueKind` says what it accepts in one phrase, `accepted`: the form, the units, the limits.
    4. `kind.parse(kind.show(value)) == value`: what is shown can be given again.
    5. Nothing may be given twice: neither `spans=8,spans=9` nor `spans=8,spans=8`.

The list of settings behind a name, `key=value,key="value"`: a value that begins with `"` ends at the next `"`, and may
hold commas, and spaces at its ends. In it a backslash makes a character of whatever follows, as in `\\"`. Any other
value ends at the next comma.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from migemu.units import (
    RATE_ACCEPTED,
    SIZE_ACCEPTED,
    TIME_ACCEPTED,
    exact_rate,
    exact_size,
    exact_time,
    parse_rate,
    parse_size,
    parse_time,
)

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

#: Longer whole numbers are described by their length: Python refuses to print the longest ones.
_BITS_MAX: Final = 256
#: The words of a switch; the first of each is how it is shown.
_ON: Final = ("on", "yes", "true", "1")
_OFF: Final = ("off", "no", "false", "0")
#: One `key`, `key=value` or `key="value"`, up to the next comma or the end.
_ITEM: Final = re.compile(
    r"""(?P<key>[^=,]*)(?:=\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")\s*(?=,|$)|(?P<value>[^,]*)))?(?:,|$)""", re.DOTALL
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class ValueKind(Protocol[V_co]):
    """One kind of value: how it is read, and how it is shown."""

    @property
    def accepted(self) -> str:
        """What may be written, in a phrase that fits behind "give": the form, the units, the limits."""

    @property
    def words(self) -> Mapping[str, str]:
        """All that may be written, with what each means, where it is one of a few words; else empty."""

    @property
    def unit(self) -> str:
        """What a number counts, or what a text is: `"vCPUs"`, `"path of a file"`; else empty."""

    def parse(self, value: object) -> V_co:
        """The value that was written, in base units. ValueError repeats it and says what is accepted."""

    def show(self, value: Any) -> Any:
        """A parsed value as text or as a plain number, which `parse` takes again."""


@dataclass(frozen=True, slots=True)
class Plain(Generic[V]):
    """A kind made of functions: `read` raises ValueError or TypeError, `holds` says whether the value may be."""

    accepted: str
    read: Callable[[Any], V]
    holds: Callable[[V], bool] = lambda _: True
    shown: Callable[[V], Any] = lambda value: value
    words: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""

    def parse(self, value: object) -> V:
        """Read the text as `ValueKind.parse` does."""
        try:
            made = self.read(value)
            if self.holds(made):
                return made
        except (ValueError, TypeError, OverflowError):
            pass
        raise ValueError(refusal(value, self.accepted, self.words))

    def show(self, value: V) -> Any:
        """Write the value as `ValueKind.show` does."""
        return self.shown(value)


def refusal(value: object, accepted: str, words: Iterable[str] = ()) -> str:
    """The line that refuses `value`; it names that of the known `words` which it nearly is."""
    near = _nearest(value, words) if isinstance(value, str) else None
    hint = f"; did you mean {near!r}?" if near is not None else ""
    return f"{_quoted(value)} is not accepted here: give {accepted}{hint}"


def unknown(what: str, name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The line that refuses the name of a `what`: with the known name that it nearly is, else with all of them.

    `otherwise` stands in the place of a list that would be too long: where to look them up.
    """
    names = list(known)
    near = _nearest(name, names)
    every = otherwise or f"known: {', '.join(names) or 'none'}"
    hint = f"did you mean {near!r}?" if near is not None else every
    return f"unknown {what} {name!r}; {hint}"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    folded = {each.lower(): each for each in known if each}
    near = difflib.get_close_matches(name.strip().lower(), folded, n=1)
    return folded[near[0]] if near else None


def _quoted(value: object) -> str:
    """`value` as Python would write it; of a number of very many digits its length."""
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:
        return f"a number of {value.bit_length()} bits"
    try:
        return repr(value)
    except ValueError:  # such a number, within a list
        return f"this {type(value).__name__}"


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    if kind is int and isinstance(value, float):
        raise TypeError
    return kind(value)


def whole(least: int | None = None, most: int | None = None, unit: str = "") -> Plain[int]:
    """A whole number of `unit` from `least` to `most`; None is no limit."""
    return Plain(
        f"a whole number{_limits(least, most)}{_of(unit)}",
        lambda value: int(_number(value, int)),
        lambda made: (least is None or made >= least) and (most is None or made <= most),
        unit=unit,
    )


def number(
    least: float | None = None, most: float | None = None, unit: str = "", *, above: float | None = None
) -> Plain[float]:  # fmt: skip
    """A finite number of `unit` from `least` (or above `above`) to `most`; None is no limit."""
    return Plain(
        f"a number{_limits(least, most, above)}{_of(unit)}",
        lambda value: float(_number(value, float)),
        lambda made: (
            math.isfinite(made)
            and (least is None or made >= least)
            and (above is None or made > above)
            and (most is None or made <= most)
        ),
        unit=unit,
    )


def _of(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _limits(least: object, most: object, above: object = None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    phrases = ((above, "above"), (least, "at least"), (most, "at most"))
    given = [f"{words} {limit}" for limit, words in phrases if limit is not None]
    before = " " if above is not None else ", "
    return f"{before}{', '.join(given)}" if given else ""


def time(least: str = "0", most: str = "") -> Plain[int]:
    """A time in ns, from `least` to `most`, both as a user would write them; no `most` is no limit."""
    return _quantity(TIME_ACCEPTED, parse_time, exact_time, least, most)


def size(least: str = "0", most: str = "", multiple: str = "") -> Plain[int]:
    """A size in bytes, from `least` to `most`, in whole multiples of `multiple`, all as a user would write them."""
    return _quantity(SIZE_ACCEPTED, parse_size, exact_size, least, most, multiple)


def rate() -> Plain[int]:
    """A rate in bits per second; 0 is no limit."""
    return _quantity(RATE_ACCEPTED, parse_rate, exact_rate, "0", "")


def _quantity(
    form: str, parse: Callable[[Any], int], show: Callable[[int], str], least: str, most: str, multiple: str = ""
) -> Plain[int]:  # fmt: skip
    low, high = parse(least), parse(most) if most else None
    step = parse(multiple) if multiple else 1
    limits = _limits(least if low else None, most or None).lstrip(",")
    phrases = (form, limits.strip(), f"in whole multiples of {multiple}" if multiple else "")
    return Plain(
        ", ".join(filter(None, phrases)),
        lambda value: int(parse(value)),
        lambda made: low <= made and (high is None or made <= high) and not made % step,
        show,
    )


def switch() -> Plain[bool]:
    """On or off, in any of the words for it; shown as a truth value."""

    def read(value: Any) -> bool:
        word = str(value).strip().lower() if isinstance(value, str | int) else ""
        if word not in _ON + _OFF:
            raise ValueError
        return word in _ON

    return Plain("on or off (also: yes no, true false, 1 0)", read, words={_ON[0]: "", _OFF[0]: ""})


def choice(known: Mapping[str, str] | Iterable[str]) -> Plain[str]:
    """One of a few words, with what each means where that is known; the empty one is shown as `""`."""
    words = dict(known) if isinstance(known, Mapping) else dict.fromkeys(known, "")
    shown = ", ".join(word or '""' for word in words)
    return Plain(f"one of {shown}", _word, lambda word: word in words, words=words)


def text(unit: str = "") -> Plain[str]:
    """Any text, as it stands; `unit` says of what: `"path of a file"`."""
    return Plain(f"a text{_of(unit)}", _word, unit=unit)


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def spans() -> Plain[tuple[tuple[int, int], ...]]:
    """Times from-to in order, as pairs of ns: `"10ms-20ms, 1s-1100ms"`."""

    def read(value: Any) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        pairs: list[tuple[int, int]] = []
        for each in filter(None, (each.strip() for each in _word(value).split(","))):
            begin, dash, end = each.partition("-")
            if not dash:
                raise ValueError
            pairs.append((parse_time(begin), parse_time(end)))
        edges = [edge for pair in pairs for edge in pair]
        if edges != sorted(set(edges)):
            raise ValueError
        return tuple(pairs)

    return Plain(
        'times in order such as "10ms-20ms, 1s-1100ms" (units: ns us ms s min), or nothing',
        read,
        shown=lambda pairs: ", ".join(f"{exact_time(begin)}-{exact_time(end)}" for begin, end in pairs),
    )


def items(listed: str) -> Iterator[tuple[str, str | None]]:
    """(key, value) of each `key=value` between commas; None where there is no `=`. ValueError: a quote is not right."""
    at = 0
    while at < len(listed):
        found = _ITEM.match(listed, at)
        assert found is not None, "it matches anything"
        at = found.end()
        key, value, quoted = found["key"].strip(), found["value"], found["quoted"]
        if quoted is not None:
            value = _ESCAPED.sub(r"\1", quoted[1:-1])
        elif value is not None:
            value = value.strip()
            if value.startswith('"'):
                raise ValueError(f"{key}={value}: the quote does not end, or something follows it")
        if key or value is not None:
            yield key, value


def settings(listed: str, kinds: Mapping[str, ValueKind[Any]]) -> dict[str, Any]:
    """The parsed values of `key=value,key=value`, whose keys are those of `kinds`.

    ValueError names the key: it is not known, has no value, has one that is not accepted, or is there twice.
    """
    found: dict[str, Any] = {}
    for key, value in items(listed):
        if key not in kinds:
            raise ValueError(unknown("setting", key, kinds))
        if value is None:
            raise ValueError(f"{key}: it has no value; write {key}=VALUE, and give {kinds[key].accepted}")
        if key in found:
            raise ValueError(f"{key}: it is given twice; give it once")
        try:
            found[key] = kinds[key].parse(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return found
