"""Ctrl-C, SIGTERM, SIGKILL, SIGSTOP: whoever is left ends cleanly, ports are free, what had arrived is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.processes import TINY, destination, source

HOLD = ("--set", "push.hold=60s")
ONCE = ("--set", "recovery.timeout=0")


def children(pid: int) -> list[int]:
    """The child processes of `pid`, from /proc."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("who", ["source", "destination"])
def test_an_interrupted_node_tells_the_other_and_the_result_is_written(
    who: str, number: signal.Signals, tmp_path: Path
) -> None:
    busy = ("--out", str(tmp_path), "--set", "guest.rate=100000")
    with destination(*busy) as dest, source(dest.port, *HOLD) as sender:
        dest.wait_until(lambda said: said.get("status", {}).get("faults", 0))
        (sender if who == "source" else dest).signal(number)
        codes = {"source": sender.wait(), "destination": dest.wait()}
        other = "destination" if who == "source" else "source"
        assert codes == {who: 130, other: 3}
        assert f"the {who} gave up: the {who} was interrupted" in (dest if who == "source" else sender).error
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == ("failed" if who == "source" else "interrupted")
    assert not result["verified"]
    assert result["pieces"]["4K"] + result["pieces"]["zero"] > 0


@pytest.mark.parametrize("who", ["source", "destination"])
def test_a_killed_node_is_noticed_by_the_other(who: str) -> None:
    with destination(*ONCE) as dest, source(dest.port, *HOLD, *ONCE) as sender:
        dest.wait_for_stage("run")
        (sender if who == "source" else dest).signal(signal.SIGKILL)
        assert (sender if who == "source" else dest).wait() == -signal.SIGKILL
        survivor = dest if who == "source" else sender
        assert survivor.wait() == 3
        assert "connection" in survivor.error


def test_a_stopped_source_is_given_up_after_the_idle_timeout() -> None:
    with destination("--set", "net.idle_timeout=400ms", *ONCE) as dest, source(dest.port, *HOLD, *ONCE) as sender:
        dest.wait_for_stage("run")
        sender.signal(signal.SIGSTOP)
        assert dest.wait() == 3
        assert "silent for 400ms" in dest.error
        sender.signal(signal.SIGCONT)
        assert sender.wait() == 3


class Run:
    """`migemu run` in the background."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "migemu", "run", *TINY, *HOLD, "--out", "out", *arguments], cwd=directory,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.heard = ""
        for line in self.process.stderr:  # it is under way once it shows progress
            self.heard += line
            if line.startswith("run:"):
                return
        raise AssertionError(self.heard)

    def nodes(self) -> dict[str, int]:
        """The pids of the two nodes."""
        names = ("source_node", "dest_node")
        return {name: pid for pid in children(self.process.pid) for name in names if name in command_of(pid)}

    def finish(self) -> str:
        out, err = self.process.communicate(timeout=30)
        return self.heard + out + err


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def test_ctrl_c_ends_run_and_both_nodes_and_leaves_the_result(tmp_path: Path) -> None:
    run = Run(tmp_path)
    nodes = run.nodes()
    assert set(nodes) == {"source_node", "dest_node"}
    run.process.send_signal(signal.SIGINT)
    said = run.finish()
    assert run.process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert all(gone(pid) for pid in nodes.values())
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("who", ["source_node", "dest_node"])
def test_run_reports_a_node_that_was_killed_and_ends_the_other(who: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    nodes = run.nodes()
    os.kill(nodes[who], signal.SIGKILL)
    said = run.finish()
    assert run.process.returncode == 3
    name = {"source_node": "source", "dest_node": "destination"}[who]
    assert f"the {name} process was killed by SIGKILL" in said
    assert "Traceback" not in said
    assert all(gone(pid) for pid in nodes.values())


def test_nodes_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    nodes = run.nodes()
    run.process.kill()
    run.finish()
    deadline = 3000
    while not all(gone(pid) for pid in nodes.values()) and deadline:
        subprocess.run(["true"], check=True)  # a few ms each; there is nothing to be notified by
        deadline -= 1
    assert all(gone(pid) for pid in nodes.values())
