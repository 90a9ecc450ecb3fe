"""The state tables, tried out exhaustively, and the conversations that people have in mind."""

from __future__ import annotations

from itertools import product

import pytest

from migemu.errors import PeerError
from migemu.mm.pages import Level
from migemu.wire.messages import (
    TAGS,
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
from migemu.wire.states import JOINT, LOST, PREEMPT_TRANSITIONS, TRANSITIONS, Legality, Role, Stage, diagram
from tests.samples import MIGRATION, SAMPLES

SOURCE, DESTINATION = Role.SOURCE, Role.DESTINATION
MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT
ONE = {type(message): message for message, _ in SAMPLES} | {Failed: Failed("the disk is full", True)}
MESSAGES = [ONE[kind] for kind in TAGS]

#: Protocol version 2 as a reader would write it down: who may say what where, and where that leads.
#: A change here is another version of the protocol.
SPOKEN = """
source       none     Hello        setup
source       setup    Advise       advise
source       advise   Listen       listen
source       listen   DeviceState  listen
source       listen   Run          run
source       run      Page         run
source       run      Zero         run
source       run      End          end
source       run      Recover      run
source       end      Page         end
source       end      Zero         end
source       end      Recover      end
source       end      Digests      end
source       end      Agreed       end
source       paused   Hello        recover
source       recover  Recover      recover
source       recover  Listen       listen
source       recover  Resume       run
destination  none     Ready        advise
destination  advise   Ready        advise
destination  advise   Running      run
destination  advise   ReceivedBitmap recover
destination  run      Request      run
destination  run      ReceivedBitmap run
destination  run      Complete     end
destination  end      ReceivedBitmap end
destination  paused   ReceivedBitmap recover
destination  recover  ReceivedBitmap recover
destination  recover  Resumed      run
"""
#: What the other side must be in: said in, message, the other's states.
NEEDS = """
advise       Listen          advise
recover      Listen          advise
none         Ready           advise
advise       Ready           recover
advise       Running         run end
run          Complete        end
advise       ReceivedBitmap  recover
paused       ReceivedBitmap  recover
recover      ReceivedBitmap  recover
recover      Resume          recover
recover      Resumed         run end
end          Agreed          end
"""
GONE = """
source       advise   paused
source       listen   paused
source       run      paused
source       end      paused
source       recover  paused
destination  run      paused
destination  end      paused
destination  recover  paused
"""


def hello(channel: ChannelRole = MAIN) -> Hello:
    return Hello(channel, MIGRATION)


def page(urgent: bool = False) -> Page:
    return Page(0, 1, Level.PTE, urgent)


#: A whole migration as it usually goes, by both sides.
CONVERSATION: list[tuple[Role, Message, ChannelRole]] = [
    (SOURCE, hello(), MAIN),
    (SOURCE, ONE[Advise], MAIN),
    (DESTINATION, Ready(MIGRATION), MAIN),
    (SOURCE, hello(PREEMPT), PREEMPT),
    (SOURCE, Listen(), MAIN),
    (SOURCE, DeviceState(0), MAIN),
    (SOURCE, DeviceState(5), MAIN),
    (SOURCE, Run(), MAIN),
    (SOURCE, page(), MAIN),
    (DESTINATION, Running(), MAIN),
    (DESTINATION, Request(9, 1, Level.PTE), MAIN),
    (SOURCE, page(urgent=True), PREEMPT),
    (SOURCE, Zero(1, 1, Level.PTE, False), MAIN),
    (SOURCE, Zero(9, 1, Level.PTE, True), PREEMPT),
    (SOURCE, ONE[End], MAIN),
    (SOURCE, page(urgent=True), PREEMPT),
    (DESTINATION, Request(8, 1, Level.PTE), MAIN),
    (SOURCE, Digests(0), MAIN),
    (SOURCE, Digests(16), MAIN),
    (DESTINATION, ONE[Complete], MAIN),
    (SOURCE, ONE[Agreed], MAIN),
]
#: How a migration goes on over a new connection.
RECOVERY: list[tuple[Role, Message]] = [
    (SOURCE, Hello(MAIN, MIGRATION, True)),
    (SOURCE, Recover()),
    (DESTINATION, ReceivedBitmap(0, 16, True)),
    (DESTINATION, ReceivedBitmap(16, 16, False)),
    (SOURCE, Resume()),
    (DESTINATION, Resumed()),
]


def legality(source: Stage, destination: Stage, preempt: Stage = Stage.NONE) -> Legality:
    made = Legality()
    made.states = {SOURCE: source, DESTINATION: destination}
    made.preempt = preempt
    return made


def legal(made: Legality, role: Role, message: Message, channel: ChannelRole = MAIN) -> bool:
    before = (dict(made.states), made.preempt)
    try:
        made.said(role, message, channel)
    except PeerError:
        assert (made.states, made.preempt) == before, "an illegal message moved the states"
        return False
    return True


# --- the tables ---


def test_the_tables_are_what_the_protocol_says() -> None:
    rows = [line.split() for line in SPOKEN.split("\n") if line]
    kinds = {kind.__name__: kind for kind in TAGS}
    assert {(Role(role), Stage(at), kinds[kind]): Stage(to) for role, at, kind, to in rows} == TRANSITIONS
    needs = [line.split() for line in NEEDS.split("\n") if line]
    assert {(Stage(at), kinds[kind]): tuple(map(Stage, others)) for at, kind, *others in needs} == JOINT
    gone = [line.split() for line in GONE.split("\n") if line]
    assert {(Role(role), Stage(at)): Stage(to) for role, at, to in gone} == LOST
    assert {kind for _, kind in PREEMPT_TRANSITIONS} == {Hello, Page, Zero}


@pytest.mark.parametrize(("role", "state"), list(product(Role, Stage)), ids=lambda value: value.value)
def test_on_the_main_channel_exactly_the_table_is_legal(role: Role, state: Stage) -> None:
    """For every message, and every state that the other side can be in."""
    for message, other in product(MESSAGES, Stage):
        kind = type(message)
        made = legality(state, other) if role is SOURCE else legality(other, state)
        if kind in (Alive, Failed):
            expected = None if state is Stage.FAILED else Stage.FAILED if kind is Failed else state
        else:
            expected = TRANSITIONS.get((role, state, kind))
            if other not in JOINT.get((state, kind), tuple(Stage)):
                expected = None
        assert legal(made, role, message) == (expected is not None), f"{kind.__name__}, other side {other.value}"
        assert made.states[role] is (expected or state)
        assert made.states[DESTINATION if role is SOURCE else SOURCE] is other
        assert made.preempt is Stage.NONE


@pytest.mark.parametrize(("role", "state"), list(product(Role, Stage)), ids=lambda value: value.value)
def test_on_the_preempt_channel_exactly_its_table_is_legal(role: Role, state: Stage) -> None:
    """Pieces there need a guest that runs, and nothing else: the channels can overtake each other."""
    for message, source, destination in product(MESSAGES, Stage, Stage):
        kind = type(message)
        made = legality(source, destination, state)
        expected = state if kind in (Alive, Failed) else None
        if role is SOURCE and kind is Hello and state is Stage.NONE:
            expected = Stage.SETUP
        elif role is SOURCE and kind in (Page, Zero) and state in (Stage.SETUP, Stage.RUNNING):
            expected = Stage.RUNNING if destination in (Stage.RUNNING, Stage.END) else None
        assert legal(made, role, message, PREEMPT) == (expected is not None), f"{kind.__name__}, {made!r}"
        assert made.preempt is (expected or state)
        assert made.states == {SOURCE: source, DESTINATION: destination}


def test_every_state_is_reached_by_what_may_be_said() -> None:
    for role in Role:
        reached = {Stage.NONE}
        for _ in Stage:
            reached |= {to for (who, at, _), to in TRANSITIONS.items() if who is role and at in reached}
            reached |= {to for (who, at), to in LOST.items() if who is role and at in reached}
        assert {at for who, at, _ in TRANSITIONS if who is role} <= reached
        assert Stage.END in reached


def test_every_message_but_alive_and_failed_belongs_to_one_role() -> None:
    speakers = {kind: {role for role, _, said in TRANSITIONS if said is kind} for kind in TAGS}
    assert {kind for kind, roles in speakers.items() if len(roles) != 1} == {Alive, Failed}


# --- conversations ---


def test_a_whole_migration_is_legal() -> None:
    made = Legality()
    for role, message, channel in CONVERSATION:
        made.said(role, message, channel)
    assert made.states == {SOURCE: Stage.END, DESTINATION: Stage.END}
    assert repr(made) == "<Legality source end, destination end, preempt run>"


def test_either_side_may_say_alive_or_give_up_at_any_point() -> None:
    for length in range(len(CONVERSATION) + 1):
        for role, channel in product(Role, ChannelRole):
            made = Legality()
            for said in CONVERSATION[:length]:
                made.said(*said)
            made.said(role, Alive(), channel)
            made.said(role, Failed("this connection"), channel)
            assert made.states[role] is not Stage.FAILED
            made.said(role, Failed("no more", True), channel)
            assert (made.states[role] is Stage.FAILED) == (channel is MAIN)


@pytest.mark.parametrize("index", range(len(CONVERSATION) - 1))
def test_nothing_may_be_left_out(index: int) -> None:
    """But for what may come any number of times, zero included; a preempt channel without pieces among it."""
    _, message, channel = CONVERSATION[index]
    optional = type(message) in (DeviceState, Page, Zero, Request, Digests, Agreed)
    rest = CONVERSATION[:index] + CONVERSATION[index + 1 :]
    if isinstance(message, Hello) and channel is PREEMPT:
        rest = [said for said in rest if said[2] is MAIN]
        optional = True
    made = Legality()
    assert all(legal(made, *said) for said in rest) == optional


@pytest.mark.parametrize("index", range(len(CONVERSATION)))
def test_nothing_but_data_may_be_repeated(index: int) -> None:
    made = Legality()
    for said in CONVERSATION[: index + 1]:
        made.said(*said)
    repeatable = type(CONVERSATION[index][1]) in (DeviceState, Page, Zero, Request, Digests, Agreed)
    assert legal(made, *CONVERSATION[index]) == repeatable


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Advise, Hello), (Ready, Advise), (Listen, Ready), (DeviceState, Listen), (Run, Listen), (Running, Run),
        (Page, Run), (Zero, Run), (Request, Running), (End, Run), (Digests, End), (Complete, End), (Complete, Running),
        (Page, Listen), (Request, Ready), (Page, Hello),
    ],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_what_comes_before_its_time_is_refused(earlier: type[Message], later: type[Message]) -> None:
    """`earlier` is said just before `later`, which it has to follow."""
    order = [(role, message) for role, message, channel in CONVERSATION if channel is MAIN]
    before = next(index for index, (_, message) in enumerate(order) if type(message) is later)
    made = Legality()
    for said in order[:before]:
        made.said(*said)
    speaker = next(role for role, message in order if type(message) is earlier)
    assert not legal(made, speaker, ONE[earlier])
    assert legal(made, *order[before])


