"""A liar against one whole node: the services as they are, in virtual time, and a peer that says anything.

An input: which node is tried and how it is set, then two bytes for each thing that the liar does: what, and which of
its kinds. It may also wait, leave, and come again. However that goes, the node has to come to an end: one of its own
errors in one line, or a verdict, which nobody can make it believe who has not the bytes. What the virtual loop finds
(nobody is left to wake anybody, time without end, an exception that nobody catches) is a finding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from random import Random
from typing import Any, Final

from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu.errors import ClosedError, MigemuError, one_line
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import TINY, Geometry, Level, PieceRun
from migemu.ports import Channel, GuestMemory
from migemu.scenario.scenario import LinkSettings, Scenario, load
from migemu.sim.cable import Direction
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.loop import VirtualLoop
from migemu.sim.virtual_clock import VirtualClock
from migemu.store.image import pattern
from migemu.store.mapped import MappedMemory
from migemu.units import MS, SECOND
from migemu.wire.digest import MemoryDigest, page_digests
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resume,
    Resumed,
    Run,
    Running,
    Zero,
)  # fmt: skip
from migemu.wire.seal import seal_of, sealed
from source_node.service import Source
from tests.addresses import PLACE
from tests.fuzz.tally import Tally
from tests.observers import Noticing
from tests.samples import MIGRATION, PAGE, PAGES

#: Bits of the first byte: the source is tried (else the destination); it digests pieces; there is a preempt channel.
SOURCE, DIGESTS, PREEMPT = 1, 2, 4
_DOINGS_MAX: Final = 200
_TIME_MAX_NS: Final = 600 * SECOND
_HUGEPAGE: Final = TINY.pages(Level.PUD)
Said = tuple[Message, bytes]
#: What the liar does besides speaking: with its kind as what it does it on.
LEAVE, COME, WAIT, TURN = "leave", "come", "wait", "turn"


def _content(kind: int) -> bytes:
    return bytes((kind % 3,)) * PAGE


def _run(kind: int) -> PieceRun:
    """Within the memory or a little beyond it."""
    first = kind % (PAGES + 2)
    return PieceRun(first, 1, Level.PMD) if kind & 64 and first % 4 == 0 else PieceRun(first, 1, Level.PTE)


def _page(kind: int) -> Said:
    run, urgent = _run(kind), bool(kind & 128)
    payload = _content(kind) * run.count * TINY.pages(run.level)
    digests = sealed(run, urgent, page_digests(memoryview(payload), PAGE)) if kind & 32 else b""
    return Page(*run, urgent, digests), payload if kind % 11 else b"x" * len(payload)


def _zero(kind: int) -> Said:
    if kind == 0:
        return Zero(0, PAGES, Level.PTE, False), b""
    run, urgent = _run(kind), bool(kind & 128)
    return Zero(*run, urgent, sealed(run, urgent) if kind & 32 else b""), b""


def _digests(kind: int) -> Said:
    first = kind % 3 * _HUGEPAGE
    payload = page_digests(memoryview(_content(kind // 64) * _HUGEPAGE), PAGE)
    return Digests(first, seal_of(first + kind // 128, payload) if kind & 16 else b""), payload


def _bitmap(kind: int) -> Said:
    first, count = kind % 3 * _HUGEPAGE, (PAGES, _HUGEPAGE, 2 * PAGES, 8)[kind >> 2 & 3]
    bits = zlib.compress(bytes((kind,)) * (count // 8)) if kind & 128 else b""
    return ReceivedBitmap(0 if kind < 32 else first, count, bool(kind & 64)), bits


def _advise(kind: int) -> Said:
    size = (PAGES * PAGE, 1 << 62, 0, PAGE)[kind & 3 if kind < 16 else 0]
    return Advise("tiny", size, size, 5 * (kind == 17), kind == 18, "{" * (kind & 31)), b""


def _verdict(kind: int) -> Said:
    reason = "\x1b[2J no" if kind % 5 in (2, 4) else ""
    return Complete(kind % 5 != 4, ("", "0" * 32, _own_digest())[kind % 3], reason), b""


Words = dict[str, Callable[[int], Said]]
#: What a liar can say to a destination, and to a source.
TO_DESTINATION: Final[Words] = {
    "hello": lambda kind: (Hello(ChannelRole.PREEMPT if kind & 1 else ChannelRole.MAIN, MIGRATION, kind & 2 > 0), b""),
    "advise": _advise,
    "listen": lambda _: (Listen(), b""),
    "device state": lambda kind: (DeviceState(kind // 6 % 3), b"state"[: kind % 6]),
    "run": lambda _: (Run(), b""),
    "page": _page,
    "zero": _zero,
    "end": lambda kind: (End(PAGES + kind // 200, 2**62, 2**63 - 1), b""),
    "digests": _digests,
    "recover": lambda _: (Recover(), b""),
    "resume": lambda _: (Resume(), b""),
    "agreed": lambda kind: (Agreed(PAGES + kind // 200, "0" * 32, 2**62), b""),
    "alive": lambda _: (Alive(), b""),
    "failed": lambda kind: (Failed("no\n\x1b[2Jmore", bool(kind & 1)), b""),
    "what is not its own": lambda kind: list(TO_SOURCE.values())[kind % 6](kind),
}
TO_SOURCE: Final[Words] = {
    "ready": lambda kind: (Ready("0" * 32 if kind % 7 == 6 else MIGRATION), b""),
    "running": lambda _: (Running(), b""),
    "request": lambda kind: (Request(*_run(kind), kind & 128 > 0), b""),
    "bitmap": _bitmap,
    "resumed": lambda _: (Resumed(), b""),
    "complete": _verdict,
    "alive": lambda _: (Alive(), b""),
    "failed": lambda kind: (Failed("no\n\x1b[2Jmore", bool(kind & 1)), b""),
    "what is not its own": lambda kind: list(TO_DESTINATION.values())[kind % 12](kind),
}
DEEDS: Final = (LEAVE, COME, WAIT, TURN)


def script(flags: int, *doings: str | tuple[str, int]) -> bytes:
    """An input: what the liar does, by name, with its kind (0 where none is told)."""
    names = [*(TO_SOURCE if flags & SOURCE else TO_DESTINATION), *DEEDS]
    named = [(each, 0) if isinstance(each, str) else each for each in doings]
    return b"N" + bytes((flags, *(byte for name, kind in named for byte in (names.index(name), kind))))


class Liar:
    """ChannelHandler, and what comes of its connections. The last one is spoken over: the newest, unless it turned."""

    def __init__(self) -> None:
        self.limits = Limits(1 << 20, geometry=TINY, memory_pages=PAGES)
        self.channels: list[Channel] = []

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None: ...

    def landing(self, page: Page, offset: int) -> memoryview:
        return memoryview(bytearray(page.count * TINY.size(page.level) - offset))

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        if isinstance(message, Hello) and message.channel is ChannelRole.PREEMPT and channel in self.channels:
            self.channels.remove(channel)
            self.channels.insert(0, channel)

    def lost(self, channel: Channel, error: MigemuError | None) -> None: ...

    def accept(self, channel: Channel) -> Liar:
        self.channels.append(channel)
        return self

    def leave(self) -> None:
        """Close the last connection."""
        if self.channels:
            self.channels.pop().abort()

    def say(self, said: Said) -> None:
        """Over the last connection that still stands."""
        while self.channels:
            try:
                self.channels[-1].send(said[0], said[1] or None)
            except ClosedError:
                self.channels.pop()
            else:
                break

    def hang_up(self) -> None:
        """Close all of them."""
        while self.channels:
            self.leave()


def judge_node(data: bytes, tally: Tally) -> None:
    """One node against one liar."""
    if len(data) < 3:
        return
    flags, doings = data[0], data[1 : 1 + 2 * _DOINGS_MAX]
    loop = VirtualLoop(start_ns=SECOND, time_max_ns=_TIME_MAX_NS)  # type: ignore[abstract]  # as in sim.world
    outcome = loop.run(_against_source(loop, flags, doings) if flags & SOURCE else _against_destination(loop, doings))
    loop.close()
    tally.outcomes[f"node: {outcome}"] += 1


async def _ended(work: Coroutine[Any, Any, Any], digest: str) -> str:
    """How the node ended; AssertionError when that is none of the ways. A verdict has to be about `digest`, if any."""
    try:
        outcome = await work
    except MigemuError as error:
        line = one_line(error)
        assert line
        assert line.isprintable()
        return type(error).__name__
    assert outcome.verified
    assert not digest or outcome.digest == digest, "it believes a verdict on other bytes"
    return "verified"


def _networks(loop: VirtualLoop, scenario: Scenario) -> tuple[EmulatedNetwork, EmulatedNetwork]:
    forth, back = (Direction(loop, LinkSettings(), 0, Random(0)) for _ in range(2))
    return EmulatedNetwork.pair(loop, scenario.net, forth, back)


async def _against_source(loop: VirtualLoop, flags: int, doings: bytes) -> str:
    scenario, liar, clock = _scenario(flags & (DIGESTS | PREEMPT)), Liar(), VirtualClock(loop)
    here, there = _networks(loop, scenario)
    listener = await there.listen(PLACE, liar.accept)
    source = Source(scenario, here, clock, pattern(TINY, PAGES * PAGE, 1, 0.5), MIGRATION)
    task = loop.create_task(_ended(source.run(PLACE), _own_digest()))
    for doing, kind in _doings(doings, TO_SOURCE):
        await clock.sleep_until(clock.now_ns() + MS // 10)
        if task.done():
            break
        await _do(doing, kind, TO_SOURCE, liar, clock)
    await listener.close()
    liar.hang_up()
    ended = await task
    liar.hang_up()
    return f"source: {ended}"


async def _against_destination(loop: VirtualLoop, doings: bytes) -> str:
    scenario, liar, clock = _scenario(0), Liar(), VirtualClock(loop)
    there, here = _networks(loop, scenario)

    async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
        return GuestMemory.of(MappedMemory(geometry, memory_bytes, bytearray(memory_bytes)))

    vcpus = TaskAccelerator(scenario, clock, NO_FILES)
    setup = DestinationSetup(scenario=scenario, clock=clock, allocate=provide, accelerator=vcpus)
    node = Destination(here, setup, Noticing(_one_line))
    await node.listen(PLACE)
    task = loop.create_task(_ended(node.serve(), ""))
    for doing, kind in _doings(doings, TO_DESTINATION):
        await clock.sleep_until(clock.now_ns() + MS // 10)
        if task.done():
            break
        if doing == COME or (doing in TO_DESTINATION and not liar.channels):
            try:
                liar.accept(await there.connect(PLACE, liar, once=True))
            except MigemuError:
                break  # nobody is there any more
        await _do(doing, kind, TO_DESTINATION, liar, clock)
    liar.hang_up()
    return f"destination: {await task}"


def _doings(doings: bytes, words: Words) -> Iterator[tuple[str, int]]:
    names = [*words, *DEEDS]
    return ((names[what % len(names)], kind) for what, kind in zip(doings[::2], doings[1::2], strict=False))


def _one_line(notice: str) -> None:
    assert "\n" not in notice


async def _do(doing: str, kind: int, words: Words, liar: Liar, clock: VirtualClock) -> None:
    if doing in words:
        liar.say(words[doing](kind))
    elif doing == LEAVE:
        liar.leave()
    elif doing == TURN:
        liar.channels = liar.channels[1:] + liar.channels[:1]
    elif doing == WAIT:
        await clock.sleep_until(clock.now_ns() + MS * kind)


@cache
def _scenario(flags: int) -> Scenario:
    """As impatient as may be; the guest is idle, so that a run takes a millisecond."""
    return load(None, [
        "memory.geometry=tiny", f"memory.size={PAGES * PAGE}", "device.state=10", "guest.vcpus=0",
        f"pull.preempt={'on' if flags & PREEMPT else 'off'}", f"integrity.digests={'on' if flags & DIGESTS else 'off'}",
        "recovery.timeout=500ms", "recovery.backoff_min=1ms", "recovery.backoff_max=10ms", "recovery.errors_max=3",
        "net.idle_timeout=200ms", "net.listen_timeout=1s", "net.hello_timeout=50ms", "net.connect_timeout=50ms",
    ])  # fmt: skip


@cache
def _own_digest() -> str:
    """That of the source which is tried."""
    whole = MemoryDigest()
    whole.add(pattern(TINY, PAGES * PAGE, 1, 0.5).digests(0, PAGES))
    return whole.hexdigest()
