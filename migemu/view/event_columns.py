"""Events and faults as columns of numbers, in the bytes that the browser takes apart.

Layout of a block of N records, little endian, one column after the other, the widest first so that each is aligned:

    t       float64   ns of the trace's clock (exact to 2^53 ns, 104 days)
    first   uint32    base page; NO_PAGE if the event has none
    count   uint32    base pages that the record is about; 0 if the event has none
    vcpu    int16     -1 if none
    kind    uint8     place in `KINDS`; PART for a record that goes on with the one before it
    level   uint8     a `Level`; NO_LEVEL if none
    flags   uint8     WRITE, URGENT, ZERO, FROM_SOURCE, FROM_LINK
    table   uint8     how it changes the pages of its range (`page_states.TABLES`)

and of N faults, in the order in which they ended:

    number, began, ended, received (-1 if not known), main_ahead, preempt_ahead, and each of PHASES: float64
    page uint32, vcpu int16, cause uint8 (place in `CAUSES`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from migemu.analysis.attribution import PHASES, Cause, ResolvedFault
from migemu.trace.events import Event, Happening

EVENT_KINDS: Final = tuple(happening.value for happening in Happening)
_KIND_NUMBERS: Final = {happening: number for number, happening in enumerate(Happening)}
CAUSES: Final = tuple(cause.value for cause in Cause)
_CAUSE_NUMBERS: Final = {cause: number for number, cause in enumerate(Cause)}

NO_PAGE: Final = 0xFFFFFFFF
NO_LEVEL: Final = 0xFF
PART: Final = 0xFF
WRITE, URGENT, ZERO, FROM_SOURCE, FROM_LINK = 1, 2, 4, 8, 16

EVENT_FIELDS: Final = (
    ("t", "<f8"), ("first", "<u4"), ("count", "<u4"), ("vcpu", "<i2"), ("kind", "u1"), ("level", "u1"),
    ("flags", "u1"), ("table", "u1"),
)  # fmt: skip
FAULT_FIELDS: Final = (
    *((name, "<f8") for name in ("number", "began", "ended", "received", "main_ahead", "preempt_ahead", *PHASES)),
    ("page", "<u4"), ("vcpu", "<i2"), ("cause", "u1"),
)  # fmt: skip
COLLAPSE_FIELDS: Final = (("began", "<f8"), ("ended", "<f8"), ("first", "<u4"), ("pages", "<u4"), ("level", "u1"))
STALL_FIELDS: Final = (("began", "<f8"), ("ended", "<f8"), ("vcpu", "<i2"))

Fields = Sequence[tuple[str, str]]
Row = tuple[float, int, int, int, int, int, int, int]


def event_row(event: Event, table: int, pages: int) -> Row:
    """The record of an event whose first change is `table` over `pages` base pages from its own first page on."""
    _, node, happening, first, _, level, vcpu, write, urgent, detail, _ = event
    flags = (WRITE if write else 0) | (URGENT if urgent else 0) | (ZERO if detail == "zero" else 0)
    if node != "destination":
        flags |= FROM_SOURCE if node == "source" else FROM_LINK
    return (
        event.t, NO_PAGE if first is None else first, pages, -1 if vcpu is None else vcpu,
        _KIND_NUMBERS[happening], NO_LEVEL if level is None else level, flags, table,
    )  # fmt: skip


def part_row(t: int, table: int, first: int, pages: int) -> Row:
    """A record that goes on with the one before it: one more change that the same event makes."""
    return t, first, pages, -1, PART, NO_LEVEL, 0, table


def fault_row(number: int, fault: ResolvedFault) -> tuple[float, ...]:
    """The record of a fault."""
    received = -1 if fault.received is None else fault.received
    return (
        number, fault.began, fault.ended, received, *fault.ahead, *fault.phases, fault.page, fault.vcpu,
        _CAUSE_NUMBERS[fault.cause],
    )  # fmt: skip


def to_columns(rows: Iterable[tuple[float, ...]], fields: Fields) -> bytes:
    """Rows as columns, in the layout of the module."""
    table = np.array(list(rows), dtype=list(fields))
    return b"".join(np.ascontiguousarray(table[name]).tobytes() for name, _ in fields)


def from_columns(data: bytes, fields: Fields) -> dict[str, NDArray[Any]]:
    """The columns of a block by name."""
    width = sum(np.dtype(kind).itemsize for _, kind in fields)
    count, at, columns = len(data) // width, 0, {}
    for name, kind in fields:
        columns[name] = np.frombuffer(data, dtype=kind, count=count, offset=at)
        at += count * np.dtype(kind).itemsize
    return columns
