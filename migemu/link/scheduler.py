"""One wire shared by several channels: who is next, and what that does to each frame.

Frames wait in their channel's send buffer, in order. From there the wire takes segments (at most `segment_bytes`, what
segmentation offload hands to a device at once) into the link's queue as soon as that has room; what is in the queue
cannot be overtaken any more. Whose segment is next:

    fifo     the frame that was sent first, whole: one buffer for all channels
    fair     channels in turn, the same number of bytes each (deficit round robin with a segment as quantum, as fq)
    strict   urgent channels first; among equals the frame that was sent first

So an urgent frame waits for the queue, for the rest of the segment in front, and, unless strict, for its turn.

Pure: the wire is told the time and answers with frames whose fate is certain. It computes per frame, not per segment:
while the choice cannot change, segments are taken in one go, and `deadline` says when it has to be asked again. Asking
earlier, or more often, changes nothing.

Loss, windows and retransmission are a channel's `Stream`; rate, delay, jitter and outages are the `LinkModel`'s.
Source of fair: M. Shreedhar and G. Varghese, Efficient fair queuing using deficit round robin, SIGCOMM 1995.

A reader that takes its time lets its receive buffer fill, and then the channel stands still until it has read: its
window is shut between two frames, so that the buffer may overflow by one of them.

Simplified: a channel that overdraws its turn by a part of a segment pays with its next one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from migemu.link.model import LinkModel
from migemu.link.stream import Stream

_NEVER: Final = 1 << 62


class Scheduling(Enum):
    """A packet scheduler: decides which connection sends the next segment."""

    FIFO = "fifo"
    FAIR = "fair"
    STRICT = "strict"


@dataclass(slots=True, eq=False)
class QueuedFrame:
    """A frame of `size` bytes on its way; `token` is the owner's.

    `remaining` bytes of it are still in the send buffer; of its times, -1 is one that is not known yet.
    """

    channel: str
    size: int
    token: Any
    enqueued_ns: int
    serial: int
    remaining: int = field(init=False)
    started_ns: int = field(default=-1, init=False)
    departed_ns: int = field(default=-1, init=False)
    arrived_ns: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        self.remaining = self.size


@dataclass(slots=True, eq=False)
class Flow:
    """One channel's direction: its send buffer, and its place among the others."""

    name: str
    stream: Stream | None
    #: Bytes that it may still send in its turn (deficit round robin).
    deficit: int
    #: Whether `strict` prefers it.
    urgent: bool = field(default=False, init=False)
    #: Bytes that wait in the send buffer. Whoever waits for less than `room_bytes` sets `room_wanted`.
    waiting_bytes: int = field(default=0, init=False)
    room_bytes: int = field(default=0, init=False)
    room_wanted: bool = field(default=False, init=False)
    #: Bytes that the wire has had and the reader has not taken; from `window_bytes` on nothing goes. 0: no limit.
    unread_bytes: int = field(default=0, init=False)
    window_bytes: int = field(default=0, init=False)
    frames: deque[QueuedFrame] = field(default_factory=deque, init=False)
    held: list[QueuedFrame] = field(default_factory=list, init=False)
    delivered_ns: int = field(default=0, init=False)

    @property
    def shut(self) -> bool:
        """Whether the reader has no room."""
        return 0 < self.window_bytes <= self.unread_bytes


