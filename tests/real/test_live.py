"""`--live`: a run that is watched is the same run, and its picture is there while it runs and exact afterwards."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from migemu.store.trace_file import FileRecorder, merge
from migemu.trace.events import Happening
from migemu.view.follower import BY_NODE
from migemu.view.live_run import LiveRun
from migemu.view.run_picture import RunPicture
from migemu.view.trace_index import open_index
from tests.real.processes import migemu
from tests.unit.report.runs import migration
from tests.unit.trace.traces import PAGES, whole
from tests.unit.view.test_trace_index import from_the_start, replay

TIMEOUT_S = 120
TINY = ("--set", "memory.geometry=tiny", "--set", "memory.size=1M", "--set", "guest.vcpus=2")
LINKS = ("--set", "link.preset=25G", "--set", "return_link.preset=25G", "--set", "guest.vcpus=4")


def until(holds: Callable[[], Any]) -> Any:
    """What `holds` answers, once that is true."""
    waiting = threading.Event()
    for _ in range(TIMEOUT_S * 50):
        if answer := holds():
            return answer
        waiting.wait(0.02)
    raise AssertionError("it has not come to that")


@contextmanager
def following(directory: Path) -> Iterator[tuple[LiveRun, list[RunPicture]]]:
    runs: list[RunPicture] = []
    live = LiveRun(directory, runs)
    thread = threading.Thread(target=live.work)
    thread.start()
    try:
        yield live, runs
    finally:
        live.stop.set()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        for run in runs:
            run.close()


def test_events_are_shown_as_they_are_written_and_exact_at_the_end(tmp_path: Path) -> None:
    """One file, as a run in virtual time writes it."""
    events = whole()
    with following(tmp_path) as (live, runs):
        with FileRecorder(tmp_path / "trace.jsonl", "modelled") as recorder:
            for event in events[:40]:
                recorder.emit(event)
            recorder.flush()
            run = until(lambda: runs and runs[0])
            until(lambda: run.index.events == 40)
            assert not run.index.ended
            for event in events[40:]:
                recorder.emit(event)
        until(lambda: run.index.ended)
        live.over.set()
        index = until(lambda: open_index(tmp_path / "trace.jsonl.view", tmp_path / "trace.jsonl"))
        with index:
            assert replay(index) == from_the_start(events, PAGES)
            assert index.digest == recorder.digest


def test_two_nodes_are_merged_by_time(tmp_path: Path) -> None:
    events = migration()
    with following(tmp_path) as (live, runs):
        parts = [tmp_path / name for name in BY_NODE]
        with FileRecorder(parts[0], "measured") as source, FileRecorder(parts[1], "measured") as destination:
            for event in events:
                (source if event.node == "source" else destination).emit(event)
            source.flush()
            destination.flush()
            run = until(lambda: runs and runs[0])
            until(lambda: run.index.events == len(events))
        until(lambda: run.index.ended)
        assert run.index.faults == sum(event.event is Happening.WOKEN for event in events)
        assert not run.index.problem
        digest = merge(parts, tmp_path / "trace.jsonl")
        live.over.set()
        until(lambda: run.generation)
        assert run.index.digest == digest
        assert run.index.events == len(events)


def test_a_node_that_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    events = migration()
    with following(tmp_path) as (_, runs):
        with FileRecorder(tmp_path / "trace.source.jsonl", "measured") as source:
            source.emit(events[0])
            source.flush()
            with FileRecorder(tmp_path / "trace.dest.jsonl", "measured") as destination:
                told = [event for event in events if event.node == "destination"]
                for event in told:
                    destination.emit(event)
                destination.flush()
                run = until(lambda: runs and runs[0])
                until(lambda: run.index.events == len(told) + 1)
        until(lambda: run.index.ended)


def test_watching_changes_nothing_of_a_run(tmp_path: Path) -> None:
    """The same digest as without, and the index of the same trace."""
    said = []
    for name, extra in (("plain", ("--trace",)), ("watched", ("--live",))):
        done = migemu("sim", "--quiet", "--out", str(tmp_path / name), *LINKS, *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append(json.loads((tmp_path / name / "result.json").read_text()))
    assert said[0]["trace_digest"] == said[1]["trace_digest"]
    assert said[0] == said[1]
    assert (tmp_path / "plain" / "trace.jsonl").read_bytes() == (tmp_path / "watched" / "trace.jsonl").read_bytes()
    index = open_index(tmp_path / "watched" / "trace.jsonl.view", tmp_path / "watched" / "trace.jsonl")
    assert index is not None
    with index:
        assert index.digest == said[0]["trace_digest"]


def test_a_measured_run_is_watched_too(tmp_path: Path) -> None:
    done = migemu("run", "--quiet", "--live", "--out", str(tmp_path / "run"), *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "live: http://127.0.0.1:" in done.stderr
    index = open_index(tmp_path / "run" / "trace.jsonl.view", tmp_path / "run" / "trace.jsonl")
    assert index is not None
    with index:
        assert index.kind == "measured"


def test_a_run_that_fails_ends_as_it_would_have(tmp_path: Path) -> None:
    done = migemu("sim", "--live", "--out", str(tmp_path), "--set", "limits.memory_max=64K", cwd=tmp_path)
    assert done.returncode == 2
    assert "limits.memory_max of this destination is 64K" in done.stderr


def asked(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}runs", timeout=TIMEOUT_S) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


def test_on_a_terminal_the_picture_stays_until_ctrl_c(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "migemu", "sim", "--quiet", "--live", "--out", str(tmp_path), *TINY]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, text=True)
    try:
        heard = b""
        while b"stays until Ctrl-C: " not in heard or not heard.rstrip(b"\r\n").endswith(b"/"):
            heard += os.read(ours, 4096)
        url = heard.decode().split("stays until Ctrl-C: ")[1].replace("\r\n", "").strip()
        assert until(lambda: asked(url)["runs"])[0]["name"] == tmp_path.name
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
