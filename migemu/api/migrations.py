"""One migration from a program: `simulate` in virtual time, `run` with two processes and real bytes."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Final

from rich.console import Console

from migemu.api import own_loop
from migemu.api.given_settings import Settings, make_scenario
from migemu.api.run_result import Result
from migemu.errors import (
    EXIT_INTERRUPTED,
    BrokenError,
    InputError,
    MigemuError,
    PeerError,
    VerificationError,
)  # fmt: skip
from migemu.report.directory import RunDirectory
from migemu.report.terminal.progress import Progress
from migemu.scenario.scenario import Scenario
from migemu.transport.shaper import check_link
from migemu.worlds.modelled import Simulation
from migemu.worlds.pair import Pair

_LOG: Final = logging.getLogger("migemu")
_ERRORS: Final = {kind.exit_code: kind for kind in (InputError, BrokenError, PeerError, VerificationError)}


def simulate(
    *settings: Settings, seed: int | None = None, out: str | PathLike[str] | None = None, trace: bool = True
) -> Result:
    """Run a migration in virtual time: both services, unchanged, over an emulated link, without bytes.

    `settings` are mappings (`{"guest.vcpus": 8, "link.preset": "25G"}`), scenario files or names of shipped scenarios;
    each stands above those before it, and none is the defaults. The same settings, seed and code give the same result.

    `out` is a directory that is kept (result.json, scenario.toml, trace.jsonl), as of `migemu sim --out`; what an
    earlier run left there is set aside. `trace=False` writes no events: faster, and without `faults`, `trace` and the
    figures over time. It returns when the run has ended, also where an event loop is running (a notebook).

    ScenarioError: a setting is wrong. Any other MigemuError: what went wrong in the run; with `out`, result.json there
    tells it too. KeyboardInterrupt: Ctrl-C, after all is put away.

    >>> import migemu
    >>> result = migemu.simulate({"memory.geometry": "tiny", "memory.size": "64K", "guest.vcpus": 1}, seed=1)
    >>> result.kind, result.verified, result.bytes.memory
    ('modelled', True, 65536)
    """
    scenario = make_scenario(settings, seed)
    return _in_directory(out, lambda directory: _simulate(scenario, directory, trace))


def run(
    *settings: Settings, seed: int | None = None, out: str | PathLike[str] | None = None, trace: bool = True
) -> Result:
    """Run a migration in real time: a source and a destination process, real bytes, real sockets, as `migemu run`.

    Arguments and errors as of `simulate`. The two processes end with this call, whatever becomes of it. PeerError,
    VerificationError: as the exit codes 4 and 5 of `migemu run`.

    >>> import migemu
    >>> result = migemu.run({"memory.geometry": "tiny", "memory.size": "64K", "guest.vcpus": 0})
    >>> result.kind, result.verified
    ('measured', True)
    """
    scenario = make_scenario(settings, seed)
    check_link("link", scenario.link)
    check_link("return_link", scenario.return_link)
    return _in_directory(out, lambda directory: _run_pair(scenario, directory, trace))


def _in_directory(out: str | PathLike[str] | None, work: Callable[[Path], None]) -> Result:
    """The result of `work`, which is done in `out`, or in a temporary directory that goes with the result."""
    if out is not None:
        work(Path(out))
        return Result.read(out)
    directory = Path(tempfile.mkdtemp(prefix="migemu-"))
    try:
        work(directory)
        return Result(RunDirectory.open(directory), is_temporary=True)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _simulate(scenario: Scenario, directory: Path, trace: bool) -> None:
    simulation = Simulation(scenario, directory, trace=trace, notice=_LOG.warning)
    own_loop.do(simulation.run, simulation.interrupt)
    if simulation.error is not None:
        raise simulation.error


class _Silent(Progress):
    """Shows nothing; what is worth knowing goes to the log of `migemu`."""

    def note(self, line: str) -> None:
        _LOG.warning(line)


def _run_pair(scenario: Scenario, directory: Path, trace: bool) -> None:
    progress = _Silent(Console(quiet=True), scenario.scenario.name, quiet=True)
    pair = Pair(scenario, directory, progress, trace)
    outcome = own_loop.do(lambda: asyncio.run(pair.run()), pair.interrupt)
    if outcome.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.exit_code:
        raise _ERRORS.get(outcome.exit_code, MigemuError)(outcome.error)
