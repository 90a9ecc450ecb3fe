"""The destination's shell: the door, and who comes through it.

A destination serves one migration and is done, or several: each has its memory, its guest and its connections, and ends
by itself; what becomes of one is nothing to the others. A source may come again, as often as connections break; it says
by what name its migration goes. Whoever connects has to say within `net.hello_timeout` what it wants: the main channel
of a migration, or the preempt channel of one that is being served. Everybody else (a stranger, another version, a
source too many) is told why and shown out; the door stays open and the migrations undisturbed.

A source whose guest has surely not left it (`Incoming.never_departed`) is turned away like a stranger when its
migration fails here: it announced more than may be, it left, or there is no memory for it. It is none of the
`migrations` that are to be served, and the destination waits for another one. From then on a failure is the
migration's end.

Whatever a migration or a connection takes of a destination is counted in one place each: `_Place` and `connections`.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from dest_node.incoming import Incoming
from dest_node.setup import DestinationSetup
from dest_node.strangers import Strangers
from dest_node.unheard import Unheard
from migemu.address import Address
from migemu.errors import BrokenError, InputError, MigemuError, PeerError, StoppedError, one_line
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome, Whereabouts
from migemu.ports import Channel, GuestMemory, Landing, Listener, Network
from migemu.units import SECOND, format_size, format_time
from migemu.wire.limits import Limits
from migemu.wire.messages import ChannelRole, Failed, Hello, Message, Page

#: So many migrations that have ended are remembered, for sources that have not heard of it (assumed: enough).
ENDED_MAX: Final = 256

#: Addresses that one destination listens on (assumed: enough, whatever an operator does).
DOORS_MAX: Final = 8


class DestinationObserver(Protocol):
    """Who follows what becomes of a destination's migrations: displays, results, whoever started it."""

    def notice(self, line: str) -> None:
        """A line for whoever reads along: who was turned away, what has changed."""

    def refused(self, error: MigemuError) -> None:
        """A source was turned away whose migration had begun here; `error` says why. The next one may come."""

    async def ended(self, incoming: Incoming, error: BaseException | None) -> None:
        """A migration has ended, because of `error`, or verified. What this raises is the migration's error."""


class NoObserver:
    """DestinationObserver that does nothing."""

    def notice(self, line: str) -> None:
        """Drop the line: nobody reads it."""

    def refused(self, error: MigemuError) -> None:
        """Drop the error: the source has been sent it."""

    async def ended(self, incoming: Incoming, error: BaseException | None) -> None:
        """Do nothing: whoever started the destination asks it for results."""


class _Visitor:
    """ChannelHandler of one accepted connection: nobody until it says Hello, then a channel of a migration."""

    def __init__(self, destination: Destination, channel: Channel) -> None:
        #: Those of its decoder; the memory's size is filled in when it is known whose.
        self.limits = Limits(destination.scenario.limits.frame_bytes_max)
        self.channel = channel
        self.incoming: Incoming | Unheard | None = None
        self._destination = destination
        timeout_s = destination.scenario.net.hello_timeout / SECOND
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._timed_out)

    @property
    def is_here(self) -> bool:
        """Whether its connection stands: neither end has closed it."""
        return not self.channel.closing

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        if self.incoming is None:
            if not isinstance(message, Hello):
                raise PeerError(f"{type(message).__name__} came before Hello")
            self.incoming = self._destination.admit(self, message)
        self.incoming.announced(channel, message)

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        assert self.incoming is not None
        return self.incoming.landing(page, offset)

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        assert self.incoming is not None
        self._timer.cancel()
        self.incoming.received(message, payload)

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        self._timer.cancel()
        if self.incoming is not None:
            self.incoming.lost(channel, error)
        else:
            self._destination.turned_away(channel, error or BrokenError("it closed the connection without a Hello"))

    def _timed_out(self) -> None:
        if self.incoming is None and self.is_here:
            wait = format_time(self._destination.scenario.net.hello_timeout)
            self._destination.turned_away(self.channel, BrokenError(f"it said nothing for {wait} (net.hello_timeout)"))
            self.channel.abort()


