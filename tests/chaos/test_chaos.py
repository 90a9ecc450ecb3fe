"""The harness's own judgement, its way through a stream, its network; and some rounds of real processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from migemu.mm.pages import Level
from migemu.transport.security import psk
from migemu.wire.codec import encode, preamble
from migemu.wire.messages import Advise, ChannelRole, End, Hello, Message, Page
from tests.chaos.drawing import draw
from tests.chaos.frames import Frames, Unit
from tests.chaos.harm import CHANGES, LOSSES, SIGNALS, VISITS, Harm, in_one_line, parse, parse_all
from tests.chaos.judging import Claim, Said, Story, contradictions, ending, is_over, may_be_taken_back, wrong_ends
from tests.chaos.network import Network
from tests.chaos.round import Round, slowness

# --- what is drawn ---


def test_a_plan_is_drawn_again_and_its_harms_are_read_as_they_are_written() -> None:
    for seed in range(300):
        plan = draw(seed)
        assert draw(seed) == plan
        assert parse_all(in_one_line(plan.harms)) == plan.harms
        assert "\n" not in str(plan)


def test_everything_is_drawn() -> None:
    plans = [draw(seed) for seed in range(600)]
    harms = [harm for plan in plans for harm in plan.harms]
    assert {harm.act for harm in harms} == {*CHANGES, *LOSSES, *VISITS, *SIGNALS}
    assert {(harm.act, harm.node) for harm in harms if harm.node} == {
        (act, node) for act in SIGNALS for node in ("source", "destination")
    }
    assert {plan.security for plan in plans} == {"", "psk", "tls", "tls and psk"}
    assert {plan.sources for plan in plans} == {1, 2, 3}
    assert {plan.restarts for plan in plans} == {0, 1, 2, 3}
    assert any(plan.moves for plan in plans)
    assert sum(any(harm.act == "dark" and not harm.for_ms for harm in plan.harms) for plan in plans) > 60


@pytest.mark.parametrize(
    "text",
    ["", "cut", "cut main->source", "flip at 30ms", "kill main->source Run 1", "cut source main->source Run 1",
     "cut main->nobody Run 1", "cut main->source Ruin 1", "hurt main->source Run 1"],
)  # fmt: skip
def test_what_is_no_harm_is_refused(text: str) -> None:
    if text == "cut main->source":
        assert parse(text) == Harm("cut", way="main->source")  # at the first byte
        return
    with pytest.raises(ValueError, match=r"no harm|needs a message"):
        parse(text)


# --- the stream ---

SAID: Sequence[tuple[Message, bytes]] = (
    (Hello(ChannelRole.PREEMPT, "0" * 32), b""),
    (Advise("tiny", 65536, 65536, 0, True, "{}"), b""),
    (Page(0, 2, Level.PTE, False), b"x" * 8192),
    (End(16, 1, 1), b""),
)
STREAM = preamble() + b"".join(bytes(part) for message, payload in SAID for part in encode(message, payload or None))


@pytest.mark.parametrize("step", [1, 3, 17, 4096, 100_000])
@pytest.mark.parametrize("key", [False, True])
def test_a_stream_is_taken_apart_however_it_comes(step: int, key: bool) -> None:
    gate = psk.NAME + bytes(psk.NONCE_BYTES) + bytes(psk.PROOF_BYTES) if key else b""
    frames, units = Frames(), list[Unit]()
    for start in range(0, len(gate + STREAM), step):
        units += frames.take((gate + STREAM)[start : start + step])
    assert [unit.kind for unit in units if unit.kind] == ["Hello", "Advise", "Page", "End"]
    assert b"".join(unit.data for unit in units) == gate + STREAM
    assert frames.channel == "preempt"
    assert not frames.opaque


def test_what_makes_no_sense_is_passed_on_as_it_comes() -> None:
    frames = Frames()
    assert frames.take(b"\x16\x03\x01...") == [Unit("", b"\x16\x03\x01...")]
    assert frames.opaque
    broken = Frames()
    assert b"".join(unit.data for unit in broken.take(preamble() + b"\xff" * 100)) == preamble() + b"\xff" * 100
    assert broken.opaque


def test_what_has_begun_to_come_is_there_in_the_end() -> None:
    frames = Frames()
    assert frames.take(STREAM[:-1])[-1].kind == "Page"
    assert frames.rest() + STREAM[-1:] == b"".join(map(bytes, encode(End(16, 1, 1))))


# --- the network ---


class Ends:
    """Whoever connects to `port` gets through the network to a server that says nothing and remembers what came."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.ended = ""
        self.news = asyncio.Event()
        self.to_nodes: list[Harm] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while data := await reader.read(1 << 16):
                self.came += data
                self.news.set()
            self.ended = "FIN"
        except ConnectionResetError:
            self.ended = "RST"
        self.news.set()

    async def connect(self, network: Network) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            while len(self.came) < size and not self.ended:
                self.news.clear()
                await self.news.wait()
        return bytes(self.came)


