"""A trace: one line per event, in order; several traces as one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import BrokenError, InputError
from migemu.mm.pages import Level
from migemu.store.trace_file import FileRecorder, merge
from migemu.trace.events import CarriedFrame, Event, Happening, event_line, header_line
from migemu.trace.recorder import MemoryRecorder

events = st.builds(
    Event,
    t=st.integers(0, 2**63),
    node=st.sampled_from(["source", "destination"]),
    event=st.sampled_from(Happening),
    first=st.none() | st.integers(0, 2**40),
    count=st.none() | st.integers(0, 2**40),
    level=st.none() | st.sampled_from(Level),
    vcpu=st.none() | st.integers(0, 1024),
    write=st.none() | st.booleans(),
    urgent=st.none() | st.booleans(),
    detail=st.none() | st.text(),
    wire=st.none() | st.builds(CarriedFrame, *[st.integers(0, 2**63)] * 4),
)


def write(path: Path, recorded: Iterable[Event], kind: str = "measured") -> Path:
    with FileRecorder(path, kind) as recorder:
        for event in recorded:
            recorder.emit(event)
    return path


def test_the_first_line_names_the_schema() -> None:
    assert json.loads(header_line("modelled")) == {"schema": "migemu-trace", "version": 2, "kind": "modelled"}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(5, "source", Happening.STATE, detail="run"), '{"t":5,"node":"source","event":"state","detail":"run"}'),
        (
            Event(6, "source", Happening.SENT, 512, 64, Level.PTE, urgent=False),
            '{"t":6,"node":"source","event":"sent","first":512,"count":64,"level":"PTE","urgent":false}',
        ),
        (
            Event(7, "destination", Happening.FAULTED, 0, vcpu=0, write=True),
            '{"t":7,"node":"destination","event":"faulted","first":0,"vcpu":0,"write":true}',
        ),
        (
            Event(8, "destination", Happening.COLLAPSED, 0, level=Level.PUD),
            '{"t":8,"node":"destination","event":"collapsed","first":0,"level":"PUD"}',
        ),
        (
            Event(9, "link", Happening.CARRIED, 3, 1, Level.PTE, detail="main", wire=CarriedFrame(1, 4, 5, 4128)),
            '{"t":9,"node":"link","event":"carried","first":3,"count":1,"level":"PTE","detail":"main",'
            '"wire":{"enqueued":1,"started":4,"departed":5,"frame_bytes":4128}}',
        ),
    ],
)
def test_an_event_is_a_line_of_the_fields_that_it_has(event: Event, line: str) -> None:
    """Zero and false are values; None is none."""
    assert event_line(event) == line


@given(events)
def test_any_event_is_one_line_that_says_all_of_it(event: Event) -> None:
    line = event_line(event)
    assert line.isprintable()
    said = json.loads(line)
    typed = {"level": Level.__getitem__, "wire": lambda wire: CarriedFrame(**wire)}
    fields = {name: typed[name](value) if name in typed else value for name, value in said.items()}
    again = Event(fields.pop("t"), fields.pop("node"), Happening(fields.pop("event")), **fields)
    assert again == event


def test_the_memory_recorder_keeps_events() -> None:
    recorder = MemoryRecorder()
    for t in range(3):
        recorder.emit(Event(t, "source", Happening.LOST))
    assert [event.t for event in recorder.events] == [0, 1, 2]


def test_a_file_recorder_writes_in_blocks_and_all_of_it_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "trace"
    recorded = [Event(t, "source", Happening.SENT, t) for t in range(10_000)]
    with FileRecorder(path, "measured") as recorder:
        for event in recorded:
            recorder.emit(event)
        partial = path.with_name("trace.partial")
        assert not path.exists()
        written = partial.read_text(encoding="utf-8").count("\n")
        assert 1 < written < 10_001, "something was written on the way, and not event by event"
        recorder.flush()
        recorder.flush()
        assert partial.read_text(encoding="utf-8").count("\n") == 10_001
    assert path.read_text(encoding="utf-8").split("\n") == [header_line("measured"), *map(event_line, recorded), ""]


def test_a_trace_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written: it is a directory"):
        FileRecorder(tmp_path, "measured")
    with pytest.raises(BrokenError, match="trace cannot be written: Not a directory"):
        FileRecorder(tmp_path / "file" / "trace", "measured")


def test_traces_are_merged_by_time_and_each_keeps_its_order(tmp_path: Path) -> None:
    """Events of one moment: those of the trace that was named first come first."""
    source = [Event(1, "source", Happening.SENT, 9), Event(3, "source", Happening.SENT, 2)]
    source += [Event(3, "source", Happening.SENT, 1), Event(9, "source", Happening.STATE, detail="end")]
    destination = [Event(2, "destination", Happening.RECEIVED, 9), Event(3, "destination", Happening.RECEIVED, 2)]
    into = tmp_path / "both.jsonl"
    merge([write(tmp_path / "s", source), write(tmp_path / "d", destination)], into)
    together = [source[0], destination[0], source[1], source[2], destination[1], source[3]]
    assert into.read_text(encoding="utf-8").split("\n") == [header_line("measured"), *map(event_line, together), ""]


@given(times=st.lists(st.lists(st.integers(0, 9)), min_size=1, max_size=4))
def test_merging_loses_nothing(times: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("merge")
    traces = [
        [Event(t, "source", Happening.SENT, number, serial) for serial, t in enumerate(sorted(each))]
        for number, each in enumerate(times)
    ]
    paths = [write(folder / str(number), trace) for number, trace in enumerate(traces)]
    merge(paths, folder / "all")
    lines = [json.loads(line) for line in (folder / "all").read_text(encoding="utf-8").split("\n")[1:-1]]
    assert [line["t"] for line in lines] == sorted(t for each in times for t in each)
    for number, trace in enumerate(traces):
        assert [line["count"] for line in lines if line["first"] == number] == list(range(len(trace)))


@pytest.mark.parametrize(
    "content",
    [
        "", "not a trace\n", '{"schema": "another", "version": 2, "kind": "measured"}\n', "[]\n",
        header_line("measured").replace("2", "1") + "\n", header_line("measured") + "\n{}\n",
        header_line("measured") + '\n{"t":1\n', header_line("measured") + "\n[1]\n",
        header_line("measured") + '\n{"t":"1"}\n', "\x00", header_line("measured")[:-2] + "\n",
    ],
    ids=["empty", "words", "schema", "list", "version", "no time", "no JSON", "no object", "text", "NUL", "cut"],
)  # fmt: skip
def test_what_is_no_trace_is_refused_by_name(tmp_path: Path, content: str) -> None:
    """Also when it is given twice, so that all headers agree."""
    stranger = tmp_path / "stranger"
    stranger.write_text(content, encoding="utf-8")
    good = write(tmp_path / "good", [Event(1, "source", Happening.SENT)])
    for traces in ([good, stranger], [stranger, stranger]):
        with pytest.raises(InputError) as error:
            merge(traces, tmp_path / "into")
        assert str(stranger) in str(error.value)


def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    """As a node leaves it that was killed while it wrote."""
    whole = write(tmp_path / "whole", [Event(t, "source", Happening.SENT) for t in range(5)])
    text = whole.read_text(encoding="utf-8")
    for cut in (1, 2, 10):
        (tmp_path / "cut").write_text(text[:-cut], encoding="utf-8")
        merge([tmp_path / "cut"], tmp_path / "into")
        assert (tmp_path / "into").read_text(encoding="utf-8") == text[: text[:-1].rindex("\n") + 1]


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good", [Event(1, "source", Happening.SENT)])
    with pytest.raises(InputError, match="none: the trace cannot be read: No such file or directory"):
        merge([good, tmp_path / "none"], tmp_path / "into")
    assert not (tmp_path / "into").exists()
    with pytest.raises(InputError, match="cannot be written: it is a directory"):
        merge([good], tmp_path)


def test_measured_and_modelled_do_not_mix(tmp_path: Path) -> None:
    traces = [write(tmp_path / kind, [], kind) for kind in ("measured", "modelled")]
    with pytest.raises(InputError, match="different kinds"):
        merge(traces, tmp_path / "into")


@given(
    t=st.integers(0, 2**62), happening=st.sampled_from(Happening), first=st.none() | st.integers(-5, 2**40),
    count=st.none() | st.integers(), level=st.none() | st.sampled_from(Level), vcpu=st.none() | st.integers(0, 99),
    write=st.none() | st.booleans(), urgent=st.none() | st.booleans(), detail=st.none() | st.text(max_size=8),
    wire=st.none() | st.builds(CarriedFrame, *[st.integers(0, 2**62)] * 4),
)  # fmt: skip
def test_a_line_is_what_json_makes_of_it(
    t: int, happening: Happening, wire: CarriedFrame | None, **fields: object
) -> None:
    event = Event(t, "link", happening, **fields, wire=wire)  # type: ignore[arg-type]
    expected: dict[str, object] = {"t": t, "node": "link", "event": happening.value}
    for name, value in fields.items():
        if value is not None:
            expected[name] = value.name if isinstance(value, Level) else value
    if wire is not None:
        expected["wire"] = wire._asdict()
    line = event_line(event)
    assert json.loads(line) == expected
    assert line == json.dumps(json.loads(line), separators=(",", ":"))
