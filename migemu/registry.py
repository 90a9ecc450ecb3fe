"""Registry[T]: choices picked by name, with settings: `"eager"`, `"zipf:exponent=1.1"`, `"batched:spans=16,dirty=no"`.

A registry holds factories (a class, or a function that returns an instance). Its rules:

* A factory is checked **when it is registered**, not when it is first used: it must have a docstring (its first line
  is what `migemu list` shows), and each keyword-only parameter is a setting that needs a default and a kind of value
  (`migemu.values`). The decorator gives it: `@policies.register("batched", spans=values.whole(1, 65536))`. Where it
  does not, the annotation does: `int, float, bool` or `str`, without limits. Positional parameters are what the program
  passes itself.
* A spec is text, in the grammar of `migemu.values`; `create` parses it and reports any mistake with the names that are
  known, so that the error already holds the answer. A factory gets values that are of their kind and within its limits.
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any, Final, Generic, TypeVar

from migemu import values
from migemu.errors import one_line
from migemu.values import ValueKind

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: The kinds of settings whose annotation is all that is known of them.
_KINDS: Final[dict[str, ValueKind[Any]]] = {
    "int": values.whole(), "float": values.number(), "bool": values.switch(), "str": values.text(),
}  # fmt: skip

_LOGGER: Final = logging.getLogger("migemu")
#: Distributions that have been warned of in this process.
_warned_of: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Setting:
    """One keyword-only parameter of a factory. `default` is parsed already."""

    name: str
    kind: ValueKind[Any]
    default: Any

    def __str__(self) -> str:
        """`name=default`, as it would be given."""
        shown = self.kind.show(self.default)
        return f"{self.name}={('off', 'on')[shown] if isinstance(shown, bool) else shown}"


@dataclass(frozen=True, slots=True)
class RegistryEntry(Generic[T]):
    """A registered choice: its name, its factory, the first line of its docstring, its settings."""

    name: str
    factory: Callable[..., T]
    summary: str
    settings: tuple[Setting, ...]


class Registry(Generic[T]):
    """The choices of one kind. `kind` is the word used in messages ("collapse policy")."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, RegistryEntry[T]] = {}
        self._broken: dict[str, str] = {}  # name -> why its entry point cannot be used
        self._loaded = False

    def register(self, name: str, /, **kinds: ValueKind[Any]) -> Callable[[F], F]:
        """Decorator: `add` the factory under `name`, with the kinds of its settings. TypeError as `add`."""

        def add(factory: F) -> F:
            self.add(name, factory, **kinds)
            return factory

        return add

    def add(self, name: str, factory: Callable[..., T], /, **kinds: ValueKind[Any]) -> None:
        """Add a factory under `name`; `kinds` are those of its settings. TypeError: it breaks a rule of this file."""
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
            word = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
            kind = kinds.pop(parameter.name, None) or _KINDS.get(word)
            if kind is None or parameter.default is parameter.empty:
                raise TypeError(
                    f"{self.kind} {name!r}: setting {parameter.name!r} needs a default and one of int, float, bool, str"
                )
            settings.append(Setting(parameter.name, kind, parameter.default))
        if kinds:
            raise TypeError(f"{self.kind} {name!r} has no setting {next(iter(kinds))!r} to be of a kind")
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
        name = name.strip()
        entries = self._all()
        if name not in entries and (reason := self._broken.get(name)):
            raise ValueError(f"{self.kind} {name!r} cannot be used: {reason}")
        if name not in entries:
            raise ValueError(values.unknown(self.kind, name, sorted(entries)))
        entry = entries[name]
        try:
            return entry, values.settings(rest, {setting.name: setting.kind for setting in entry.settings})
        except ValueError as error:
            raise ValueError(f"{self.kind} {name!r}: {error}") from None

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
    if distribution not in _warned_of:
        _warned_of.add(distribution)
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