def test_urgent_pieces_may_arrive_after_the_end_was_announced() -> None:
    made = legality(Stage.END, Stage.RUNNING, Stage.SETUP)
    assert legal(made, SOURCE, page(urgent=True), PREEMPT)
    assert legal(made, SOURCE, page(urgent=True), MAIN), "or what was lost with the preempt channel"


def test_who_gave_up_says_nothing_more() -> None:
    made = legality(Stage.RUNNING, Stage.RUNNING)
    made.said(SOURCE, Failed("the disk is full", True))
    assert not any(legal(made, SOURCE, message) for message in MESSAGES)
    assert legal(made, DESTINATION, ONE[Request])


@pytest.mark.parametrize("length", range(len(CONVERSATION) + 1))
def test_a_lost_channel_is_recovered_again_and_again(length: int) -> None:
    """Cut wherever it is, and recover; also when the recovery itself is cut."""
    made = Legality()
    for said in CONVERSATION[:length]:
        made.said(*said)
    ready = made.states[DESTINATION] is not Stage.NONE
    runs = made.states[DESTINATION] in (Stage.RUNNING, Stage.END)
    assert made.lost() == ready
    if not ready:
        return
    for cut in range(len(RECOVERY) + 1):
        assert made.states[SOURCE] is Stage.PAUSED
        for role, message in RECOVERY[:cut]:
            made.said(role, message)
        assert made.lost()
        assert made.preempt is Stage.NONE
    for role, message in RECOVERY:
        made.said(role, message)
    assert made.states == {SOURCE: Stage.RUNNING, DESTINATION: Stage.RUNNING}
    assert runs or length < 11
    for said in CONVERSATION[10:]:
        if not isinstance(said[1], Hello) and said[2] is MAIN:
            made.said(*said)
    assert made.states == {SOURCE: Stage.END, DESTINATION: Stage.END}


