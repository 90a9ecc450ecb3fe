"""What a seed stands for: two commands and their settings, what goes wrong, and who is started again.

Rules
    1. A seed draws the same plan as long as this file does not change; the line that replays it says the harms too.
    2. Memories are small and patience is short, so that a round takes a second or a few. What has to do with time is
       multiplied by `slowness`: that of the machine, not of the plan.
    3. One round in six is dark for good in the end: both nodes have to come to an end by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from tests.chaos.harm import AT_A_TIME, CHANGES, LASTING, SIGNALS, Harm, in_one_line

THERE: Final = "main->destination"
BACK: Final = "main->source"
URGENT: Final = "preempt->destination"
#: What is said, which way, and of which of its kind a harm is likely to find one; 0: as many as there are runs.
_BEFORE: Final = (
    (THERE, "Hello", 1), (THERE, "Advise", 1), (BACK, "Ready", 1), (URGENT, "Hello", 1), (THERE, "Listen", 1),
    (THERE, "DeviceState", 1),
)  # fmt: skip
_SWITCH: Final = ((THERE, "Listen", 1), (THERE, "DeviceState", 1), (THERE, "Run", 1), (BACK, "Running", 1))
_MIDDLE: Final = (
    (THERE, "Page", 10), (THERE, "Page", 0), (THERE, "Page", 0), (THERE, "Zero", 10), (BACK, "Request", 10),
    (URGENT, "Page", 5),
)  # fmt: skip
_RECOVERY: Final = (
    (THERE, "Hello", 2), (THERE, "Recover", 2), (BACK, "ReceivedBitmap", 2), (THERE, "Resume", 2), (BACK, "Resumed", 2),
)  # fmt: skip
_END: Final = ((THERE, "End", 1), (THERE, "Digests", 8), (BACK, "Complete", 1), (THERE, "Agreed", 1), (THERE, "End", 2))
#: How often a message of each is drawn for the first harm, and for those that come on top.
_STAGES: Final = (
    (_BEFORE, 3, 0.3), (_SWITCH, 4, 2), (_MIDDLE, 7, 5), (_RECOVERY, 0, 6), (_END, 4, 5),
)  # fmt: skip
_WEIGHTS: Final = {
    "cut": 5, "reset": 5, "truncate": 2, "drop": 3, "duplicate": 2, "flip": 4, "half_open": 3, "stall": 3,
    "stall_both": 2, "dark": 2, "refuse": 2, "strangers": 2, "kill": 9, "stop": 4, "term": 3, "hup": 2, "int": 2,
}  # fmt: skip
#: After all of a message.
_ALL: Final = 1 << 30
_BYTES: Final = (0, 0, 1, 5, 7, 9, 20, 60, 4000, 9000, _ALL, _ALL)
_FOR_MS: Final = (50, 300, 1000, 2500)
_RESTARTS_MS: Final = (0, 50, 400, 1500)


@dataclass(frozen=True, slots=True)
class Plan:
    """One round. `dark`: in the end nothing gets through for good. Settings are `section.key=value`.

    A node that has ended while there is something to go on with is started again, `restarts` times at most over both,
    each after one of `pauses_ms`; `moves` are those after which the destination is at another address.
    """

    seed: int
    sources: int
    security: str
    checkpoint: bool
    dump: bool
    trace: bool
    settings: tuple[tuple[str, str], ...]
    harms: tuple[Harm, ...]
    restarts: int
    pauses_ms: tuple[int, ...]
    moves: frozenset[int]

    @property
    def digests(self) -> bool:
        """Whether corrupt bytes are found at once."""
        return dict(self.settings)["integrity.digests"] == "on"

    def with_harms(self, harms: tuple[Harm, ...]) -> Plan:
        """The same plan with these harms instead."""
        return replace(self, harms=harms)

    def timed(self, slowness: float) -> list[str]:
        """`--set` and its settings, as a machine takes them that is so slow."""
        words = []
        for name, value in self.settings:
            scaled = f"{int(value.removesuffix('ms')) * slowness:.0f}ms" if name in _PATIENCE else value
            words += ["--set", f"{name}={scaled}"]
        return words

    def __str__(self) -> str:
        """In one line."""
        options = [name for name in ("checkpoint", "dump", "trace") if getattr(self, name)]
        options += [self.security] if self.security else []
        options += [f"{self.sources} migrations"] if self.sources > 1 else []
        options += [f"{self.restarts} restarts"] if self.restarts else []
        options += [f"moves {sorted(self.moves)}"] if self.moves else []
        settings = ", ".join(f"{name.partition('.')[2]}={value}" for name, value in self.settings)
        return f"{', '.join(options) or 'plain'} ({settings}): {in_one_line(self.harms) or 'no harm'}"


#: Settings that are patience: in ms, and multiplied by the slowness of the machine.
_PATIENCE: Final = (
    "net.idle_timeout", "net.hello_timeout", "net.connect_timeout", "net.listen_timeout", "recovery.timeout",
)  # fmt: skip


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(f"chaos {seed}")
    several = rng.random() < 0.08
    security = rng.choices(("", "psk", "tls", "tls and psk"), (78, 10, 8, 4))[0]
    settings = _settings(seed, rng)
    aim = Aim(security, settings)
    harms = [_harm(rng, aim, number) for number in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    if rng.random() < 1 / 6:
        harms.append(replace(aim.at(rng, "dark", len(harms)), for_ms=0))
    restarts = rng.choice((0, 1, 1, 2, 3))
    return Plan(
        seed=seed, sources=rng.choice((2, 3)) if several else 1, security=security,
        checkpoint=not several and rng.random() < 0.6, dump=not several and rng.random() < 0.5,
        trace=not several and rng.random() < 0.1, settings=tuple(settings.items()), harms=tuple(harms),
        restarts=restarts, pauses_ms=tuple(rng.choice(_RESTARTS_MS) for _ in range(restarts)),
        moves=frozenset(number for number in range(restarts) if rng.random() < 0.2),
    )  # fmt: skip


def _settings(seed: int, rng: Random) -> dict[str, Any]:
    size_mib = rng.choice((1, 2, 2, 4))
    seconds = rng.choice((0.25, 0.6, 1.2))
    return {
        "scenario.seed": str(seed),
        "memory.geometry": "tiny",
        "memory.zero_share": rng.choice(("0", "0.25")),
        "memory.size": f"{size_mib}M",
        "push.run": rng.choice(("4K", "16K", "64K")),
        "push.rate": f"{int(size_mib * 8 / seconds)}Mbit",
        "push.order": rng.choice(("fault_follow", "fill_pmd", "sequential")),
        "pull.preempt": rng.choice(("on", "on", "off")),
        "integrity.digests": rng.choice(("on", "off")),
        "guest.vcpus": rng.choice(("1", "2", "4")),
        "guest.workload": rng.choice(("uniform", "zipf")),
        "guest.rate": rng.choice(("50", "200", "1000")),
        "guest.write_share": rng.choice(("0.2", "0.5", "1.0")),
        "device.state": rng.choice(("0", "4K", "256K")),
        "checkpoint.interval": rng.choice(("20ms", "100ms", "1s")),
        "recovery.backoff_min": "5ms",
        "recovery.backoff_max": "100ms",
        "net.idle_timeout": rng.choice(("500ms", "1000ms")),
        "net.hello_timeout": "1000ms",
        "net.connect_timeout": "2000ms",
        "net.listen_timeout": "4000ms",
        "recovery.timeout": rng.choice(("1500ms", "2500ms", "2500ms")),
    }


def _harm(rng: Random, aim: Aim, number: int) -> Harm:
    act = rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
    if act in AT_A_TIME and rng.random() < 0.25:
        harm = Harm(act, at_ms=int(1200 * rng.random() ** 1.5))
    else:
        harm = aim.at(rng, act, number)
    if act in SIGNALS:
        harm = replace(harm, node=rng.choice(("source", "destination")))
    if act == "stop" or (act in LASTING and rng.random() < 0.7):
        harm = replace(harm, for_ms=rng.choice(_FOR_MS))
    return harm


class Aim:
    """At what is likely to come in a round of these settings."""

    def __init__(self, security: str, settings: dict[str, str]) -> None:
        self._by_bytes = "tls" in security
        self._size = int(settings["memory.size"].removesuffix("M")) << 20
        # Every fifth page is zero, so that a run is cut after some 20K.
        self._runs = self._size // min(int(settings["push.run"].removesuffix("K")) << 10, 20 << 10) * 4 // 5

    def at(self, rng: Random, act: str, number: int) -> Harm:
        """A harm `act` to a message; through TLS, at a byte. `number`: so many come before it in its plan."""
        if self._by_bytes:
            way = rng.choice((THERE, THERE, BACK))
            byte = 2 ** rng.uniform(5, 13) if way == BACK or rng.random() < 0.4 else rng.random() * self._size
            return Harm(act, way=way, byte=int(byte))
        weights = [on_top if number else first for _, first, on_top in _STAGES]
        way, kind, most = rng.choice(rng.choices([stage for stage, _, _ in _STAGES], weights)[0])
        byte = 0 if act in ("drop", "duplicate") else rng.choice(_BYTES)
        if act in CHANGES and byte == _ALL:
            byte = 0
        return Harm(act, way=way, kind=kind, nth=rng.randint(1, most or self._runs), byte=byte)