@contextlib.asynccontextmanager
async def standing(harms: str) -> AsyncIterator[tuple[Ends, Network]]:
    ends = Ends()
    server = await asyncio.start_server(ends.serve, "127.0.0.1", 0)
    network = Network(server.sockets[0].getsockname()[1], parse_all(harms), ends.to_nodes.append)
    await network.open()
    network.begin()
    try:
        yield ends, network
    finally:
        await network.close()
        await ends.close()
        server.close()


HEAD = len(preamble()) + sum(len(bytes(part)) for part in encode(*SAID[0][:1])) + sum(
    len(bytes(part)) for part in encode(*SAID[1][:1])
)  # fmt: skip
PAGE = sum(len(bytes(part)) for part in encode(*SAID[2]))
WAY = "preempt->destination"


@pytest.mark.parametrize(
    ("harm", "came"),
    [
        (f"flip {WAY} Page 1 byte 100", STREAM[: HEAD + 100] + bytes([STREAM[HEAD + 100] ^ 2]) + STREAM[HEAD + 101 :]),
        (f"drop {WAY} Page 1", STREAM[:HEAD] + STREAM[HEAD + PAGE :]),
        (f"drop {WAY} Page 1; flip {WAY} Page 1 byte 8", STREAM[:HEAD] + STREAM[HEAD + PAGE :]),
        (f"truncate {WAY} Page 1 byte 100", STREAM[: HEAD + 100] + STREAM[HEAD + PAGE :]),
        (f"duplicate {WAY} Page 1", STREAM[: HEAD + PAGE] + STREAM[HEAD:]),
        (f"cut {WAY} Page 1 byte 100", STREAM[: HEAD + 100]),
        (f"stall {WAY} Page 1 byte 100 for 20ms", STREAM),
        (f"dark {WAY} Page 1 byte 100 for 20ms", STREAM),
        (f"kill source {WAY} Page 1 byte 100", STREAM),
        (f"cut {WAY} Page 2", STREAM),
        ("cut main->source Page 1", STREAM),
    ],
)
async def test_what_comes_through(harm: str, came: bytes) -> None:
    async with standing(harm) as (ends, network):
        _, writer = await ends.connect(network)
        writer.write(STREAM)
        writer.write_eof()
        assert await ends.until(len(STREAM) + PAGE + 1) == came
        assert ends.ended == "FIN"
        assert bool(network.struck) == ("Page 2" not in harm and "main" not in harm)
        assert ends.to_nodes == ([parse(harm)] if "kill" in harm else [])


async def test_a_reset_is_heard_on_both_sides() -> None:
    async with standing(f"reset {WAY} Page 1") as (ends, network):
        reader, writer = await ends.connect(network)
        writer.write(STREAM)
        await ends.until(len(STREAM))
        assert ends.ended == "RST"
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_half_open_is_heard_on_one_side() -> None:
    async with standing(f"half_open {WAY} Page 1") as (ends, network):
        reader, writer = await ends.connect(network)
        writer.write(STREAM)
        await ends.until(len(STREAM))
        assert ends.ended == "RST"
        writer.write(STREAM)
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)


async def test_what_is_dark_for_good_is_dark_until_it_is_healed() -> None:
    async with standing(f"dark {WAY} Page 1") as (ends, network):
        _, writer = await ends.connect(network)
        writer.write(STREAM)
        assert await ends.until(HEAD) == STREAM[:HEAD]
        _, late = await ends.connect(network)
        late.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ends.until(HEAD + 1), 0.05)
        assert bytes(ends.came) == STREAM[:HEAD]
        ends.ended = ""
        await network.heal()
        _, again = await ends.connect(network)
        ends.came.clear()
        again.write(STREAM)
        while STREAM not in ends.came:
            await ends.until(len(ends.came) + 1)
            ends.ended = ""


async def test_a_network_that_refuses_is_back_in_its_time() -> None:
    async with standing(f"refuse {WAY} Page 1 for 30ms") as (ends, network):
        _, writer = await ends.connect(network)
        writer.write(STREAM)
        await ends.until(len(STREAM))
        assert ends.ended == "RST"
        with pytest.raises(ConnectionRefusedError):
            await ends.connect(network)
        async with asyncio.timeout(10):
            while True:
                try:
                    await ends.connect(network)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)


