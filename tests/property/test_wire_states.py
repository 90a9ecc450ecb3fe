"""Both roles say anything in any order on either channel, and lose connections: the tables of states hold together.

The laws are told without the tables, so that a wrong row shows. `make fuzz` says the same things without end.
"""

from __future__ import annotations

from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from migemu.errors import PeerError
from migemu.wire.messages import (
    TAGS,
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
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
from migemu.wire.states import LOST, TRANSITIONS, Legality, Role, Stage
from tests.samples import SAMPLES

SOURCE, DESTINATION = Role.SOURCE, Role.DESTINATION
MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT
INSTANCES: Final = {type(message): message for message, _ in reversed(SAMPLES)}
MESSAGES: Final = [*(INSTANCES[kind] for kind in TAGS), Failed("over", True)]
#: Every state of a role that a table leads to.
KNOWN: Final = {
    role: {Stage.NONE, Stage.FAILED}
    | {to for (who, _, _), to in TRANSITIONS.items() if who is role}
    | {to for (who, _), to in LOST.items() if who is role}
    for role in Role
}
#: What has to have been said before, by either role: one of these. A bitmap claims that Run and Recover were heard;
#: whether they were said the source alone knows, and judges beside the tables.
BEFORE: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    Advise: (Hello,), Ready: (Advise,), Listen: (Ready,), Run: (Listen,), Running: (Run, Resume), Resumed: (Resume,),
    Request: (Running, Resumed), Page: (Run, Resume), Zero: (Run, Resume), End: (Run, Resume), Complete: (End,),
    Agreed: (Complete,), Recover: (Ready,), ReceivedBitmap: (Ready,), Resume: (ReceivedBitmap,),
}  # fmt: skip
#: The two ways to go on after a loss: Run was heard at the destination, or not.
RECOVERIES: Final = (
    ((SOURCE, Hello), (SOURCE, Recover), (DESTINATION, ReceivedBitmap), (SOURCE, Resume), (DESTINATION, Resumed)),
    ((SOURCE, Hello), (SOURCE, Recover), (DESTINATION, Ready), (SOURCE, Listen), (SOURCE, Run), (DESTINATION, Running)),
)


def copy_of(legality: Legality) -> Legality:
    made = Legality()
    made.states, made.preempt = dict(legality.states), legality.preempt
    return made


class Talk(RuleBasedStateMachine):
    """One migration; nobody keeps to anything."""

    @initialize()
    def begin(self) -> None:
        self.legality = Legality()
        self.before: dict[type[Message], None] = {}
        self.over: dict[Role, None] = {}

    def _say(self, role: Role, message: Message, channel: ChannelRole) -> None:
        kind = type(message)
        was = (dict(self.legality.states), self.legality.preempt)
        refused = ""
        try:
            self.legality.said(role, message, channel)
        except PeerError as error:
            refused = str(error)
        if refused:
            assert kind.__name__ in refused
            assert (self.legality.states, self.legality.preempt) == was, "what is refused has moved somebody"
            assert kind not in (Alive, Failed) or role in self.over, "this may always be said"
            return
        assert role not in self.over or channel is PREEMPT, "who has given up says nothing more"
        needed = BEFORE.get(kind, ())
        assert not needed or any(each in self.before for each in needed), f"{kind.__name__} came too early"
        assert kind is not Listen or not self._started, "a guest that runs is started again"
        if channel is MAIN:
            other = DESTINATION if role is SOURCE else SOURCE
            assert self.legality.states[other] is was[0][other], "somebody was moved by the other one's words"
        self.before[kind] = None
        if isinstance(message, Failed) and message.over and channel is MAIN:
            self.over[role] = None

    @rule(message=st.sampled_from(MESSAGES), role=st.sampled_from(Role), channel=st.sampled_from(ChannelRole))
    def anything_is_said(self, message: Message, role: Role, channel: ChannelRole) -> None:
        self._say(role, message, channel)

    @rule(role=st.sampled_from(Role))
    def somebody_gives_up(self, role: Role) -> None:
        self._say(role, Failed("over", True), MAIN)

    @property
    def _started(self) -> bool:
        """Whether the guest runs at the destination, by what that has said itself."""
        return Running in self.before or ReceivedBitmap in self.before

    @rule(number=st.integers(0, 1000), steps=st.integers(1, 6))
    def what_moves_somebody_is_said(self, number: int, steps: int) -> None:
        """Or nobody would come far: nothing but what the tables have a row for."""
        for step in range(steps):
            moves = [
                (role, INSTANCES[kind])
                for (role, state, kind) in TRANSITIONS
                if state is self.legality.states[role]
            ]  # fmt: skip
            if moves:
                self._say(*moves[(number >> step) % len(moves)], MAIN)

    @rule()
    def the_main_channel_is_lost(self) -> None:
        was = dict(self.legality.states)
        recoverable = self.legality.lost()
        assert recoverable == (Ready in self.before and not self.over.keys() & {SOURCE, DESTINATION})
        if recoverable:
            self.before.pop(Resume, None)  # each recovery needs its own
        else:
            assert self.legality.states == was

    @rule()
    def the_preempt_channel_is_lost(self) -> None:
        was = dict(self.legality.states)
        self.legality.preempt_lost()
        assert (self.legality.states, self.legality.preempt) == (was, Stage.NONE)

    @invariant()
    def every_state_is_known(self) -> None:
        for role, state in self.legality.states.items():
            assert state in KNOWN[role]

    @invariant()
    def what_is_lost_can_be_recovered(self) -> None:
        """Wherever they stand: one of the two ways is open, and never both."""
        if not copy_of(self.legality).lost():
            return
        ways = []
        for way in RECOVERIES:
            legality = copy_of(self.legality)
            legality.lost()
            try:
                for role, kind in way:
                    legality.said(role, INSTANCES[kind])
            except PeerError:
                continue
            ways.append(way)
        assert ways == ([RECOVERIES[0]] if self._started else [*RECOVERIES]), "a guest that runs is never started again"


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=200, stateful_step_count=30)