def test_a_destination_that_has_not_heard_run_makes_the_switch_again() -> None:
    made = Legality()
    for said in CONVERSATION[:8]:
        made.said(*said)
    made.lost()
    for again in ((SOURCE, Hello(MAIN, MIGRATION, True)), (SOURCE, Recover()), (DESTINATION, Ready(MIGRATION))):
        made.said(*again)
    for said in CONVERSATION[4:]:
        if said[2] is MAIN:
            made.said(*said)
    assert made.states == {SOURCE: Stage.END, DESTINATION: Stage.END}


def test_a_guest_that_runs_is_not_started_again() -> None:
    made = legality(Stage.RUNNING, Stage.RUNNING)
    made.lost()
    made.said(*RECOVERY[0])
    made.said(*RECOVERY[1])
    assert not legal(made, DESTINATION, Ready(MIGRATION))
    assert not legal(made, SOURCE, Listen())
    made.said(*RECOVERY[2])
    assert not legal(made, SOURCE, Listen())


def test_a_preempt_channel_that_is_lost_alone_is_asked_about_while_all_goes_on() -> None:
    made = legality(Stage.RUNNING, Stage.RUNNING, Stage.RUNNING)
    made.preempt_lost()
    assert not legal(made, SOURCE, page(urgent=True), PREEMPT)
    for role, message in (*RECOVERY[1:4], (SOURCE, page())):
        made.said(role, message)
    made.said(SOURCE, hello(PREEMPT), PREEMPT)
    assert legal(made, SOURCE, page(urgent=True), PREEMPT)


