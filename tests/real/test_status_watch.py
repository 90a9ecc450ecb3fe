"""`migemu status --watch`: throughput and time left of nodes that run, until they have ended."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from migemu.cli.status import line, table
from migemu.process.status_socket import NodeStatus
from migemu.report.terminal.throughput import Throughput
from migemu.units import GIB, MIB, SECOND
from tests.real.test_readme_samples import printed

_PATIENCE_S = 60.0
#: 8 MiB at 16 Mbit/s: four seconds.
_SETTINGS = (
    "memory.geometry=tiny", "memory.size=8M", "memory.zero_share=0", "link.rate=16Mbit", "link.delay=1ms",
    "guest.vcpus=1", "guest.rate=100",
)  # fmt: skip


def _started(directory: Path) -> subprocess.Popen[bytes]:
    settings = [word for each in _SETTINGS for word in ("--set", each)]
    command = [sys.executable, "-m", "migemu", "run", "--quiet", "--out", str(directory), *settings]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end_s = time.monotonic() + _PATIENCE_S
    while not all((directory / name).exists() for name in ("source.sock", "destination.sock")):
        assert time.monotonic() < end_s
        with pytest.raises(subprocess.TimeoutExpired):  # it runs on
            run.wait(0.05)
    return run


def test_throughput_and_time_left_are_told_until_the_nodes_have_ended(tmp_path: Path) -> None:
    with _started(tmp_path) as run:
        watched = subprocess.run(
            [sys.executable, "-m", "migemu", "status", str(tmp_path), "--watch"],
            capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
        )  # fmt: skip
    assert run.returncode == 0
    assert (watched.returncode, watched.stderr) == (0, "migemu: all of them have ended\n")
    lines = [each for each in watched.stdout.splitlines() if each.startswith("destination")]
    assert any("MB/s" in each and "s left" in each for each in lines), watched.stdout


def test_on_a_terminal_the_table_is_redrawn(tmp_path: Path) -> None:
    here, there = pty.openpty()
    with _started(tmp_path):
        watched = subprocess.Popen(
            [sys.executable, "-m", "migemu", "status", str(tmp_path), "--watch"],
            stdout=there, stderr=there, stdin=there, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(there)
        shown = b""
        try:
            while part := os.read(here, 65536):
                shown += part
        except OSError:
            pass  # EIO: it has ended
        assert watched.wait(_PATIENCE_S) == 0
    os.close(here)
    assert b"throughput" in shown
    assert b"MB/s" in shown


def test_a_line_and_a_table_say_what_info_migrate_says() -> None:
    node = NodeStatus(
        "destination", 7, "m", "run", GIB, 0, "", received_bytes=GIB // 2, mapped_bytes=GIB // 4, faults_waiting=3
    )
    throughput = Throughput()
    throughput.see(GIB // 4, 0)
    throughput.see(GIB // 2, 2 * SECOND)
    assert line(node, throughput) == "destination 7 run: 512M of 1G, 134 MB/s, 4 s left, 3 pages waited for"
    shown = printed(table([node], {(7, "m"): throughput}))
    assert "134 MB/s" in shown
    assert all(len(each) <= 80 for each in shown.splitlines())


def test_throughput_is_that_of_the_last_seconds() -> None:
    throughput = Throughput()
    assert throughput.bytes_per_s is None
    assert throughput.remaining_s(GIB) is None
    for second in range(20):
        throughput.see(second * MIB, second * SECOND)
    for second in range(20, 40):
        throughput.see(19 * MIB + (second - 19) * 3 * MIB, second * SECOND)
    assert throughput.bytes_per_s == 3 * MIB
    assert throughput.remaining_s(79 * MIB + 1) == 1
    assert throughput.remaining_s(79 * MIB) is None, "all has moved"
    for second in range(40, 60):
        throughput.see(79 * MIB, second * SECOND)
    assert throughput.remaining_s(GIB) is None, "nothing moves"
