"""Telling costs a node nothing: whoever reads has gone, does not read, has no room, or was never there.

Before: a reader of standard error that had gone ended a destination with its guest as soon as somebody connected; one
that did not read stopped its loop after some 700 strangers; a closed descriptor made libuv abort.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from migemu.process.status_socket import ask
from tests.real.processes import TIMEOUT_S, TINY, asked, free_port, node, source

SLOW = ("--set", "push.hold=1s")


@contextmanager
def started(*arguments: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these streams that is gone afterwards."""
    process = subprocess.Popen([sys.executable, "-P", "-m", *arguments], start_new_session=True, **streams)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that nobody reads and that holds no byte more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


def dest(port: int, out: Path, *more: str) -> tuple[str, ...]:
    return ("dest_node", "--listen", f"127.0.0.1:{port}", *TINY, "--out", str(out), *more)


def caller(port: int) -> socket.socket:
    """A connection to `port`, as soon as somebody listens there: a node can be asked a moment before it does."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        except ConnectionRefusedError:
            assert time.monotonic() < end_s


def strangers(port: int, count: int) -> None:
    """So many connect, say something that is not migemu, and are shown out."""
    for _ in range(count):
        with caller(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass


def is_verified(out: Path) -> bool:
    return bool(json.loads((out / "result.json").read_text())["verified"])


def test_a_reader_of_standard_error_that_has_gone_costs_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with started(*dest(port := free_port(), tmp_path), stdout=subprocess.DEVNULL, stderr=writer) as process:
        os.close(writer)
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        os.close(reader)
        strangers(port, 3)
        with source(port) as sender:
            assert sender.wait() == 0, sender.error
        assert process.wait(TIMEOUT_S) == 0
    assert is_verified(tmp_path)


def test_a_standard_error_that_nobody_reads_costs_nothing(tmp_path: Path) -> None:
    """Many more strangers than a pipe holds lines; then a migration, and no waiting at the end."""
    with (
        full_pipe() as pipe,
        started(*dest(port := free_port(), tmp_path), stdout=subprocess.DEVNULL, stderr=pipe) as process,
    ):
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        strangers(port, 300)
        with source(port) as sender:
            assert sender.wait() == 0, sender.error
        assert process.wait(TIMEOUT_S) == 0
    assert is_verified(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_node_whose_standard_error_nobody_reads(number: signal.Signals, tmp_path: Path) -> None:
    with (
        full_pipe() as pipe,
        started(*dest(port := free_port(), tmp_path), stdout=subprocess.DEVNULL, stderr=pipe) as process,
    ):
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        strangers(port, 20)
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 130
    assert not (tmp_path / "destination.sock").exists()


def test_a_supervisor_that_does_not_read_costs_nothing(tmp_path: Path) -> None:
    with (
        full_pipe() as pipe,
        started(*dest(port := free_port(), tmp_path, "--supervised"), stdin=subprocess.PIPE, stdout=pipe) as process,
    ):
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        with source(port, *SLOW) as sender:
            assert sender.wait() == 0, sender.error
        assert process.wait(TIMEOUT_S) == 0
        assert process.stdin is not None
        process.stdin.close()
    assert is_verified(tmp_path)


RUN = ("migemu", "run", *TINY, "--out", "out")
SIM = ("migemu", "sim", *TINY, "--out", "out")


@pytest.mark.parametrize("command", [RUN, SIM], ids=["run", "sim"])
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_descriptors_that_are_closed_are_not_missed(
    command: tuple[str, ...], closed: tuple[int, ...], tmp_path: Path
) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    script = f'exec "$0" "$@" {redirections}'
    arguments = ["sh", "-c", script, sys.executable, "-P", "-m", *command]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert is_verified(tmp_path / "out")


@pytest.mark.parametrize("closed", [0, 1, 2])
@pytest.mark.parametrize("at", ["dest_node", "source_node"])
def test_a_node_whose_descriptors_are_closed_migrates(at: str, closed: int, tmp_path: Path) -> None:
    """uvloop's libuv aborts where one of the three is missing."""

    def close() -> None:
        os.close(closed)

    port = free_port()
    hooks: dict[str, Callable[[], None]] = {at: close}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(*dest(port, tmp_path), preexec_fn=hooks.get("dest_node"), **quiet) as destination:
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        arguments = ("source_node", "--connect", f"127.0.0.1:{port}", *TINY)
        with started(*arguments, preexec_fn=hooks.get("source_node"), **quiet) as sender:
            assert sender.wait(TIMEOUT_S) == 0
        assert destination.wait(TIMEOUT_S) == 0
    assert is_verified(tmp_path)


