"""The one way in for what a user names: nothing waits where Ctrl-C cannot reach it, nothing is without end."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from migemu import named


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def pipe() -> Iterator[tuple[str, int]]:
    """A pipe as the shell's `<(command)` names it, and the end to write to."""
    out, into = os.pipe()
    yield f"/dev/fd/{out}", into
    os.close(out)


def test_a_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert named.read(path, 100_000) == b"x" * 100_000
    assert named.read_text(str(path)) == "x" * 100_000
    with pytest.raises(OSError, match=r"longer than 97\.655K, the most that is read") as error:
        named.read(path, 99_999)
    assert error.value.errno == errno.EFBIG


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(
    ("path", "says"),
    [("/", "Is a directory"), ("/dev/zero", "it is a device"), ("/dev/null", "it is a device"),
     ("/no/such", "No such file"), ("a\0b", "null"), ("~no-such-user/x", "No such file")],
)  # fmt: skip
def test_what_is_no_file_is_refused_at_once(path: str, says: str, once: bool) -> None:
    with pytest.raises(OSError, match=says):
        named.read(path, 10, once=once)


def test_a_fifo_is_no_file_for_what_may_be_read_again(fifo: Path) -> None:
    """Nobody writes to it: plain open(2) would wait for ever."""
    for look in (lambda: named.read(fifo, 10), lambda: named.opened(fifo), lambda: named.checked(fifo, 10)):
        with pytest.raises(OSError, match="it is a pipe"):
            look()


def test_a_pipe_that_says_nothing_is_given_up(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether nobody has come, or somebody who has nothing to say."""
    monkeypatch.setattr(named, "SILENCE_S", 0.02)
    for _ in range(2):
        with pytest.raises(OSError, match="nothing came"):
            named.read(fifo, 10, once=True)
        keeper = os.open(fifo, os.O_RDWR)
    os.close(keeper)


def test_a_pipe_is_read_to_its_end_once(pipe: tuple[str, int]) -> None:
    path, into = pipe

    def write() -> None:
        with os.fdopen(into, "wb", buffering=0) as file:
            for _ in range(30):
                file.write(b"abc" * 10_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert named.read(path, 900_000, once=True) == b"abc" * 300_000
    writer.join()


def test_a_pipe_without_end_stops_at_the_limit(pipe: tuple[str, int]) -> None:
    path, into = pipe
    os.write(into, b"x" * 60_000)
    with pytest.raises(OSError, match="longer than"):
        named.read(path, 50_000, once=True)
    os.close(into)


def test_a_file_longer_than_it_says_is_limited_too() -> None:
    """Those of /proc have length 0."""
    assert b"MemTotal" in named.read("/proc/meminfo", 1 << 20)
    with pytest.raises(OSError, match="longer than"):
        named.read("/proc/meminfo", 10)


def test_a_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("here")
    assert named.read_text("~/file") == "here"
    assert named.checked("~/file", 10) == str(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").write_text("a name like any other")
    assert named.read_text("./~") == "a name like any other"


def test_block_devices_are_for_those_who_ask() -> None:
    device = next((path for path in Path("/dev").iterdir() if path.is_block_device()), None)
    if device is None:
        pytest.skip("this machine shows no block device")
    with pytest.raises(OSError, match=r"it is a device|Permission|No such device|No medium"):
        named.opened(device)
