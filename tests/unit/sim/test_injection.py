"""What each hazard does to what arrives: two nodes over an emulated link, one talks, and the other one tells."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from migemu.errors import BrokenError, MigemuError, PeerError
from migemu.mm.pages import TINY, Level
from migemu.scenario.net import NetSettings
from migemu.scenario.scenario import LinkSettings
from migemu.sim.cable import Direction
from migemu.sim.contents import Contents, ModelledMemory, ModelledSource
from migemu.sim.coverage import Coverage, Kind, can_be
from migemu.sim.emulated_channel import EmulatedChannel
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.hazards import Fault, parse_all
from migemu.sim.injection import Injection
from migemu.sim.loop import VirtualLoop
from migemu.trace.events import Event, Happening
from migemu.units import MS
from migemu.wire.messages import Advise, Alive, ChannelRole, Hello, Message, Page, Ready, Zero
from migemu.wire.states import Role, Stage
from tests.addresses import PLACE
from tests.conformance.ear import BLANK, PAGE, Ear

MIGRATION = "0" * 32
HELLO = Hello(ChannelRole.MAIN, MIGRATION)
PIECE = Page(4, 2, Level.PTE, False)
CARGO = bytes(range(256)) * (2 * PAGE // 256)
#: What is said: one a millisecond, each there a millisecond later.
TALK: tuple[tuple[Message, bytes | None], ...] = (
    (HELLO, None), (Alive(), None), (PIECE, CARGO), (Zero(8, 4, Level.PTE, False), None), (Alive(), None),
)  # fmt: skip
THERE = "main->destination"


@dataclass
class Conversation:
    """What the listener heard and when, in ms from the first word; how each end learned that it was over."""

    heard: list[tuple[Message, int]] = field(default_factory=list)
    ends: list[MigemuError | None] = field(default_factory=list)
    far_ends: list[MigemuError | None] = field(default_factory=list)
    memory: bytes = b""
    crashes: list[tuple[str, int]] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    struck: list[str] = field(default_factory=list)

    def crash(self, node: str, down_ns: int) -> None:
        """sim.injection.Killer."""
        self.crashes.append((node, down_ns))

    @property
    def messages(self) -> list[Message]:
        return [message for message, _ in self.heard]


def talk(hazards: str, heal_ms: int = 0, connections: int = 1) -> Conversation:
    """Say TALK over a link of 1 ms, on so many connections, one after the other, while hazards strike."""
    conversation = Conversation()
    loop = VirtualLoop()

    async def main() -> None:
        injection = Injection(loop, parse_all(hazards), conversation)
        if heal_ms:
            loop.call_at_ns(heal_ms * MS, injection.heal)
        ways = (
            Direction(loop, LinkSettings(delay="1ms"), MS, Random(1)),
            Direction(loop, LinkSettings(delay="1ms"), MS, Random(2)),
        )
        source, destination = EmulatedNetwork.pair(loop, NetSettings(), *ways, tamper=injection)
        ear, far = Ear(), Ear()

        def received(_: object, message: Message) -> None:
            conversation.heard.append((message, round((loop.now_ns - begin_ns) / MS)))

        def accept(_: EmulatedChannel) -> Ear:
            ear.on_received = received
            return ear

        await destination.listen(PLACE, accept)
        for _ in range(connections):
            channel = await source.connect(PLACE, far)
            begin_ns = loop.now_ns + MS  # when the first word is there
            for message, payload in TALK:
                if not channel.closing:
                    channel.send(message, payload)
                await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        conversation.ends, conversation.far_ends, conversation.memory = ear.ends, far.ends, bytes(ear.memory)
        conversation.coverage, conversation.struck = injection.coverage, [str(each) for each in injection.struck]

    loop.run(main())
    return conversation


ALL = [message for message, _ in TALK]


def test_without_a_hazard_everything_is_heard() -> None:
    assert talk("cut main->destination Page 9 byte 5").heard == [(each, ms) for ms, each in enumerate(ALL)]


@pytest.mark.parametrize(
    ("byte", "messages", "landed", "error"),
    [(0, 2, 0, None), (7, 2, 0, BrokenError), (3000, 2, 1, BrokenError), (100_000, 3, 2, None)],
    ids=["between", "in the header", "in the payload", "behind it"],
)
def test_a_cut_ends_the_stream_where_it_says(
    byte: int, messages: int, landed: int, error: type[MigemuError] | None
) -> None:
    conversation = talk(f"cut {THERE} Page 1 byte {byte}")
    assert conversation.messages == ALL[:messages]
    assert [type(end) for end in conversation.ends] == [error or type(None)]
    assert conversation.far_ends == [None]
    here = conversation.memory[4 * PAGE : 6 * PAGE]
    if landed == 1:  # real bytes land up to the byte
        assert here[:2900] == CARGO[:2900]
        assert here[3000:] == bytes([BLANK]) * (2 * PAGE - 3000)
    else:
        assert here == (CARGO if landed else bytes([BLANK]) * (2 * PAGE))


def test_a_cut_at_a_time_or_a_stage_needs_no_message() -> None:
    conversation = talk("cut main->destination at 4500us byte 0")
    assert (conversation.messages, conversation.ends) == (ALL[:2], [None])
    assert isinstance(talk("cut main->destination at 4500us byte 1").ends[0], BrokenError)


def test_the_sender_of_a_torn_frame_damages_it_and_all_that_follows() -> None:
    conversation = talk(f"truncate {THERE} Page 1 byte 3000")
    assert conversation.messages == [HELLO, Alive()]  # what follows is too little for what lacks
    conversation = talk(f"truncate {THERE} Page 1 byte 8200")
    assert conversation.messages == [HELLO, Alive(), PIECE]
    assert conversation.memory[4 * PAGE : 6 * PAGE] != CARGO
    assert isinstance(conversation.ends[0], PeerError)
    assert isinstance(talk(f"truncate {THERE} Alive 1 byte 5").ends[0], PeerError)


def test_a_torn_frame_that_nothing_follows_ends_with_the_stream() -> None:
    conversation = talk(f"truncate {THERE} Alive 2 byte 5", connections=1)
    assert (conversation.messages, conversation.ends) == (ALL[:4], [])


def test_a_duplicate_is_heard_twice() -> None:
    conversation = talk(f"duplicate {THERE} message 3")
    assert conversation.messages == [HELLO, Alive(), PIECE, PIECE, *ALL[3:]]


def test_a_bit_in_the_header_is_judged_by_the_decoder() -> None:
    outcomes = [talk(f"corrupt {THERE} Zero 1 byte {byte}") for byte in range(6, 12)]
    refused = [conversation for conversation in outcomes if conversation.ends]
    changed = [conversation for conversation in outcomes if not conversation.ends]
    assert all(isinstance(conversation.ends[0], PeerError) for conversation in refused)
    assert refused
    assert changed
    for conversation in changed:
        assert [type(each) for each in conversation.messages] == [type(each) for each in ALL]
        assert conversation.messages != ALL
    assert isinstance(talk(f"corrupt {THERE} Zero 1 byte 2").ends[0], PeerError)


def test_a_byte_of_the_payload_is_another_one() -> None:
    conversation = talk(f"corrupt {THERE} Page 1 byte 5000")
    here = conversation.memory[4 * PAGE : 6 * PAGE]
    assert conversation.messages == ALL
    assert sum(a != b for a, b in zip(here, CARGO, strict=True)) == 1


def test_a_delay_is_that_of_everything_behind_it_too() -> None:
    conversation = talk(f"delay {THERE} Page 1 by 10ms")
    assert conversation.heard == [(HELLO, 0), (Alive(), 1), (PIECE, 12), (ALL[3], 12), (Alive(), 12)]


def test_what_is_slow_takes_its_bytes_at_the_rate() -> None:
    assert talk(f"slow {THERE} Page 1 to 8Mbit").heard[2:] == [(PIECE, 10), (ALL[3], 10), (Alive(), 10)]


def test_what_is_held_comes_when_it_is_released_or_healed() -> None:
    hold = f"hold {THERE} Page 1"
    expected = [(HELLO, 0), (Alive(), 1), (PIECE, 17), (ALL[3], 17), (Alive(), 17)]
    assert talk(f"{hold}; release {THERE} at 20ms").heard == expected
    assert talk(hold, heal_ms=20).heard == expected
    assert talk(hold).messages == ALL[:2]


def test_of_a_half_open_connection_nothing_comes_and_nobody_is_told() -> None:
    conversation = talk(f"half_open {THERE} Page 1", heal_ms=20)
    assert (conversation.messages, conversation.ends, conversation.far_ends) == (ALL[:2], [], [])


def test_a_crash_is_told_with_the_time_that_the_node_is_down() -> None:
    assert talk(f"crash source {THERE} Page 1 for 5ms").crashes == [("source", 5 * MS)]
    assert talk("crash destination at 3ms for 1ms; crash source at 4ms for 2ms").crashes == [
        ("destination", MS), ("source", 2 * MS),
    ]  # fmt: skip


def test_a_hazard_of_a_message_that_comes_due_by_time_hits_the_next_one() -> None:
    assert talk("duplicate main->destination at 5500us").messages == [HELLO, Alive(), PIECE, ALL[3], ALL[3], Alive()]


def test_a_stage_that_is_entered_triggers_too() -> None:
    loop = VirtualLoop()
    conversation = Conversation()

    async def main() -> None:
        hazards = parse_all("crash source when source run 2 for 1ms")
        injection = Injection(loop, hazards, conversation)
        for stage in ("run", "end", "run"):
            assert not conversation.crashes
            for node in ("source", "destination"):
                injection.emit(Event(loop.now_ns, node, Happening.STATE, detail=stage))
            injection.emit(Event(loop.now_ns, "source", Happening.LOST, detail="run"))
            await asyncio.sleep(1)

    loop.run(main())
    assert conversation.crashes == [("source", MS)]


def test_a_healed_world_knows_no_hazards_any_more() -> None:
    assert talk(f"cut {THERE} Zero 1 byte 0; cut {THERE} at 6ms byte 0", heal_ms=5).messages == ALL


def test_recoveries_fail_after_their_hello_and_the_first_connection_does_not() -> None:
    conversation = talk("fail_recovery 1", connections=3)
    assert conversation.messages == [*ALL, HELLO, *ALL]
    assert conversation.struck == ["fail_recovery 1"]


def test_hazards_strike_once_each_and_messages_are_counted_over_all_connections() -> None:
    conversation = talk(f"cut {THERE} Page 2 byte 0; cut {THERE} Page 1 byte 0", connections=3)
    assert conversation.messages == [HELLO, Alive()] * 2 + ALL
    assert conversation.struck == [f"cut {THERE} Page 1 byte 0", f"cut {THERE} Page 2 byte 0"]


def test_the_coverage_tells_the_state_in_which_the_message_was_hit() -> None:
    conversation = talk(f"cut {THERE} message 1 byte 3")
    [((channel, role, state, kind), fault)] = conversation.coverage.counts
    assert (channel, role, state, kind) == (ChannelRole.MAIN, Role.SOURCE, Stage.NONE, Hello)
    assert fault == Kind(Fault.CUT, "header")


def test_all_that_can_be_is_missing_at_first_and_adds_up() -> None:
    coverage, rows = Coverage(), can_be()
    total = sum(map(len, rows.values()))
    assert len(coverage.missing()) == total
    for said, kinds in rows.items():
        for kind in kinds:
            coverage.hit(said, kind)
    both = Coverage()
    both.add(coverage)
    both.add(coverage)
    assert not both.missing()
    assert set(both.counts.values()) == {2}
    assert str(both) == f"{total} of {total} combinations of state, message and fault reached"
    assert both.table().row_count == len(rows)
    assert {kind.fault for kinds in rows.values() for kind in kinds} == set(Fault) - {
        Fault.RELEASE,
        Fault.FAIL_RECOVERY,
        Fault.DARK,
    }
    assert {said.kind for said in rows} >= {Advise, Ready, Page, Alive}


def test_a_damaged_page_differs_in_every_word_and_in_its_digest_until_it_comes_again() -> None:
    source = ModelledSource(TINY, 16 * PAGE, 1, 0.0)
    memory = ModelledMemory(TINY, 16 * PAGE, source.content)
    memory.landing(0, 16).take(Contents(0, 16, PAGE, damaged=range(3, 5)), 0)
    ours, theirs = memory.digests(0, 16, ())[0], source.digests(0, 16)
    different = [page for page in range(16) if ours[page * 8 : page * 8 + 8] != theirs[page * 8 : page * 8 + 8]]
    assert different == [3, 4]
    memory.landing(3, 2).take(Contents(3, 2, PAGE), 0)
    assert memory.digests(0, 16, ())[0] == theirs
