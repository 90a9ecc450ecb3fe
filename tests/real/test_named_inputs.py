"""Whatever a user names that is no file, at every place where something can be named: one line, soon, and Ctrl-C works.

A FIFO that nobody writes to, a device without end, a directory, a file of a terabyte of holes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.certificates import certificate
from tests.real.processes import TINY, migemu

TIMEOUT_S = 30.0
CERTIFICATE, _ = certificate()

#: How a thing is named -> the arguments, {} in the place of its path.
PLACES = {
    "replay": ["run", *TINY, "--set", "guest.workload=replay:path={}"],
    "replay, modelled": ["sim", *TINY, "--set", "guest.workload=replay:path={}"],
    "samples": ["run", *TINY, "--set", "link.rate=1Gbit", "--set", "link.distribution=samples:path={}"],
    "samples, modelled": ["sim", *TINY, "--set", "link.distribution=samples:path={}"],
    "image": ["run", *TINY, "--image", "{}"],
    "trace": ["check", "{}"],
    "authority": ["run", *TINY, "--set", f"security.certificate={CERTIFICATE}", "--set", "security.authority={}"],
    "certificate": ["run", *TINY, "--set", "security.certificate={}", "--set", f"security.authority={CERTIFICATE}"],
    "key": [
        "run", *TINY, "--set", f"security.certificate={CERTIFICATE}",
        "--set", f"security.authority={CERTIFICATE}", "--set", "security.key={}",
    ],
    "pre-shared key": ["run", *TINY, "--set", "security.psk_file={}"],
    "results of a sweep": ["sweep", "export", "{}", "--csv", "x.csv"],
    "report": ["report", "{}"],
}  # fmt: skip
#: The same of what is read once, so that a pipe may stand there.
ONCE = {
    "scenario": ["run", "{}"],
    "sweep": ["sweep", "{}", "--out", "out"],
    "comparison": ["compare", "{}", "{}"],
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("thing", ["fifo", "/dev/zero"])
def test_what_is_no_file_is_told_in_one_line(place: list[str], thing: str, tmp_path: Path) -> None:
    told_in_one_line(place, thing, tmp_path)


@pytest.mark.parametrize("name", ["replay", "samples", "authority", "image"])
def test_a_file_without_end_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    """A terabyte of holes: as an image it is taken, and is more than the destination has."""
    told_in_one_line(PLACES[name], "endless", tmp_path)


@pytest.mark.parametrize("place", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("thing", ["/dev/zero", "endless"])
def test_what_is_no_file_is_told_where_a_pipe_may_stand_too(place: list[str], thing: str, tmp_path: Path) -> None:
    told_in_one_line(place, thing, tmp_path)


def told_in_one_line(place: list[str], thing: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(1 << 40)
    began_s = time.monotonic()
    done = migemu(*(word.replace("{}", thing) for word in place), cwd=tmp_path, timeout_s=TIMEOUT_S)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode in (2, 3), done.stderr
    assert len(lines) == 1, done.stderr
    assert thing in lines[0] or "of memory available" in lines[0] or "limits.memory_max" in lines[0]
    assert time.monotonic() - began_s < TIMEOUT_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ONCE.values(), ids=ONCE)
def test_whoever_waits_for_a_pipe_can_be_stopped(place: list[str], number: signal.Signals, tmp_path: Path) -> None:
    """Nobody writes to it, but somebody could come."""
    fifo = tmp_path / "fifo.json"
    os.mkfifo(fifo)
    arguments = [word.replace("{}", str(fifo)) for word in place]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "migemu", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        wait_until_it_has_opened(waiting.pid, fifo)
        waiting.send_signal(number)
        _, told = waiting.communicate(timeout=5)
    finally:
        waiting.kill()
    assert waiting.returncode in (130, -number)
    assert "Traceback" not in told


def wait_until_it_has_opened(pid: int, path: Path) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if descriptor.readlink() == path:
                    return
            except FileNotFoundError:
                continue  # closed meanwhile
    raise AssertionError(f"{path} was never opened")


def test_a_scenario_may_come_through_a_pipe_or_standard_input(tmp_path: Path) -> None:
    text = '[memory]\ngeometry = "tiny"\nsize = "1M"\n'
    for command in (f"printf '{text}' | {{}} sim - --out a", f"{{}} sim <(printf '{text}') --out b"):
        line = command.replace("{}", f"{sys.executable} -m migemu")
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "result.json").exists()
    assert (tmp_path / "b" / "result.json").exists()


def test_a_path_may_have_commas_and_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one, two").write_text("0 1 r\n0 2 w\n")
    place = 'guest.workload=replay:path="~/one, two"'
    done = migemu("sim", *TINY, "--set", "guest.vcpus=1", "--set", place, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["guest"]["accesses"] == 2
