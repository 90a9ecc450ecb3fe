"""The vocabulary of a trace: what can happen, one flat line each.

A trace is a file of JSON lines. The first line names the schema:

    {"schema": "migemu-trace", "version": 2, "kind": "measured"}

Every other line is one event: `t` (ns, one clock for the whole file, never going back), `node` ("source",
"destination"; "link" for what neither node sees), `event` (a value of `Happening`), and those of `first`, `count`,
`level` ("PTE", "PMD", "PUD" ...), `vcpu`, `write`, `urgent`, `detail`, `wire` that `FIELDS` gives to it. `wire` is an
object of integers (`Wire`).

Rules
    1. Events of one node stand in the order in which they happened. `first` is a base page and, unless its comment says
       otherwise, `count` are base pages.
    2. A node first says what memory it is about (`memory`), before any event about a page of it.
    3. `sent` bears the time before the bytes went out, so that in a merged trace it never follows their arrival.
    4. `faulted` is the moment in which the vCPU falls asleep, not the one in which somebody reads of it.
    5. One collapse: `cleared`*, `collapsed`, `flushed`, `freed` (SEMANTICS 2.3; the order of v2 of the series).
    6. A name never changes its meaning within one version. Version 2 (this one) tells of the page table, of protection,
       poison and removal; it calls `dropped` what version 1 called `duplicate`.
    7. `carried` is told by models: in a measured run nobody sees the wire.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from migemu.mm.pages import Level, PageIndex

SCHEMA: Final = "migemu-trace"
SCHEMA_VERSION: Final = 2
KINDS: Final = ("measured", "modelled")
NODES: Final = ("source", "destination", "link")


class Happening(Enum):
    """Every kind of event, and what it says. Which fields it has stands in `FIELDS`."""

    MEMORY = "memory"  # what this trace is about: `count` base pages; detail: the geometry's name
    STATE = "state"  # detail: the stage that begins
    LOST = "lost"  # detail: a connection ended, and why
    RECOVERED = "recovered"  # the source knows what has arrived: `count` base pages, not to be sent again
    POLICY = "policy"  # detail: the collapse policy, then its promises ("steps", "collapses") as words
    ASKED = "asked"  # the source has read a request
    SENT = "sent"  # detail "zero" without payload
    CARRIED = "carried"  # a frame about these pages has left the link; detail: "main", "preempt", or "return"
    REQUESTED = "requested"  # the destination asked the source for it
    RECEIVED = "received"  # bytes that were new, and are in their place; detail "zero" without payload
    DROPPED = "dropped"  # bytes that came and were not stored; detail: why ("duplicate")
    FAULTED = "faulted"  # a vCPU falls asleep on a base page
    WOKEN = "woken"  # and runs again
    KILLED = "killed"  # or gets a signal instead; detail: "SIGBUS", "BUS_MCEERR_AR"
    CONTINUED = "continued"  # UFFDIO_CONTINUE, one per piece; detail "dontwake" if it wakes nobody
    WAKE = "wake"  # UFFDIO_WAKE
    CLEARED = "cleared"  # a collapse or a zap cleared `count` leaves of `level`
    COLLAPSED = "collapsed"  # MADV_COLLAPSE: one entry of `level` is in place
    FLUSHED = "flushed"  # the TLB holds nothing of these base pages that was cleared before
    FREED = "freed"  # `count` page-table pages under `first` given back
    REFUSED = "refused"  # a collapse proposed by the policy, and not made; detail: why
    FAILED = "failed"  # MADV_COLLAPSE refused by the kernel; detail: the errno's name
    READ = "read"  # a vCPU read a base page; models tell it, measured runs do not
    WRITTEN = "written"  # a vCPU wrote to a base page: at least the first time
    ZAPPED = "zapped"  # the guest dropped it (MADV_DONTNEED, a balloon)
    REMOVED = "removed"  # the handler has read the event that tells of it
    PROTECTED = "protected"  # write-protect on
    UNPROTECTED = "unprotected"  # off, by UFFDIO_WRITEPROTECT or by a CONTINUE that consumed the marker
    POISONED = "poisoned"  # detail "marker" if by UFFDIO_POISON, which a zap takes away; else for good
    ENDED = "ended"  # the destination has read that the source has sent everything: `count` base pages

    __hash__ = object.__hash__  # Enum's own is Python code, and events are looked up by the million


#: The fields that each event must have, and those that it may have besides, after `t`, `node`, `event`.
FIELDS: Final[dict[Happening, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    Happening.MEMORY: (("count", "detail"), ()),
    Happening.STATE: (("detail",), ()),
    Happening.LOST: (("detail",), ()),
    Happening.RECOVERED: (("count",), ()),
    Happening.POLICY: (("detail",), ()),
    Happening.ASKED: (("first", "count", "level"), ()),
    Happening.SENT: (("first", "count", "level", "urgent"), ("detail",)),
    Happening.CARRIED: (("first", "count", "level", "detail", "wire"), ()),
    Happening.REQUESTED: (("first", "count", "level"), ()),
    Happening.RECEIVED: (("first", "count", "level", "urgent"), ("detail",)),
    Happening.DROPPED: (("first", "count"), ("detail",)),
    Happening.FAULTED: (("first", "vcpu", "write"), ()),
    Happening.WOKEN: (("first", "vcpu"), ()),
    Happening.KILLED: (("first", "vcpu", "detail"), ()),
    Happening.CONTINUED: (("first", "count", "level"), ("detail",)),
    Happening.WAKE: (("first", "count"), ()),
    Happening.CLEARED: (("first", "count", "level"), ()),
    Happening.COLLAPSED: (("first", "level"), ()),
    Happening.FLUSHED: (("first", "count"), ()),
    Happening.FREED: (("first", "count"), ()),
    Happening.REFUSED: (("first", "level"), ("detail",)),
    Happening.FAILED: (("first", "level", "detail"), ()),
    Happening.READ: (("first", "vcpu"), ()),
    Happening.WRITTEN: (("first", "vcpu"), ()),
    Happening.ZAPPED: (("first", "count"), ()),
    Happening.REMOVED: (("first", "count"), ()),
    Happening.PROTECTED: (("first", "count"), ()),
    Happening.UNPROTECTED: (("first", "count"), ()),
    Happening.POISONED: (("first", "count"), ("detail",)),
    Happening.ENDED: (("count",), ()),
}


#: What both nodes tell, what the source alone, what a modelled link; all else is the destination's.
OF_BOTH: Final = (Happening.MEMORY, Happening.STATE, Happening.LOST)
OF_SOURCE: Final = (Happening.ASKED, Happening.SENT, Happening.RECOVERED)
OF_LINK: Final = (Happening.CARRIED,)


def emitters_of(happening: Happening) -> tuple[str, ...]:
    """The nodes that tell of it."""
    if happening in OF_BOTH:
        return NODES[:2]
    return NODES[:1] if happening in OF_SOURCE else NODES[2:] if happening in OF_LINK else NODES[1:2]


class CarriedFrame(NamedTuple):
    """How a frame got over the link: times of the trace's clock, and its length.

    enqueued <= started <= departed <= the event's own `t`, which is when its last byte arrived.
    """

    enqueued: int
    """It was handed to its channel."""
    started: int
    """Its first byte went onto the wire."""
    departed: int
    """Its last byte did; where some were lost, when the last of them was sent again."""
    frame_bytes: int
    """All of it, header and payload."""


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
    wire: CarriedFrame | None = None


def header_line(kind: str) -> str:
    """The first line of a trace file; `kind` is "measured" or "modelled"."""
    return json.dumps({"schema": SCHEMA, "version": SCHEMA_VERSION, "kind": kind})


def event_line(event: Event) -> str:
    """One line of a trace file, without the line's end: what `json.dumps` would make of it, only sooner."""
    t, node, happening, first, count, level, vcpu, write, urgent, detail, wire = event
    line = f'{{"t":{t},"node":"{node}",{_EVENT[happening]}'
    if first is not None:
        line += f',"first":{first}'
    if count is not None:
        line += f',"count":{count}'
    if level is not None:
        line += _LEVEL[level]
    if vcpu is not None:
        line += f',"vcpu":{vcpu}'
    if write is not None:
        line += ',"write":true' if write else ',"write":false'
    if urgent is not None:
        line += ',"urgent":true' if urgent else ',"urgent":false'
    if detail is not None:
        line += f',"detail":{_text(detail)}'
    if wire is not None:
        enqueued, started, departed, frame_bytes = wire
        line += (
            f',"wire":{{"enqueued":{enqueued},"started":{started},"departed":{departed},"frame_bytes":{frame_bytes}}}'
        )
    return line + "}"


_EVENT: Final = {happening: f'"event":"{happening.value}"' for happening in Happening}
_LEVEL: Final = {level: f',"level":"{level.name}"' for level in Level}


@lru_cache(maxsize=256)
def _text(detail: str) -> str:
    return json.dumps(detail)
