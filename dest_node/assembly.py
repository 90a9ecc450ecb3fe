"""What a destination is made of, once the source has announced its memory: memory, receiver and its hands, vCPUs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from dest_node.core.advise import Announced
from dest_node.core.effects import NODE
from dest_node.core.receiver import Receiver
from dest_node.executor import Effects
from dest_node.verification.integrity import Integrity
from dest_node.verification.verify import Verification
from migemu.mm.pages import Geometry, PieceRun
from migemu.policy.collapse_policy import collapse_policies, promises
from migemu.ports import Accelerator, Clock, GuestMemory, Tracer, Vcpus
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Event, Happening

Allocate = Callable[[Geometry, int], Awaitable[GuestMemory]]


class Parts(NamedTuple):
    """All of them."""

    memory: GuestMemory
    receiver: Receiver
    effects: Effects
    vcpus: Vcpus
    verification: Verification
    integrity: Integrity


async def assemble(
    scenario: Scenario, announced: Announced, clock: Clock, tracer: Tracer | None, *,
    allocate: Allocate, accelerator: Accelerator, make_receiver: Callable[..., Receiver],
    ask: Callable[[PieceRun], None], finish: Callable[[], None],
    spawn: Callable[[Coroutine[Any, Any, None]], object],
) -> Parts:  # fmt: skip
    """Make them. InputError when the vCPUs cannot run over this memory; what `allocate` raises.

    `ask`, `finish` and `spawn` are those of `Effects`.
    """
    geometry = announced.geometry
    memory = await allocate(geometry, announced.advise.memory_bytes)
    vcpus = accelerator.create_vcpus(memory, tracer)
    policy = collapse_policies.create(scenario.collapse.policy, geometry)
    if tracer is not None:
        detail = " ".join((scenario.collapse.policy, *promises(policy)))
        tracer.emit(Event(clock.now_ns(), NODE, Happening.POLICY, detail=detail))
    costs = scenario.costs.model(geometry, scenario.guest.vcpus)
    receiver = make_receiver(
        geometry, announced.pages, policy, urgent_piece=scenario.pull.piece, hgm=scenario.memory.hgm,
        collapse_ns=costs.collapse_ns, call_ns_max=scenario.net.idle_timeout // 4,
    )  # fmt: skip
    effects = Effects(receiver, memory.mapping, costs, clock, tracer, ask, finish, spawn)
    integrity = Integrity(memory.contents, receiver.received, scenario.recovery.errors_max)
    return Parts(memory, receiver, effects, vcpus, Verification(memory.contents, vcpus), integrity)
