"""Reading a trace: all of it, or the line that is wrong and why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import InputError
from migemu.mm.pages import TINY, Level
from migemu.trace.events import FIELDS, CarriedFrame, Event, Happening, emitters_of, event_line, header_line
from migemu.trace.reading import read_trace
from tests.unit.trace.traces import destination, memory, source, whole, write_lines

HEADER = header_line("measured") + "\n"
MEMORY = event_line(memory()) + "\n"
SENT = event_line(source("sent", 0, 4)) + "\n"


def read(path: Path) -> list[Event]:
    with read_trace(path) as trace:
        return [event for block in trace.events() for event in block]


def said_of(tmp_path: Path, content: str | bytes) -> str:
    """What is said of a file with this content."""
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)[len(f"{path}: ") :]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    events = whole()
    with read_trace(write_lines(tmp_path / "trace", events, "modelled")) as trace:
        assert (trace.kind, trace.geometry, trace.pages) == ("modelled", TINY, 32)
        assert [event for block in trace.events() for event in block] == events


def test_a_trace_longer_than_a_block_is_read_to_its_end_and_progress_is_told(tmp_path: Path) -> None:
    events = [memory(), *(source("sent", 0, 4, t=t) for t in range(5000))]
    path = write_lines(tmp_path / "trace", events)
    told: list[int] = []
    with read_trace(path, told.append) as trace:
        assert [event for block in trace.events() for event in block] == events
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == path.stat().st_size


def fields_of(happening: Happening) -> st.SearchStrategy[Event]:
    """Any event of this kind, with all that it must have and some of what it may."""
    values: dict[str, st.SearchStrategy[object]] = {
        "first": st.integers(-5, 2**40), "count": st.integers(-(2**63), 2**64), "level": st.sampled_from(Level),
        "vcpu": st.integers(0, 1024), "write": st.booleans(), "urgent": st.booleans(), "detail": st.text(max_size=20),
        "wire": st.builds(CarriedFrame, *[st.integers(0, 2**63)] * 4),
    }  # fmt: skip
    needed, possible = FIELDS[happening]
    fields: dict[str, st.SearchStrategy[object]] = {name: st.none() for name in values}
    fields |= {name: values[name] for name in needed} | {name: st.none() | values[name] for name in possible}
    return st.builds(Event, st.just(7), st.sampled_from(emitters_of(happening)), st.just(happening), **fields)


@given(st.lists(st.sampled_from(sorted(Happening, key=lambda one: one.value)).flatmap(fields_of), max_size=20))
def test_any_event_of_the_vocabulary_survives_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    events = [memory(), *(event for event in events if event.event is not Happening.MEMORY)]
    assert [event._replace(t=0) for event in read(write_lines(tmp_path_factory.mktemp("any") / "trace", events))] == [
        event._replace(t=0) for event in events
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty, no trace"),
        ("hello\n", "is not a trace: its first line is 'hello'"),
        ("[1]\n", "is not a trace: its first line"),
        ('{"name":"a log"}\n', "is not a trace: its first line"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a trace: its first line"),
        ('{"schema":"qlog","version":2,"kind":"measured"}\n', "is not a trace of migemu: its schema is 'qlog'"),
        (HEADER.replace("2", "1") + MEMORY, "is a trace of version 1; this migemu reads version 2"),
        (HEADER.replace("2", "3") + MEMORY, "is a trace of version 3; this migemu reads version 2"),
        (HEADER.replace("2", "true") + MEMORY, "is a trace of version True"),
        (HEADER.replace("measured", "dreamt"), "is a trace of kind 'dreamt'; known: measured, modelled"),
        (HEADER.replace("}", ', "by": "me"}'), "has an unknown header"),
        (HEADER, "holds no `memory` event"),
        (HEADER + SENT + MEMORY, "line 2: an event about page 0 before any `memory` event"),
        (HEADER + MEMORY.replace("tiny", "vax"), "line 2: 'vax' is no geometry; known: x86_64, arm64_4k, tiny"),
        (HEADER + MEMORY.replace("32", "33"), "line 2: 33 base pages are not whole hugetlb pages of tiny"),
        (HEADER + MEMORY.replace("32", str(1 << 63)), f"line 2: {1 << 63} base pages are more than any guest has"),
        (HEADER + MEMORY.replace("32", "-16"), "line 2: -16 base pages are not whole hugetlb pages of tiny"),
    ],
)
def test_what_is_no_trace_of_this_version_is_named_as_such(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said_of(tmp_path, content).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        (SENT[:-3], "is no JSON"),
        ("[]", "is no JSON object"),
        ("{}", "has no 'event'"),
        ('{"event":"sent"}', "`sent` without 't'"),
        (SENT[:-1].replace('"t":0,', ""), "`sent` without 't'"),
        (SENT[:-1].replace('"first":0,', ""), "`sent` without 'first'"),
        (SENT[:-1].replace("sent", "eaten"), "no event is called 'eaten'"),
        (SENT[:-1].replace("sent", "duplicate"), "no event is called 'duplicate'"),
        (SENT[:-1].replace('"sent"', "1"), "'event' is 1, no str"),
        (SENT[:-1].replace('"sent"', "[]"), "'event' is [], no str"),
        (SENT[:-1].replace("source", "moon"), "`sent` of the node 'moon': it is told by source"),
        (SENT[:-1].replace("source", "destination"), "`sent` of the node 'destination': it is told by source"),
        (SENT[:-1].replace("PTE", "PGD"), "there is no level 'PGD'"),
        (SENT[:-1].replace('"count":4', '"count":4.0'), "'count' is 4.0, no int"),
        (SENT[:-1].replace('"count":4', '"count":true'), "'count' is True, no int"),
        (SENT[:-1].replace('"count":4', '"count":null'), "'count' is None, no int"),
        (SENT[:-1].replace('"count":4', '"count":[4]'), "'count' is [4], no int"),
        (SENT[:-1].replace('"count":4', '"count":"4"'), "'count' is '4', no int"),
        (SENT[:-1].replace('"count":4', '"count":NaN'), "'count' is nan, no int"),
        (SENT[:-1].replace("false", "0"), "'urgent' is 0, no bool"),
        (SENT[:-1].replace("}", ',"vcpu":1}'), "`sent` has no field 'vcpu'"),
        (SENT[:-1].replace("}", ',"colour":"red"}'), "`sent` has no field 'colour'"),
        (SENT[:-1].replace('"t":0', '"t":-1'), "time goes back"),
        (SENT[:-1] + SENT[:-1], "is no JSON (Extra data"),
        (SENT[:-1] + "," + SENT[:-1], "is no JSON (Extra data"),
        ("[" * 100_000, "maximum recursion depth"),
        ("\x00", "is no JSON"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    """Wherever it stands, and although its neighbours are good."""
    for before in (0, 1, 1500):
        found = said_of(tmp_path, HEADER + MEMORY + SENT * before + line + "\n" + SENT)
        assert found.startswith(f"line {before + 3}: {said}"), found


def test_two_damaged_lines_do_not_make_two_good_ones(tmp_path: Path) -> None:
    """They would if lines were simply joined: here the text of the first goes on in the second."""
    lost = event_line(destination("lost", detail="a, b"))
    left, right = lost.split(", ")
    content = HEADER + MEMORY + left + "\n" + right.removesuffix("}") + "}," + lost + "\n"
    json.loads("[" + ",".join(content.splitlines()[2:]) + "]")  # together they are JSON, and two events
    assert said_of(tmp_path, content).startswith("line 3: is no JSON")


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    line = SENT.encode().replace(b"sent", b"s\xff")
    assert said_of(tmp_path, HEADER.encode() + MEMORY.encode() + line).startswith("line 3: 'utf-8' codec")


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_last_line_that_was_cut_is_named_as_such(tmp_path: Path, cut: int) -> None:
    said = said_of(tmp_path, (HEADER + MEMORY + SENT * 3)[:-cut])
    assert re.match(r"line 5 is cut off: the trace is truncated", said)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"{re.escape(str(path))}: the trace cannot be read: {why}"):
            read(path)


def test_the_vocabulary_is_whole() -> None:
    """Every happening has its fields, and every field is one of an event's."""
    assert set(FIELDS) == set(Happening)
    for needed, possible in FIELDS.values():
        assert set(needed + possible) <= set(Event._fields[3:])
        assert not set(needed) & set(possible)
