"""Tracer: every recorder keeps the same events, in order, all of them; and traces of two nodes become one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import BrokenError, InputError
from migemu.mm.pages import Level
from migemu.ports import Tracer
from migemu.store.trace_file import FileRecorder, merge
from migemu.trace.events import CarriedFrame, Event, Happening
from migemu.trace.recorder import MemoryRecorder
from tests.disks import file_size_max

EVENTS = [
    Event(1, "source", Happening.STATE, detail="running"),
    Event(1, "source", Happening.SENT, 0, 64, Level.PTE, urgent=False),
    Event(1, "source", Happening.SENT, 512, 1, Level.PMD, urgent=True, detail="zero"),
    Event(5, "destination", Happening.FAULTED, 7, vcpu=0, write=False),
    Event(5, "destination", Happening.FAULTED, 0, vcpu=3, write=True),
    Event(2**62, "destination", Happening.COLLAPSED, 2**40, level=Level.PUD),
    Event(2**62, "destination", Happening.LOST, detail='the "connection"\nbroke: naïve, \N{SNOWMAN}'),
]


def read_trace(path: Path) -> tuple[dict[str, object], list[Event]]:
    """The header of a trace file, and its events; every line of it must be whole."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    header, *lines = map(json.loads, text[:-1].split("\n"))
    events = []
    for said in lines:
        level, wire = said.pop("level", None), said.pop("wire", None)
        t, node, happening = said.pop("t"), said.pop("node"), Happening(said.pop("event"))
        typed = {"level": level and Level[level], "wire": wire and CarriedFrame(**wire)}
        events.append(Event(t, node, happening, **typed, **said))
    return header, events


class Recorder:
    """A tracer, and how to read what it has kept once it is done."""

    def __init__(self, tracer: Tracer, kept: Callable[[], list[Event]]) -> None:
        self.tracer = tracer
        self.kept = kept


@contextmanager
def in_memory(_: Path) -> Iterator[Recorder]:
    recorder = MemoryRecorder()
    yield Recorder(recorder, lambda: recorder.events)


@contextmanager
def in_a_file(folder: Path) -> Iterator[Recorder]:
    path = folder / "trace.jsonl"
    with FileRecorder(path, "measured") as recorder:
        yield Recorder(recorder, lambda: read_trace(path)[1])


RECORDERS = (in_memory, in_a_file)
every_recorder = pytest.mark.parametrize("make", RECORDERS)
events = st.lists(
    st.builds(
        Event, st.integers(0, 2**63), st.sampled_from(["source", "destination"]), st.sampled_from(Happening),
        first=st.none() | st.integers(0, 2**40), count=st.none() | st.integers(0, 2**40),
        level=st.none() | st.sampled_from(Level), vcpu=st.none() | st.integers(0, 1024),
        write=st.none() | st.booleans(), urgent=st.none() | st.booleans(), detail=st.none() | st.text(),
    ),
    max_size=8,
)  # fmt: skip


@every_recorder
def test_all_events_are_kept_in_the_order_in_which_they_came(make: Callable[..., Recorder], tmp_path: Path) -> None:
    """Their times are not looked at."""
    with make(tmp_path) as recorder:
        for event in (*EVENTS, *reversed(EVENTS)):
            recorder.tracer.emit(event)
    assert recorder.kept() == [*EVENTS, *reversed(EVENTS)]


@every_recorder
def test_many_events_are_kept_to_the_last(make: Callable[..., Recorder], tmp_path: Path) -> None:
    many = [Event(t, "source", Happening.SENT, t) for t in range(9_001)]
    with make(tmp_path) as recorder:
        for event in many:
            recorder.tracer.emit(event)
    assert recorder.kept() == many


@every_recorder
def test_a_recorder_that_heard_of_nothing_keeps_nothing(make: Callable[..., Recorder], tmp_path: Path) -> None:
    with make(tmp_path) as recorder:
        pass
    assert recorder.kept() == []


@every_recorder
def test_what_was_emitted_before_an_exception_is_kept(make: Callable[..., Recorder], tmp_path: Path) -> None:
    """A run that fails is the one whose trace is wanted."""
    recorders: list[Recorder] = []

    def fail() -> None:
        with make(tmp_path) as recorder:
            recorders.append(recorder)
            for event in EVENTS:
                recorder.tracer.emit(event)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert recorders[0].kept() == EVENTS


