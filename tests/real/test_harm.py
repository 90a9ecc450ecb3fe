"""Real processes come to harm: stopped and continued, cut, reset and corrupted at random bytes, without descriptors.

They end verified, or say why in a line. Killed nodes are in test_going_on, and with a checkpoint in test_checkpoint.
Whatever happens, the source's image is what it was.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import Random
from resource import RLIMIT_NOFILE, prlimit
from typing import NamedTuple

import pytest

from migemu.errors import BrokenError
from migemu.process.status_socket import ask
from tests.real.processes import NodeProcess, asked, destination, source
from tests.real.proxy import proxy

LIVELY = (
    "--set", "memory.size=2M", "--set", "guest.workload=uniform", "--set", "guest.write_share=0.5",
    "--set", "guest.rate=200", "--set", "push.rate=16Mbit", "--set", "push.run=16K",
    "--set", "recovery.backoff_min=5ms", "--set", "recovery.backoff_max=50ms",
)  # fmt: skip


@pytest.mark.parametrize("who", ["source", "destination"])
def test_a_node_that_is_stopped_for_less_than_the_idle_timeout_is_waited_for(who: str, tmp_path: Path) -> None:
    with (
        destination(*LIVELY, "--out", str(tmp_path)) as dest,
        source(dest.port, *LIVELY, "--out", str(tmp_path / "s")) as sender,
    ):
        come(dest, 1 << 19)
        stopped = sender if who == "source" else dest
        stopped.signal(signal.SIGSTOP)
        if who == "source":  # what was under way comes, and then nothing
            told = len(dest.said)
            dest.wait_until(lambda said: len(dest.said) > told + 5)
        else:
            with pytest.raises(BrokenError, match="the node does not answer; is it stopped"):
                ask(tmp_path / "destination.sock")
        stopped.signal(signal.SIGCONT)
        assert dest.wait() == 0, dest.error
        assert sender.wait() == 0, sender.error
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verified"]
    assert result["recovery"]["count"] == 0


@pytest.mark.parametrize("who", ["source", "destination"])
def test_a_node_that_is_stopped_for_longer_than_the_idle_timeout_and_continued_recovers(
    who: str, tmp_path: Path
) -> None:
    short = ("--set", "net.idle_timeout=300ms", "--out", str(tmp_path))
    with (
        destination(*LIVELY, *short) as dest,
        source(dest.port, *LIVELY, *short, "--out", str(tmp_path / "s")) as sender,
    ):
        come(dest, 1 << 19)
        stopped, other = (sender, dest) if who == "source" else (dest, sender)
        stopped.signal(signal.SIGSTOP)
        if who == "source":
            other.wait_for_stage("paused")
        else:
            asked(tmp_path / "s" / "source.sock", lambda status: status.stage == "paused")
        stopped.signal(signal.SIGCONT)
        assert dest.wait() == 0, dest.error
        assert sender.wait() == 0, sender.error
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verified"]
    assert result["recovery"]["count"] >= 1
    assert result["certificate"]["countersigned"]


def come(dest: NodeProcess, size_bytes: int) -> None:
    """Until so much has come."""
    dest.wait_until(lambda said: said.get("status", {}).get("received_bytes", 0) > size_bytes)


class Harmed(NamedTuple):
    """How a migration of an image through a proxy has ended: exit codes, and what was said."""

    sender: int
    dest: int
    said: str


def harmed(directory: Path, seed: int, kinds: tuple[str, ...], *settings: str, at_once: bool = False) -> Harmed:
    """Six times, once the guest runs at the destination; `at_once`: once, with the first bytes."""
    image = directory / "image"
    before = Random(seed).randbytes(2 << 20)
    image.write_bytes(before)
    # A destination whose source's last word was harmed waits for it as long as for any other.
    patience = ("--set", "net.idle_timeout=1s", "--set", "net.hello_timeout=1s", "--set", "recovery.timeout=8s")
    settings = (*LIVELY, *patience, *settings)
    bytes_max, harms_max = (1 << 10, 1) if at_once else (1 << 18, 6)
    with destination(*settings) as dest, proxy(dest.port, seed, harms_max, kinds, bytes_max) as way:
        way.harmful = at_once
        with source(way.port, *settings, "--image", str(image)) as sender:
            if not at_once:
                dest.wait_for_stage("run")
                way.harmful = True
            codes = sender.wait(), dest.wait()
        said = f"{way.done}: source: {sender.error}; destination: {dest.error}"
        assert way.done, "no harm was done"
        assert "Traceback" not in sender.stderr + dest.stderr
    assert image.read_bytes() == before
    return Harmed(*codes, said)


@pytest.mark.parametrize("seed", range(3))
def test_connections_that_are_cut_at_random_bytes_cost_nothing_after_the_switch(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("cut", "reset"))
    assert (sender, dest) == (0, 0), said


@pytest.mark.parametrize("seed", range(3))
def test_bits_that_flip_are_found_and_mended_with_digests(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("corrupt",), "--set", "integrity.digests=on")
    assert (sender, dest) == (0, 0), said


@pytest.mark.parametrize("seed", range(3))
def test_bits_that_flip_are_never_taken_for_the_memory_without_digests(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("corrupt", "cut"))
    differs = (sender, dest) == (5, 5) and "the destination does not hold the source's memory: " in said
    unheard = (sender, dest) == (3, 5) and "in doubt: everything was sent, and the verdict was not heard" in said
    assert (sender, dest) == (0, 0) or differs or unheard, said


#: For a destination whose source has given up.
SHORT = ("--set", "recovery.timeout=2s", "--set", "net.listen_timeout=4s")


@pytest.mark.parametrize("seed", [1, 2])
def test_harm_before_the_switch_leaves_the_guest_at_the_source(seed: int, tmp_path: Path) -> None:
    """Unless it was none, or what was harmed was made good."""
    sender, dest, said = harmed(tmp_path, seed, ("corrupt", "cut", "reset"), *SHORT, at_once=True)
    at_home = "The guest runs on at the source, whose image is unchanged" in said
    assert (sender, dest) == (0, 0) or (at_home and {sender, dest} <= {3, 4}), said


def without_descriptors(who: str, directory: Path, *settings: str, for_good: bool) -> Harmed:
    """Six connections are lost while `who` can open nothing, for good or until the other one has waited a while."""
    settings = (*LIVELY, *settings)
    with (
        destination(*settings, "--out", str(directory / "d")) as dest,
        proxy(dest.port, 0, 6, ("cut", "reset"), 1 << 8) as way,
    ):
        with source(way.port, *settings, "--out", str(directory / "s")) as sender:
            come(dest, 1 << 19)
            pid = (sender if who == "source" else dest).process.pid
            soft, hard = prlimit(pid, RLIMIT_NOFILE)
            prlimit(pid, RLIMIT_NOFILE, (3, hard))
            way.harmful = True
            dest.wait_for_stage("paused")
            if not for_good:
                told = len(dest.said)
                dest.wait_until(lambda said: len(dest.said) > told + 3)
                prlimit(pid, RLIMIT_NOFILE, (soft, hard))
            codes = sender.wait(), dest.wait()
        assert "Traceback" not in sender.stderr + dest.stderr
        return Harmed(*codes, f"source: {sender.error}; destination: {dest.error}")


@pytest.mark.parametrize("who", ["source", "destination"])
def test_without_descriptors_a_lost_connection_is_made_again_once_there_are_some(who: str, tmp_path: Path) -> None:
    sender, dest, said = without_descriptors(who, tmp_path, for_good=False)
    assert (sender, dest) == (0, 0), said


@pytest.mark.parametrize(("who", "reason"), [("source", "Too many open files"), ("destination", "connection to ")])
def test_without_descriptors_for_good_the_reason_is_told(who: str, reason: str, tmp_path: Path) -> None:
    sender, dest, said = without_descriptors(who, tmp_path, "--set", "recovery.timeout=1s", for_good=True)
    assert (sender, dest) == (3, 3), said
    told = said.partition("; destination: ")
    assert reason in told[0]
    assert "o progress for 1s (recovery.timeout). The guest is at the destination" in told[0]
    assert "o progress for 1s (recovery.timeout). The guest is lost: 4 vCPUs wait for" in told[2]