class LinkScheduler:
    """One direction of a link, and the channels in front of it."""

    def __init__(
        self, model: LinkModel, scheduling: Scheduling = Scheduling.FAIR, segment_bytes: int = 65_536,
        ahead_ns: int = 0, reorder: bool = False,
    ) -> None:  # fmt: skip
        """The queue is filled `ahead_ns` ahead of the wire. `reorder`: jitter lets channels overtake each other."""
        self.model = model
        self.scheduling = scheduling
        self.segment_bytes = segment_bytes
        self.ahead_ns = ahead_ns
        self._reorder = reorder
        self._streams = False
        self._lossy: list[Flow] = []
        self._active: list[Flow] = []
        self._now_ns = 0
        self._serial = 0
        self._done: list[QueuedFrame] = []
        self._delivered_ns = 0

    def flow(self, name: str, stream: Stream | None = None) -> Flow:
        """A channel's way onto the wire. Without a stream nothing but the wire holds it back."""
        flow = Flow(name, stream, self.segment_bytes)
        if stream is not None:
            self._streams = True
            if stream.lossy:
                self._lossy.append(flow)
        return flow

    def drop(self, flow: Flow) -> None:
        """Forget what waits in the send buffer; a frame that has begun ends where it is."""
        flow.frames.clear()
        flow.waiting_bytes = 0
        if flow in self._active:
            self._active.remove(flow)

    # --- in ---

    def send(self, flow: Flow, size: int, token: Any, now_ns: int) -> QueuedFrame:
        """A frame enters the send buffer of `flow`; `advance` is to be called next."""
        self._settle(now_ns)
        self._serial += 1
        frame = QueuedFrame(flow.name, size, token, now_ns, self._serial)
        if not flow.frames and not flow.shut:
            self._wake(flow, now_ns)
        flow.frames.append(frame)
        flow.waiting_bytes += size
        return frame

    def read(self, flow: Flow, count: int, now_ns: int) -> None:
        """The sender learns that the reader has taken `count` bytes; `advance` is to be called next."""
        self._settle(now_ns)
        was_shut = flow.shut
        flow.unread_bytes -= count
        if was_shut and not flow.shut and flow.frames:
            self._wake(flow, now_ns)

    def _wake(self, flow: Flow, now_ns: int) -> None:
        """It has something that may go."""
        flow.deficit = self.segment_bytes
        self._active.append(flow)
        if flow.stream is not None:
            flow.stream.woken(now_ns)

    # --- out ---

    def advance(self, now_ns: int) -> list[QueuedFrame]:
        """Frames whose times have become certain by now; `arrived_ns` of them may be now or later."""
        self._settle(now_ns)
        done, self._done = self._done, []
        return done

    def deadline(self) -> int | None:
        """When to call `advance` again: something may be certain then, or a buffer have room. After `advance`."""
        when_ns = _NEVER
        if self._lossy and (expiring := self._expiring()) is not None:
            when_ns = expiring[0]
        if active := self._active:
            every = len(active) == 1 or self.scheduling is Scheduling.FAIR or not self._plain
            for flow in active if every else (self._first(active),):
                count = flow.frames[0].remaining
                if flow.stream is not None and flow.stream.timeout_ns:
                    count = flow.stream.stretch(count)  # what fills the hole is certain before the frame is
                when_ns = min(when_ns, self._soonest(flow, count))
                if flow.room_wanted:
                    lacking = flow.waiting_bytes - flow.room_bytes + 1
                    when_ns = min(when_ns, self._soonest(flow, lacking)) if lacking > 0 else self._now_ns
        return None if when_ns == _NEVER else when_ns

    def _soonest(self, flow: Flow, count: int) -> int:
        """Before this time not all of `count` bytes of `flow` have been taken."""
        segment, now_ns, stream = self.segment_bytes, self._now_ns, flow.stream
        before = (count - 1) // segment * segment if count > segment else 0
        if before > segment and len(self._active) > 1 and self.scheduling is Scheduling.FAIR:
            others = before - segment
            before += sum(min(other.waiting_bytes, others) for other in self._active if other is not flow)
        when_ns = self.model.free_after(before, now_ns) - self.ahead_ns
        if when_ns < now_ns:
            when_ns = now_ns
        if stream is None:
            return when_ns
        if stream.open:
            return max(when_ns, stream.retry_ns)
        return max(when_ns, self._ready(flow, now_ns), stream.soonest_ns(count, now_ns))

    # --- whose segment is next ---

    @property
    def _plain(self) -> bool:
        """Whether nothing but the wire decides when the next segment is taken."""
        if self.model.outages:
            return False
        if self._streams:
            for flow in self._active:
                if flow.stream is not None and not flow.stream.open:
                    return False
        return True

    def _settle(self, now_ns: int) -> None:
        """Take every segment that is due by now, and let timers fire that are."""
        model, lossy = self.model, self._lossy
        while self._active or lossy:
            at = model.free_ns - self.ahead_ns
            if at < self._now_ns:
                at = self._now_ns
            if not lossy and at > now_ns:
                break
            flow, at = self._next(at) if self._active else (None, _NEVER)
            expiring = self._expiring()
            if expiring is not None and expiring[0] <= min(at, now_ns):
                self._expire(expiring[1])
            elif at > now_ns:
                break
            else:
                self._now_ns = at
                if flow is not None:
                    self._take(flow, at, now_ns)
        if now_ns > self._now_ns:
            self._now_ns = now_ns

    def _next(self, at: int) -> tuple[Flow | None, int]:
        """Who is next at `at`; or nobody, and when to look again."""
        if len(self._active) == 1:
            flow = self._active[0]
            ready_ns = self._ready(flow, at)
            return (flow, at) if ready_ns <= at else (None, ready_ns)
        able: list[Flow] = []
        later_ns = _NEVER
        for flow in self._active:
            ready_ns = self._ready(flow, at)
            if ready_ns <= at:
                able.append(flow)
            else:
                later_ns = min(later_ns, ready_ns)
        if not able:
            return None, later_ns
        return self._first(able), at

    def _ready(self, flow: Flow, at: int) -> int:
        """When the first segment of `flow` may go: `at`, or when that has to be asked again."""
        stream = flow.stream
        if stream is None:
            return at
        if stream.open:
            return max(stream.retry_ns, at)
        return stream.ready_ns(stream.stretch(min(flow.frames[0].remaining, self.segment_bytes)), at)

    def _first(self, flows: list[Flow]) -> Flow:
        if len(flows) == 1:
            return flows[0]
        if self.scheduling is Scheduling.FAIR:
            return next((flow for flow in flows if flow.deficit > 0), flows[0])
        if self.scheduling is Scheduling.STRICT:
            return min(flows, key=lambda flow: (not flow.urgent, flow.frames[0].serial))
        return min(flows, key=lambda flow: flow.frames[0].serial)

    # --- taking ---

    def _take(self, flow: Flow, at: int, until_ns: int) -> None:
        """Take from `flow` what is due by `until_ns`: a segment, or as many as nobody can come between."""
        model = self.model
        frame = flow.frames[0]
        count = min(frame.remaining, self.segment_bytes)
        stream = flow.stream
        start_ns = max(at, model.free_ns)
        in_turn = self.scheduling is Scheduling.FAIR and len(self._active) > 1
        if in_turn:
            self._end_turns()
        if self._plain:
            if not in_turn:
                count = min(frame.remaining, self._due(at, until_ns) // self.segment_bytes * self.segment_bytes + count)
            elif rounds := self._whole_rounds(at, until_ns):
                for each in self._active:
                    self._move(each, rounds * self.segment_bytes, at)
                self._active[-1].deficit -= self.segment_bytes
                return
        elif model.outages and stream is not None and (up_ns := model.down_until(start_ns)):
            stream.stalled(start_ns, up_ns)
            return
        if stream is not None and not stream.open:
            count = stream.stretch(count)
        if frame.started_ns < 0:
            frame.started_ns = start_ns
        self._move(flow, count, at)
        flow.deficit = flow.deficit - count if in_turn else 0

    def _end_turns(self) -> None:
        """Who has had its segment goes to the end; only now, so that whoever came meanwhile stands before it."""
        for flow in [flow for flow in self._active if flow.deficit <= 0]:
            flow.deficit += self.segment_bytes
            self._active.remove(flow)
            self._active.append(flow)

    def _due(self, at: int, until_ns: int) -> int:
        """How many bytes the queue has room for between `at` and `until_ns`."""
        if not self.model.rate_bps:
            return _NEVER
        return max(0, self.model.bytes_by(until_ns + self.ahead_ns, at))

    def _whole_rounds(self, at: int, until_ns: int) -> int:
        """How many rounds of a segment each no frame begins or ends in."""
        segment = self.segment_bytes
        if any(flow.frames[0].started_ns < 0 or flow.deficit > segment for flow in self._active):
            return 0
        least = min(flow.frames[0].remaining for flow in self._active)
        return max(0, min((least - 1) // segment, self._due(at, until_ns) // (segment * len(self._active))))

    def _move(self, flow: Flow, count: int, at: int) -> None:
        """Put `count` bytes of the first frame of `flow` into the queue."""
        frame = flow.frames[0]
        departed_ns = self.model.serialise(count, at)
        frame.remaining -= count
        flow.waiting_bytes -= count
        if flow.stream is not None:
            flow.stream.sent(count, at, departed_ns)
            if flow.held:
                self._deliver(flow)  # the hole may be filled
        if frame.remaining == 0:
            flow.frames.popleft()
            flow.unread_bytes += frame.size
            if not flow.frames or flow.shut:
                self._active.remove(flow)
            self._departed(flow, frame, departed_ns)

    def _departed(self, flow: Flow, frame: QueuedFrame, departed_ns: int) -> None:
        frame.departed_ns = departed_ns
        frame.arrived_ns = self.model.propagated(departed_ns)
        if not self._reorder:
            if frame.arrived_ns < self._delivered_ns:
                frame.arrived_ns = self._delivered_ns
            self._delivered_ns = frame.arrived_ns
        flow.held.append(frame)
        self._deliver(flow)

    def _deliver(self, flow: Flow) -> None:
        """What has departed is delivered in order, unless a hole in front of it is open."""
        for frame in flow.held:
            arrived_ns = frame.arrived_ns
            if flow.stream is not None and (arrived_ns := flow.stream.delivered_ns(arrived_ns)) < 0:
                return
            flow.delivered_ns = frame.arrived_ns = max(arrived_ns, flow.delivered_ns)
            self._done.append(frame)
        flow.held.clear()

    # --- retransmission timers ---

    def _expiring(self) -> tuple[int, Flow] | None:
        """The retransmission timer that fires first."""
        first: tuple[int, Flow] | None = None
        for flow in self._lossy:
            when_ns = flow.stream.timeout_ns if flow.stream is not None else 0
            if when_ns and (first is None or when_ns < first[0]):
                first = (when_ns, flow)
        return first

    def _expire(self, flow: Flow) -> None:
        assert flow.stream is not None
        flow.stream.expire()
        self._deliver(flow)

    def __repr__(self) -> str:
        waiting = ", ".join(f"{flow.name} {flow.waiting_bytes}" for flow in self._active) or "nothing"
        return (
            f"<Wire {self.scheduling.value}, {self.model.queued_bytes(self._now_ns)} bytes queued, {waiting} waiting>"
        )
