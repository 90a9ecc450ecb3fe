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

WARNING: the diagram in reference/architecture.md is printed by `python -m migemu.wire.states`; a test compares the two.
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


class Stage(Enum):
    """How far a role, a node, or a migration has come: QEMU's MigrationStatus and PostcopyState in short words.

    A value is the word that stands in traces, results, `migemu status` and the errors of this file.
    """

    #: Of a role: it has said nothing yet.
    NONE = "none"
    #: Of a destination: no source has come.
    WAITING = "waiting"
    SETUP = "setup"
    ADVISE = "advise"
    LISTEN = "listen"
    #: The guest runs at the destination, and pages are sent.
    RUNNING = "run"
    PAUSED = "paused"
    RECOVER = "recover"
    #: Of a source: it has sent everything; of a destination: it has everything, and the verdict is made.
    END = "end"
    #: Of a destination: the verdict is there.
    COMPLETED = "completed"
    #: Of a role: it has said Failed.
    FAILED = "failed"

    __hash__ = object.__hash__


#: (role, its state, what it says) -> its next state. What is not listed is illegal.
TRANSITIONS: Final[dict[tuple[Role, Stage, type[Message]], Stage]] = {
    (Role.SOURCE, Stage.NONE, Hello): Stage.SETUP,
    (Role.SOURCE, Stage.SETUP, Advise): Stage.ADVISE,
    (Role.SOURCE, Stage.ADVISE, Listen): Stage.LISTEN,
    (Role.SOURCE, Stage.LISTEN, DeviceState): Stage.LISTEN,
    (Role.SOURCE, Stage.LISTEN, Run): Stage.RUNNING,
    (Role.SOURCE, Stage.RUNNING, Page): Stage.RUNNING,
    (Role.SOURCE, Stage.RUNNING, Zero): Stage.RUNNING,
    (Role.SOURCE, Stage.RUNNING, End): Stage.END,
    (Role.SOURCE, Stage.RUNNING, Recover): Stage.RUNNING,  # the preempt channel was lost alone
    (Role.SOURCE, Stage.END, Page): Stage.END,  # what was lost with a preempt channel, or came corrupt
    (Role.SOURCE, Stage.END, Zero): Stage.END,
    (Role.SOURCE, Stage.END, Recover): Stage.END,
    (Role.SOURCE, Stage.END, Digests): Stage.END,
    (Role.SOURCE, Stage.END, Agreed): Stage.END,
    (Role.SOURCE, Stage.PAUSED, Hello): Stage.RECOVER,
    (Role.SOURCE, Stage.RECOVER, Recover): Stage.RECOVER,
    (Role.SOURCE, Stage.RECOVER, Listen): Stage.LISTEN,
    (Role.SOURCE, Stage.RECOVER, Resume): Stage.RUNNING,
    (Role.DESTINATION, Stage.NONE, Ready): Stage.ADVISE,
    (Role.DESTINATION, Stage.ADVISE, Ready): Stage.ADVISE,
    (Role.DESTINATION, Stage.ADVISE, Running): Stage.RUNNING,
    (Role.DESTINATION, Stage.ADVISE, ReceivedBitmap): Stage.RECOVER,
    (Role.DESTINATION, Stage.RUNNING, Request): Stage.RUNNING,
    (Role.DESTINATION, Stage.RUNNING, ReceivedBitmap): Stage.RUNNING,
    (Role.DESTINATION, Stage.RUNNING, Complete): Stage.END,
    (Role.DESTINATION, Stage.END, ReceivedBitmap): Stage.END,
    (Role.DESTINATION, Stage.PAUSED, ReceivedBitmap): Stage.RECOVER,
    (Role.DESTINATION, Stage.RECOVER, ReceivedBitmap): Stage.RECOVER,
    (Role.DESTINATION, Stage.RECOVER, Resumed): Stage.RUNNING,
}

_RUNS: Final = (Stage.RUNNING, Stage.END)

