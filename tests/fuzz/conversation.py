"""Both roles say anything, on either channel, and lose connections: the tables of states under any sequence.

An input: how it begins (a new migration, or one that was resumed), then a byte for each thing that happens. The laws
below are told without the tables, so that a wrong row shows.
"""

from __future__ import annotations

from typing import Final

from migemu.errors import PeerError
from migemu.wire.messages import (
    TAGS,
    Agreed,
    ChannelRole,
    Complete,
    End,
    Failed,
    Message,
    Page,
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
from tests.fuzz.tally import Tally
from tests.samples import SAMPLES

_ONE: Final = {type(message): message for message, _ in reversed(SAMPLES)}
_SAID: Final[list[tuple[Role, ChannelRole, Message]]] = [
    (role, channel, message)
    for role in Role
    for channel in ChannelRole
    for message in (*(_ONE[kind] for kind in TAGS), Failed("over", True))
]
LOST_MAIN, LOST_PREEMPT, EVENTS = len(_SAID), len(_SAID) + 1, len(_SAID) + 2
#: What has to have been said before: kind -> one of these by either role. A bitmap claims that Run and
#: Recover were heard; whether they were said the source alone knows (rule 5 of the states), and judges beside them.
_AFTER: Final[dict[type[Message], tuple[type[Message], ...]]] = {
    Running: (Run, Resume),
    Request: (Running, Resumed),
    Complete: (End,),
    Agreed: (Complete,),
    Resume: (Recover, ReceivedBitmap),
    Resumed: (Resume,),
    Page: (Run, Resume),
    Zero: (Run, Resume),
}
_STATES: Final = {
    role: {Stage.FAILED, *(to for (who, _, _), to in TRANSITIONS.items() if who is role)} for role in Role
}
for _role in Role:
    _STATES[_role] |= {Stage.NONE, *(to for (who, _), to in LOST.items() if who is _role)}


def event(role: Role, kind: type[Message], channel: ChannelRole = ChannelRole.MAIN) -> int:
    """The byte that says that `role` says a message of `kind`."""
    return next(at for at, said in enumerate(_SAID) if said[:2] == (role, channel) and type(said[2]) is kind)


def judge_conversation(data: bytes, tally: Tally) -> None:
    """A byte for how it begins, then one for each thing that happens."""
    if not data:
        return
    fresh = data[0] % 3 == 0
    legality = Legality() if fresh else Legality.resumed(data[0] % 3 == 1)
    before: dict[type[Message], None] = {}
    for byte in data[1:]:
        what = byte % EVENTS
        was = (dict(legality.states), legality.preempt)
        if what == LOST_PREEMPT:
            legality.preempt_lost()
            assert legality.states == was[0]
        elif what == LOST_MAIN:
            if not legality.lost():
                assert (legality.states, legality.preempt) == was
        else:
            role, channel, message = _SAID[what]
            try:
                legality.said(role, message, channel)
            except PeerError as error:
                refused = str(error)
            else:
                refused = ""
            if refused:
                tally.outcomes["talk: refused"] += 1
                assert "\n" not in refused
                assert (legality.states, legality.preempt) == was, "what is refused has moved somebody"
                continue
            tally.outcomes["talk: allowed"] += 1
            kind = type(message)
            if channel is ChannelRole.MAIN:
                assert was[0][role] is not Stage.FAILED, "who has failed says nothing more"
            if fresh and kind in _AFTER:
                assert any(each in before for each in _AFTER[kind]), f"{kind.__name__} came too early"
            before[kind] = None
        for role, state in legality.states.items():
            assert state in _STATES[role], f"the {role.value} is in state {state.value}"