@pytest.mark.parametrize("command", [RUN, SIM, ("migemu", "list")], ids=["run", "sim", "list"])
def test_a_result_that_cannot_be_printed_is_told_and_is_exit_code_3(command: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "migemu: standard output: No space left on device; what was to be printed there was not; nothing else is lost"
    )
    if command[1] != "list":
        assert is_verified(tmp_path / "out")


def test_a_standard_error_without_room_changes_no_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for command in (RUN, SIM):
            done = subprocess.run(
                [sys.executable, "-P", "-m", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=full, text=True,
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            assert done.returncode == 0
            assert "result: out/result.json" in done.stdout


def test_a_filter_that_reads_late_gets_all_of_a_result() -> None:
    """More than a pipe holds, read a second after the process has nothing else to do."""
    arguments = [sys.executable, "-P", "-m", "migemu", "list", "--settings"]
    whole = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT_S, check=True).stdout
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(arguments, stdout=writer) as process:
        os.close(writer)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        with os.fdopen(reader, "rb") as late:
            assert late.read() == whole
        assert process.wait(TIMEOUT_S) == 0
    assert len(whole) > 4096


# --- SIGHUP ---


@pytest.mark.parametrize("role", ["destination", "source"])
def test_the_end_of_its_terminal_ends_a_node_in_order(role: str, tmp_path: Path) -> None:
    with (
        node("dest_node", "--listen", "127.0.0.1:0", *TINY, "--out", str(tmp_path)) as destination,
        source(destination.port, "--set", "push.hold=20s", "--out", str(tmp_path)) as sender,
    ):
        destination.wait_for_stage("run")
        hit = destination if role == "destination" else sender
        hit.signal(signal.SIGHUP)
        assert hit.wait() == 130, hit.error
        assert not (tmp_path / f"{role}.sock").exists()
        destination.wait()
    assert json.loads((tmp_path / "result.json").read_text())["status"] in ("interrupted", "failed")


def test_under_nohup_the_end_of_its_terminal_is_nothing_to_a_node(tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(*dest(port := free_port(), tmp_path), preexec_fn=nohup, **quiet) as destination:
        asked(tmp_path / "destination.sock", lambda status: status.stage == "waiting")
        destination.send_signal(signal.SIGHUP)
        with source(port) as sender:
            assert sender.wait() == 0, sender.error
        assert destination.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(
    "command", [(*RUN, "--set", "push.hold=20s"), (*SIM, "--pace", "0.0001", "--set", "link.rate=1Mbit")],
    ids=["run", "sim"],
)  # fmt: skip
def test_the_end_of_its_terminal_ends_a_command_in_order(command: tuple[str, ...], tmp_path: Path) -> None:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(*command, cwd=tmp_path, **quiet) as process:
        until(lambda: (tmp_path / "out" / "scenario.toml").exists())
        if command[1] == "run":
            until(lambda: _stage(tmp_path / "out" / "destination.sock") == "run")
        process.send_signal(signal.SIGHUP)
        assert process.wait(TIMEOUT_S) == 130
    assert not list((tmp_path / "out").glob("*.sock"))


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < end_s, "it never came to that"


def _stage(path: Path) -> str:
    try:
        return ask(path)[0].stage
    except Exception:
        return ""