#: (the speaker's state, what it says) -> where the *other* role must be. What is not listed may always be said.
JOINT: Final[dict[tuple[Stage, type[Message]], tuple[Stage, ...]]] = {
    (Stage.ADVISE, Listen): (Stage.ADVISE,),  # memory must be there before faults can be caught
    (Stage.RECOVER, Listen): (Stage.ADVISE,),  # a guest that runs is not started again
    (Stage.NONE, Ready): (Stage.ADVISE,),
    (Stage.ADVISE, Ready): (Stage.RECOVER,),
    (Stage.ADVISE, Running): _RUNS,
    (Stage.RUNNING, Complete): (Stage.END,),
    (Stage.ADVISE, ReceivedBitmap): (Stage.RECOVER,),
    (Stage.PAUSED, ReceivedBitmap): (Stage.RECOVER,),
    (Stage.RECOVER, ReceivedBitmap): (Stage.RECOVER,),
    (Stage.RECOVER, Resume): (Stage.RECOVER,),
    (Stage.RECOVER, Resumed): _RUNS,
    (Stage.END, Agreed): (Stage.END,),
}
_JOINED: Final = frozenset(kind for _, kind in JOINT)

#: What a role becomes when the main channel is lost, once the destination has said Ready; before that nothing is lost
#: but the attempt.
LOST: Final[dict[tuple[Role, Stage], Stage]] = {
    (Role.SOURCE, Stage.ADVISE): Stage.PAUSED,
    (Role.SOURCE, Stage.LISTEN): Stage.PAUSED,
    (Role.SOURCE, Stage.RUNNING): Stage.PAUSED,
    (Role.SOURCE, Stage.END): Stage.PAUSED,
    (Role.SOURCE, Stage.RECOVER): Stage.PAUSED,
    (Role.DESTINATION, Stage.RUNNING): Stage.PAUSED,
    (Role.DESTINATION, Stage.END): Stage.PAUSED,
    (Role.DESTINATION, Stage.RECOVER): Stage.PAUSED,
}

#: On the preempt channel: (its state, what the source says) -> its next state.
PREEMPT_TRANSITIONS: Final[dict[tuple[Stage, type[Message]], Stage]] = {
    (Stage.NONE, Hello): Stage.SETUP,
    (Stage.SETUP, Page): Stage.RUNNING,
    (Stage.SETUP, Zero): Stage.RUNNING,
    (Stage.RUNNING, Page): Stage.RUNNING,
    (Stage.RUNNING, Zero): Stage.RUNNING,
}

#: On any channel, in any state but FAILED, from either role. Failed ends the role's part, if it is about that.
ALWAYS: Final = (Alive, Failed)


class Legality:
    """The joint state of one migration, as one side knows it."""

    def __init__(self) -> None:
        self.states: dict[Role, Stage] = dict.fromkeys(Role, Stage.NONE)
        self.preempt = Stage.NONE

    def said(self, role: Role, message: Message, channel: ChannelRole = ChannelRole.MAIN) -> None:
        """`role` said `message` on `channel`: move on, or PeerError naming the message and the state.

        For messages of our own the same error is a bug of ours; the caller knows which side it is.
        """
        kind = type(message)
        if channel is ChannelRole.PREEMPT:
            self._said_on_preempt(role, kind)
            return
        state = self.states[role]
        if kind in ALWAYS and state is not Stage.FAILED:
            if isinstance(message, Failed) and message.over:
                self.states[role] = Stage.FAILED
            return
        following = TRANSITIONS.get((role, state, kind))
        if following is None:
            raise PeerError(f"{kind.__name__} is not allowed from the {role.value} in state {state.value}")
        if kind in _JOINED:
            self._judge_jointly(role, state, kind)
        self.states[role] = following

    def _judge_jointly(self, role: Role, state: Stage, kind: type[Message]) -> None:
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
        if self.states[Role.DESTINATION] in (Stage.NONE, Stage.FAILED) or self.states[Role.SOURCE] is Stage.FAILED:
            return False
        for role, state in self.states.items():
            self.states[role] = LOST.get((role, state), state)
        self.preempt = Stage.NONE
        return True

    def preempt_lost(self) -> None:
        """The preempt channel is gone alone; there may be a new one."""
        self.preempt = Stage.NONE

    @classmethod
    def resumed(cls, running: bool) -> Legality:
        """That of a migration which goes on after its node was started again; `running`: its guest is known to run."""
        legality = cls()
        legality.states = {
            Role.SOURCE: Stage.PAUSED,
            Role.DESTINATION: Stage.PAUSED if running else Stage.ADVISE,
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
        if following is Stage.RUNNING and self.states[Role.DESTINATION] not in _RUNS:
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
        edges: dict[tuple[Stage, Stage], list[str]] = {}
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
