"""The source without its service: the sender, pulled by hand, and the two channels that its messages wait in.

Rules
    1. Each channel keeps its order; they overtake each other.
    2. A run becomes messages as the source's memory would divide it: pieces of zeros go without bytes.
    3. After the last run of the push comes the end. Every message is judged by the tables of the protocol.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from migemu.costs.collapse_cost import CostModel
from migemu.mm.pages import TINY, Geometry, Level, PageIndex, PieceRun
from migemu.ordering.policies import DEAR, PolicyChoice
from migemu.policy.push_order import push_orders
from migemu.trace.events import Happening
from migemu.wire.messages import (
    MAIN_CHANNEL,
    PREEMPT_CHANNEL,
    Advise,
    ChannelId,
    End,
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
from migemu.wire.states import Legality, Role, Stage
from source_node.core.sender import Sender

MAIN: Final = MAIN_CHANNEL
PREEMPT: Final = PREEMPT_CHANNEL
_MIGRATION: Final = "0" * 32


@dataclass(frozen=True)
class Plan:
    """What both cores are made of.

    `zeros` are base pages without payload; with `merge` the source puts more pages behind one header than the sender
    hands out at once.
    """

    geometry: Geometry = TINY
    hugepages: int = 1
    order: str = "sequential"
    policy: PolicyChoice = "eager"
    push_piece: Level = Level.PTE
    pull_piece: Level = Level.PTE
    run_pages_max: int = 4
    preempt: bool = True
    resend: bool = False
    merge: bool = False
    zeros: frozenset[PageIndex] = frozenset()
    seed: int = 1
    costs: CostModel = DEAR

    @property
    def pages(self) -> int:
        """How many base pages the memory has."""
        return self.hugepages * self.geometry.largest_pages


class EventRecord(Protocol):
    """Where events go that get their time there."""

    def record(self, node: str, happening: Happening, *values: Any, **fields: Any) -> None:
        """Emit an event of `node`, now; `values` and `fields` are those of `migemu.trace.events.Event`."""


class SourceSide:
    """The source from the moment in which the guest runs at the destination; its events go to `events`."""

    def __init__(self, plan: Plan, events: EventRecord) -> None:
        self.plan = plan
        self._events = events
        order = push_orders.create(plan.order, plan.geometry, plan.pages, Random(f"{plan.seed} push"))
        self.sender = Sender(
            plan.geometry, plan.pages, order, piece=plan.push_piece, run_pages_max=plan.run_pages_max,
            preempt=plan.preempt, resend=plan.resend,
        )  # fmt: skip
        self.channels: dict[ChannelId, deque[Message]] = {MAIN: deque(), PREEMPT: deque()}
        #: A page's bytes as one number, 0 where it is zero.
        self.bytes = [0 if page in plan.zeros else page + 1 for page in range(plan.pages)]
        self.end_sent = False
        self.copies = 0
        self._legality = Legality()
        begin(self._legality, plan)

    def push(self, runs: int = 1) -> None:
        """Send the next runs on the main channel; neighbours of one size may be merged. After the last, the end."""
        waiting: PieceRun | None = None
        for _ in range(runs):
            run = self.sender.next_run(MAIN)
            if waiting is not None:
                end = waiting.first + waiting.count * self.plan.geometry.pages(waiting.level)
                if self.plan.merge and run is not None and (run.first, run.level) == (end, waiting.level):
                    run = waiting._replace(count=waiting.count + run.count)
                else:
                    self._send(MAIN, waiting, urgent=False)
            waiting = run
        if waiting is not None:
            self._send(MAIN, waiting, urgent=False)
        elif not self.end_sent:
            self.end_sent = True
            self._record(Happening.STATE, detail=Stage.END.value)
            self._say(MAIN, End(self.plan.pages, 0, 0))

    def urgent(self) -> None:
        """Send all urgent answers that the sender has ready."""
        channel_id = PREEMPT if self.plan.preempt else MAIN
        while (run := self.sender.next_urgent(channel_id)) is not None:
            self._send(channel_id, run, urgent=True)

    def request(self, request: Request) -> None:
        """Hand a page request to the sender."""
        self._legality.said(Role.DESTINATION, request)
        self.sender.receive(request)

    def copy(self, page: PageIndex) -> None:
        """Send a page that is under way a second time; it may overtake the first."""
        if self.plan.preempt:
            self.copies += 1
            self._send(PREEMPT, PieceRun(page, 1, Level.PTE), urgent=True)

    def _send(self, channel_id: ChannelId, run: PieceRun, urgent: bool) -> None:
        per_piece = self.plan.geometry.pages(run.level)
        parts: list[Page | Zero] = []
        for first in range(run.first, run.first + run.count * per_piece, per_piece):
            kind = Page if any(self.bytes[first : first + per_piece]) else Zero
            if parts and type(parts[-1]) is kind:
                parts[-1] = parts[-1]._replace(count=parts[-1].count + 1)
            else:
                parts.append(kind(first, 1, run.level, urgent))
        for part in parts:
            detail = "zero" if isinstance(part, Zero) else None
            self._record(Happening.SENT, part.first, part.count * per_piece, run.level, urgent=urgent, detail=detail)
            self._say(channel_id, part)

    def _say(self, channel_id: ChannelId, message: Message) -> None:
        self._legality.said(Role.SOURCE, message, channel_id.role)
        self.channels[channel_id].append(message)

    def _record(self, happening: Happening, *values: Any, **fields: Any) -> None:
        self._events.record("source", happening, *values, **fields)

    def __repr__(self) -> str:
        return f"<SourceSide: {self.sender!r}, {sum(map(len, self.channels.values()))} messages under way>"


def begin(legality: Legality, plan: Plan) -> None:
    """Judge all messages that come before the running guest, so that `legality` is in that state."""
    legality.said(Role.SOURCE, Hello(MAIN.role, _MIGRATION))
    size = plan.pages * plan.geometry.page_bytes
    legality.said(Role.SOURCE, Advise(plan.geometry.name, size, 0, 0, plan.preempt, ""))
    legality.said(Role.DESTINATION, Ready(_MIGRATION))
    if plan.preempt:
        legality.said(Role.SOURCE, Hello(PREEMPT.role, _MIGRATION), PREEMPT.role)
    legality.said(Role.SOURCE, Listen())
    legality.said(Role.SOURCE, Run())
    legality.said(Role.DESTINATION, Running())
