"""Faults and events as columns: a numpy structured array, and a pandas data frame where pandas is installed.

Rules
    1. Units are in the names of columns (`latency_ns`); what has none is a number, a page or a name. Times are those of
       the trace's clock (`t`), in nanoseconds.
    2. A name is a small number in the array and a text everywhere else: `columns["event"] == "faulted"`.
    3. A whole number that a row does not have is -1 in numpy, and missing (NA) in pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from migemu.analysis.fault_table import CAUSES, FaultTable
from migemu.errors import ExtraError
from migemu.mm.pages import Level
from migemu.trace.events import NODES, CarriedFrame, Event, Happening
from migemu.trace.reading import read_trace

_NONE: Final = -1
_LEVELS: Final = tuple(Level)
_EVENTS: Final = tuple(happening.value for happening in Happening)
_CODES: Final = {happening: code for code, happening in enumerate(Happening)}
_LEVEL_CODES: Final = {level: code for code, level in enumerate(_LEVELS)}
_NODE_CODES: Final = {node: code for code, node in enumerate(NODES)}
#: Columns of a trace, in this order; those of `wire` stand after them.
_TRACE: Final = [
    ("t", "i8"), ("node", "i1"), ("event", "i1"), ("first", "i8"), ("count", "i8"), ("level", "i1"), ("vcpu", "i4"),
    ("write", "i1"), ("urgent", "i1"), ("detail", "i4"), *((name, "i8") for name in CarriedFrame._fields),
]  # fmt: skip


class Columns:
    """Rows of one run as columns. `len()` is the number of rows, `columns["latency_ns"]` one column of all of them.

    Rows may be chosen as in numpy: `faults[faults["vcpu"] == 3]`.
    """

    def __init__(self, what: str, array: NDArray[Any], names: Mapping[str, Sequence[str]]) -> None:
        """`names` are the texts of the columns that hold numbers of them."""
        #: The rows as a numpy structured array.
        self.array = array
        #: Column -> the texts that its numbers stand for.
        self.names = dict(names)
        self._what = what

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.array.dtype.names or ())

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key: Any) -> Any:
        """A column by its name, as a numpy array; or other `Columns` of some of the rows, chosen as in numpy."""
        if not isinstance(key, str):
            return Columns(self._what, self.array[key], self.names)
        column = self.array[key]
        if key not in self.names:
            return column
        texts = np.array([*self.names[key], ""])  # the last one is what -1 chooses
        return texts[column]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype=dtype, copy=copy)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame, names as categories. ExtraError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ExtraError("to_pandas()", "pandas", "notebook") from None
        frame = {}
        for name in self.columns:
            column = self.array[name]
            if name in self.names:
                frame[name] = pandas.Series(pandas.Categorical.from_codes(column, categories=self.names[name]))
            elif (missing := column == _NONE).any():
                frame[name] = pandas.Series(pandas.arrays.IntegerArray(column.astype(np.int64), missing))
            else:
                frame[name] = pandas.Series(column)
        return pandas.DataFrame(frame)

    def __repr__(self) -> str:
        return f"<{len(self):,} {self._what}: {', '.join(self.columns)}>"


def fault_columns(faults: FaultTable) -> Columns:
    """The resolved faults of a run, a row each, in the order in which they were resolved."""
    columns = faults.columns()
    array = np.empty(len(faults), dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        array[name] = column
    return Columns("faults", array, {"cause": [cause.value for cause in CAUSES]})


def trace_columns(path: Path) -> Columns:
    """The events of the trace at `path`, a row each, in their order. InputError if it is no trace, or damaged."""
    details: dict[str, int] = {}
    with read_trace(path) as trace:
        blocks = [_block(events, details) for events in trace.events() if events]
    array = np.concatenate(blocks) if blocks else np.empty(0, dtype=_TRACE)
    levels = [level.name for level in _LEVELS]
    return Columns("events", array, {"node": NODES, "event": _EVENTS, "level": levels, "detail": [*details]})


def _block(events: Sequence[Event], details: dict[str, int]) -> NDArray[Any]:
    """A part of the array; texts of `detail` that are new get the next number in `details`."""
    t, node, happening, first, count, level, vcpu, write, urgent, detail, wire = zip(*events, strict=True)
    array = np.empty(len(events), dtype=_TRACE)
    array["t"] = t
    array["node"] = [_NODE_CODES[each] for each in node]
    array["event"] = [_CODES[each] for each in happening]
    array["level"] = [_NONE if each is None else _LEVEL_CODES[each] for each in level]
    array["detail"] = [_NONE if each is None else details.setdefault(each, len(details)) for each in detail]
    numbers = {"first": first, "count": count, "vcpu": vcpu, "write": write, "urgent": urgent}
    for name, column in numbers.items():
        array[name] = [_NONE if each is None else each for each in column]
    absent = (_NONE,) * len(CarriedFrame._fields)
    wires = chain.from_iterable(absent if each is None else each for each in wire)
    frames = np.fromiter(wires, dtype=np.int64, count=len(events) * len(absent)).reshape(-1, len(absent))
    for place, name in enumerate(CarriedFrame._fields):
        array[name] = frames[:, place]
    return array