async def test_bytes_are_counted_where_messages_cannot_be() -> None:
    async with standing("flip main->destination byte 1003") as (ends, network):
        _, writer = await ends.connect(network)
        writer.write(b"\x16" + bytes(2000))
        writer.write_eof()
        came = await ends.until(4000)
        assert [at for at, byte in enumerate(came) if byte] == [0, 1003]


async def test_strangers_come_past_the_network() -> None:
    async with standing("strangers at 0ms") as (ends, network):
        await ends.connect(network)
        assert b"GET /" in await ends.until(60)
        assert len(ends.writers) == 5  # three of them, and both ends of the one that went through


# --- the judgement ---

AT_SOURCE = Said("source 0", 3, "migemu: it broke. The guest runs on at the source, whose image is unchanged")
DOUBT = Said("source 0", 3, "migemu: it broke. The guest is there: go on with migemu-source --recover runs/a")
KILLED = Said("source 0", -9, "", ("kill",))
UNKNOWN = Said("source 1", 3, "migemu: this destination knows nothing of migration 0: if it had run, the guest is lost")
GONE = Said("destination 0", 3, "migemu: in doubt: it cannot run here any more: there --recover DIR --take-back")
TAKEN_BACK = Said("source 1", 0, "migemu-source: the guest of migration 0 is the source's again")
VERIFIED = Said("source 0", 0, "migemu-source: verified, 1M of memory")
ARRIVED = Said("destination 0", 0, "")
NOT_RUN = Said("destination 0", 3, "migemu: it broke. The guest has not run here: it is at the source")
KEPT = Said("destination 0", 3, "migemu: it broke. The guest is in its checkpoint, to go on from with the same command")
LOST = Said("destination 0", 3, "migemu: it broke. The guest is lost: 4 vCPUs wait for 4 pages")
DEAD = Said("destination 0", -9, "", ("kill",))
DIFFERS = Said("destination 0", 5, "migemu: the first bad piece is base page 3")
WHOLE = {"verified": True, "status": "completed", "digest": "d"}
FLIP = (parse("flip main->destination Page 1 byte 60"),)


def story(sources: Sequence[Said], destinations: Sequence[Said], **what: object) -> Story:
    told = Story(checkpoint=True, digests=False, sources=list(sources), destinations=list(destinations))
    what = {"switched": True, "recorded": True, "digest": "d", "result": WHOLE} | what
    return replace(told, **what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "how"),
    [
        (story([VERIFIED], [ARRIVED]), "verified"),
        (story([DOUBT, VERIFIED], [KEPT, ARRIVED], healed=True), "recovered"),
        (story([KILLED], [ARRIVED]), "unheard"),
        (story([AT_SOURCE], [NOT_RUN], switched=False, result={}), "at the source"),
        (story([KILLED], [], switched=False, recorded=False, result={}), "at the source"),
        (story([DOUBT, UNKNOWN], [DEAD], checkpoint=False, result={}), "lost"),
        (story([DOUBT], [GONE, LOST], checkpoint=False, result={}), "lost"),
        (story([DOUBT, TAKEN_BACK], [GONE], switched=False, result={}), "at the source"),
        (story([DOUBT, UNKNOWN], [ARRIVED]), "unheard"),
        (story([DOUBT], [DIFFERS], struck=FLIP, result={}), "damage found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_how_a_migration_may_end(told: Story, how: str) -> None:
    assert contradictions(told) == []
    assert ending(told)[0] == how
    assert is_over(told) or how == "unheard" or not told.recorded


@pytest.mark.parametrize(
    "told",
    [
        story([DOUBT], [NOT_RUN], result={}),
        story([AT_SOURCE], [KEPT], switched=False),
        story([AT_SOURCE], [NOT_RUN], switched=False, ran=True),
        story([AT_SOURCE], [NOT_RUN]),
        story([DOUBT, TAKEN_BACK], [GONE], switched=False, ran=True),
        story([DOUBT, TAKEN_BACK], [LOST], switched=False),
        story([VERIFIED], [KEPT]),
        story([VERIFIED], [LOST]),
        story([VERIFIED], [ARRIVED, LOST]),
        story([VERIFIED], [ARRIVED], result={}),
        story([VERIFIED], [ARRIVED], digest="another"),
        story([VERIFIED], [ARRIVED], dump_differs=True),
        story([VERIFIED], [ARRIVED], image_changed=True),
        story([DOUBT], [DIFFERS], result={}),
        story([DOUBT], [DIFFERS], result={}, struck=FLIP, digests=True),
        story([replace(DOUBT, code=4)], [KEPT], result={}),
        story([Said("source 0", 2, "migemu: --connect: no")], [DEAD], result={}),
    ],
)
def test_what_cannot_be_true(told: Story) -> None:
    assert contradictions(told)[0].startswith("CONTRADICTORY: ")


def test_claims_meet_while_both_stand() -> None:
    """A destination that goes on from its checkpoint has said nothing wrong before; what is final stands for good."""
    early, late = replace(NOT_RUN, ended_s=1, until_s=2), replace(DOUBT, ended_s=3)
    assert contradictions(story([late], [early], result={})) == []
    assert contradictions(story([replace(late, ended_s=1.5)], [early], result={}))
    assert contradictions(story([replace(AT_SOURCE, ended_s=3)], [replace(LOST, ended_s=1, until_s=2)], switched=False))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Said("source 0", 1, "Traceback (most recent call last):\n  ...\nKeyError: 3"), "TRACEBACK"),
        (Said("source 0", -6, "migemu: paused", ("kill",)), "CRASHED"),
        (Said("source 0", -1, ""), "CRASHED"),
        (Said("source 0", -1, "", ("hup",)), "CRASHED"),
        (Said("source 0", 1, "migemu: a rule is broken"), "CRASHED"),
    ],
)
def test_ends_that_nobody_wants(said: Said, kind: str) -> None:
    assert wrong_ends([said])[0].startswith(kind)
    assert wrong_ends([Said("source 0", -1, "", ("hup early",))]) == [], "it had only just begun"
    assert wrong_ends([KILLED, DEAD, VERIFIED, DOUBT, DIFFERS]) == []


