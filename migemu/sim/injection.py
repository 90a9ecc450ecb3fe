"""What hazards do to an emulated world: they stand between the link and the services, and both know nothing of them.

What arrives passes in order, each connection's stretch of the way (`_Path`) by itself: some of it later, some not at
all, some changed (`sim.mangle`). A connection that is cut ends at the receiver, who closes; the sender learns it a trip
later. A hazard of a time or a stage that finds no connection strikes with the next message that way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextvars import Context
from typing import Final, NamedTuple, Protocol

from migemu.errors import PeerError
from migemu.link.scheduler import QueuedFrame
from migemu.sim.coverage import Coverage, Kind, Said, Seen, part_of
from migemu.sim.emulated_channel import EmulatedChannel, Parcel, Read
from migemu.sim.hazards import CRASHES, ON_A_MESSAGE, ON_NONE, AtTime, Fault, Hazard, OnMessage, OnStage, Way
from migemu.sim.loop import VirtualLoop
from migemu.sim.mangle import corrupted, size_of, torn, up_to
from migemu.trace.events import Event, Happening
from migemu.units import SECOND
from migemu.wire.messages import ChannelRole, Hello, Message
from migemu.wire.states import Legality, Role


class Killer(Protocol):
    """What hazards need of a world: somebody who can kill its nodes."""

    def crash(self, node: str, down_ns: int) -> None:
        """Kill a node ("source", "destination"), and start it again after `down_ns`."""


class _End(NamedTuple):
    """The end of the stream."""

    mid_frame: bool


#: What comes instead of a message: it, another one, what the decoder refuses, nothing more.
Arrival = Parcel | PeerError | _End

_FAIL: Final = Hazard(Fault.FAIL_RECOVERY, amount=1)


class _Path:
    """The last stretch to one end of a connection."""

    def __init__(self, channel: EmulatedChannel) -> None:
        self.channel = channel
        self.way: Way | None = None
        self.messages = 0
        #: Nothing arrives any more.
        self.dead = False
        self.holding = False
        self.rate_bps = 0
        #: Nothing arrives before that; how much is on its way by then; what is held, in order.
        self.free_ns = 0
        self.delayed = 0
        self.held: deque[tuple[Read, QueuedFrame]] = deque()
        #: What a torn frame becomes when the bytes are there that it lacks.
        self.torn: Parcel | PeerError | None = None
        self.lacking_bytes = 0
        #: Of a message that is lost the other parts are too.
        self.losing = False


class Injection:
    """The hazards of one world. An instance is a `link.emulated_channel.Tamper`."""

    def __init__(self, loop: VirtualLoop, hazards: Sequence[Hazard], killer: Killer) -> None:
        """Times of hazards count from now on."""
        self.coverage = Coverage()
        #: Those that have struck, in that order.
        self.struck: list[Hazard] = []
        self._loop = loop
        self._killer = killer
        self._context = Context()  # the network's, which no processor holds up
        self._waiting = [each for each in hazards if each.fault is not Fault.FAIL_RECOVERY]
        self._failures = sum(each.amount for each in hazards if each.fault is Fault.FAIL_RECOVERY)
        self._armed: list[Hazard] = []  # due, but for the next message that way
        self._paths: dict[EmulatedChannel, _Path] = {}
        self._counts: dict[tuple[Way, type[Message] | None], int] = {}
        self._stages: dict[tuple[str, str], int] = {}
        self._legality = Legality()
        #: Whether nothing comes any more, for good.
        self.is_dark = False
        self._migrations = 0  # main connections that have said Hello
        for hazard in hazards:
            if isinstance(hazard.when, AtTime):
                loop.call_at_ns(loop.now_ns + hazard.when.ns, self._comes_due, hazard, context=self._context)

    # --- when ---

    def emit(self, event: Event) -> None:
        """ports.Tracer: let the hazards of a stage strike when a node enters it."""
        if event.event is not Happening.STATE:
            return
        node, stage = event.node, event.detail or ""
        nth = self._stages[node, stage] = self._stages.get((node, stage), 0) + 1
        for hazard in [each for each in self._waiting if each.when == OnStage(node, stage, nth)]:
            self._loop.call_soon(self._comes_due, hazard, context=self._context)

    def heal(self) -> None:
        """Nothing goes wrong any more: what is held comes, what is slow is not. What is dead, or dark, stays so."""
        self._waiting, self._armed, self._failures = [], [], 0
        for path in list(self._paths.values()):
            path.rate_bps = 0
            self._release(path)

    def _comes_due(self, hazard: Hazard) -> None:
        """Its time, or stage, has come."""
        if hazard not in self._waiting:
            return  # healed meanwhile
        live = [path for path in self._paths.values() if path.way == hazard.way and not path.dead]
        live = [path for path in live if not path.channel.closing]
        if hazard.fault in (*ON_NONE, Fault.RELEASE) or (live and hazard.fault not in ON_A_MESSAGE):
            self._notes(hazard)
            self._acts(hazard, live[-1] if live else None)
        else:
            self._waiting.remove(hazard)
            self._armed.append(hazard)

    def _due(self, way: Way, message: Message) -> list[Hazard]:
        """What strikes as this message arrives."""
        nths: list[OnMessage] = []
        for kind in (None, type(message)):
            nth = self._counts[way, kind] = self._counts.get((way, kind), 0) + 1
            nths.append(OnMessage(kind, nth))
        due = [each for each in self._armed if each.way == way]
        self._armed = [each for each in self._armed if each.way != way]
        return due + [each for each in self._waiting if each.way == way and each.when in nths]

    def _notes(self, hazard: Hazard) -> None:
        if hazard in self._waiting:
            self._waiting.remove(hazard)
        self.struck.append(hazard)

    # --- what arrives ---

    def __call__(self, channel: EmulatedChannel, read: Read, frame: QueuedFrame) -> None:
        """A frame has come out of the link; what becomes of it."""
        path = self._paths.get(channel)
        if path is None:
            path = self._paths[channel] = _Path(channel)
        parcel = frame.token if isinstance(frame.token, Parcel) else None
        if path.dead or self.is_dark:
            return
        if path.losing and parcel is not None and parcel.begin > 0:
            self._pass(path, _unseen, frame)
            return
        path.losing = False
        if path.torn is not None:
            self._mend(path, path.torn, parcel, frame)
        elif parcel is None or parcel.begin > 0 or channel.closing:
            self._pass(path, read, frame)
        else:
            self._message(path, parcel, frame)

    def _message(self, path: _Path, parcel: Parcel, frame: QueuedFrame) -> None:
        """A message arrives: count it, and let strike what is due."""
        path.messages += 1
        way = self._way(path, parcel.message)
        due = self._due(way, parcel.message)
        if self._failures and path.messages == 2 and way == _TO_RECOVER and self._migrations > 1:
            self._failures -= 1
            due.append(_FAIL)
        arrivals: list[Arrival] = [parcel]
        said = self._said(way, parcel)
        for hazard in due:
            self._notes(hazard)
            part = part_of(hazard.fault, min(hazard.amount, size_of(parcel) - 1), parcel.header_bytes)
            self.coverage.hit(said, Kind(hazard.fault, part))
            arrivals = self._strikes(hazard, path, parcel, arrivals)
        for each in arrivals:
            self._arrives(path, each, frame)
        if path.losing:
            self._pass(path, _unseen, frame)

    def _strikes(self, hazard: Hazard, path: _Path, parcel: Parcel, arrivals: list[Arrival]) -> list[Arrival]:
        """What arrives instead of `arrivals`."""
        fault, byte = hazard.fault, hazard.amount
        if not arrivals or path.dead or self.is_dark:
            return []  # of what another hazard has eaten nothing is left
        if fault is Fault.FAIL_RECOVERY:
            return [_End(mid_frame=False)]
        if fault is Fault.CUT:
            whole = up_to(parcel, byte)
            return [*([] if whole is None else [whole]), _End(mid_frame=0 < byte < size_of(parcel))]
        if fault is Fault.TRUNCATE:
            path.torn, path.lacking_bytes = torn(parcel, byte), size_of(parcel) - byte
            return []
        if fault is Fault.LOSE:
            path.losing = True
            return []
        if fault is Fault.DUPLICATE:
            return arrivals * 2
        if fault is Fault.CORRUPT:
            return [corrupted(parcel, byte)]
        self._acts(hazard, path)
        return [] if path.dead or self.is_dark else arrivals

    def _acts(self, hazard: Hazard, path: _Path | None) -> None:
        """A fault that is about a connection or a node."""
        fault = hazard.fault
        if fault in CRASHES:
            self._killer.crash(CRASHES[fault], hazard.amount)
        elif fault is Fault.DARK:
            self.is_dark = True
        elif fault is Fault.RELEASE:
            for each in [each for each in self._paths.values() if each.way == hazard.way]:
                self._release(each)
        elif path is None:
            return
        elif fault is Fault.CUT:
            self._end(path, mid_frame=hazard.amount > 0)
        elif fault is Fault.DELAY:
            path.free_ns = max(path.free_ns, self._loop.now_ns) + hazard.amount
        elif fault is Fault.SLOW:
            path.rate_bps = hazard.amount
        elif fault is Fault.HOLD:
            path.holding = True
        elif fault is Fault.HALF_OPEN:
            path.dead = True

    def _mend(self, path: _Path, item: Parcel | PeerError, parcel: Parcel | None, frame: QueuedFrame) -> None:
        """Bytes come for those that a torn frame lacks. Behind them there is no header where one has to be."""
        if parcel is None:
            self._end(path, mid_frame=True)
            return
        path.lacking_bytes -= frame.size
        if path.lacking_bytes <= 0:
            path.torn = None
            self._arrives(path, item, frame)
            self._arrives(path, PeerError("a header does not begin with the tag of a known message"), frame)
            path.dead = True

    def _arrives(self, path: _Path, arrival: Arrival, frame: QueuedFrame) -> None:
        channel = path.channel
        if isinstance(arrival, _End):
            self._end(path, arrival.mid_frame)
        elif isinstance(arrival, PeerError):
            error = arrival
            self._pass(path, lambda _: channel.refuse(error), frame)
        else:
            self._hears(path, arrival)
            self._pass(path, arrival.read, frame)

    def _end(self, path: _Path, mid_frame: bool) -> None:
        """The stream ends here."""
        channel = path.channel
        self._pass(path, lambda _: channel.came_end(mid_frame), QueuedFrame("", 0, None, self._loop.now_ns, 0))
        path.dead = True

    # --- in order, and in time ---

    def _pass(self, path: _Path, read: Read, frame: QueuedFrame) -> None:
        """Hand over, unless it is held, or late."""
        loop = self._loop
        if path.rate_bps:
            path.free_ns = max(path.free_ns, loop.now_ns) + frame.size * 8 * SECOND // path.rate_bps
        if path.delayed or path.free_ns > loop.now_ns:
            path.delayed += 1
            loop.call_at_ns(path.free_ns, self._late, path, read, frame, context=self._context)
        else:
            self._hand_over(path, read, frame)

    def _late(self, path: _Path, read: Read, frame: QueuedFrame) -> None:
        path.delayed -= 1
        self._hand_over(path, read, frame)

    def _hand_over(self, path: _Path, read: Read, frame: QueuedFrame) -> None:
        if self.is_dark:
            return
        if path.holding:
            path.held.append((read, frame))
        else:
            path.channel.deliver(read, frame)

    def _release(self, path: _Path) -> None:
        path.holding = False
        while path.held and not self.is_dark:
            path.channel.deliver(*path.held.popleft())

    # --- who says what in which state ---

    def _way(self, path: _Path, message: Message) -> Way:
        if path.way is None:
            role = path.channel.role or path.channel.far.role or ChannelRole.MAIN
            path.way = Way(message.channel if isinstance(message, Hello) else role, path.channel.node)
            if isinstance(message, Hello):
                if role is ChannelRole.PREEMPT:
                    self._legality.preempt_lost()
                elif self._migrations:
                    self._legality.lost()
                self._migrations += role is ChannelRole.MAIN
        return path.way

    def _said(self, way: Way, parcel: Parcel) -> Said:
        kind, state = type(parcel.message), self._legality.states[_SPEAKER[way.to]]
        state = self._legality.preempt if way.channel is ChannelRole.PREEMPT else state
        said = Said(way.channel, _SPEAKER[way.to], state, kind)
        if (key := (said, parcel.end > 0)) not in self.coverage.seen:
            nth = self._counts[way, kind]
            self.coverage.seen[key] = Seen(way, nth, parcel.header_bytes, size_of(parcel))
        return said

    def _hears(self, path: _Path, parcel: Parcel) -> None:
        """It moves the states, unless it is not allowed."""
        way = self._way(path, parcel.message)
        try:
            self._legality.said(_SPEAKER[way.to], parcel.message, way.channel)
        except PeerError:
            pass  # whoever reads it will say so

    def __repr__(self) -> str:
        return f"<Injection {len(self.struck)} hazards have struck, {len(self._waiting)} are to come>"


def _unseen(_frame: QueuedFrame) -> None:
    """Bytes that the service never sees; the kernel's buffer is free of them all the same."""


_SPEAKER: Final = {"destination": Role.SOURCE, "source": Role.DESTINATION}
_TO_RECOVER: Final = Way(ChannelRole.MAIN, "destination")
