"""Run a scenario through both pure cores, in an order drawn from a seed, and judge everything that happens.

What this models
    A whole migration of the scenario's memory, with the guest's workload. The scenario decides what is sent and
    touched; the seed decides when: every message, effect, access and deadline comes when its turn is drawn.

Rules
    1. Same scenario, policy and seed: same trace.
    2. A step is drawn from those that are possible; it takes 1 ns. Rates, delays and sizes of links mean nothing here.
    3. The guest stops when the migration is complete.

Simplified
    Which pages are zeros is drawn page by page with `memory.zero_share`; the real source's pattern has them in rows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from dest_node.core.receiver import Receiver
from migemu.errors import ScenarioError
from migemu.guest.workload import Workload, WorkloadContext, workloads
from migemu.mm.pages import Level, PageIndex
from migemu.node.outcome import ReceiverStatistics
from migemu.ordering.broken import BrokenRuleError, OrderingError
from migemu.ordering.conditions import check, check_end
from migemu.ordering.cores import Cores, Touch
from migemu.ordering.policies import PolicyChoice, policy_name
from migemu.ordering.source_side import MAIN, PREEMPT, Plan
from migemu.scenario import scenario as scenarios
from migemu.scenario.scenario import Scenario
from migemu.store.recordings import NamedFiles
from migemu.trace.checkers import Checks, Violation, with_history
from migemu.trace.checkers import check as check_trace
from migemu.trace.events import Event, Happening, event_line
from migemu.wire.messages import ChannelId
from source_node.core.sender import SenderStatistics

#: A scenario: itself, the text or path of its TOML, or settings on top of `SMALL`.
ScenarioChoice = Scenario | str | Path | Mapping[str, Any] | None

#: What settings alone are put on top of: two hugetlb pages of 16 base pages each, and a short guest.
SMALL: Final[dict[str, Any]] = {
    "memory.geometry": "tiny", "memory.size": "128K", "guest.vcpus": 3, "guest.workload": "uniform",
    "guest.write_share": 0.5,
}  # fmt: skip
_EVENTS_SHOWN: Final = 8
#: Steps per base page after which a migration that has not ended never will. Assumed; 20 are usual.
_STEPS_PER_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class RunResult:
    """A migration that ran to its end without breaking a rule: its scenario, its events and some counts."""

    scenario: Scenario
    policy: str
    seed: int
    trace: tuple[Event, ...]
    receiver: ReceiverStatistics
    sender: SenderStatistics
    leaves: dict[Level, int]
    #: The rules to which this run gave nothing to judge, and why.
    unjudged: dict[str, str]

    def __repr__(self) -> str:
        return f"<RunResult of {self.policy}, seed {self.seed}: {len(self.trace)} events>"


def run(
    scenario: ScenarioChoice = None,
    *,
    policy: PolicyChoice | None = None,
    seed: int | None = None,
    receiver: Callable[..., Receiver] = Receiver,
    refusals: Literal["forbid", "allow"] = "forbid",
) -> RunResult:
    """Run `scenario`, with `policy` and `seed` instead of its own, if given.

    `receiver` makes the receiver, as in `explore`; `refusals="allow"` lets the policy propose what is refused.
    OrderingError: a rule is broken. ScenarioError, ValueError: the scenario or a spec is invalid.
    """
    settings = scenario_of(scenario)
    if seed is None:
        seed = settings.scenario.seed
    chosen = settings.collapse.policy if policy is None else policy
    cores = Cores(_plan(settings, chosen, seed), receiver)
    try:
        _Schedule(cores, settings, seed).run()
        if refusals == "forbid":
            _forbid_refusals(cores)
    except Exception as error:
        cause = None if isinstance(error, BrokenRuleError) else error
        broken = error if isinstance(error, BrokenRuleError) else BrokenRuleError("no_exception", _raised(error))
        said = {key: value for key, value in _differing(settings).items() if key != "scenario.seed"}
        arguments = [repr(said), *([] if policy is None else [f"policy={_said(policy)}"]), f"seed={seed}"]
        if receiver is not Receiver:
            arguments.append(f"receiver={_said(receiver)}")
        raise OrderingError(
            broken.rule, broken.reason, _led_to(cores, broken), f"migemu.ordering.run({', '.join(arguments)})"
        ) from cause
    finally:
        cores.close()
    return RunResult(
        settings, policy_name(chosen), seed, tuple(cores.events), cores.receiver.statistics(),
        cores.source.sender.statistics(), cores.memory.leaves(), cores.checks.unjudged(),
    )  # fmt: skip


def scenario_of(choice: ScenarioChoice) -> Scenario:
    """The scenario of an object, a path, TOML text, or settings on top of `SMALL`. ScenarioError: it is invalid."""
    if isinstance(choice, Scenario):
        return choice
    if isinstance(choice, Path):
        return scenarios.load(choice)
    if isinstance(choice, str):
        if "=" not in choice and "[" not in choice:
            return scenarios.load(Path(choice))
        try:
            return scenarios.from_mapping(tomllib.loads(choice), "scenario")
        except tomllib.TOMLDecodeError as error:
            raise ScenarioError("scenario", "", f"is not TOML: {error}") from None
    return scenarios.load(None, [f"{key}={value}" for key, value in {**SMALL, **(choice or {})}.items()])


def _plan(settings: Scenario, policy: PolicyChoice, seed: int) -> Plan:
    geometry = settings.geometry
    pages = settings.memory.size // geometry.page_bytes
    rng = Random(f"{seed} zeros")
    return Plan(
        geometry, settings.memory.size // geometry.largest_bytes, settings.push.order, policy,
        settings.push.piece, settings.pull.piece, settings.push.run // geometry.page_bytes,
        settings.pull.preempt, settings.pull.resend, merge=False,
        zeros=frozenset(page for page in range(pages) if rng.random() < settings.memory.zero_share),
        seed=seed, costs=settings.costs.model(geometry, settings.guest.vcpus),
    )  # fmt: skip


class _Schedule:
    """Draws the steps of one run from a seed."""

    def __init__(self, cores: Cores, settings: Scenario, seed: int) -> None:
        self._cores = cores
        self._draw = Random(f"{seed} order").random
        vcpus = settings.guest.vcpus
        self._accesses_remaining = [settings.guest.accesses_max or -1] * vcpus
        self._vcpus: list[Workload] = [
            workloads.create(
                settings.guest.workload,
                WorkloadContext(
                    cores.total, vcpu, vcpus, Random(f"{seed} vcpu {vcpu}"), settings.guest.write_share, NamedFiles()
                ),
            )
            for vcpu in range(vcpus)
        ]

    def run(self) -> None:
        """Take steps until the migration is complete. BrokenRuleError."""
        cores = self._cores
        for _ in range(_STEPS_PER_PAGE * cores.total):
            possible = self._possible()
            if not possible:
                check_end(cores)
                return
            cores.now += 1
            possible[int(self._draw() * len(possible))]()
            check(cores)
        raise BrokenRuleError("completion_is_told", f"the migration does not end: {cores!r}")

    def _possible(self) -> list[Callable[[], None]]:
        """The steps that can be taken now; [] when the migration is complete."""
        cores, source = self._cores, self._cores.source
        steps: list[Callable[[], None]] = []
        if not source.end_sent:
            steps += [cores.push] * 2
        if cores.return_path:
            steps.append(cores.request)
        if not source.sender.finished:
            steps.append(cores.urgent)
        steps += [partial(self._deliver, each) for each in (MAIN, PREEMPT) if source.channels[each]] * 2
        if cores.unread:
            steps.append(cores.read)
        if cores.receiver.deadline() is not None:
            steps.append(cores.pass_deadline)
        if steps or cores.asleep:
            steps += [partial(self._touch, vcpu) for vcpu in range(len(self._vcpus)) if self._accesses_remaining[vcpu]]
        return steps

    def _deliver(self, channel_id: ChannelId) -> None:
        most = 2 * min(self._cores.plan.run_pages_max, self._cores.geometry.pages(Level.PMD))
        between = [None if self._draw() < 0.3 else self._access(self._pick()) for _ in range(2)] if self._vcpus else []
        self._cores.deliver(channel_id, 1 + int(self._draw() * most), islice(between, int(self._draw() * 3)))

    def _pick(self) -> int:
        return int(self._draw() * len(self._vcpus))

    def _touch(self, vcpu: int) -> None:
        if (touch := self._access(vcpu)) is not None:
            self._cores.touch(*touch)

    def _access(self, vcpu: int) -> Touch | None:
        """The next access of `vcpu`; None if it sleeps, or its workload or `accesses_max` is at its end."""
        if vcpu in self._cores.asleep or not self._accesses_remaining[vcpu]:
            return None
        access = self._vcpus[vcpu].next_access()
        self._accesses_remaining[vcpu] = self._accesses_remaining[vcpu] - 1 if access is not None else 0
        return None if access is None else (vcpu, access.page, access.write)


def _forbid_refusals(cores: Cores) -> None:
    for line, event in enumerate(cores.events, 1):
        if event.event is Happening.REFUSED and event.first is not None and event.level is not None:
            what = f"the policy proposed to collapse the {event.level.name} at page {event.first}"
            raise BrokenRuleError(
                "proposals_sound", f"{what}; refused: {event.detail}",
                first=event.first, count=cores.geometry.pages(event.level), line=line,
            )  # fmt: skip


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _led_to(cores: Cores, broken: BrokenRuleError) -> list[str]:
    """The last events about the same pages or vCPU, up to the event that breaks the rule."""
    violations = check_trace(cores.events, geometry=cores.geometry, pages=cores.total)
    found = next((each for each in violations if each.rule == broken.rule), None)
    if found is None and (broken.first is not None or broken.vcpu is not None):
        line = broken.line or len(cores.events)
        made = Violation(
            broken.rule, cores.events[line - 1], line, broken.reason,
            first=None if broken.first is None else PageIndex(broken.first), count=broken.count, vcpu=broken.vcpu,
        )  # fmt: skip
        (found,) = with_history([made], cores.events, Checks(cores.geometry, cores.total))
    if found is not None:
        witnesses = [*found.history, (found.event, found.line)]
        return [f"{line:6}  {event_line(event)}" for event, line in witnesses]
    shown = cores.events[-_EVENTS_SHOWN:]
    return [f"{len(cores.events) - len(shown) + at:6}  {event_line(event)}" for at, event in enumerate(shown, 1)]


def _differing(settings: Scenario) -> dict[str, Any]:
    """The settings that make this scenario again when given on top of `SMALL`."""
    base, mine = scenario_of({}).resolved(), settings.resolved()
    return {
        f"{section}.{name}": value
        for section, values in mine.items()
        for name, value in values.items()
        if base[section][name] != value
    }


def _said(value: object) -> str:
    """`value` as Python source, for the call that repeats the run."""
    return repr(value) if isinstance(value, str) else policy_name(value)  # type: ignore[arg-type]