def test_a_node_that_was_started_again_begins_where_the_migration_stopped() -> None:
    for running in (False, True):
        made = Legality.resumed(running)
        for role, message in RECOVERY:
            made.said(role, message)
        assert made.states == {SOURCE: Stage.RUNNING, DESTINATION: Stage.RUNNING}
    for running in (False, True):
        made = Legality.resumed(running)
        made.said(*RECOVERY[0])
        made.said(*RECOVERY[1])
        assert legal(made, DESTINATION, Ready(MIGRATION)) == (not running), "the switch is made again, or never"


def test_a_refusal_names_message_speaker_and_state() -> None:
    made = Legality()
    with pytest.raises(PeerError, match="Page is not allowed from the source in state none"):
        made.said(SOURCE, page())
    with pytest.raises(PeerError, match="Advise is not allowed from the destination in state none"):
        made.said(DESTINATION, ONE[Advise])
    with pytest.raises(PeerError, match="Ready from the destination needs the other side in state advise; it is in"):
        made.said(DESTINATION, Ready(MIGRATION))
    with pytest.raises(PeerError, match="Running from the destination needs the other side in state run or end"):
        legality(Stage.LISTEN, Stage.ADVISE).said(DESTINATION, Running())
    with pytest.raises(PeerError, match="Run is not allowed from the source on the preempt channel in state none"):
        made.said(SOURCE, Run(), PREEMPT)
    made.said(SOURCE, hello(PREEMPT), PREEMPT)
    with pytest.raises(PeerError, match="Page came on the preempt channel before the guest ran"):
        made.said(SOURCE, page(), PREEMPT)


def test_the_diagram_has_an_edge_for_every_row() -> None:
    lines = diagram().split("\n")
    assert lines[0] == "stateDiagram-v2"
    for (role, at, kind), to in TRANSITIONS.items():
        edge = f"{role.value[0]}_{at.value} --> {role.value[0]}_{to.value}: "
        (line,) = [line for line in lines if line.strip().startswith(edge)]
        assert kind.__name__ in line.partition(": ")[2].split(", ")
