"""Registry[T]: choices picked by name, with settings: `"eager"`, `"zipf:exponent=1.1"`, `"batched:spans=16,dirty=no"`.

A registry holds factories (a class, or a function that returns an instance). Its rules:

* A factory is checked **when it is registered**, not when it is first used: it must have a docstring (its first line
  is what `migemu list` shows), and each keyword-only parameter is a setting that needs an annotation out of
  `int, float, bool, str` and a default. Positional parameters are what the program passes itself.
* A spec is text; `create` parses it, converts each setting by its annotation and reports any mistake with the names
  that are known, so that the error already holds the answer.
* A value that begins with `"` ends at the next `"`, and may hold commas, and spaces at its ends: `replay:path="a,b"`.
  In it a backslash makes a character of whatever follows, as in `\\"`. Any other value ends at the next comma.
* Third parties add theirs through the entry point group given to the registry (`[project.entry-points."migemu.push"]`
  in their pyproject); they are loaded on the first look-up and pass the same checks.
* The same object may be registered again under its name: by its decorator and by an entry point. Another object may
  not, and what was there first stays.
* Whatever a third party's entry point does, the rest works: a distribution that is broken is told of once, in a line
  that names it (logger "migemu"), and asking for what it would have provided is a ValueError with the reason.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any, Final, Generic, TypeVar

from migemu.errors import one_line

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_CONVERTERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
#: One `key`, `key=value` or `key="value"`, up to the next comma or the end.
_ITEM = re.compile(
    r"""(?P<key>[^=,]*)(?:=\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")\s*(?=,|$)|(?P<value>[^,]*)))?(?:,|$)""", re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BOOLEANS = {"on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False}

_LOGGER: Final = logging.getLogger("migemu")
#: Distributions that have been told of in this process.
_told: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Setting:
    """One keyword-only parameter of a factory."""

    name: str
    kind: str
    default: Any

    def convert(self, text: str) -> Any:
        """The value of `text` in this setting's type; ValueError names the type."""
        try:
            if self.kind == "bool":
                return _BOOLEANS[text.lower()]
            return _CONVERTERS[self.kind](text)
        except (KeyError, ValueError):
            raise ValueError(f"{self.name}={text!r} is not a {self.kind}") from None


@dataclass(frozen=True, slots=True)
class RegistryEntry(Generic[T]):
    """A registered choice: its name, its factory, the first line of its docstring, its settings."""

    name: str
    factory: Callable[..., T]
    summary: str
    settings: tuple[Setting, ...]


def items(text: str) -> Iterator[tuple[str, str | None]]:
    """(key, value) of each `key=value` between commas; None where there is no `=`. ValueError: a quote is not right."""
    at = 0
    while at < len(text):
        found = _ITEM.match(text, at)
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


class Registry(Generic[T]):
    """The choices of one kind. `kind` is the word used in messages ("collapse policy")."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, RegistryEntry[T]] = {}
        self._broken: dict[str, str] = {}  # name -> why its entry point cannot be used
        self._loaded = False

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator: add a factory under `name`. TypeError when it breaks a rule of this file."""

        def add(factory: F) -> F:
            self.add(name, factory)
            return factory

        return add

    def add(self, name: str, factory: Callable[..., T]) -> None:
        """Add a factory under `name`. TypeError when it breaks a rule of this file."""
        there = self._entries.get(name)
        if there is not None and there.factory is factory:
            return
        if there is not None:
            raise TypeError(
                f"{self.kind} {name!r} is {_whose(there.factory)} already, it cannot be {_whose(factory)} too"
            )
        doc = inspect.getdoc(factory)
        if not doc:
            raise TypeError(f"{self.kind} {name!r} has no docstring; its first line is what `migemu list` shows")
        settings = []
        for parameter in inspect.signature(factory).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY:
                continue
            annotation = parameter.annotation
            kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
            if kind not in (*_CONVERTERS, "bool") or parameter.default is parameter.empty:
                raise TypeError(
                    f"{self.kind} {name!r}: setting {parameter.name!r} needs a default and one of int, float, bool, str"
                )
            settings.append(Setting(parameter.name, kind, parameter.default))
        self._entries[name] = RegistryEntry(name, factory, doc.splitlines()[0], tuple(settings))

    @contextmanager
    def lent(self, name: str, factory: Callable[..., T]) -> Iterator[None]:
        """`add` for the time being: for whoever tries a choice that is in no package."""
        self.add(name, factory)
        try:
            yield
        finally:
            del self._entries[name]

    def create(self, spec: str, *arguments: Any) -> T:
        """Make the choice `spec` (`"name"` or `"name:key=value,..."`), passing `arguments` first.

        ValueError names what is known when the name, a setting or its value is not, or when the factory itself
        refuses a value.
        """
        entry, settings = self.parse(spec)
        return entry.factory(*arguments, **settings)

    def parse(self, spec: str) -> tuple[RegistryEntry[T], dict[str, Any]]:
        """The entry and the converted settings of `spec`; ValueError as in `create`."""
        name, _, rest = spec.partition(":")
        entries = self._all()
        entry = entries.get(name.strip())
        if entry is None and (reason := self._broken.get(name.strip())):
            raise ValueError(f"{self.kind} {name.strip()!r} cannot be used: {reason}")
        if entry is None:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(sorted(entries))}")
        known = {setting.name: setting for setting in entry.settings}
        settings: dict[str, Any] = {}
        for key, text in items(rest):
            if text is None or key not in known:
                accepted = ", ".join(f"{s.name}={s.default}" for s in entry.settings) or "none"
                said = key if text is None else f"{key}={text}"
                raise ValueError(f"{self.kind} {entry.name!r} has no setting {said!r}; its settings: {accepted}")
            settings[key] = known[key].convert(text)
        return entry, settings

    def __iter__(self) -> Iterator[RegistryEntry[T]]:
        return iter(sorted(self._all().values(), key=lambda entry: entry.name))

    def __repr__(self) -> str:
        return f"<Registry of {self.kind}: {', '.join(sorted(self._entries))}>"

    def _all(self) -> dict[str, RegistryEntry[T]]:
        if not self._loaded:
            self._loaded = True
            for point in sorted(_points(self.group), key=lambda point: (point.name, _name(point.dist))):
                self._load(point)
        return self._entries

    def _load(self, point: EntryPoint) -> None:
        """Add what a third party provides, or remember why it cannot be."""
        try:
            self.add(point.name, point.load())
        except (Exception, SystemExit) as error:  # it is other people's code, and may raise anything
            reason = f"the entry point {point.name} = {point.value} ({self.group}) of {_name(point.dist)} {_why(error)}"
            self._broken[point.name] = reason
            _tell(_name(point.dist), reason)


def _points(group: str) -> Iterable[EntryPoint]:
    """The entry points of a group. A distribution whose own list cannot be read is told of and has none."""
    try:
        return entry_points(group=group)
    except Exception:
        found: list[EntryPoint] = []
        for each in distributions():
            try:
                found += each.entry_points.select(group=group)
            except Exception as error:
                _tell(_name(each), f"the entry points of {_name(each)} {_why(error)}")
        return found


def _tell(distribution: str, reason: str) -> None:
    """Once for each distribution: a second broken thing in it tells the user nothing that he can do more."""
    if distribution not in _told:
        _told.add(distribution)
        _LOGGER.warning("a plugin is left out: %s; update or uninstall it", reason)


def _name(distribution: Distribution | None) -> str:
    try:
        return f"{distribution.name} {distribution.version}" if distribution is not None else "no distribution"
    except Exception:
        return "a distribution without a name"


def _why(error: BaseException) -> str:
    return f"cannot be loaded: {type(error).__name__}: {one_line(error)}"


def _whose(factory: Callable[..., Any]) -> str:
    """A factory as it would be imported."""
    return f"{getattr(factory, '__module__', '?')}.{getattr(factory, '__qualname__', repr(factory))}"
