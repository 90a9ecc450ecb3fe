"""The index of a trace: at any record it says what a replay from the very beginning says; and it is never believed
where it does not fit its trace."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.analysis.attribution import PHASES, Attribution
from migemu.errors import InputError
from migemu.mm.pages import TINY, X86_64
from migemu.trace.events import Event
from migemu.view.event_columns import EVENT_FIELDS, FAULT_FIELDS, PART, from_columns
from migemu.view.index_builder import IndexBuilder, build_index
from migemu.view.page_states import TABLES, PageStates
from migemu.view.trace_index import BlobFile, TraceIndex, open_index
from tests.unit.report.runs import migration
from tests.unit.trace.traces import PAGES, destination, memory, whole, write_lines
from tests.unit.view.conftest import Keep
from tests.unit.view.test_page_states import events as some_events


def replay(index: TraceIndex) -> list[bytes]:
    """The states after each event, as a browser has them: by the snapshot of its chunk, and the tables."""
    found = []
    for number, chunk in enumerate(index.chunks):
        states = bytearray(index.blobs.read(chunk.state))
        columns = from_columns(index.read_events(number), EVENT_FIELDS)
        assert len(columns["t"]) == chunk.records
        for row in range(chunk.records):
            first, count = int(columns["first"][row]), int(columns["count"][row])
            if table := columns["table"][row]:
                states[first : first + count] = states[first : first + count].translate(TABLES[table])
            if row + 1 == chunk.records or columns["kind"][row + 1] != PART:
                found.append(bytes(states))
    return found


def from_the_start(events: list[Event], pages: int) -> list[bytes]:
    states, found = PageStates(TINY, pages), []
    for event in events:
        states.take(event)
        found.append(bytes(states.states))
    return found


@pytest.mark.parametrize("records_max", [1, 7, 1000])
def test_the_state_at_any_event_is_that_of_a_replay_from_the_start(
    tmp_path: Path, records_max: int, keep: Keep
) -> None:
    events = whole()
    index = keep(build_index(write_lines(tmp_path / "trace.jsonl", events), records_max=records_max))
    assert not index.problem
    assert index.events == len(events)
    assert replay(index) == from_the_start(events, PAGES)


@settings(max_examples=60)
@given(st.lists(some_events(), min_size=1, max_size=40), st.integers(1, 9))
def test_so_it_is_whatever_happened(told: list[Event], records_max: int) -> None:
    """Events in orders that no migration has, pieces over what is mapped among them."""
    builder = IndexBuilder(TINY, PAGES, "measured", BlobFile.temporary(Path()), records_max=records_max)
    with builder.index as index:
        builder.take(told, 0)
        builder.close()
        assert replay(index) == from_the_start(told, PAGES)
        assert index.chunks[0].counts == (PAGES, *[0] * 15)


def test_a_chunk_knows_who_sleeps_as_it_begins(tmp_path: Path, keep: Keep) -> None:
    index = keep(build_index(write_lines(tmp_path / "trace.jsonl", whole()), records_max=1))
    asleep = [chunk.asleep for chunk in index.chunks]
    assert asleep[5] == ()
    assert asleep[6] == ((1, 9, 0),), "it fell asleep with the event before"
    assert asleep[11] == ()
    assert index.vcpus == 2


def test_faults_are_those_of_the_attribution(tmp_path: Path, keep: Keep) -> None:
    events = migration(wire=True)
    index = keep(build_index(write_lines(tmp_path / "trace.jsonl", events, "modelled"), records_max=500))
    attribution = Attribution(X86_64, index.pages)
    expected = [fault for event in events if (fault := attribution.take(event)) is not None]
    assert index.faults == len(expected) > 100
    found = [from_columns(index.read_faults(number), FAULT_FIELDS) for number in range(len(index.chunks))]
    assert [chunk.fault for chunk in index.chunks] == [0, *np.cumsum([len(each["page"]) for each in found])[:-1]]
    told = {name: list(chain.from_iterable(each[name].tolist() for each in found)) for name, _ in FAULT_FIELDS}
    assert told["began"] == [fault.began for fault in expected]
    assert told["number"] == list(range(len(expected)))
    for place, part in enumerate(PHASES):
        assert told[part] == [fault.phases[place] for fault in expected]


def test_it_is_the_same_when_it_is_read_again(tmp_path: Path, keep: Keep) -> None:
    trace = write_lines(tmp_path / "trace.jsonl", whole())
    index = keep(build_index(trace, records_max=8))
    index.save(tmp_path / "trace.jsonl.view", trace)
    again = open_index(tmp_path / "trace.jsonl.view", trace)
    assert again is not None
    keep(again)
    assert again.chunks == index.chunks
    assert replay(again) == replay(index)
    assert again.collapse_columns() == index.collapse_columns()
    assert (again.marks, again.overview) == ([list(each) for each in index.marks], index.overview)
    assert {each.name for each in tmp_path.iterdir()} == {"trace.jsonl", "trace.jsonl.view"}


def test_an_index_that_does_not_fit_its_trace_is_made_again(tmp_path: Path, keep: Keep) -> None:
    trace = write_lines(tmp_path / "trace.jsonl", whole())
    path = tmp_path / "trace.jsonl.view"
    keep(build_index(trace)).save(path, trace)
    found = open_index(path, trace)
    assert found is not None
    keep(found)
    write_lines(trace, [*whole(), destination("wake", 0, 1)])
    assert open_index(path, trace) is None
    assert open_index(tmp_path / "none", trace) is None


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_a_damaged_index_is_no_index(tmp_path: Path, share: float, keep: Keep) -> None:
    trace = write_lines(tmp_path / "trace.jsonl", whole())
    path = tmp_path / "trace.jsonl.view"
    keep(build_index(trace)).save(path, trace)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert open_index(path, trace) is None
    turned = bytearray(data)
    turned[-20] ^= 1  # in its head
    path.write_bytes(turned)
    assert open_index(path, trace) is None


def test_a_truncated_trace_is_shown_up_to_its_cut(tmp_path: Path, keep: Keep) -> None:
    trace = write_lines(tmp_path / "trace.jsonl", whole())
    text = trace.read_bytes()
    trace.write_bytes(text[:-10])
    with pytest.raises(InputError, match="is cut off"):  # all of it is one block
        build_index(trace)
    longer = [*whole(), *(destination("wake", 0, 1) for _ in range(3000))]
    text = write_lines(trace, longer).read_bytes()
    trace.write_bytes(text[:-10])
    index = keep(build_index(trace))
    assert "is cut off" in index.problem
    assert 2000 < index.events < len(longer)
    assert replay(index)[-1] == from_the_start(longer, PAGES)[-1]


def test_a_trace_that_does_not_fit_its_memory_is_shown_up_to_there(tmp_path: Path, keep: Keep) -> None:
    events = [memory("source"), memory(), destination("received", 0, 4), destination("received", 30, 90)]
    index = keep(build_index(write_lines(tmp_path / "trace.jsonl", events)))
    assert index.problem == "received of 90 pages at 30 does not fit 32 pages"
    assert index.events == 3


def test_a_chunk_that_is_being_filled_can_be_read(tmp_path: Path, keep: Keep) -> None:
    events = whole()
    builder = IndexBuilder(TINY, PAGES, "measured", BlobFile.temporary(tmp_path), records_max=16)
    keep(builder.index)
    for place in range(0, len(events), 5):
        builder.take(events[place : place + 5], 0)
        builder.show_open()
        upto = min(len(events), place + 5)
        assert replay(builder.index) == from_the_start(events[:upto], PAGES)
    assert not builder.index.ended
