"""What a seed stands for: a scenario, and what goes wrong in it.

Rules
    1. A seed draws the same case as long as this file does not change; the line that replays it says the hazards too.
    2. Memories are small, guests stop after a few hundred accesses, timeouts are short: a case takes milliseconds.
    3. Hazards prefer what is rare: first a message is drawn out of all that there are, then which one of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from migemu.scenario.scenario import Scenario, load
from migemu.sim.hazards import AtTime, Fault, Hazard, OnMessage, OnStage, Way, in_one_line
from migemu.units import MS, US
from migemu.wire.messages import (
    Advise,
    Agreed,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
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
)

THERE: Final = Way(ChannelRole.MAIN, "destination")
BACK: Final = Way(ChannelRole.MAIN, "source")
PREEMPT: Final = Way(ChannelRole.PREEMPT, "destination")
#: What is said after the switch, which way, and of which of its kind a hazard is likely to find one.
_AFTER: Final[tuple[tuple[Way, type[Message], int], ...]] = (
    (THERE, Page, 12), (THERE, Page, 40), (THERE, Zero, 6), (THERE, End, 3), (THERE, Digests, 6), (THERE, Recover, 3),
    (THERE, Resume, 3), (THERE, Agreed, 2), (THERE, Alive, 2), (THERE, Hello, 3), (BACK, Running, 1),
    (BACK, Request, 9), (BACK, Complete, 2), (BACK, ReceivedBitmap, 6), (BACK, Resumed, 3), (BACK, Alive, 2),
    (PREEMPT, Hello, 2), (PREEMPT, Page, 8), (PREEMPT, Page, 2), (PREEMPT, Zero, 4), (THERE, Listen, 2),
)  # fmt: skip
_BEFORE: Final[tuple[tuple[Way, type[Message], int], ...]] = (
    (THERE, Hello, 1), (THERE, Advise, 1), (THERE, Listen, 1), (THERE, DeviceState, 1), (THERE, Run, 1),
    (BACK, Ready, 1), (PREEMPT, Hello, 1),
)  # fmt: skip
#: Where one of the two does not know what the other one has heard.
_SWITCH_AND_END: Final[tuple[tuple[Way, type[Message], int], ...]] = (
    (BACK, Ready, 1), (THERE, Listen, 1), (THERE, DeviceState, 1), (THERE, Run, 1), (BACK, Running, 1),
    (THERE, End, 1), (THERE, Digests, 2), (BACK, Complete, 1), (THERE, Agreed, 1), (THERE, Recover, 1),
    (BACK, ReceivedBitmap, 1), (THERE, Resume, 1), (BACK, Resumed, 1), (BACK, Ready, 2), (THERE, Run, 2),
)  # fmt: skip
#: Of all worlds.
_DARK_SHARE: Final = 0.12
_STAGES: Final = (
    ("source", "run"), ("source", "end"), ("source", "paused"), ("source", "recover"), ("destination", "run"),
    ("destination", "end"), ("destination", "paused"), ("destination", "recover"), ("destination", "completed"),
)  # fmt: skip
_WEIGHTS: Final = {
    Fault.CUT: 6, Fault.TRUNCATE: 2, Fault.DUPLICATE: 2, Fault.CORRUPT: 5, Fault.DELAY: 2, Fault.SLOW: 1,
    Fault.HOLD: 2, Fault.HALF_OPEN: 2, Fault.CRASH_SOURCE: 3, Fault.CRASH_DESTINATION: 0.5, Fault.FAIL_RECOVERY: 1,
    Fault.LOSE: 2,
}  # fmt: skip
#: Of a whole small frame; most headers are shorter than 30 bytes, most payloads one or a few pages.
_BYTES: Final = (0, 1, 5, 6, 7, 8, 9, 12, 16, 20, 30, 60, 200, 4000, 4200, 9000, 20_000, 70_000)
#: Of 10 ms in a second a 1G page needs minutes for its 2M.
_BUDGET: Final = {False: "budget:stall=10ms", True: "budget"}


@dataclass(frozen=True)
class Case:
    """A scenario and its hazards; all faults but darkness are healed after `heal_ns`. `given`: what replaying takes.

    `keeps`: the destination has a checkpoint.
    """

    given: str
    scenario: Scenario
    hazards: tuple[Hazard, ...]
    heal_ns: int
    keeps: bool = False

    @property
    def is_healed(self) -> bool:
        """Whether everything is well in the end; else the network is dark for good at some time."""
        return not any(hazard.fault is Fault.DARK for hazard in self.hazards)

    def without(self, index: int) -> Case:
        """The same case with one hazard less."""
        return self.with_hazards(*self.hazards[:index], *self.hazards[index + 1 :])

    def with_hazards(self, *hazards: Hazard) -> Case:
        """The same case with these hazards instead."""
        return replace(self, hazards=hazards)

    @property
    def replay(self) -> str:
        """The line that runs it again."""
        return f'python -m tests.swarm {self.given} --hazards "{in_one_line(self.hazards)}"'


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = Random(f"swarm {seed}")
    scenario = load(None, [f"{name}={value}" for name, value in _settings(seed, rng).items()])
    hazards: list[Hazard] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6))):
        hazards += _hazard(rng, scenario)
    heal_ns = rng.choice((50, 500, 3000)) * MS
    if rng.random() < _DARK_SHARE:
        hazards.append(_darkness(rng))
    return Case(f"--seed {seed}", scenario, tuple(hazards), heal_ns, rng.random() < 0.5)


def _darkness(rng: Random) -> Hazard:
    """Mostly at the switch, or at the end: where it is not known any more who has the guest, or the verdict."""
    drawn = rng.random()
    if drawn < 0.7:
        return Hazard(Fault.DARK, *_frame(rng, _SWITCH_AND_END))
    if drawn < 0.9:
        return Hazard(Fault.DARK, *_frame(rng, _AFTER))
    return Hazard(Fault.DARK, None, AtTime(rng.choice((1, 3, 10, 30, 100)) * MS + rng.randrange(1000) * US))


def _frame(rng: Random, of: tuple[tuple[Way, type[Message], int], ...]) -> tuple[Way, OnMessage]:
    way, kind, nth_max = rng.choice(of)
    return way, OnMessage(kind, rng.randint(1, nth_max))


def _settings(seed: int, rng: Random) -> dict[str, Any]:
    big = rng.random() < 0.04
    delay_us = rng.choice((5, 50, 200, 1000))
    settings: dict[str, Any] = {
        "scenario.seed": seed,
        "memory.geometry": "x86_64" if big else "tiny",
        "memory.size": "1G" if big else rng.choice(("64K", "128K", "256K", "512K")),
        "memory.hgm": rng.choices(("on", "off"), (9, 1))[0],
        "memory.zero_share": rng.choice((0, 0.25, 0.25, 0.6)),
        "push.order": rng.choice(("fault_follow", "fill_pmd", "random", "sequential", "bubbling")),
        "push.piece": rng.choice(("4K", "4K", "2M")),
        "push.run": "16M" if big else rng.choice(("4K", "8K", "16K", "1M")),
        "push.hold": rng.choice(("0", "0", "1ms", "20ms")),
        "push.rate": rng.choice(("0", "0", "20Mbit")) if not big else "0",
        "pull.piece": rng.choice(("4K", "4K", "2M")),
        "pull.preempt": rng.choice(("on", "on", "off")),
        "pull.sender": rng.choice(("request", "request", "push")),
        "pull.resend": rng.choice(("on", "off", "off")),
        "collapse.policy": rng.choice(("eager", "never", "at_end", "direct", "batched:spans=2", _BUDGET[big])),
        "costs.place": rng.choice(("run", "copy")),
        "costs.lock": rng.choice(("mmap_lock", "vma_lock")),
        "guest.vcpus": rng.choice((0, 1, 2, 4)),
        "guest.workload": rng.choice(("uniform", "zipf", "sequential", "pointer_chase")),
        "guest.rate": rng.choice((1_000, 10_000, 50_000)),
        "guest.tick": rng.choice(("0", "1ms")),
        "guest.write_share": rng.choice((0.2, 0.5, 1.0)),
        "guest.accesses_max": rng.choice((20, 200)),
        "device.state": rng.choice(("0", "4K", "64K")),
        "link.rate": rng.choice(("0", "100Mbit", "1Gbit")) if not big else "100Gbit",
        "link.delay": f"{delay_us}us",
        "link.jitter": rng.choice(("0", f"{delay_us // 2}us")),
        "link.reorder": rng.choice(("on", "off")),
        "link.segment": rng.choice(("4K", "64K")) if not big else "64K",
        "link.scheduling": rng.choice(("fair", "fifo", "strict")),
        "link.queue": rng.choice(("0", "64K")),
        "return_link.delay": f"{rng.choice((5, 200))}us",
        "return_link.jitter": rng.choice(("0", "5us")),
        "return_link.reorder": rng.choice(("on", "off")),
        "net.idle_timeout": rng.choice(("100ms", "400ms")),
        "net.hello_timeout": "500ms",
        "net.connect_timeout": "1s",
        "net.answer_timeout": "2s",
        "net.high_water": rng.choice(("4K", "256K")),
        "recovery.timeout": "30s",
        "recovery.backoff_min": rng.choice(("1ms", "10ms")),
        "recovery.backoff_max": "100ms",
        "recovery.errors_max": 20,
        "integrity.digests": rng.choice(("on", "off")),
    }
    if settings["collapse.policy"] == "never" and settings["memory.hgm"] == "on":
        settings["costs.threads"] = "three"  # else one that is behind may map what another has brought only later
    if rng.random() < 0.1:  # a way, or both, is down for a while
        down_ms = rng.choice((2, 10, 30))
        settings |= {"link.outages": f"{down_ms}ms-{down_ms + rng.choice((20, 150, 1000))}ms"}
        settings |= {"return_link.outages": settings["link.outages"]} if rng.random() < 0.5 else {}
    if rng.random() < 0.2 and not big:
        settings |= {"link.congestion": "cubic", "link.loss": rng.choice((0, 0.01)), "link.rto_min": "5ms"}
    return settings


def _hazard(rng: Random, scenario: Scenario) -> list[Hazard]:
    """One hazard, or one with what brings it about."""
    fault = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if fault is Fault.FAIL_RECOVERY:
        return [_a_loss(rng, False), Hazard(fault, amount=rng.randint(1, 3))]
    messages = _AFTER if rng.random() < 0.85 else _BEFORE
    way, kind, nth_max = rng.choice(messages)
    if fault is Fault.CORRUPT and rng.random() < 0.5:  # what digests are for
        way, kind, nth_max = THERE, rng.choice((Page, Page, Zero)), 6
    if way.channel is ChannelRole.PREEMPT and not scenario.pull.preempt:
        way = THERE
    when: OnMessage | AtTime | OnStage = OnMessage(kind, rng.randint(1, nth_max))
    drawn = rng.random()
    if drawn < 0.1:
        when = AtTime(rng.choice((1, 3, 10, 30, 100)) * MS + rng.randrange(1000) * US)
    elif drawn < 0.2:
        when = OnStage(*rng.choice(_STAGES), rng.randint(1, 2))
    if fault in (Fault.CRASH_SOURCE, Fault.CRASH_DESTINATION):
        amount = rng.choice((100, 1_000, 20_000, 200_000)) * US
        return [Hazard(fault, way if isinstance(when, OnMessage) else None, when, amount)]
    amount = 0
    if fault in (Fault.CUT, Fault.TRUNCATE, Fault.CORRUPT):
        amount = rng.choice(_BYTES)
    elif fault is Fault.DELAY:
        amount = rng.choice((100, 2_000, 50_000, 300_000)) * US
    elif fault is Fault.SLOW:
        amount = rng.choice((100_000, 2_000_000))
    hazards = [Hazard(fault, way, when, amount)]
    if fault is Fault.HOLD and rng.random() < 0.7:
        hazards.append(Hazard(Fault.RELEASE, way, AtTime(rng.choice((5, 20, 100, 600)) * MS)))
    if kind in (Recover, ReceivedBitmap, Resume, Resumed, Listen) and rng.random() < 0.8:
        hazards.insert(0, _a_loss(rng, scenario.pull.preempt))
    return hazards


def _a_loss(rng: Random, preempt: bool) -> Hazard:
    """What makes a recovery necessary. The preempt channel is lost while there is most on it."""
    drawn = rng.random()
    if preempt and drawn < 0.3:
        return Hazard(Fault.CUT, PREEMPT, OnMessage(None, rng.randint(1, 6)), rng.choice(_BYTES))
    if preempt and drawn < 0.4:
        return Hazard(Fault.CUT, PREEMPT, OnStage("destination", rng.choice(("end", "completed")), 1))
    if drawn < 0.5:
        return Hazard(Fault.CUT, THERE, OnMessage(Run, 1))
    return Hazard(Fault.CUT, THERE, OnMessage(Page, rng.randint(1, 9)))
