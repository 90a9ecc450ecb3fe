"""Several migrations in one destination, as processes: results, exit codes, status, and what it refuses."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from migemu.process.status_socket import ask
from tests.real.processes import TINY, destination, node, source

EIGHT = range(1, 9)


def test_eight_sources_into_one_destination_are_all_verified(tmp_path: Path) -> None:
    """While they are held back after the switch, the destination tells how each of them stands."""
    with ExitStack() as stack:
        dest = stack.enter_context(destination("--migrations", "8", "--out", str(tmp_path)))
        sources = [
            stack.enter_context(source(
                dest.port, "--set", f"scenario.seed={seed}", "--set", "push.hold=1s", "--set", "pull.preempt=off"
            )) for seed in EIGHT
        ]  # fmt: skip
        dest.wait_until(lambda said: [each["stage"] for each in said.get("migrations", {}).values()].count("run") == 8)
        statuses = ask(tmp_path / "destination.sock")
        assert [status.stage for status in statuses] == ["run"] * 8
        assert [each.wait() for each in sources] == [0] * 8
        assert dest.wait() == 0, dest.error
    names = {status.migration[:8] for status in statuses}
    results = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    assert set(results) == names
    assert all(result["verified"] and result["certificate"]["countersigned"] for result in results.values())
    assert len({result["digest"] for result in results.values()}) == 8
    assert {result["scenario"]["scenario"]["seed"] for result in results.values()} <= {*EIGHT, 1}
    assert not (tmp_path / "result.json").exists()
    told = [said["notice"] for said in dest.said if "notice" in said]
    assert sorted(told) == sorted(f"migration {name}: verified, 1M" for name in names)


def test_one_that_is_refused_is_none_of_them_and_the_next_one_is_served(tmp_path: Path) -> None:
    with destination("--migrations", "1", "--out", str(tmp_path), "--set", "limits.memory_max=1M") as dest:
        with source(dest.port, "--set", "memory.size=2M") as large:
            assert large.wait() == 3
            assert "limits.memory_max of this destination is 1M" in large.error
        with source(dest.port) as fits:
            assert fits.wait() == 0, fits.error
        assert "limits.memory_max" in dest.wait_for_notice()
        assert dest.wait() == 0, dest.error
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "completed"


def test_refusals_do_not_lock_a_destination_that_serves_for_ever() -> None:
    """More of them than it has places for connections; before, each kept one."""
    limits = ("--set", "limits.memory_max=1M", "--set", "limits.connections_max=4")
    with destination("--migrations", "0", *limits) as dest:
        for _ in range(5):
            with source(dest.port, "--set", "memory.size=2M") as large:
                assert large.wait() == 3
                assert "limits.memory_max" in large.error
        with source(dest.port) as honest:
            assert honest.wait() == 0, honest.error


def test_one_that_serves_for_ever_is_interrupted(tmp_path: Path) -> None:
    with node("dest_node", "--listen", "127.0.0.1:0", "--migrations", "0", *TINY, "--out", str(tmp_path)) as dest:
        for _ in range(2):
            with source(dest.port) as sender:
                assert sender.wait() == 0, sender.error
        (status,) = ask(tmp_path / "destination.sock")
        assert status.stage == "waiting"
        dest.signal(signal.SIGINT)
        assert dest.wait() == 130
    assert len(list(tmp_path.glob("*/result.json"))) == 2


@pytest.mark.parametrize("option", ["checkpoint", "dump", "trace"])
def test_what_follows_one_migration_is_refused_with_several(option: str, tmp_path: Path) -> None:
    arguments = ["--trace", "--out", str(tmp_path)] if option == "trace" else [f"--{option}", str(tmp_path / "x")]
    with node("dest_node", "--migrations", "2", *arguments) as dest:
        assert dest.wait() == 2
        assert dest.error == f"--{option} follows one migration; leave it out, or --migrations"
