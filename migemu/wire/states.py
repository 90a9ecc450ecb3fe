"""When each message may be said. Legality is data; nothing else in the program judges it.

Rule 1  Everything that decides whether a message is legal lives in this file.
Rule 2  This file does not know which side it runs on. Both nodes feed it every message, sent and received; it keeps
        the state of **both** roles, as each side has told it.
Rule 3  A role moves by its own messages only (two role tables). What one role may say can depend on how far the other
        has come (the joint rules). States carry QEMU's names.
Rule 4  The preempt channel has a table of its own: it can overtake and be overtaken by the main channel, so nothing
        about the order between the two may be assumed, except that urgent pieces are only ever asked for by a guest
        that runs.
Rule 5  A main channel that is lost after the switch pauses the migration (`LOST`), and a new one recovers it. What was
        said last may not have been heard: whether the switch was made the source knows by having said Run, and a
        destination that has said Ready has to reckon with it. One that has not heard Run answers Recover with Ready,
        and the switch is made again from Listen on; else with its bitmap.

That legality is a table for each role, fed with the messages of both sides, is h11's idea (N. J. Smith, the module
`h11._state`); the tables and their rules are post-copy's.

WARNING: the diagram in the README is printed by `python -m migemu.wire.states`; a test compares the two.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from migemu.errors import PeerError
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


class Role(Enum):
    """Which node sends a message."""

    SOURCE = "source"
    DESTINATION = "destination"

    __hash__ = object.__hash__  # Enum's own is Python code, and every message is looked up


class State(Enum):
    """How far a role has come, in QEMU's words."""

    NONE = "none"
    SETUP = "setup"
    ADVISE = "advise"
    LISTEN = "listen"
    PAUSED = "paused"
    RECOVER = "recover"
    RUNNING = "running"
    END = "end"
    FAILED = "failed"

    __hash__ = object.__hash__


#: (role, its state, what it says) -> its next state. What is not listed is illegal.
TRANSITIONS: Final[dict[tuple[Role, State, type[Message]], State]] = {
    (Role.SOURCE, State.NONE, Hello): State.SETUP,
    (Role.SOURCE, State.SETUP, Advise): State.ADVISE,
    (Role.SOURCE, State.ADVISE, Listen): State.LISTEN,
    (Role.SOURCE, State.LISTEN, DeviceState): State.LISTEN,
    (Role.SOURCE, State.LISTEN, Run): State.RUNNING,
    (Role.SOURCE, State.RUNNING, Page): State.RUNNING,
    (Role.SOURCE, State.RUNNING, Zero): State.RUNNING,
    (Role.SOURCE, State.RUNNING, End): State.END,
    (Role.SOURCE, State.RUNNING, Recover): State.RUNNING,  # the preempt channel was lost alone
    (Role.SOURCE, State.END, Page): State.END,  # what was lost with a preempt channel, or came corrupt
    (Role.SOURCE, State.END, Zero): State.END,
    (Role.SOURCE, State.END, Recover): State.END,
    (Role.SOURCE, State.END, Digests): State.END,
    (Role.SOURCE, State.END, Agreed): State.END,
    (Role.SOURCE, State.PAUSED, Hello): State.RECOVER,
    (Role.SOURCE, State.RECOVER, Recover): State.RECOVER,
    (Role.SOURCE, State.RECOVER, Listen): State.LISTEN,
    (Role.SOURCE, State.RECOVER, Resume): State.RUNNING,
    (Role.DESTINATION, State.NONE, Ready): State.ADVISE,
    (Role.DESTINATION, State.ADVISE, Ready): State.ADVISE,
    (Role.DESTINATION, State.ADVISE, Running): State.RUNNING,
    (Role.DESTINATION, State.ADVISE, ReceivedBitmap): State.RECOVER,
    (Role.DESTINATION, State.RUNNING, Request): State.RUNNING,
    (Role.DESTINATION, State.RUNNING, ReceivedBitmap): State.RUNNING,
    (Role.DESTINATION, State.RUNNING, Complete): State.END,
    (Role.DESTINATION, State.END, ReceivedBitmap): State.END,
    (Role.DESTINATION, State.PAUSED, ReceivedBitmap): State.RECOVER,
    (Role.DESTINATION, State.RECOVER, ReceivedBitmap): State.RECOVER,
    (Role.DESTINATION, State.RECOVER, Resumed): State.RUNNING,
}

_RUNS: Final = (State.RUNNING, State.END)

#: (the speaker's state, what it says) -> where the *other* role must be. What is not listed may always be said.
JOINT: Final[dict[tuple[State, type[Message]], tuple[State, ...]]] = {
    (State.ADVISE, Listen): (State.ADVISE,),  # memory must be there before faults can be caught
    (State.RECOVER, Listen): (State.ADVISE,),  # a guest that runs is not started again
    (State.NONE, Ready): (State.ADVISE,),
    (State.ADVISE, Ready): (State.RECOVER,),
    (State.ADVISE, Running): _RUNS,
    (State.RUNNING, Complete): (State.END,),
    (State.ADVISE, ReceivedBitmap): (State.RECOVER,),
    (State.PAUSED, ReceivedBitmap): (State.RECOVER,),
    (State.RECOVER, ReceivedBitmap): (State.RECOVER,),
    (State.RECOVER, Resume): (State.RECOVER,),
    (State.RECOVER, Resumed): _RUNS,
    (State.END, Agreed): (State.END,),
}
_JOINED: Final = frozenset(kind for _, kind in JOINT)

