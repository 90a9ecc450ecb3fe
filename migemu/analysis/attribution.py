"""Where the time of a fault went: for every fault its cause, and its latency in parts that sum to it exactly.

What this models
    A fault waits for one delivery: the frame that brought its page first. On the way of that frame, and of the request
    for it, stand milestones; what lies between two of them is a part. Pure: a reducer that is told every event of a
    trace, measured or modelled, and answers with a fault when its vCPU runs again.

Milestones, each with the part that ends there
    requested       detect          `requested`: the handler has read the fault and asks
    left            request         `carried` "return" `departed`: the request is on the uplink
    asked           uplink          `asked`, or `sent` where a trace has none: the source has read it and answers
    started         queue           `carried` `started`: its first byte goes out
    departed        serialisation   `carried` `departed`: its last byte does
    arrived         downlink        `carried` itself, or `received` where a trace has none: its last byte is here
    mapped          install         `continued` or `collapsed`: an entry gives access; waiting for the service is in it
    woken           wake            `woken`: the vCPU runs

Rules
    1. A milestone that never came ends no part: its time is the next part's. A measured run has no `carried`, so that
       `uplink` is all from the request until the source has it, and `downlink` all from there to the bytes.
    2. A milestone that came before the fault counts as the fault's moment: what lay before cost this fault nothing.
    3. A milestone never stands behind a later one. Where the page was on its way before the request was read, the
       request had no part in it and is cut off there.
    4. From 1 to 3: no part is negative, and the parts sum to `woken` minus `faulted`, whatever the order of events.
    5. What stood in front in the queue is told by name and in bytes: the frames, by channel, that were on the wire
       between `asked` and `started`.
    6. The cause is told by what had happened to the page when the vCPU fell asleep, and by what came then (`Cause`).

Simplified
    Of a page that was removed and came again nothing before the removal counts. A fault that ends in a signal has no
    latency; it is counted. Of frames in front, those count that arrive before the vCPU runs, which leaves out one that
    was in front and overtaken later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from migemu.mm.pages import Geometry, PageIndex
from migemu.trace.events import Event, Happening

PHASES: Final = ("detect", "request", "uplink", "queue", "serialisation", "downlink", "install", "wake")
_REQUESTED, _REQUEST_SENT, _ASKED, _STARTED, _DEPARTED, _RECEIVED, _MAPPED = range(7)

# What has happened to a page so far: bits of one byte.
_IS_REQUESTED, _IS_REQUEST_SENT, _IS_ASKED, _IS_PUSHED, _IS_SENT_URGENT, _IS_RECEIVED, _IS_CARRIED = (
    1 << bit for bit in range(7)
)
_BEFORE: Final = (
    (_IS_REQUESTED, _REQUESTED), (_IS_REQUEST_SENT, _REQUEST_SENT), (_IS_ASKED, _ASKED), (_IS_RECEIVED, _RECEIVED),
    (_IS_CARRIED, _STARTED), (_IS_CARRIED, _DEPARTED), (_IS_CARRIED, _RECEIVED),
)  # fmt: skip
#: Frames kept for rule 5; 64 Ki of 4K are 2.1 s at 1 Gbit/s, or 0.09 s at 25.
_FRAMES_MAX: Final = 1 << 16
#: For `bytes.translate`: what a page's byte becomes when it gains a bit.
_SET: Final = {1 << bit: bytes(old | 1 << bit for old in range(256)) for bit in range(7)}


class Cause(Enum):
    """Why the page of a fault was not mapped, or what ended the wait for it."""

    ANSWERED = "answered by an urgent piece"
    SHARED = "asked for by another fault"
    UNDER_WAY = "pushed, under way already"
    PUSHED = "pushed after the fault"
    ZERO = "announced as zero"
    NOT_MAPPED = "received, not mapped"
    UNKNOWN = "not told in the trace"

    __hash__ = object.__hash__


class ResolvedFault(NamedTuple):
    """A fault whose vCPU runs again. `phases` are ns in the order of `PHASES`; they sum to `ended - began`."""

    vcpu: int
    page: PageIndex
    began: int
    ended: int
    cause: Cause
    phases: tuple[int, ...]
    ahead: tuple[int, int]
    """Bytes of the main and of the preempt channel that stood in front of it at the source."""
    received: int | None
    """When its bytes had come; None where that was before the fault, or is not told."""

    @property
    def latency_ns(self) -> int:
        """Time from the access until the vCPU runs again."""
        return self.ended - self.began


class _Frame(NamedTuple):
    """A frame on the wire, from its first byte (`started`) to its last (`departed`), in ns of the trace."""

    started: int
    departed: int
    frame_bytes: int
    preempt: bool


class _Open:
    """A fault that is not resolved yet, and the time of each milestone it has passed."""

    __slots__ = ("before", "began", "delivery", "page", "times", "urgent", "vcpu")

    def __init__(self, vcpu: int, page: PageIndex, began: int, before: int) -> None:
        self.vcpu = vcpu
        self.page = page
        self.began = began
        self.before = before  # the state of its page when it fell asleep
        self.times: list[int | None] = [None] * 7
        for bit, milestone in _BEFORE:
            if before & bit:
                self.times[milestone] = began
        if before & (_IS_PUSHED | _IS_SENT_URGENT):
            self.times[_ASKED] = began
        self.delivery = ""
        self.urgent = False

    def reached(self, milestone: int, t: int) -> None:
        """Note that the fault passed `milestone` at `t`; only the first time counts."""
        if self.times[milestone] is None:
            self.times[milestone] = t

    def cause(self) -> Cause:
        before = self.before
        if before & _IS_RECEIVED:
            return Cause.NOT_MAPPED
        if not self.delivery:
            return Cause.UNKNOWN
        if before & _IS_SENT_URGENT or (self.urgent and before & _IS_REQUESTED):
            return Cause.SHARED
        if before & _IS_PUSHED and not self.urgent:
            return Cause.UNDER_WAY
        if self.delivery == "zero":
            return Cause.ZERO
        return Cause.ANSWERED if self.urgent else Cause.PUSHED


class Attribution:
    """Follows the faults on a memory of `pages` base pages; needs a byte a page."""

    __slots__ = ("_by_page", "_frames", "_geometry", "_open", "_state", "has_wire", "killed")

    def __init__(self, geometry: Geometry, pages: int) -> None:
        self._geometry = geometry
        self._state = bytearray(pages)
        self._open: dict[int, _Open] = {}  # by vCPU
        self._by_page: dict[PageIndex, list[_Open]] = {}  # the same
        # What has left the wire while somebody waited, the latest last.
        self._frames: deque[_Frame] = deque(maxlen=_FRAMES_MAX)
        #: Faults that ended in a signal.
        self.killed = 0
        #: Whether the trace tells of the wire, so that `queue` and `serialisation` are known.
        self.has_wire = False

    @property
    def open(self) -> int:
        """How many faults are not resolved yet."""
        return len(self._open)

    def take(self, event: Event) -> ResolvedFault | None:
        """Take the next event of the trace; the fault that it resolves, or None."""
        happening = event.event
        if happening is Happening.WOKEN:
            return self._woken(event)
        if happening in _HANDLERS:
            _HANDLERS[happening](self, event)
        return None

    def _faulted(self, event: Event) -> None:
        assert event.vcpu is not None
        assert event.first is not None
        before = self._state[event.first] if 0 <= event.first < len(self._state) else 0
        self._ended(event.vcpu)  # a trace may lack the end of the last one
        fault = self._open[event.vcpu] = _Open(event.vcpu, event.first, event.t, before)
        self._by_page.setdefault(event.first, []).append(fault)

    def _killed(self, event: Event) -> None:
        assert event.vcpu is not None
        self.killed += self._ended(event.vcpu) is not None

    def _woken(self, event: Event) -> ResolvedFault | None:
        assert event.vcpu is not None
        fault = self._ended(event.vcpu)
        if fault is None:
            return None
        ends = _ends(fault.began, fault.times, event.t)
        ahead = self._ahead(fault.began, ends)
        if not self._open:
            self._frames.clear()
        return ResolvedFault(
            fault.vcpu, fault.page, fault.began, event.t, fault.cause(), _phases(fault.began, ends), ahead,
            None if fault.before & (_IS_RECEIVED | _IS_CARRIED) else fault.times[_RECEIVED],
        )  # fmt: skip

    def _ended(self, vcpu: int) -> _Open | None:
        """Remove the open fault of that vCPU and return it; None if it has none."""
        fault = self._open.pop(vcpu, None)
        if fault is not None:
            alike = self._by_page[fault.page]
            alike.remove(fault)
            if not alike:
                del self._by_page[fault.page]
        return fault

    def _ahead(self, began: int, ends: list[int | None]) -> tuple[int, int]:
        """Bytes of the (main, preempt) channel that were queued ahead of the page at the source (rule 5)."""
        started = ends[_STARTED]
        if started is None or started == began:
            return 0, 0
        asked = next((end for end in ends[_ASKED::-1] if end is not None), began)
        ahead = [0, 0]
        for frame in reversed(self._frames):
            if frame.departed <= asked:
                break
            if frame.started < started:
                ahead[frame.preempt] += frame.frame_bytes
        return ahead[0], ahead[1]

    def _requested(self, event: Event) -> None:
        self._note(event, _IS_REQUESTED, _REQUESTED)

    def _asked(self, event: Event) -> None:
        self._note(event, _IS_ASKED, _ASKED)

    def _sent(self, event: Event) -> None:
        self._note(event, _IS_SENT_URGENT if event.urgent else _IS_PUSHED, _ASKED)

    def _received(self, event: Event) -> None:
        for fault in self._waiting(event.first or 0, event.count or 0):
            if not fault.delivery and not fault.before & _IS_RECEIVED:
                fault.delivery = event.detail or "bytes"
                fault.urgent = bool(event.urgent)
        self._note(event, _IS_RECEIVED, _RECEIVED)

    def _continued(self, event: Event) -> None:
        for fault in self._waiting(event.first or 0, event.count or 0):
            fault.reached(_MAPPED, event.t)

    def _carried(self, event: Event) -> None:
        self.has_wire = True
        wire, first, count = event.wire, event.first or 0, event.count or 0
        assert wire is not None
        if event.detail == "return":
            for fault in self._waiting(first, count):
                fault.reached(_REQUEST_SENT, wire.departed)
            self._mark(first, count, _IS_REQUEST_SENT)
            return
        if self._open:
            self._frames.append(_Frame(wire.started, wire.departed, wire.frame_bytes, event.detail == "preempt"))
        for fault in self._waiting(first, count):
            if fault.times[_RECEIVED] is None and fault.times[_STARTED] is None:
                fault.times[_STARTED], fault.times[_DEPARTED] = wire.started, wire.departed
                fault.reached(_ASKED, wire.enqueued)
                fault.reached(_RECEIVED, event.t)
        self._mark(first, count, _IS_CARRIED)

    def _collapsed(self, event: Event) -> None:
        assert event.level is not None
        for fault in self._waiting(event.first or 0, self._geometry.pages(event.level)):
            fault.reached(_MAPPED, event.t)

    def _removed(self, event: Event) -> None:
        first, end = max(0, event.first or 0), min((event.first or 0) + (event.count or 0), len(self._state))
        if first < end:
            self._state[first:end] = bytes(end - first)

    def _note(self, event: Event, bit: int, milestone: int) -> None:
        first, count = event.first or 0, event.count or 0
        for fault in self._waiting(first, count):
            fault.reached(milestone, event.t)
        self._mark(first, count, bit)

    def _mark(self, first: PageIndex, count: int, bit: int) -> None:
        if first < 0 or count < 1 or first + count > len(self._state):
            return  # the checks object to it; here it is nobody's page
        if count == 1:
            self._state[first] |= bit
        else:
            self._state[first : first + count] = self._state[first : first + count].translate(_SET[bit])

    def _waiting(self, first: PageIndex, count: int) -> Sequence[_Open]:
        """The open faults on one of these pages."""
        if count == 1:
            return self._by_page.get(first, ())
        return [fault for page, alike in self._by_page.items() if first <= page < first + count for fault in alike]


_HANDLERS: Final = {
    Happening.FAULTED: Attribution._faulted,
    Happening.KILLED: Attribution._killed,
    Happening.REQUESTED: Attribution._requested,
    Happening.ASKED: Attribution._asked,
    Happening.SENT: Attribution._sent,
    Happening.CARRIED: Attribution._carried,
    Happening.RECEIVED: Attribution._received,
    Happening.CONTINUED: Attribution._continued,
    Happening.COLLAPSED: Attribution._collapsed,
    Happening.ZAPPED: Attribution._removed,
}


def _ends(began: int, times: list[int | None], ended: int) -> list[int | None]:
    """When each phase ended, ascending; None where a milestone is missing, and last `ended` (rules 2 and 3)."""
    ends: list[int | None] = [*times, ended]
    latest = ended
    for place in range(len(times) - 1, -1, -1):
        time = times[place]
        if time is not None:
            latest = ends[place] = max(began, min(time, latest))
    return ends


def _phases(began: int, ends: list[int | None]) -> tuple[int, ...]:
    """The length of each phase in ns (rule 1)."""
    phases, at = [], began
    for end in ends:
        phases.append(0 if end is None else end - at)
        at = at if end is None else end
    return tuple(phases)
