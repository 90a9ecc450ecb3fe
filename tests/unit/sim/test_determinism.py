"""The same scenario, seed and code give the same trace: anywhere, watched or not, and on every Python that is there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from migemu.report.terminal.status_line import Status
from migemu.sim.pace import WallPace
from migemu.worlds.modelled import Simulation, run_cell
from tests.pythons import other_pythons
from tests.unit.sim.played import LIVELY, play, scenario

ROOT = Path(__file__).resolve().parents[3]
#: Losses, jitter, reordering, a push order and a workload that draw: whatever has a seed.
DRAWN = LIVELY | {
    "push.order": "random", "link.loss": 0.01, "link.congestion": "cubic", "guest.workload": "zipf",
    "collapse.policy": "batched:spans=3", "link.distribution": "pareto",
}  # fmt: skip


def digest(python: str = sys.executable, hash_seed: str = "0") -> str:
    """That of a run in a process of its own."""
    program = (
        "from migemu.worlds.modelled import run_cell\n"
        "from migemu.scenario.scenario import load\n"
        f"print(run_cell(load(None, {[f'{key}={value}' for key, value in DRAWN.items()]!r}), None)['trace_digest'])"
    )
    done = subprocess.run(
        [python, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_the_digest_is_the_same_under_any_hash_seed() -> None:
    here = run_cell(scenario(DRAWN), None)["trace_digest"]
    assert len(here) == 64
    assert {digest(hash_seed=seed) for seed in ("0", "1", "77")} == {here}


def test_the_digest_is_the_same_on_every_python() -> None:
    pythons = [*other_pythons().values()]
    if not pythons:
        pytest.skip("no other Python has what migemu needs; name some in MIGEMU_PYTHONS")
    here = run_cell(scenario(DRAWN), None)["trace_digest"]
    assert {python: digest(python) for python in pythons} == dict.fromkeys(pythons, here)


@pytest.mark.parametrize("settings", [{}, {"link.jitter": 0, "push.order": "fault_follow"}], ids=str)
def test_another_seed_gives_another_digest_and_the_same_one_the_same(settings: dict[str, object]) -> None:
    digests = [run_cell(scenario(DRAWN, settings, {"scenario.seed": seed}), None)["trace_digest"] for seed in range(5)]
    assert len(set(digests)) == 5
    assert run_cell(scenario(DRAWN, settings, {"scenario.seed": 3}), None)["trace_digest"] == digests[3]


def test_what_is_wrong_in_one_place_changes_the_digest() -> None:
    """Otherwise the tests above could not fail."""
    first, second = play(scenario(DRAWN)), play(scenario(DRAWN, {"costs.handler": "sleeping"}))
    assert first.world.watch.digest != second.world.watch.digest


class _Looking:
    """A progress display that remembers whether it was shown anything."""

    def __init__(self) -> None:
        self.shown: list[Status] = []

    def show(self, status: Status) -> None:
        self.shown.append(status)


def test_who_watches_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace, a pace, a progress display: the digest is the same, and it is that of the lines of the trace."""
    monkeypatch.setattr("migemu.worlds.modelled._LOOK_S", -1.0)
    settings, looking = scenario(DRAWN), _Looking()
    plain = Simulation(settings).run()["trace_digest"]
    traced = Simulation(settings, tmp_path, trace=True).run()["trace_digest"]
    wall_ns = [0]

    def sleep(seconds: float) -> None:
        wall_ns[0] += max(1, round(seconds * 1e9))

    pace = WallPace(0.01, lambda: wall_ns[0], sleep)
    watched = Simulation(settings, pace=pace, progress=looking).run()["trace_digest"]  # type: ignore[arg-type]
    assert plain == traced == watched
    assert wall_ns[0] > 100_000_000
    assert len(looking.shown) > 100
    lines = (tmp_path / "trace.jsonl").read_bytes().split(b"\n", 1)[1]
    assert (
        hashlib.sha256(lines).hexdigest() == plain == json.loads((tmp_path / "result.json").read_text())["trace_digest"]
    )