#: What a role becomes when the main channel is lost, once the destination has said Ready; before that nothing is lost
#: but the attempt.
LOST: Final[dict[tuple[Role, State], State]] = {
    (Role.SOURCE, State.ADVISE): State.PAUSED,
    (Role.SOURCE, State.LISTEN): State.PAUSED,
    (Role.SOURCE, State.RUNNING): State.PAUSED,
    (Role.SOURCE, State.END): State.PAUSED,
    (Role.SOURCE, State.RECOVER): State.PAUSED,
    (Role.DESTINATION, State.RUNNING): State.PAUSED,
    (Role.DESTINATION, State.END): State.PAUSED,
    (Role.DESTINATION, State.RECOVER): State.PAUSED,
}

#: On the preempt channel: (its state, what the source says) -> its next state.
PREEMPT_TRANSITIONS: Final[dict[tuple[State, type[Message]], State]] = {
    (State.NONE, Hello): State.SETUP,
    (State.SETUP, Page): State.RUNNING,
    (State.SETUP, Zero): State.RUNNING,
    (State.RUNNING, Page): State.RUNNING,
    (State.RUNNING, Zero): State.RUNNING,
}

#: On any channel, in any state but FAILED, from either role. Failed ends the role's part, if it is about that.
ALWAYS: Final = (Alive, Failed)


class Legality:
    """The joint state of one migration, as one side knows it."""

    def __init__(self) -> None:
        self.states: dict[Role, State] = dict.fromkeys(Role, State.NONE)
        self.preempt = State.NONE

    def said(self, role: Role, message: Message, channel: ChannelRole = ChannelRole.MAIN) -> None:
        """`role` said `message` on `channel`: move on, or PeerError naming the message and the state.

        For messages of our own the same error is a bug of ours; the caller knows which side it is.
        """
        kind = type(message)
        if channel is ChannelRole.PREEMPT:
            self._said_on_preempt(role, kind)
            return
        state = self.states[role]
        if kind in ALWAYS and state is not State.FAILED:
            if isinstance(message, Failed) and message.over:
                self.states[role] = State.FAILED
            return
        following = TRANSITIONS.get((role, state, kind))
        if following is None:
            raise PeerError(f"{kind.__name__} is not allowed from the {role.value} in state {state.value}")
        if kind in _JOINED:
            self._judge_jointly(role, state, kind)
        self.states[role] = following

    def _judge_jointly(self, role: Role, state: State, kind: type[Message]) -> None:
        needed = JOINT.get((state, kind))
        other = self.states[Role.DESTINATION if role is Role.SOURCE else Role.SOURCE]
        if needed is not None and other not in needed:
            expected = " or ".join(each.value for each in needed)
            raise PeerError(
                f"{kind.__name__} from the {role.value} needs the other side in state {expected}; "
                f"it is in state {other.value}"
            )

    def lost(self) -> bool:
        """The main channel is gone, and with it the preempt channel; whether there is something to recover."""
        if self.states[Role.DESTINATION] in (State.NONE, State.FAILED) or self.states[Role.SOURCE] is State.FAILED:
            return False
        for role, state in self.states.items():
            self.states[role] = LOST.get((role, state), state)
        self.preempt = State.NONE
        return True

    def preempt_lost(self) -> None:
        """The preempt channel is gone alone; there may be a new one."""
        self.preempt = State.NONE

    @classmethod
    def resumed(cls, running: bool) -> Legality:
        """That of a migration which goes on after its node was started again; `running`: its guest is known to run."""
        legality = cls()
        legality.states = {
            Role.SOURCE: State.PAUSED,
            Role.DESTINATION: State.PAUSED if running else State.ADVISE,
        }
        return legality

    def _said_on_preempt(self, role: Role, kind: type[Message]) -> None:
        if kind in ALWAYS:
            return
        following = PREEMPT_TRANSITIONS.get((self.preempt, kind)) if role is Role.SOURCE else None
        if following is None:
            raise PeerError(
                f"{kind.__name__} is not allowed from the {role.value} on the preempt channel in state "
                f"{self.preempt.value}"
            )
        if following is State.RUNNING and self.states[Role.DESTINATION] not in _RUNS:
            raise PeerError(f"{kind.__name__} came on the preempt channel before the guest ran")
        self.preempt = following

    def __repr__(self) -> str:
        both = ", ".join(f"{role.value} {state.value}" for role, state in self.states.items())
        return f"<Legality {both}, preempt {self.preempt.value}>"


def diagram() -> str:
    """The two role tables as a Mermaid state diagram: what stands in the README."""
    lines = ["stateDiagram-v2", "    direction LR"]
    for role in Role:
        lines.append(f"    state {role.value} {{")
        edges: dict[tuple[State, State], list[str]] = {}
        for (owner, state, kind), following in TRANSITIONS.items():
            if owner is role:
                edges.setdefault((state, following), []).append(kind.__name__)
        for (owner, state), following in LOST.items():
            if owner is role:
                edges.setdefault((state, following), []).append("(lost)")
        prefix = role.value[0]
        first = next(iter(edges))[0]
        lines.append(f"        [*] --> {prefix}_{first.value}")
        names = dict.fromkeys(state for edge in edges for state in edge)
        lines += [f"        {prefix}_{state.value}: {state.value}" for state in names]
        lines += [
            f"        {prefix}_{state.value} --> {prefix}_{following.value}: {', '.join(kinds)}"
            for (state, following), kinds in edges.items()
        ]
        lines.append("    }")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