@given(emitted=events)
def test_every_recorder_keeps_the_same(emitted: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = []
    for make in RECORDERS:
        with make(tmp_path_factory.mktemp("trace")) as recorder:
            for event in emitted:
                recorder.tracer.emit(event)
        kept.append(recorder.kept())
    assert all(each == emitted for each in kept)


# --- files ---


@pytest.mark.parametrize("kind", ["measured", "modelled"])
def test_a_file_says_which_world_it_is_from(kind: str, tmp_path: Path) -> None:
    with FileRecorder(tmp_path / "trace", kind):
        pass
    assert read_trace(tmp_path / "trace") == ({"schema": "migemu-trace", "version": 2, "kind": kind}, [])


def test_a_file_is_whole_after_every_flush(tmp_path: Path) -> None:
    """A node that is killed leaves that."""
    path = tmp_path / "trace.partial"
    with FileRecorder(tmp_path / "trace", "measured") as recorder:
        assert read_trace(path)[1] == []
        for number, event in enumerate(EVENTS, 1):
            recorder.emit(event)
            recorder.flush()
            assert read_trace(path)[1] == EVENTS[:number]
    assert read_trace(tmp_path / "trace")[1] == EVENTS
    assert not path.exists()


def test_a_file_is_known_by_its_digest(tmp_path: Path) -> None:
    with FileRecorder(tmp_path / "trace", "measured") as recorder:
        for event in EVENTS:
            recorder.emit(event)
    lines = (tmp_path / "trace").read_bytes().partition(b"\n")[2]
    assert recorder.digest == hashlib.sha256(lines).hexdigest() == merge([tmp_path / "trace"], tmp_path / "merged")


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="folder: cannot be written: it is a directory"):
        FileRecorder(tmp_path / "folder", "measured")
    with pytest.raises(BrokenError, match="trace cannot be written: Not a directory"):
        FileRecorder(tmp_path / "file" / "trace", "measured")


def test_a_disk_that_is_full_from_the_start_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BrokenError, match="trace cannot be written: File too large"), file_size_max(10):
        FileRecorder(tmp_path / "trace", "measured")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_when_traces_are_merged_is_the_worlds_fault(tmp_path: Path) -> None:
    with FileRecorder(tmp_path / "trace", "measured") as recorder:
        for event in EVENTS:
            recorder.emit(event)
    with pytest.raises(BrokenError, match="both cannot be written: File too large"), file_size_max(100):
        merge([tmp_path / "trace"], tmp_path / "both")
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


def test_a_disk_that_fills_up_on_the_way_costs_the_trace_and_nothing_else(tmp_path: Path) -> None:
    """It is told once, and the room is given back."""
    told: list[str] = []
    with file_size_max(100_000), FileRecorder(tmp_path / "trace", "measured", told.append) as recorder:
        for t in range(30_000):
            recorder.emit(Event(t, "source", Happening.SENT, t))
    assert told == [f"{recorder.failure}; the migration goes on without the trace"]
    assert recorder.failure == f"{tmp_path}/trace cannot be written: File too large"
    assert recorder.digest == ""
    assert list(tmp_path.iterdir()) == []


# --- merging ---


def test_two_traces_become_one_in_the_order_of_time(tmp_path: Path) -> None:
    """Of one moment, the first trace's events come first, and each trace keeps its own order."""
    traces = {
        "source": [Event(t, "source", Happening.SENT, n) for n, t in enumerate((1, 1, 4, 9))],
        "destination": [Event(t, "destination", Happening.RECEIVED, n) for n, t in enumerate((0, 1, 4, 4, 12))],
    }
    for node, trace in traces.items():
        with FileRecorder(tmp_path / node, "measured") as recorder:
            for event in trace:
                recorder.emit(event)
    merge([tmp_path / "source", tmp_path / "destination"], tmp_path / "both")
    header, both = read_trace(tmp_path / "both")
    assert header["kind"] == "measured"
    assert both == sorted(traces["source"] + traces["destination"], key=lambda event: (event.t, event.node != "source"))
    for node, trace in traces.items():
        assert [event for event in both if event.node == node] == trace
