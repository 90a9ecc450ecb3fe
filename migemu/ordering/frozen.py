"""Objects as values: `freeze` tells whether two have the same future, `clone` gives one more of the same past.

What this models
    A search by state needs to know when an object is in a state that it was in before, and to try each way on from
    there. The objects are other people's policies too, so nothing is asked of them: what they hold is looked at.

Rules
    1. Attributes, wherever they are kept (`__dict__`, slots, also those of dataclasses), are the state. Attributes that
       are named in `ignore` are not: counters that decide nothing.
    2. Lists, tuples, deques and dicts are the same if they hold the same in the same order (a dict may be walked
       through); sets if they hold the same.
    3. An object that is reached twice is one object, in the frozen form and in the clone.
    4. Classes, functions and geometries never change and are shared. So a function's closure is not looked at.

Simplified
    What is neither a container nor an object with attributes goes through its `__reduce_ex__`, as for `copy`; what
    cannot be copied (a generator, a lock) is a TypeError here too.
"""

from __future__ import annotations

import copy
from array import array
from collections import deque
from collections.abc import Hashable
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, TypeVar

from migemu.mm.pages import Geometry, PageBitmap

T = TypeVar("T")

#: Values that are their own frozen form: no two of different types are equal.
_PLAIN: Final = frozenset((int, str, bytes, type(None)))
#: Values that never change, but that might equal one of another type.
_CONSTANT: Final = (bool, float, complex, Enum, Geometry, type, FunctionType, ModuleType)


class _Shape(NamedTuple):
    """What is known of a type. `attributes`: its instances hold attributes only, and no state in C."""

    constant: bool
    attributes: bool
    slots: tuple[str, ...]


class _Shapes(dict[type, _Shape]):
    """The shapes of types; each type is examined once."""

    def __missing__(self, kind: type) -> _Shape:
        names: list[str] = []
        for each in kind.__mro__:
            slots = each.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else tuple(slots):
                private = name.startswith("__") and not name.endswith("__")
                names.append(f"_{each.__name__.lstrip('_')}{name}" if private else name)
        own = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
        plain = all("__slots__" in each.__dict__ or each.__dictoffset__ for each in kind.__mro__[:-1])
        made: object = kind.__new__
        plain = plain and made is object.__new__ and not hasattr(kind, "__deepcopy__")
        shape = self[kind] = _Shape(issubclass(kind, _CONSTANT), plain, own)
        return shape


_SHAPES: Final = _Shapes()


def _attributes(value: object) -> list[tuple[str, Any]]:
    held = getattr(value, "__dict__", None)
    attributes = list(held.items()) if held else []
    for name in _SHAPES[type(value)].slots:
        try:
            attributes.append((name, object.__getattribute__(value, name)))
        except AttributeError:
            pass  # a slot that has not been filled
    return attributes


def freeze(value: object, ignore: frozenset[str] = frozenset()) -> Hashable:
    """A hashable value, equal for two objects exactly if both are in the same state. TypeError: it cannot be made."""
    return _freeze(value, ignore, {})


def _freeze(value: Any, ignore: frozenset[str], seen: dict[int, tuple[int, Any]]) -> Hashable:
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if _SHAPES[kind].constant:
        return kind, value
    if issubclass(kind, tuple):
        return kind, *[_freeze(item, ignore, seen) for item in value]
    number = len(seen)
    if (known := seen.setdefault(id(value), (number, value)))[
        0
    ] != number:  # the value is held so that its id is its own
        return "again", known[0]
    if kind is PageBitmap:  # its counts follow from its pages
        return bytes(value.pages)
    if kind is bytearray:
        return kind, bytes(value)
    if kind is list or kind is deque:
        return kind, *[_freeze(item, ignore, seen) for item in value]
    if kind is dict:
        return kind, *[(_freeze(key, ignore, seen), _freeze(item, ignore, seen)) for key, item in value.items()]
    if kind is set or kind is frozenset:
        return kind, frozenset([_freeze(item, ignore, seen) for item in value])
    if kind is MethodType or kind is BuiltinFunctionType:
        return kind, value.__name__, _freeze(value.__self__, ignore, seen)
    if _SHAPES[kind].attributes:
        return kind, *[
            (name, item if type(item) in _PLAIN else _freeze(item, ignore, seen))
            for name, item in _attributes(value)
            if name not in ignore
        ]
    return kind, _freeze(value.__reduce_ex__(4), ignore, seen)


def clone(value: T) -> T:
    """A copy of an object in the same state that shares nothing that can change. TypeError: cannot be copied."""
    return _clone(value, {})  # type: ignore[no-any-return]


def _clone(value: Any, made: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN or _SHAPES[kind].constant:
        return value
    if (known := made.get(id(value))) is not None:
        return known
    if issubclass(kind, tuple) and (kind is tuple or hasattr(kind, "_fields")):
        items = [item if type(item) in _PLAIN else _clone(item, made) for item in value]
        return tuple(items) if kind is tuple else kind(*items)
    if kind is MethodType:
        return MethodType(value.__func__, _clone(value.__self__, made))
    if kind is BuiltinFunctionType:
        return getattr(_clone(value.__self__, made), value.__name__)
    if kind is bytearray or kind is array:
        fresh = value[:]
    elif kind is set:
        fresh = {_clone(item, made) for item in value}
    elif kind is list:
        made[id(value)] = fresh = []
        fresh += [item if type(item) in _PLAIN else _clone(item, made) for item in value]
    elif kind is dict:
        made[id(value)] = fresh = {}
        for key, item in value.items():
            fresh[_clone(key, made)] = item if type(item) in _PLAIN else _clone(item, made)
    elif _SHAPES[kind].attributes:
        made[id(value)] = fresh = object.__new__(kind)
        for name, item in _attributes(value):
            object.__setattr__(fresh, name, item if type(item) in _PLAIN else _clone(item, made))
    else:
        return copy.deepcopy(value, made)
    made[id(value)] = fresh
    return fresh
