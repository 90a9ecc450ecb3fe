"""The source's shell: stages, channels, and what to do when they are lost. What to send next the sender decides.

    connect  Advise ---------> Ready      the destination has the memory
             Listen ---------->           it catches faults
             DeviceState, Run -> Running  the guest stands still in between: the downtime
             Page, Zero ------>           background pieces as long as there is room, urgent ones at once
             <-------- Request
             End, Digests ----> Complete  every byte is compared
             Agreed ---------->           the verdict was heard; then both sides close

Before Run is said a failure is the end of the attempt: the guest runs on here. From then on nobody but the destination
may run it, so a lost connection is a pause:

    paused   Hello, Recover --> ReceivedBitmap   what has arrived (or Ready: Run was not heard, and is said again)
    recover  Resume ----------> Resumed          what has not is sent again; then as above, End and Digests included

The preempt channel may be lost alone: all goes on over the main channel, Recover asks what was lost, and a new one is
made. Downtime is measured here, from before the first byte of device state until `Running` has come back; it includes
one trip of the return path, as this side cannot know the other's clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, Protocol

from migemu.address import Address
from migemu.errors import (
    BrokenError,
    GaveUpError,
    InputError,
    MigemuError,
    PeerError,
    StoppedError,
    UnreadableError,
    VerificationError,
    VersionError,
    because,
    one_line,
)  # fmt: skip
from migemu.mm.pages import PageBitmap
from migemu.node.outcome import Whereabouts
from migemu.node.owned_tasks import OwnedTasks
from migemu.node.patience import Backoff, Patience
from migemu.policy.push_order import push_orders
from migemu.ports import Channel, Clock, Network, SourceMemory, Tracer
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import MIB, MS
from migemu.wire.bitmap import BitmapReader
from migemu.wire.digest import MemoryDigest
from migemu.wire.header import DIGESTED_PAGES_MAX, TEXT_BYTES_MAX
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    MAIN_CHANNEL,
    PREEMPT_CHANNEL,
    Advise,
    Agreed,
    ChannelId,
    Complete,
    DeviceState,
    Digests,
    End,
    Hello,
    Listen,
    Message,
    Ready,
    Request,
    Resume,
    Resumed,
    Running,
)  # fmt: skip
from migemu.wire.seal import seal_of
from migemu.wire.states import Stage
from source_node.conversation import Conversation
from source_node.core.sender import Sender
from source_node.preempt import PreemptChannel
from source_node.pusher import NODE, Pusher
from source_node.source_outcome import Advice, SourceOutcome, SourceStatus, explained, guest_is, image_changed

_CHUNK_BYTES = 1 * MIB
#: As `migemu.transport.tcp` waits where nobody answers.
_RETRY_NS = 100 * MS
_DIGEST_PAGES = 512
PAUSED = "an operator has paused it"
_ADVICE: Final = Advice()


def _for_the_record(scenario: Scenario) -> str:
    """The scenario as the destination's result shows it, without this side's [security]; nothing, if it is too long."""
    text = json.dumps({name: of for name, of in scenario.resolved().items() if name != "security"}, ensure_ascii=False)
    return text if len(text.encode(errors="replace")) <= TEXT_BYTES_MAX else "{}"


class SourceJournal(Protocol):
    """Where a source writes down what its successor has to know if it is killed. What it raises ends the migration."""

    def switch(self) -> None:
        """The guest stops here next, and may run at the destination from then on: durable on return."""

    def learned(self, *, ran: bool = False, downtime_ns: int = 0, all_sent: bool = False) -> None:
        """Something is known now: Run was heard, how long the downtime was, everything was sent. Defaults: not yet."""


class NoJournal:
    """SourceJournal of a source that has no successor."""

    def switch(self) -> None:
        """Write nothing: after SIGKILL nobody goes on with this migration."""

    def learned(self, *, ran: bool = False, downtime_ns: int = 0, all_sent: bool = False) -> None:
        """Write nothing: after SIGKILL nobody goes on with this migration."""


_NO_JOURNAL: Final = NoJournal()


class Source:
    """One outgoing migration: `run` it, or `recover` one that was begun by a source that is gone."""

    def __init__(
        self, scenario: Scenario, network: Network, clock: Clock, memory: SourceMemory, migration: str,
        tracer: Tracer | None = None, *, journal: SourceJournal = _NO_JOURNAL, advice: Advice = _ADVICE,
    ) -> None:  # fmt: skip
        """`migration` is its name: 32 hexadecimal digits, unlike any other. `advice` is what errors end with."""
        self.stage = Stage.SETUP
        self._scenario = scenario
        self._clock = clock
        self._memory = memory
        self._migration = migration
        self._tracer = tracer
        self._journal, self._advice = journal, advice
        self._geometry = memory.geometry
        self._pages = memory.memory_bytes // self._geometry.page_bytes
        seed = scenario.scenario.seed
        run_pages = max(1, scenario.push.run // self._geometry.page_bytes)
        self._sender = Sender(
            self._geometry, self._pages,
            push_orders.create(scenario.push.order, self._geometry, self._pages, Random(f"{seed} push")),
            piece=scenario.push.piece,
            run_pages_max=min(run_pages, DIGESTED_PAGES_MAX) if scenario.integrity.digests else run_pages,
            preempt=scenario.pull.preempt, resend=scenario.pull.resend,
        )  # fmt: skip
        limits = Limits(scenario.limits.frame_bytes_max, geometry=self._geometry, memory_pages=self._pages)
        self._talk = Conversation(self, network, clock, scenario.net, limits)
        self._pusher = Pusher(self, scenario, self._sender, memory, clock, tracer, self._talk)
        self._patience = Patience(scenario.recovery)
        self._backoff = Backoff(scenario.recovery, Random(f"{seed} backoff"))
        self._work: asyncio.Task[Complete] | None = None
        self._tasks = OwnedTasks(self)  # beside the session: they end with it
        self._preempt = PreemptChannel(self, scenario, clock, self._talk, self._sender, self._pusher, migration)
        self._error: Exception | None = None
        self._changed: str | None = None  # how the memory has, though it must not
        self._loss: MigemuError = BrokenError("the source was started again")
        self._interrupted, self._seals = False, scenario.integrity.digests
        self._sent_known = True
        self._stopped_ns: int | None = None
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self._downtime_ns = self._known_pages = self._began_ns = 0
        self._all_sent = self._is_known_to_run = False
        self._verdict: Complete | None = None
        self._address: Address | None = None

    @property
    def whereabouts(self) -> Whereabouts:
        """Where the guest is, as far as is known here."""
        talk, verdict = self._talk, self._verdict
        return Whereabouts.of_source(
            said=talk.doubtful or talk.run_heard, heard=talk.run_heard, all_sent=self._all_sent,
            verified=verdict.verified if verdict is not None else None,
        )  # fmt: skip

    @property
    def guest_is(self) -> str:
        """The same in a sentence, with what to do, for an end that is not the migration's own."""
        return guest_is(self.whereabouts, self._missing, self._pages, self._advice)

    def status(self) -> SourceStatus:
        """How far it is now."""
        patience = self._patience
        loss = one_line(self._loss) if patience.count or patience.paused else ""
        sent = self._sender.sent.set_pages
        return SourceStatus(self.stage, sent, patience.count, loss, self.whereabouts, patience.held)

    async def run(self, address: Address) -> SourceOutcome:
        """Migrate to the destination at `address`. Any MigemuError; VerificationError when memory differs."""
        self._address = address
        return await self._see_through(self._migrate)

    async def recover(
        self, address: Address, downtime_ns: int, ran: bool = False, all_sent: bool = False
    ) -> SourceOutcome:
        """Go on with a migration whose source is gone after the switch: with what that had `learned` (SourceJournal).

        `downtime_ns`: 0 if it was not known then. Raises as `run` does.
        """
        self._address = address
        ran = ran or downtime_ns > 0
        self._talk.resumed(ran)
        self._downtime_ns, self._all_sent, self._is_known_to_run = downtime_ns, all_sent, ran
        self._sent_known = False
        self._emit(Happening.MEMORY, count=self._pages, detail=self._geometry.name)
        self._patience.lost(self._clock.now_ns())
        return await self._see_through(self._recover)

    async def _see_through(self, session: Callable[[], Coroutine[Any, Any, Complete]]) -> SourceOutcome:
        """One session after the other until there is a verdict, or an error that no other session can mend."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._interrupted = False
                self._work = loop.create_task(session())
                try:
                    complete = await self._work
                    break
                except (MigemuError, asyncio.CancelledError):
                    current = asyncio.current_task()
                    if not self._interrupted or self._error or (current is not None and current.cancelling()):
                        raise
                await self._tasks.end()
                session = self._recover if self._talk.run_said else self._knock_again
        except (MigemuError, asyncio.CancelledError) as error:
            self._give_up(self._error or error)
            raise self._explained(self._error or error, self._missing) from None
        finally:
            self._talk.end()
            await self._tasks.end()
            await self._talk.channels.close()
        self._verdict = complete if self._changed is None else complete._replace(verified=False)
        if self._changed is not None:
            raise image_changed(self._changed, complete.reason)
        if not complete.verified:
            differs = VerificationError(f"the destination does not hold the source's memory: {complete.reason}")
            raise self._explained(differs, 0)
        return SourceOutcome(
            True, complete.digest, self._downtime_ns, self._talk.channels.sent_bytes, self._sender.statistics(),
            self._patience.count,
        )  # fmt: skip

    def _explained(self, error: BaseException, missing: int) -> BaseException:
        """The error, with where the guest is; `missing` base pages are not known to have arrived."""
        return explained(error, self.whereabouts, missing, self._pages, self._advice)

    @property
    def _destination(self) -> Address:
        assert self._address is not None, "run and recover tell where it is"
        return self._address

    # --- what an operator orders ---

    def pause(self) -> str:
        """Break the connections on purpose, and make no other until `resume`; what stands still. InputError."""
        self._check_recoverable()
        if self._patience.held:
            raise InputError("it is paused already; migemu resume ends that")
        self._may_connect.clear()
        self._patience.held = True
        self._begin_again(BrokenError(PAUSED))
        return (
            "paused: nothing is sent, and at the destination those vCPUs wait that touch what has not come "
            f"({self._progress}). Until migemu resume no time runs out here; the destination waits for its own "
            "recovery.timeout, unless it is paused too"
        )

    def resume(self) -> str:
        """End an operator's pause: the destination is tried again, at once. InputError."""
        if not self._patience.held:
            raise InputError(f"it is not paused by an operator (stage {self.stage.value}); there is nothing to resume")
        self._patience.begin_again(self._clock.now_ns())
        self._backoff.at_once()
        self._may_connect.set()
        return f"resumed: {self._destination} is tried"

    def recover_at(self, address: Address) -> str:
        """Look for the destination at another address from now on, at once. InputError when it is not paused."""
        self._check_recoverable()
        if self.stage not in (Stage.PAUSED, Stage.RECOVER):
            raise InputError(f"it is not paused (stage {self.stage.value}): it is connected to {self._destination}")
        self._address = address
        self._patience.begin_again(self._clock.now_ns())
        self._backoff.at_once()
        self._may_connect.set()
        self._begin_again(BrokenError(f"an operator has said that the destination is at {address}"))
        return f"{address} is tried from now on"

    def cancel(self, sure: bool) -> str:
        """End the migration. InputError when that costs something, and who asks is not `sure`."""
        if self._talk.over:
            raise InputError("it is over already; nothing can be cancelled")
        if self.whereabouts is Whereabouts.SOURCE:
            self._stop_for_good()
            return "cancelled: the guest runs on here, and what has arrived at the destination is dropped"
        lost = (
            "the guest is at the destination, and what has not come there comes from nowhere else: "
            f"{self._progress}; the destination is told to give up, and the guest is lost if it keeps no checkpoint"
        )
        if not sure:
            raise InputError(f"{lost}. To do it nevertheless, add --yes; migemu pause costs nothing")
        self._stop_for_good()
        return f"cancelled: {lost}"

    def _stop_for_good(self) -> None:
        """End it in order: what is queued is still sent, and behind it why."""
        self._error = StoppedError("cancelled by its operator")
        if self._work is not None:
            self._work.cancel()

    def _check_recoverable(self) -> None:
        """InputError when a connection that is lost would be the end of the migration."""
        if self._talk.over:
            raise InputError("it is over already")
        if self.whereabouts is Whereabouts.SOURCE:
            raise InputError(
                f"the guest is here (stage {self.stage.value}); migemu cancel ends the attempt, at no cost"
            )
        if not self._scenario.recovery.timeout:
            raise InputError("with recovery.timeout=0 a lost connection is the end of the migration")

    def _begin_again(self, because: MigemuError) -> None:
        """Break off whatever goes on, and look for the destination again."""
        if self._talk.channels.get(MAIN_CHANNEL) is not None:
            self.lost(MAIN_CHANNEL, because)
            return
        self._loss = because
        self._interrupted = True
        self._stop_work()

    @property
    def _missing(self) -> int:
        """Base pages that are not known to have arrived."""
        return self._pages - self._known_pages

    @property
    def _progress(self) -> str:
        sent = self._sender.sent.set_pages
        return f"{sent} of {self._pages} base pages were sent, {self._known_pages} are known to have arrived"

    # --- sessions ---

    async def _migrate(self) -> Complete:
        self._began_ns = self._clock.now_ns()
        await self._greet()
        self._emit(Happening.MEMORY, count=self._pages, detail=self._geometry.name)
        return await self._propose()

    async def _knock_again(self) -> Complete:
        await self._clock.sleep_until(self._clock.now_ns() + _RETRY_NS)
        await self._greet()
        return await self._propose()

    async def _greet(self) -> None:
        await self._talk.channels.connect(MAIN_CHANNEL, self._destination)
        self._talk.say(Hello(MAIN_CHANNEL.role, self._migration))

    async def _propose(self) -> Complete:
        scenario, talk = self._scenario, self._talk
        self._enter(Stage.ADVISE)
        talk.say(Advise(
            self._geometry.name, self._memory.memory_bytes, self._memory.image_bytes, scenario.device.state,
            scenario.pull.preempt, _for_the_record(scenario),
        ))  # fmt: skip
        ready = await talk.until(Ready, work_bytes=self._memory.memory_bytes)
        if ready != Ready(self._migration):
            raise PeerError(
                f"the destination answers for another migration, not {self._migration[:8]}; is the network sound?"
            )
        if scenario.pull.preempt:
            await talk.channels.connect(PREEMPT_CHANNEL, self._destination)
            talk.say(Hello(PREEMPT_CHANNEL.role, self._migration), PREEMPT_CHANNEL)
        return await self._switch()

    async def _switch(self) -> Complete:
        """Stop the guest here, start it there."""
        talk, main = self._talk, self._talk.main()
        if not talk.run_said:
            self._journal.switch()
        self._enter(Stage.LISTEN)
        talk.say(Listen())
        if self._stopped_ns is None:
            self._stopped_ns = self._clock.now_ns()  # the guest stands still from here on
        blob = memoryview(bytes(min(_CHUNK_BYTES, self._scenario.device.state)))
        for offset in range(0, self._scenario.device.state, _CHUNK_BYTES):
            chunk = blob[: min(_CHUNK_BYTES, self._scenario.device.state - offset)]
            talk.say(DeviceState(offset), payload=chunk)
            await talk.drain(main)
        talk.say_run()
        return await self._transfer(Running)

    async def _recover(self) -> Complete:
        """Find the destination again, and learn what has arrived there."""
        talk = self._talk
        self._enter(Stage.PAUSED)
        main = await self._reconnect()
        self._enter(Stage.RECOVER)
        talk.say(Hello(MAIN_CHANNEL.role, self._migration, True))
        bitmap = await talk.ask_what_is_there(self._sender.sent if self._sent_known else None)
        self._sent_known = True
        if bitmap is None:
            self._sender.recover(PageBitmap(self._geometry, self._pages))
            self._patience.resumed(self._clock.now_ns())
            return await self._switch()
        self._sender.recover(bitmap.received)
        self.heard_of(bitmap)
        if not self._is_known_to_run:
            self._knows_that_it_runs()
        talk.say(Resume())
        await talk.drain(main)
        return await self._transfer(Resumed)

    async def _reconnect(self) -> Channel:
        """A new main channel. BrokenError when patience is over."""
        clock = self._clock
        while True:
            await self._may_connect.wait()
            if (reason := self._patience.over(clock.now_ns())) is not None:
                blamed = PeerError if isinstance(self._loss, PeerError) else BrokenError
                raise blamed(because(one_line(self._loss), reason))
            await clock.sleep_until(min(clock.now_ns() + self._backoff.next_ns(), self._patience.deadline_ns))
            try:
                return await self._talk.channels.connect(MAIN_CHANNEL, self._destination, once=True)
            except VersionError:
                raise
            except (BrokenError, PeerError, InputError) as error:  # where an operator has sent us, for one
                if self._error is not None:  # it was lost at once, for good; wait_for may have eaten the cancellation
                    raise
                self._loss = error
                if isinstance(error, PeerError):
                    self._patience.lost(clock.now_ns(), error)

    async def _transfer(self, answer: type[Message]) -> Complete:
        """Send all there is to send; the verdict."""
        talk, main = self._talk, self._talk.main()
        self._enter(Stage.RUNNING)
        if self._scenario.pull.preempt and self._scenario.recovery.timeout:
            self.spawn(self._preempt.tend(self._destination))
        push = asyncio.get_running_loop().create_task(self._pusher.push(main))
        try:
            await talk.until(answer)
            now = self._clock.now_ns()
            if not self._downtime_ns and self._stopped_ns is not None:
                self._downtime_ns = now - self._stopped_ns
                self._knows_that_it_runs()
            if answer is Resumed:
                self._patience.resumed(now)
            await push
        finally:
            push.cancel()
        self._enter(Stage.END)
        if not self._all_sent:
            self._all_sent = True
            self._journal.learned(all_sent=True)
        talk.say(End(self._pages, talk.channels.sent_bytes, self._downtime_ns))
        whole = MemoryDigest()
        for first in range(0, self._pages, self._geometry.largest_pages):
            digests = await self._digests(first)
            whole.add(digests)
            if not talk.over:  # the verdict may be there already, after a recovery
                talk.say(Digests(first, seal_of(first, digests) if self._seals else b""), payload=digests)
                await talk.drain(main)
        # Before its verdict it may have to wait itself, for what was lost, and say so.
        complete = await talk.until(Complete, work_bytes=self._memory.memory_bytes, answers=2)
        assert isinstance(complete, Complete)
        if complete.verified and complete.digest != whole.hexdigest():
            theirs = complete.digest[:40]
            await talk.refuse(f"the destination has verified digest {theirs}; the source's own is {whole.hexdigest()}")
        self._changed = self._memory.changed()
        if self._changed is not None:
            talk.disown(self._changed)
        elif complete.verified and talk.channels.get(MAIN_CHANNEL) is main:
            talk.say(Agreed(self._pages, whole.hexdigest(), self._sender.statistics().pages_lost))
        return complete

    def _knows_that_it_runs(self) -> None:
        self._is_known_to_run = True
        self._journal.learned(ran=True, downtime_ns=self._downtime_ns)

    async def _digests(self, first: int) -> bytes:
        """The digests of one hugetlb page, in slices, so that the loop is never held for long."""
        digests = bytearray()
        end = first + self._geometry.largest_pages
        for start in range(first, end, _DIGEST_PAGES):
            digests += self._memory.digests(start, min(_DIGEST_PAGES, end - start))
            await asyncio.sleep(0)
        return bytes(digests)

    # --- what the destination says, and what becomes of the connections ---

    def requested(self, request: Request) -> None:
        """See Speaker: a fault at the destination asks for pieces."""
        if self._tracer is not None:
            pages = request.count * self._geometry.pages(request.level)
            now = self._clock.now_ns()
            self._tracer.emit(Event(now, NODE, Happening.ASKED, request.first, pages, request.level))
        self._sender.receive(request)
        try:
            self._pusher.requested()
        except MigemuError as error:
            if not self._interrupted:
                self.fail(error)

    def gave_up(self, error: GaveUpError) -> None:
        """See Speaker: the destination has given up."""
        self.fail(error)

    def lost(self, channel_id: ChannelId, error: MigemuError | None) -> None:
        """See Speaker: the connection of this name is over."""
        self._emit(Happening.LOST, detail=f"{channel_id}: {error or 'closed by the peer'}")
        recoverable = self._talk.run_said and self._scenario.recovery.timeout > 0
        if channel_id == PREEMPT_CHANNEL and recoverable:
            self._preempt.lost()
            return
        closed = f"the destination closed the {channel_id} connection before the migration was complete"
        broken = error or BrokenError(f"{closed} (stage {self.stage.value})")
        if self._was_nobody(broken):
            self._talk.begin_anew()
            self._interrupted = True
            self._stop_work()
            return
        if not recoverable or isinstance(broken, VersionError):
            self.fail(broken)
            return
        self._talk.paused()
        self._patience.lost(self._clock.now_ns(), broken)
        self._loss = broken
        self._interrupted = True
        self._stop_work()

    def _was_nobody(self, error: MigemuError) -> bool:
        """Whether the connection broke without a byte, as that to a forwarder behind which nobody listens yet.

        It is tried again, as where nobody answers, for `net.connect_timeout`.
        """
        deadline_ns = self._began_ns + self._scenario.net.connect_timeout
        nobody = not self._talk.run_said and not self._talk.channels.heard and isinstance(error, BrokenError)
        return nobody and self._clock.now_ns() + _RETRY_NS < deadline_ns

    def fail(self, error: Exception) -> None:
        """The migration is over, because of `error`; the first one counts."""
        if isinstance(error, UnreadableError):  # the connections are sound, and carry the reason
            self._error = self._error or error
            if self._work is not None:
                self._work.cancel()
            return
        if self._error is None:
            self._error = error
            if not isinstance(error, GaveUpError):
                self._give_up(error)
        self._talk.end()
        self._stop_work()

    def _give_up(self, error: BaseException) -> None:
        """What cannot be read now may be read later: that ends this source, not the migration."""
        is_over = not (isinstance(error, UnreadableError) and self.whereabouts is not Whereabouts.SOURCE)
        self._talk.give_up(one_line(error) or "the source was interrupted", is_over)

    def _stop_work(self) -> None:
        if self._work is not None:
            self._work.cancel()
        self._tasks.cancel()
        self._talk.forget()

    def heard_of(self, bitmap: BitmapReader) -> None:
        """See PreemptOwner: what has arrived at the destination is known."""
        self._known_pages = max(self._known_pages, bitmap.received.set_pages)
        if self._patience.arrived(bitmap.received.set_pages):
            self._backoff.reset()
        self._emit(Happening.RECOVERED, count=bitmap.received.set_pages)

    # --- small things ---

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._emit(Happening.STATE, detail=stage.value)

    def _emit(self, happening: Happening, **fields: Any) -> None:
        if self._tracer is not None:
            self._tracer.emit(Event(self._clock.now_ns(), NODE, happening, **fields))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task beside the session: it ends with that, and where it fails the migration does."""
        self._tasks.spawn(work)

    def task_failed(self, error: Exception) -> None:
        """See TaskOwner. What fails because the session has ended is no failure; a bug always is."""
        if not isinstance(error, MigemuError) or not (self._interrupted or self._talk.over):
            self.fail(error)

    def __repr__(self) -> str:
        return f"<Source {self.stage.value}, {self._sender!r}>"
