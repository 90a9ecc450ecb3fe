"""The pytest plugin: policies under test, one call each. Installed with migemu; nothing is loaded until it is used.

migemu_explore(policy, ...)      every order of events on a small memory: `migemu.ordering.explore`
migemu_scenario(settings, ...)   a migration drawn from a seed: `migemu.ordering.run`; with seeds=N, N of them
migemu_golden(name, trace)       the trace is the one in golden/NAME.jsonl beside the test

--migemu-update-golden           write golden files instead of comparing
--migemu-seed=N                  every `migemu_scenario` runs this seed alone
--migemu-states-max=N            another bound for every `migemu_explore`
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import pytest

if TYPE_CHECKING:
    from migemu.ordering import Exploration, RunResult
    from migemu.ordering.policies import PolicyChoice
    from migemu.ordering.seeded_run import ScenarioChoice
    from migemu.trace.events import Event


class _Seen:
    """What was tried in this session, for the line at its end."""

    def __init__(self) -> None:
        self.explorations = self.states = self.transitions = self.runs = 0


_SEEN: Final = pytest.StashKey[_Seen]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this plugin."""
    group = parser.getgroup("migemu", "migemu: orders of collapse")
    group.addoption("--migemu-update-golden", action="store_true", help="write golden traces instead of comparing")
    group.addoption("--migemu-seed", type=int, metavar="N", help="run this seed alone in every migemu_scenario")
    group.addoption("--migemu-states-max", type=int, metavar="N", help="bound of states in every migemu_explore")


def pytest_configure(config: pytest.Config) -> None:
    """Attach an empty count of what is tried to the session."""
    config.stash[_SEEN] = _Seen()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how much was tried, if anything was."""
    seen = config.stash[_SEEN]
    parts = []
    if seen.explorations:
        parts.append(f"{seen.explorations} explored: {seen.states} states, {seen.transitions} transitions")
    if seen.runs:
        parts.append(f"{seen.runs} runs of scenarios")
    if parts:
        terminalreporter.write_line(f"migemu: {'; '.join(parts)}")


class Explorer:
    """The fixture `migemu_explore`: call it with a policy to try every order of events on a small memory."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def __call__(self, policy: PolicyChoice, **options: Any) -> Exploration:
        """Try every order of events; `options` are those of `migemu.ordering.explore`.

        AssertionError: a rule is broken.
        """
        __tracebackhide__ = True
        from migemu.ordering import OrderingError, explore

        states_max = self._config.getoption("--migemu-states-max")
        if states_max is not None:
            options["states_max"] = states_max
        try:
            exploration = explore(policy, **options)
        except OrderingError as error:
            raise error.with_traceback(None) from error.__cause__
        seen = self._config.stash[_SEEN]
        seen.explorations += 1
        seen.states += exploration.states
        seen.transitions += exploration.transitions
        return exploration


class ScenarioRunner:
    """The fixture `migemu_scenario`: call it with settings to run a migration drawn from a seed."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @overload
    def __call__(self, scenario: ScenarioChoice = None, *, seeds: None = None, **options: Any) -> RunResult: ...

    @overload
    def __call__(self, scenario: ScenarioChoice = None, *, seeds: int, **options: Any) -> list[RunResult]: ...

    def __call__(
        self, scenario: ScenarioChoice = None, *, seeds: int | None = None, **options: Any
    ) -> RunResult | list[RunResult]:
        """Run a scenario; `options` as of `migemu.ordering.run`. With `seeds`, so many of them, from the first on.

        AssertionError: a rule breaks.
        """
        __tracebackhide__ = True
        from migemu.ordering import OrderingError, run
        from migemu.ordering.seeded_run import scenario_of

        settings = scenario_of(scenario)
        first = options.pop("seed", None)
        if first is None:
            first = settings.scenario.seed
        chosen: Iterable[int] = range(first, first + (1 if seeds is None else seeds))
        if (only := self._config.getoption("--migemu-seed")) is not None:
            chosen = (only,)
        results = []
        for seed in chosen:
            try:
                results.append(run(settings, seed=seed, **options))
            except OrderingError as error:
                raise error.with_traceback(None) from error.__cause__
            self._config.stash[_SEEN].runs += 1
        return results[0] if seeds is None else results


class Golden:
    """The fixture `migemu_golden`: call it with a name and a trace to compare the trace with a golden file."""

    def __init__(self, config: pytest.Config, directory: Path) -> None:
        self._update = bool(config.getoption("--migemu-update-golden"))
        self._directory = directory

    def __call__(self, name: str, trace: RunResult | Iterable[Event]) -> None:
        """Compare a trace, or that of a run, with `golden/NAME.jsonl` beside the test; or write that file."""
        __tracebackhide__ = True
        from migemu.ordering import RunResult
        from migemu.ordering.golden import golden_difference, write_golden

        events = trace.trace if isinstance(trace, RunResult) else trace
        path = self._directory / "golden" / f"{name}.jsonl"
        if self._update:
            write_golden(path, events)
            return
        if not path.exists():
            pytest.fail(
                f"{path} is missing; make it with: pytest --migemu-update-golden, and look at it", pytrace=False
            )
        if difference := golden_difference(path, events):
            pytest.fail(
                f"the trace is not that of {path}: {difference}\n"
                "if that is meant: pytest --migemu-update-golden, and look at what has changed",
                pytrace=False,
            )


@pytest.fixture
def migemu_explore(pytestconfig: pytest.Config) -> Explorer:
    """Try every order of events on a small memory with a collapse policy: `migemu_explore(MyPolicy)`."""
    return Explorer(pytestconfig)


@pytest.fixture
def migemu_scenario(pytestconfig: pytest.Config) -> ScenarioRunner:
    """Run a scenario through both cores: `migemu_scenario({"push.order": "random"}, policy=MyPolicy, seeds=20)`."""
    return ScenarioRunner(pytestconfig)


@pytest.fixture
def migemu_golden(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Golden:
    """Compare a trace with a golden one: `migemu_golden("cut_at_90", migemu_scenario(...))`."""
    return Golden(pytestconfig, request.path.parent)
