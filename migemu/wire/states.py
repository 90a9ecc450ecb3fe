"""When each message may be said. Legality is data; nothing else in the program judges it.

Rule 1  Everything that decides whether a message is legal lives in this file.
Rule 2  This file does not know which side it runs on. Both nodes feed it every message, sent and received; it keeps
        the state of **both** roles, as each side has told it.
Rule 3  A role moves by its own messages only (two role tables). What one role may say can depend on how far the other
        has come (the joint rules). States carry QEMU's names.
Rule 4  The preempt channel has a table of its own: it can overtake and be overtaken by the main channel, so nothing
        about the order between the two may be assumed, except that urgent pieces are only ever asked for by a guest
        that runs.

WARNING: the diagram in the README is printed by `python -m migemu.wire.states`; a test compares the two.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from migemu.errors import PeerError
from migemu.wire.messages import (
    Advise,
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
    Request,
    Run,
    Running,
    Zero,
)  # fmt: skip


class Role(Enum):
    """Who speaks."""

    SOURCE = "source"
    DESTINATION = "destination"

    __hash__ = object.__hash__  # Enum's own is Python code, and every message is looked up


class State(Enum):
    """How far a role has come, in QEMU's words; ordered by `_ORDER`."""

    NONE = "none"
    SETUP = "setup"
    ADVISE = "advise"
    LISTEN = "listen"
    RUNNING = "running"
    END = "end"
    FAILED = "failed"

    __hash__ = object.__hash__


_ORDER: Final = {state: position for position, state in enumerate(State)}

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
    (Role.SOURCE, State.END, Digests): State.END,
    (Role.DESTINATION, State.NONE, Ready): State.ADVISE,
    (Role.DESTINATION, State.ADVISE, Running): State.RUNNING,
    (Role.DESTINATION, State.RUNNING, Request): State.RUNNING,
    (Role.DESTINATION, State.RUNNING, Complete): State.END,
}

#: What a role says -> the state that the *other* role must have reached.
JOINT: Final[dict[type[Message], State]] = {
    Listen: State.ADVISE,  # memory must be there before faults can be caught
    Ready: State.ADVISE,
    Running: State.RUNNING,
    Complete: State.END,
}

#: On the preempt channel: (its state, what the source says) -> its next state.
PREEMPT_TRANSITIONS: Final[dict[tuple[State, type[Message]], State]] = {
    (State.NONE, Hello): State.SETUP,
    (State.SETUP, Page): State.RUNNING,
    (State.SETUP, Zero): State.RUNNING,
    (State.RUNNING, Page): State.RUNNING,
    (State.RUNNING, Zero): State.RUNNING,
}

#: On any channel, in any state but FAILED, from either role. Failed ends the role's part.
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
            if kind is Failed:
                self.states[role] = State.FAILED
            return
        following = TRANSITIONS.get((role, state, kind))
        if following is None:
            raise PeerError(f"{kind.__name__} is not allowed from the {role.value} in state {state.value}")
        if following is state:
            return  # the hot path: a page after a page
        needed = JOINT.get(kind)
        other = self.states[Role.DESTINATION if role is Role.SOURCE else Role.SOURCE]
        if needed is not None and _ORDER[other] < _ORDER[needed]:
            raise PeerError(
                f"{kind.__name__} from the {role.value} came before the other side reached {needed.value} "
                f"(it is in {other.value})"
            )
        self.states[role] = following

    def _said_on_preempt(self, role: Role, kind: type[Message]) -> None:
        if kind in ALWAYS:
            return
        following = PREEMPT_TRANSITIONS.get((self.preempt, kind)) if role is Role.SOURCE else None
        if following is None:
            raise PeerError(
                f"{kind.__name__} is not allowed from the {role.value} on the preempt channel in state "
                f"{self.preempt.value}"
            )
        if following is State.RUNNING and _ORDER[self.states[Role.DESTINATION]] < _ORDER[State.RUNNING]:
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