def test_what_the_documented_commands_do_not_mend_is_a_failure() -> None:
    assert ending(story([DOUBT], [KEPT], result={}))[0] == "STUCK"
    assert ending(story([DOUBT, UNKNOWN], [DEAD], result={}))[0] == "STUCK", "it had a checkpoint"


def test_what_is_taken_back_was_said_to_be_gone() -> None:
    assert may_be_taken_back(story([DOUBT], [GONE]))
    assert not may_be_taken_back(story([DOUBT], [GONE], kept=True))
    assert not may_be_taken_back(story([DOUBT], [KEPT]))
    assert not may_be_taken_back(story([DOUBT], [DEAD]))
    assert TAKEN_BACK.claim is not Claim.VERIFIED


def test_interrupted_ends_are_read_with_the_notice_before_them() -> None:
    text = "migemu: the guest had left; as long as it is there, go on with --recover runs/a\nmigemu: interrupted"
    assert Said("source 0", 130, text).claim is Claim.IN_DOUBT
    assert Said("source 0", 3, text).claim is Claim.NOTHING


# --- rounds ---

QUICK = {"recovery.timeout": "1500ms", "net.idle_timeout": "500ms", "net.listen_timeout": "3000ms"}
PLAN = replace(
    draw(1), settings=tuple((dict(draw(1).settings) | QUICK).items()), sources=1, security="", checkpoint=True,
    dump=True, trace=False, restarts=2, pauses_ms=(0, 50), moves=frozenset(),
)  # fmt: skip
ROUNDS = (
    (PLAN, "", "verified"),
    (PLAN, f"reset main->destination Page 20; kill destination main->destination Page 60; half_open {WAY} Page 3", ""),
    (replace(PLAN, security="psk"), "kill source main->source Request 3; stall main->source ReceivedBitmap 1", ""),
    (PLAN, "dark main->destination Page 30", "recovered"),
    (PLAN, "cut main->destination Advise 1 byte 9", "verified"),  # without a byte of an answer it is tried again
    (replace(PLAN, checkpoint=False), "kill destination main->destination Page 20", "lost"),
    (draw(3).with_harms(()), "", "verified"),
)


async def test_some_rounds(tmp_path: Path) -> None:
    """At once: each spends most of its time waiting. Where no ending is named, it depends on who is how fast."""

    async def tried(number: int) -> str:
        plan, harms, wanted = ROUNDS[number]
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = await Round(plan.with_harms(parse_all(harms)), folder, slowness()).run()
        struck = trial.struck.total() == len(parse_all(harms))
        ended = all(each == wanted or (not wanted and each in ("verified", "recovered")) for each in trial.endings)
        return "" if struck and ended and not trial.failures else f"{harms}: {trial}"

    told = await asyncio.gather(*(tried(number) for number in range(len(ROUNDS))))
    assert "".join(told) == ""
