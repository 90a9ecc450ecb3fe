"""`migemu view` as a process: what it says, what it leaves, how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.processes import migemu
from tests.unit.report.runs import result, write_run
from tests.unit.trace.traces import PAGES, destination, whole

TIMEOUT_S = 60


@contextmanager
def viewing(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it has printed; it is ended by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "migemu", "view", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("view: http://127.0.0.1:"), line + process.stderr.read()
        yield process, line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)
        for stream in (process.stdout, process.stderr):
            stream.close()


def test_it_serves_a_run_until_ctrl_c(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    with viewing(str(tmp_path)) as (process, url), urllib.request.urlopen(url, timeout=TIMEOUT_S) as page:
        assert b"migemu view" in page.read()
    assert process.returncode == 0
    assert (tmp_path / "trace.jsonl.view").is_file()


def test_the_index_is_made_once_and_anew_for_another_trace(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    index = tmp_path / "trace.jsonl.view"
    with viewing(str(tmp_path)):
        made = index.stat()
    with viewing(str(tmp_path)):
        assert index.stat().st_ino == made.st_ino
    write_run(tmp_path, [*whole(), destination("wake", 0, 1)])
    with viewing(str(tmp_path)):
        assert index.stat().st_ino != made.st_ino


def test_a_trace_that_was_cut_is_shown_up_to_there(tmp_path: Path) -> None:
    long = [*whole(), *(destination("wake", PAGES - 1, 1) for _ in range(3000))]
    write_run(tmp_path, long)
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(trace.read_bytes()[:-9])
    with viewing(str(tmp_path)) as (process, url):
        with urllib.request.urlopen(f"{url}runs", timeout=TIMEOUT_S) as answer:
            assert b"is cut off" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("can be checked; what is before that is shown")


def test_without_a_trace_it_says_how_to_make_one(tmp_path: Path) -> None:
    write_run(tmp_path, None, result())
    done = migemu("view", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().replace("\n", " ") == (
        f"migemu: {tmp_path}: holds no trace, without which there is nothing to see; run it with --trace"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "nowhere: does not exist; give the DIR of a run"),
        ((".",), ".: holds no run: no result.json, no scenario.toml, no trace.jsonl"),
        ((".", ".", "."), "3 runs: the picture shows one, or 2 side by side"),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = migemu("view", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"migemu: {says}\n")


def test_an_empty_trace_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    (tmp_path / "trace.jsonl").write_text("")
    done = migemu("view", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"migemu: {tmp_path}/trace.jsonl: is empty, no trace\n")


def test_a_trace_of_another_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    said = tmp_path / "result.json"
    said.write_text(said.read_text().replace('"trace_digest": "', '"trace_digest": "x'))
    done = migemu("view", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "are of different runs" in done.stderr


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path, whole())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = migemu("view", str(tmp_path), "--port", str(port), cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        f"migemu: 127.0.0.1:{port} cannot be listened on: Address already in use; give another --port, or 0\n"
    )
