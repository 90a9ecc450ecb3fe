"""Real processes come to harm: stopped and continued, cut, corrupted at random bytes. They end verified, or say why.

Whatever happens, the source's image is what it was.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import Random

import pytest

from tests.real.processes import asked, destination, source
from tests.real.proxy import proxy

LIVELY = (
    "--set", "memory.size=4M", "--set", "guest.workload=uniform", "--set", "guest.write_share=0.5",
    "--set", "guest.rate=200", "--set", "push.rate=16Mbit", "--set", "push.run=16K",
    "--set", "recovery.backoff_min=5ms", "--set", "recovery.backoff_max=50ms",
)  # fmt: skip


@pytest.mark.parametrize("who", ["source", "destination"])
def test_a_node_that_is_stopped_for_longer_than_the_idle_timeout_and_continued_recovers(
    who: str, tmp_path: Path
) -> None:
    short = ("--set", "net.idle_timeout=300ms", "--out", str(tmp_path))
    with (
        destination(*LIVELY, *short) as dest,
        source(dest.port, *LIVELY, *short, "--out", str(tmp_path / "s")) as sender,
    ):
        dest.wait_until(lambda said: said.get("status", {}).get("received_bytes", 0) > 1 << 20)
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


def harmed(directory: Path, seed: int, kinds: tuple[str, ...], *settings: str) -> tuple[int, int, str]:
    """Exit codes of source and destination, and what was said, of a migration of an image through a proxy."""
    image = directory / "image"
    before = Random(seed).randbytes(4 << 20)
    image.write_bytes(before)
    patience = ("--set", "net.idle_timeout=1s", "--set", "recovery.timeout=3s", "--set", "net.listen_timeout=3s")
    all_settings = (*LIVELY, *patience, *settings)
    with destination(*all_settings) as dest, proxy(dest.port, seed, 6, *kinds) as way:
        with source(way.port, *all_settings, "--image", str(image)) as sender:
            codes = sender.wait(), dest.wait()
        said = f"{way.done}: source: {sender.error}; destination: {dest.error}"
        assert way.done, "no harm was done"
        assert "Traceback" not in sender.stderr + dest.stderr
    assert image.read_bytes() == before
    return *codes, said


AT_HOME = "The guest runs on at the source, whose image is unchanged"


@pytest.mark.parametrize("seed", range(6))
def test_connections_that_are_cut_at_random_bytes_cost_nothing_after_the_switch(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("cut", "reset"))
    assert (sender, dest) == (0, 0) or (sender in (3, 4) and dest in (3, 4) and AT_HOME in said), said


@pytest.mark.parametrize("seed", range(6))
def test_bits_that_flip_are_found_and_mended_with_digests(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("corrupt",), "--set", "integrity.digests=on")
    assert (sender, dest) == (0, 0) or (sender in (3, 4) and dest in (3, 4) and AT_HOME in said), said


@pytest.mark.parametrize("seed", range(6))
def test_bits_that_flip_are_never_taken_for_the_memory_without_digests(seed: int, tmp_path: Path) -> None:
    sender, dest, said = harmed(tmp_path, seed, ("corrupt", "cut"))
    differs = (sender, dest) == (5, 5) and "the first bad piece is base page" in said
    assert (sender, dest) == (0, 0) or differs or (sender in (3, 4) and dest in (3, 4) and AT_HOME in said), said
