"""The destination's shell: the door, and who comes through it.

A destination serves one migration and is done, or several: each has its memory, its guest and its connections, and ends
by itself; what becomes of one is nothing to the others. A source may come again, as often as connections break; it says
by what name its migration goes. Whoever connects has to say within `net.hello_timeout` what it wants: the main channel
of a migration, or the preempt channel of one that is being served. Everybody else (a stranger, another version, a
source too many) is told why and shown out; the door stays open and the migrations undisturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from dest_node.incoming import Incoming
from dest_node.left import Keeping, Left
from dest_node.parts import Allocate
from dest_node.receiver import Receiver
from dest_node.unheard import Unheard
from migemu.address import Address
from migemu.errors import BrokenError, InputError, MigemuError, PeerError, StoppedError, one_line
from migemu.guest.recording import Recorded
from migemu.mm.pages import Geometry
from migemu.outcome import Outcome, Whereabouts
from migemu.ports import Channel, Clock, GuestMemory, Landing, Listener, Network, Tracer
from migemu.scenario import Scenario
from migemu.units import SECOND, format_size, format_time
from migemu.wire.codec import Limits
from migemu.wire.messages import ChannelRole, Failed, Hello, Message, Page

#: So many migrations that have ended are remembered, for sources that have not heard of it (assumed: enough).
ENDED_MAX: Final = 256

#: Addresses that one destination listens on (assumed: enough, whatever an operator does).
DOORS_MAX: Final = 8

#: Told of a migration that has ended, and of what: None if all is verified.
Ended = Callable[[Incoming, BaseException | None], Awaitable[None]]


async def _nobody(incoming: Incoming, error: BaseException | None) -> None:
    """Nobody wants to know."""


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
        self._destination.left(self)
        if self.incoming is not None:
            self.incoming.lost(channel, error)
        else:
            self._destination.turned_away(channel, error or BrokenError("it left without saying Hello"))

    def leave(self) -> None:
        """The channel was closed from here."""
        self._timer.cancel()
        self._destination.left(self)

    def _timed_out(self) -> None:
        if self.incoming is None:
            wait = format_time(self._destination.scenario.net.hello_timeout)
            self._destination.left(self)
            self._destination.turned_away(self.channel, BrokenError(f"it said nothing for {wait} (net.hello_timeout)"))
            self.channel.abort()


class Destination:
    """Listens, and serves migrations; of a single one it answers with the outcome."""

    def __init__(
        self, scenario: Scenario, network: Network, clock: Clock, allocate: Allocate, *,
        read_text: Callable[[str], str], notice: Callable[[str], None], tracer: Tracer | None = None,
        make_receiver: Callable[..., Receiver] = Receiver, keeping: Keeping | None = None, left: Left | None = None,
        migrations: int = 1, ended: Ended = _nobody, recorded: Recorded | None = None,
    ) -> None:  # fmt: skip
        """`allocate(geometry, bytes)` provides a guest's memory; `notice` is told, in a line, who was turned away.

        `make_receiver` makes what decides; another one is for those who try it. `keeping` keeps what another
        destination can go on with; `left` is what one has left that this one goes on with; both are of one migration.
        It is done when `migrations` have ended; 0: never. `ended` is told of each; what it raises is that migration's
        error. `read_text` and `recorded` give the workload what it names, in the loop: `recorded` has read it before.
        """
        self.scenario = scenario
        #: The migrations that are served, by name. One that has ended stays only where it was to be the only one.
        self.serving: dict[str, Incoming] = {}
        self.turned_away_count = 0
        self._network = network
        self._clock = clock
        self._allocate = allocate
        self._read_text, self._recorded = read_text, recorded
        self._notice = notice
        self._tracer = tracer
        self._make_receiver = make_receiver
        self._keeping = keeping
        self._left = left
        self._migrations = migrations
        self._ended = ended
        self._doors: list[Listener] = []
        self._visitors: dict[_Visitor, None] = {}  # a set would have no order
        self._begun = 0
        self._unheard: dict[str, Unheard] = {}  # of those, the verdicts that were not countersigned
        self._ends: dict[str, str] = {}  # how those that are not served any more ended
        self._tasks: dict[str, asyncio.Task[None]] = {}  # one that sees each migration through
        self._memory_bytes: dict[str, int] = {}
        self._memories: dict[str, GuestMemory] = {}
        self._worst: BaseException | None = None
        self._news = asyncio.Event()  # one has begun, or ended

    async def listen(self, address: Address) -> Listener:
        """Open the door. BrokenError when the address cannot be used; what comes of coming back (`Incoming`)."""
        returned: Incoming | None = None
        try:
            if self._left is not None:  # first, or its source would be told that nobody knows of it
                returned = self._make(self._left.migration, Limits(self.scenario.limits.frame_bytes_max))
                await returned.come_back(self._left)
            self._doors.append(await self._network.listen(address, self._accept))
        except BaseException:
            if returned is not None:
                await returned.stop()
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
            raise InputError("the destination lets nobody in any more")
        self._doors.append(listener)
        self._notice(f"listens on {listener.address} too")
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
        """Serve the only migration after `listen`. Any MigemuError, after which `incoming` tells what arrived."""
        await self.serve_all()
        assert self.incoming is not None
        return self.incoming.outcome()

    async def serve_all(self) -> None:
        """Serve as many migrations as there are to be, after `listen`; the worst of their errors when all have ended.

        BrokenError when no source comes within `net.listen_timeout`, if one is set, while none is served.
        """
        assert self._doors
        try:
            while self._tasks or self._comes_another:
                await self._until_news()
        except BrokenError as error:
            self._judge(error)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await self._close_doors()
            await asyncio.gather(*tasks, return_exceptions=True)
            for visitor in list(self._visitors):
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
        timeout_ns = 0 if self._tasks else self.scenario.net.listen_timeout
        try:
            await asyncio.wait_for(self._news.wait(), timeout_ns / SECOND if timeout_ns else None)
        except TimeoutError:
            other = "other " if self._begun else ""
            away = f" ({self.turned_away_count} other peers were turned away)" if self.turned_away_count else ""
            raise BrokenError(
                f"no {other}source came within {format_time(timeout_ns)} (net.listen_timeout){away}"
            ) from None

    # --- who comes in ---

    def _accept(self, channel: Channel) -> _Visitor:
        visitor = _Visitor(self, channel)
        self._visitors[visitor] = None
        return visitor

    def admit(self, visitor: _Visitor, hello: Hello) -> Incoming | Unheard:
        """What a Hello gets into. PeerError tells who may not come in, and why."""
        if len(self._visitors) > self.scenario.limits.connections_max:
            raise PeerError("too many connections (limits.connections_max)")
        incoming, channel = self.serving.get(hello.migration), visitor.channel
        if hello.again and (unheard := self._unheard.get(hello.migration)) is not None:
            visitor.limits.geometry, visitor.limits.memory_pages = unheard.limits.geometry, unheard.limits.memory_pages
            (unheard.attach if hello.channel is ChannelRole.PREEMPT else unheard.connect)(channel)
            return unheard
        if incoming is not None and incoming.is_held:
            channel.abort()  # without a word, which would count as a refusal: the source tries again
            visitor.leave()
            raise PeerError("an operator has paused this migration")
        if incoming is None:
            self._check_newcomer(channel, hello)
            incoming = self._make(hello.migration, visitor.limits)
            self._begin(incoming)
            incoming.connect(channel)
            return incoming
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
            raise PeerError("this destination is busy with another migration; it serves one")
        over = ""
        if hello.migration in self._ends:
            over = f"migration {name} has ended here: {self._ends[hello.migration]}"
        elif hello.again:
            over = (
                f"this destination knows nothing of migration {name}: it was started anew, without what the one that "
                "did has left. If that kept a checkpoint, start it with that; if its result.json says verified, all is "
                "well; if its guest had run, and nothing was kept, the guest is lost"
            )
        if over:
            channel.send(Failed(over, True))
            raise PeerError(over)
        if hello.channel is ChannelRole.PREEMPT:
            raise PeerError("a preempt channel came without a migration")
        if not self._comes_another:
            raise PeerError(f"this destination serves {self._migrations} migrations (--migrations), which have come")
        if len(self.serving) >= bounds.migrations_max:
            raise PeerError(
                f"this destination is busy with {len(self.serving)} migrations, as many as it serves at once "
                "(limits.migrations_max)"
            )

    def _make(self, migration: str, limits: Limits) -> Incoming:
        """One more to serve; `limits` are those of its first connection."""

        async def allocate(geometry: Geometry, memory_bytes: int) -> GuestMemory:
            return await self._provide(migration, geometry, memory_bytes)

        incoming = self.serving[migration] = Incoming(
            self.scenario, self._clock, allocate, self._read_text, limits, migration, self._closed,
            self._tracer, self._make_receiver, self._keeping, self._left, self._recorded,
        )  # fmt: skip
        return incoming

    def _begin(self, incoming: Incoming) -> None:
        self._begun += 1
        self._tasks[incoming.migration] = asyncio.get_running_loop().create_task(self._see_through(incoming))
        self._news.set()

    async def _provide(self, migration: str, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        """Memory for one migration. InputError when there is not so much left for it."""
        taken, most = sum(self._memory_bytes.values()), self.scenario.limits.memory_max
        if taken + memory_bytes > most:
            raise InputError(
                f"the source announces {format_size(memory_bytes)}; limits.memory_max of this destination is "
                f"{format_size(most)}, of which other migrations have {format_size(taken)}"
            )
        self._memory_bytes[migration] = memory_bytes
        memory = self._memories[migration] = await self._allocate(geometry, memory_bytes)
        return memory

    # --- how it ends ---

    async def _see_through(self, incoming: Incoming) -> None:
        """One migration, to its end."""
        error: BaseException | None = None
        try:
            await incoming.finished
        except (Exception, asyncio.CancelledError) as caught:
            error = caught
            ordered = isinstance(error, asyncio.CancelledError | StoppedError)
            returns = ordered and self._keeping is not None and not self._keeping.lost
            incoming.tell(one_line(error) or "the destination was interrupted", over=not returns)
        try:
            if len(self._tasks) == 1 and not self._comes_another:
                await self._close_doors()
            await incoming.stop()
            await incoming.close()
        except asyncio.CancelledError as caught:
            error = error or caught
        try:
            await self._ended(incoming, error)
        except Exception as caught:
            error = error or caught
        if error is not None:
            self._judge(error)
        self._forget(incoming, error)
        self._news.set()

    async def _close_doors(self) -> None:
        doors, self._doors = self._doors, []
        for door in doors:
            await door.close()

    def _judge(self, error: BaseException) -> None:
        """Is it the worst there was?"""
        if self._worst is None or _badness(error) > _badness(self._worst):
            self._worst = error

    def _forget(self, incoming: Incoming, error: BaseException | None) -> None:
        """It has ended. The only one there is to be stays for whoever asks; of others the memory goes back at once."""
        migration = incoming.migration
        del self._tasks[migration]
        if self.is_for_one:
            return
        if incoming.whereabouts is Whereabouts.VERIFIED and not incoming.countersigned:
            self._unheard[migration] = Unheard(
                incoming, self.scenario, self._clock, self._closed, lambda: self._signed(migration)
            )
        del self.serving[migration]
        self._memory_bytes.pop(migration, None)
        if (memory := self._memories.pop(migration, None)) is not None:
            memory.release()
        self._ends[migration] = one_line(error) or type(error).__name__ if error is not None else "it was verified"
        if len(self._ends) > ENDED_MAX:
            oldest = next(iter(self._ends))
            del self._ends[oldest]
            self._unheard.pop(oldest, None)

    def _signed(self, migration: str) -> None:
        del self._unheard[migration]
        self._notice(f"migration {migration[:8]}: its source has heard the verdict now")

    def _closed(self, channel: Channel) -> None:
        for visitor in list(self._visitors):
            if visitor.channel is channel:
                visitor.leave()

    def left(self, visitor: _Visitor) -> None:
        """A connection is over."""
        self._visitors.pop(visitor, None)

    def turned_away(self, channel: Channel, error: MigemuError) -> None:
        """Somebody connected who is no source of ours."""
        self.turned_away_count += 1
        self._notice(f"turned away {channel.peer}: {error}")

    def __repr__(self) -> str:
        return f"<Destination {list(self.serving.values())}, {len(self._visitors)} connections>"


def _badness(error: BaseException) -> int:
    """Errors by their exit codes; what is no MigemuError is a bug of ours, unless somebody has interrupted."""
    if isinstance(error, MigemuError):
        return error.exit_code
    return 0 if isinstance(error, asyncio.CancelledError) else 100
