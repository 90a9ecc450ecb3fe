"""The vocabulary of a trace: what can happen, one flat line each.

A trace is a file of JSON lines. The first line names the schema:

    {"schema": "migemu-trace", "version": 1, "kind": "measured"}

Every other line is one event: `t` (ns, one clock for the whole file), `node` ("source", "destination"), `event` (a
value of `Happening`), and those of `first`, `count` (base pages), `level` ("PTE", "PMD", "PUD"), `vcpu`, `write`,
`urgent`, `detail` that the event has. Events of one node stand in the order in which they happened.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Final, NamedTuple

from migemu.mm.pages import Level, PageIndex

SCHEMA: Final = "migemu-trace"
SCHEMA_VERSION: Final = 1
KINDS: Final = ("measured", "modelled")


class Happening(Enum):
    """Every kind of event. The comment names the fields that it carries."""

    STATE = "state"  # detail: the stage that begins
    SENT = "sent"  # first count level urgent; detail "zero" without payload
    REQUESTED = "requested"  # first count level: the destination asked for it
    RECEIVED = "received"  # first count level urgent; detail "zero" without payload, count of pieces that were new
    DUPLICATE = "duplicate"  # first count: base pages that had come before; memory was not touched
    FAULTED = "faulted"  # vcpu first write
    CONTINUED = "continued"  # first count level: UFFDIO_CONTINUE, one per piece
    WOKEN = "woken"  # vcpu first
    WAKE = "wake"  # first count: explicit UFFDIO_WAKE
    COLLAPSED = "collapsed"  # first level: MADV_COLLAPSE made one entry of it
    REFUSED = "refused"  # first level: a collapse proposed over something not received
    WRITTEN = "written"  # vcpu first: the guest's first write to a base page
    LOST = "lost"  # detail: a connection ended, and why


class Event(NamedTuple):
    """One event. Fields that it does not have are None."""

    t: int
    node: str
    event: Happening
    first: PageIndex | None = None
    count: int | None = None  # type: ignore[assignment]  # hides tuple.count
    level: Level | None = None
    vcpu: int | None = None
    write: bool | None = None
    urgent: bool | None = None
    detail: str | None = None


def header_line(kind: str) -> str:
    """The first line of a trace file; `kind` is "measured" or "modelled"."""
    return json.dumps({"schema": SCHEMA, "version": SCHEMA_VERSION, "kind": kind})


def event_line(event: Event) -> str:
    """One line of a trace file, without the line's end."""
    fields: dict[str, object] = {"t": event.t, "node": event.node, "event": event.event.value}
    for name, value in zip(Event._fields[3:], event[3:], strict=True):
        if value is not None:
            fields[name] = value.name if isinstance(value, Level) else value
    return json.dumps(fields, separators=(",", ":"))
