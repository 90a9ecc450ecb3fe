"""What becomes of each page, against a naive account of it: one small object a page, rule by rule."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Level
from migemu.trace.events import Event, Happening
from migemu.view.page_states import STATES, TABLES, WRITTEN_BIT, PageState, PageStates
from tests.unit.trace.traces import destination

PAGES = 32
LEVELS = TINY.levels


@dataclass
class NaivePage:
    asked: bool = False
    arrived: bool = False
    mapped: Level | None = None
    written: bool = False

    @property
    def state(self) -> int:
        known = PageState.ARRIVED if self.arrived else PageState.ASKED if self.asked else PageState.MISSING
        if self.mapped is not None:
            known = PageState(PageState.MAPPED_PTE + self.mapped)
        return known | (WRITTEN_BIT if self.written else 0)


def naive(pages: list[NaivePage], event: Event) -> None:
    first, count = event.first or 0, event.count or 1
    if event.event is Happening.COLLAPSED:
        for page in pages[first : first + TINY.pages(event.level or Level.PTE)]:
            page.mapped, page.arrived = event.level, True
    elif event.event is Happening.CONTINUED:
        size = TINY.pages(event.level or Level.PTE)
        for at in range(first, first + count, size):
            if all(page.mapped is None for page in pages[at : at + size]):
                for page in pages[at : at + size]:
                    page.mapped, page.arrived = event.level, True
    else:
        for number in range(first, first + count):
            if event.event is Happening.REQUESTED:
                pages[number].asked = True
            elif event.event is Happening.RECEIVED:
                pages[number].arrived = True
            elif event.event is Happening.WRITTEN:
                pages[number].written = True
            elif event.event is Happening.ZAPPED:
                pages[number] = NaivePage()


@st.composite
def events(draw: st.DrawFn) -> Event:
    name = draw(
        st.sampled_from(("requested", "received", "continued", "collapsed", "written", "zapped", "sent", "wake"))
    )
    level = draw(st.sampled_from(LEVELS if name == "continued" else LEVELS[1:]))
    size = TINY.pages(level) if name in ("continued", "collapsed") else 1
    first = draw(st.integers(0, PAGES // size - 1)) * size
    if name == "collapsed":
        return destination(name, first, level=level)
    if name == "written":
        return destination(name, first, vcpu=0)
    count = draw(st.integers(1, (PAGES - first) // size)) * size
    fields = {"level": level} if name == "continued" else {}
    return destination(name, first, count, **fields)


@given(st.lists(events(), max_size=40))
def test_each_page_is_as_if_it_were_alone(told: list[Event]) -> None:
    states, pages = PageStates(TINY, PAGES), [NaivePage() for _ in range(PAGES)]
    replayed = bytearray(PAGES)
    for event in told:
        for table, first, count in states.take(event):
            replayed[first : first + count] = replayed[first : first + count].translate(TABLES[table])
        naive(pages, event)
        assert list(states.states) == [page.state for page in pages]
        assert replayed == states.states, "the changes that are handed out are those that were made"
        assert states.counts == [states.states.count(state) for state in range(STATES)]


@pytest.mark.parametrize(
    "event",
    [
        destination("received", 30, 4), destination("received", 3, -2), destination("written", PAGES, vcpu=1),
        destination("collapsed", 24, level=Level.PUD), destination("continued", 0, 4, level=Level.CONT_PTE),
    ],
)  # fmt: skip
def test_what_lies_outside_the_memory_is_refused_and_changes_nothing(event: Event) -> None:
    states = PageStates(TINY, PAGES)
    with pytest.raises(ValueError, match=r"does not fit|no such level"):
        states.take(event)
    assert states.states == bytes(PAGES)