class _Place:
    """What one migration takes: a place among those that are served, bytes of memory, a task that sees it through."""

    def __init__(self, destination: Destination, migration: str, limits: Limits) -> None:
        """`limits` are those of its first connection."""
        self.incoming = Incoming(destination.setup, self, limits, migration)
        self.memory_bytes = 0
        self.task: asyncio.Task[None] | None = None
        self._destination = destination
        self._memory: GuestMemory | None = None

    async def provide(self, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        """See MemoryProvider. InputError when there is not so much left for it."""
        taken, most = self._destination.memory_bytes, self._destination.scenario.limits.memory_max
        if taken + memory_bytes > most:
            raise InputError(
                f"the source announces {format_size(memory_bytes)}; limits.memory_max of this destination is "
                f"{format_size(most)}, of which other migrations have {format_size(taken)}"
            )
        self.memory_bytes = memory_bytes
        self._memory = await self._destination.setup.allocate(geometry, memory_bytes)
        return self._memory

    def release(self) -> None:
        """The memory goes back."""
        self.memory_bytes = 0
        if self._memory is not None:
            self._memory.bytes.release()
            self._memory = None


class Destination:
    """Listens, and serves migrations; of a single one it answers with the outcome."""

    def __init__(
        self, network: Network, setup: DestinationSetup, observer: DestinationObserver, *, migrations: int = 1
    ) -> None:  # fmt: skip
        """It is done when `migrations` have ended; 0: never."""
        self.setup = setup
        self.scenario = setup.scenario
        #: The migrations that are served, by name. One that has ended stays only where it was to be the only one.
        self.serving: dict[str, Incoming] = {}
        self._network = network
        self._clock = setup.clock
        self._migrations = migrations
        self._observer = observer
        self._doors: list[Listener] = []
        self._strangers = Strangers(setup.clock, observer)
        self._visitors: list[_Visitor] = []
        self._begun = 0
        self._unheard: dict[str, Unheard] = {}  # of those, the verdicts that were not countersigned
        self._idle_since_ns = setup.clock.now_ns()
        self._waits_for_others = True
        self._endings: dict[str, str] = {}  # how those that are not served any more ended
        self._places: dict[_Place, None] = {}  # of all that have begun and not ended; a set would have no order
        self._worst: BaseException | None = None
        self._news = asyncio.Event()  # one has begun, or ended

    async def listen(self, address: Address) -> Listener:
        """Open the door. BrokenError when the address cannot be used; what `Incoming.restore` raises."""
        returned: _Place | None = None
        restored = self.setup.restored
        try:
            if restored is not None:  # first, or its source would be told that nobody knows of it
                returned = self._make(restored.migration, Limits(self.scenario.limits.frame_bytes_max))
                await returned.incoming.restore(restored)
            self._doors.append(await self._network.listen(address, self._accept))
        except BaseException:
            if returned is not None:
                await returned.incoming.stop()
            raise
        if returned is not None:
            self._begin(returned)
        return self._doors[0]

    async def listen_at(self, address: Address) -> str:
        """One more door, beside those that there are; what became of it. BrokenError, InputError as `listen`."""
        if len(self._doors) >= DOORS_MAX:
            raise InputError(f"it listens on {len(self._doors)} addresses already, and no more than that")
        listener = await self._network.listen(address, self._accept)
        if not self._doors:  # it has ended meanwhile
            await listener.close()
            raise InputError("the destination accepts no connection any more")
        self._doors.append(listener)
        self._observer.notice(f"listens on {listener.address} too")
        held = [name[:8] for name, incoming in self.serving.items() if incoming.is_held]
        still = f"; paused until migemu resume: {', '.join(held)}" if held else ""
        return f"listens on {listener.address} too, until the destination ends{still}"

    def chosen(self, prefix: str) -> Incoming:
        """The migration whose name begins so; of a single one the name may be left out. InputError."""
        going_on = {name: each for name, each in self.serving.items() if not each.finished.done()}
        found = [each for name, each in going_on.items() if name.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if not going_on:
            raise InputError("no migration is going on here")
        names = ", ".join(name[:8] for name in going_on)
        what = f"{len(found)} migrations' names begin" if found else "no migration's name begins"
        raise InputError(
            f"{what} with {prefix!r}: say --migration and one of {names}"
            if prefix
            else f"{len(found)} migrations are going on here: say --migration and one of {names}"
        )

    async def serve(self) -> Outcome:
        """Serve the only source that there is, after `listen`.

        Any MigemuError, after which `incoming` tells what arrived: a source that is refused is the end, as none comes
        after it.
        """
        self._waits_for_others = False
        await self.serve_all()
        assert self.incoming is not None
        return self.incoming.outcome()

    async def serve_all(self) -> None:
        """Serve as many migrations as there are to be, after `listen`; the worst of their errors when all have ended.

        BrokenError when no source comes within `net.listen_timeout`, if one is set, while none is served.
        """
        assert self._doors
        try:
            while self._places or self._comes_another:
                await self._until_news()
        except BrokenError as error:
            self._judge(error)
        finally:
            self._strangers.sum_up()
            tasks = [place.task for place in self._places if place.task is not None]
            for task in tasks:
                task.cancel()
            await self._close_doors()
            await asyncio.gather(*tasks, return_exceptions=True)
            for visitor in self._visitors:
                visitor.channel.abort()
        if self._worst is not None:
            raise self._worst

    @property
    def is_for_one(self) -> bool:
        """Whether there is to be but one migration."""
        return self._migrations == 1

    @property
    def incoming(self) -> Incoming | None:
        """The only migration there is to be, once it is there."""
        return next(iter(self.serving.values()), None) if self.is_for_one else None

    @property
    def _comes_another(self) -> bool:
        return not self._migrations or self._begun < self._migrations

    async def _until_news(self) -> None:
        """Until a migration has begun or ended; if none is served, for `net.listen_timeout` at most."""
        self._news.clear()
        timeout_ns = 0 if self._places else self.scenario.net.listen_timeout
        left_ns = max(1, self._idle_since_ns + timeout_ns - self._clock.now_ns())
        try:
            await asyncio.wait_for(self._news.wait(), left_ns / SECOND if timeout_ns else None)
        except TimeoutError:
            other = "other " if self._begun else ""
            away = (
                f"; {count} were turned away, the last of them {self._strangers.last}"
                if (count := self.turned_away_count)
                else ""
            )
            raise BrokenError(
                f"no {other}source came within {format_time(timeout_ns)} (net.listen_timeout){away}"
            ) from None

    # --- who comes in ---

    def _accept(self, channel: Channel) -> _Visitor:
        visitor = _Visitor(self, channel)
        self._visitors = [*(each for each in self._visitors if each.is_here), visitor]
        return visitor

    @property
    def connections(self) -> int:
        """How many there are, whatever became of them: each counts for as long as neither end has closed it."""
        return sum(visitor.is_here for visitor in self._visitors)

    @property
    def memory_bytes(self) -> int:
        """What all migrations together hold."""
        return sum(place.memory_bytes for place in self._places)

    @property
    def turned_away_count(self) -> int:
        """How many came who are no source of ours, or one that was refused."""
        return self._strangers.count

    def admit(self, visitor: _Visitor, hello: Hello) -> Incoming | Unheard:
        """What a Hello gets into. PeerError tells who may not come in, and why."""
        if self.connections > self.scenario.limits.connections_max:
            raise PeerError("too many connections (limits.connections_max)")
        incoming, channel = self.serving.get(hello.migration), visitor.channel
        if hello.again and (unheard := self._unheard.get(hello.migration)) is not None:
            visitor.limits.geometry, visitor.limits.memory_pages = unheard.limits.geometry, unheard.limits.memory_pages
            (unheard.attach if hello.channel is ChannelRole.PREEMPT else unheard.connect)(channel)
            return unheard
        if incoming is not None and incoming.is_held:
            channel.abort()  # without a word, which would count as a refusal: the source tries again
            raise PeerError("an operator has paused this migration")
        if incoming is None:
            self._check_newcomer(channel, hello)
            place = self._make(hello.migration, visitor.limits)
            self._begin(place)
            place.incoming.connect(channel)
            return place.incoming
        if hello.channel is ChannelRole.PREEMPT:
            incoming.attach(channel)  # the memory is known by then
        elif hello.again and incoming.may_recover:
            incoming.connect(channel)
        else:
            raise PeerError("this destination is busy with this migration, which has a source")
        visitor.limits.geometry, visitor.limits.memory_pages = incoming.limits.geometry, incoming.limits.memory_pages
        return incoming

    def _check_newcomer(self, channel: Channel, hello: Hello) -> None:
        """PeerError when the migration of this Hello, which is none that is served, cannot begin."""
        bounds, name = self.scenario.limits, hello.migration[:8]
        if self.incoming is not None:
            stands = "paused" if self.incoming.is_paused else "not over"
            raise PeerError(
                f"this destination is busy with another migration ({self.incoming.migration[:8]}, {stands}); it serves "
                "one"
            )
        over: str | None = None
        if hello.migration in self._endings:
            over = f"migration {name} has ended here: {self._endings[hello.migration]}"
        elif hello.again:
            over = (
                f"this destination knows nothing of migration {name}: it was started anew, without what the one that "
                "did has left. If that kept a checkpoint, start it with that; if its result.json says verified, all is "
                "well; if its guest had run, and nothing was kept, the guest is lost"
            )
        if over is not None:
            channel.send(Failed(over, True))
            raise PeerError(over)
        if hello.channel is ChannelRole.PREEMPT:
            raise PeerError("a preempt channel came without a migration")
        if not self._comes_another:
            raise PeerError(f"this destination serves {self._migrations} migrations (--migrations), and all have come")
        if len(self.serving) >= bounds.migrations_max:
            raise PeerError(
                f"this destination is busy with {len(self.serving)} migrations, as many as it serves at once "
                "(limits.migrations_max)"
            )

    def _make(self, migration: str, limits: Limits) -> _Place:
        """One more to serve; `limits` are those of its first connection."""
        place = _Place(self, migration, limits)
        self._places[place] = None
        self.serving[migration] = place.incoming
        return place

    def _begin(self, place: _Place) -> None:
        self._begun += 1
        place.task = asyncio.get_running_loop().create_task(self._see_through(place))
        self._news.set()

    # --- how it ends ---

    async def _see_through(self, place: _Place) -> None:
        """One migration, to its end."""
        incoming = place.incoming
        error = await self._until_end(incoming)
        if self._is_refusal(place, error):
            self._begun -= 1
            del self.serving[incoming.migration]  # at once: the next one may be at the door
            self._strangers.turned_away(incoming.peer, error)
            if isinstance(error, MigemuError):
                self._observer.refused(error)
        elif len(self._places) == 1 and not self._comes_another:
            await self._close_doors()
        try:
            await incoming.stop()
            await incoming.close()
        except asyncio.CancelledError as caught:
            error = error or caught
        except MigemuError:
            pass  # a connection broke, and nothing was to come of it any more
        is_served = self.serving.get(incoming.migration) is incoming
        if is_served:
            try:
                await self._observer.ended(incoming, error)
            except Exception as caught:
                error = error or caught
            if error is not None:
                self._judge(error)
            self._idle_since_ns = self._clock.now_ns()
        self._forget(place, error)
        self._news.set()

    @staticmethod
    async def _until_end(incoming: Incoming) -> BaseException | None:
        """Why it has ended; None: verified. The source is told what went wrong."""
        try:
            await incoming.finished
        except (Exception, asyncio.CancelledError) as error:
            incoming.tell_end(error)
            return error
        return None

    def _is_refusal(self, place: _Place, error: BaseException | None) -> bool:
        """Whether it was no migration of ours, but a source that has to look elsewhere, and the next one may come.

        A checkpoint that was to begin is that of one migration; its directory is not for another one. Nor is it one
        where an operator has ended it.
        """
        is_checkpointed = self.setup.checkpoint is not None and place.memory_bytes > 0
        failed = isinstance(error, MigemuError) and not isinstance(error, StoppedError)
        return self._waits_for_others and failed and place.incoming.never_departed and not is_checkpointed

    async def _close_doors(self) -> None:
        doors, self._doors = self._doors, []
        for door in doors:
            await door.close()

    def _judge(self, error: BaseException) -> None:
        """Is it the worst there was?"""
        if self._worst is None or _badness(error) > _badness(self._worst):
            self._worst = error

    def _forget(self, place: _Place, error: BaseException | None) -> None:
        """It has ended: all that it took goes back.

        Of the only one there is to be the memory stays, for whoever asks.
        """
        del self._places[place]
        incoming, migration = place.incoming, place.incoming.migration
        is_served = self.serving.get(migration) is incoming
        if is_served and self.is_for_one:
            return
        if is_served:
            if incoming.whereabouts is Whereabouts.VERIFIED and not incoming.countersigned:
                self._unheard[migration] = Unheard(self, incoming, self.scenario, self._clock)
            del self.serving[migration]
            self._endings[migration] = (
                one_line(error) or type(error).__name__ if error is not None else "it was verified"
            )
            if len(self._endings) > ENDED_MAX:
                oldest = next(iter(self._endings))
                del self._endings[oldest]
                self._unheard.pop(oldest, None)
        place.release()

    def countersigned(self, migration: str) -> None:
        """The source of `migration` has confirmed the verdict: it is not announced any more."""
        del self._unheard[migration]
        self._observer.notice(f"migration {migration[:8]}: its source has heard the verdict now")

    def turned_away(self, channel: Channel, error: MigemuError) -> None:
        """Somebody connected who is no source of ours."""
        self._strangers.turned_away(channel.peer, error)

    def __repr__(self) -> str:
        return f"<Destination {list(self.serving.values())}, {self.connections} connections>"


def _badness(error: BaseException) -> int:
    """Errors by their exit codes; what is no MigemuError is a bug of ours, unless somebody has interrupted."""
    if isinstance(error, MigemuError):
        return error.exit_code
    return 0 if isinstance(error, asyncio.CancelledError) else 100
