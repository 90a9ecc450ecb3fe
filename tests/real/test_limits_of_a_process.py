"""What the machine does not give - descriptors, memory - is one line at the start, or whenever it is missed."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.processes import TIMEOUT_S, TINY


def limited(kind: int, soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (soft, hard))


def started(hook: Callable[[], None], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", *arguments], preexec_fn=hook, cwd=cwd, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


RUN = ("migemu", "run", *TINY, "--out", "out", "--quiet")


@pytest.mark.parametrize("most", [6, 12, 20, 47])
@pytest.mark.parametrize("command", [RUN, ("dest_node", "--listen", "127.0.0.1:0"), ("source_node",)], ids=str)
def test_too_few_descriptors_are_one_line(command: tuple[str, ...], most: int, tmp_path: Path) -> None:
    done = started(limited(resource.RLIMIT_NOFILE, most, most), *command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (f"migemu: only {most} files may be open here, and 48 are needed; raise it: ulimit -n 1024\n")


def test_a_limit_that_may_be_raised_is_raised(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = started(limited(resource.RLIMIT_NOFILE, 12, hard), *RUN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("most", [120 << 20, 195 << 20])
def test_too_little_memory_to_begin_with_is_one_line(most: int, tmp_path: Path) -> None:
    """Less than the libraries need: OpenBLAS gives up in its own words, and libuv aborts."""
    done = started(limited(resource.RLIMIT_AS, most, most), *RUN, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        done.stderr == f"migemu: only {most >> 20} MiB of memory may be used here, and 256 are needed; see ulimit -v\n"
    )


@pytest.mark.parametrize("most", [256 << 20, 500 << 20, 900 << 20])
def test_too_little_memory_for_the_guest_is_one_line(most: int, tmp_path: Path) -> None:
    run = ("migemu", "run", "--out", "out", "--quiet")
    done = started(limited(resource.RLIMIT_AS, most, most), *run, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "memory" in done.stderr
