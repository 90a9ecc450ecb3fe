"""The parts of a fault sum to its latency, whatever happened in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from migemu.analysis.attribution import Attribution
from migemu.mm.pages import TINY, Level
from migemu.trace.events import CarriedFrame, Event, Happening

PAGES = 16
pages = st.integers(0, PAGES - 1)
times = st.integers(0, 1_000)


@st.composite
def happenings(draw: st.DrawFn) -> Event:
    """Any event that attribution listens to; frames have any times at all, also such as no link has."""
    kind = draw(st.sampled_from([
        Happening.FAULTED, Happening.WOKEN, Happening.REQUESTED, Happening.ASKED, Happening.SENT, Happening.CARRIED,
        Happening.RECEIVED, Happening.CONTINUED, Happening.COLLAPSED, Happening.ZAPPED, Happening.KILLED,
    ]))  # fmt: skip
    first = draw(pages)
    if kind in (Happening.FAULTED, Happening.WOKEN, Happening.KILLED):
        return Event(0, "destination", kind, first, vcpu=draw(st.integers(0, 3)), write=False, detail="SIGBUS")
    wire = CarriedFrame(*(draw(times) for _ in range(3)), 4096) if kind is Happening.CARRIED else None
    return Event(
        0, "any", kind, first, draw(st.integers(1, PAGES - first)), draw(st.sampled_from(TINY.levels)),
        urgent=draw(st.booleans()),
        detail=draw(st.sampled_from(["main", "preempt", "return"] if wire else [None, "zero"])), wire=wire,
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 50), happenings()), max_size=60))
def test_parts_sum_to_the_latency_and_none_is_negative(steps: list[tuple[int, Event]]) -> None:
    attribution, t = Attribution(TINY, PAGES), 0
    asleep: dict[int, int] = {}
    for step, event in steps:
        t += step
        vcpu = event.vcpu if event.vcpu is not None else -1
        fault = attribution.take(event._replace(t=t))
        if event.event is Happening.FAULTED:
            asleep[vcpu] = t
        began = asleep.pop(vcpu, None) if event.event in (Happening.WOKEN, Happening.KILLED) else None
        assert (fault is not None) == (event.event is Happening.WOKEN and began is not None)
        if fault is not None:
            assert fault.latency_ns == t - (began or 0)
            assert sum(fault.phases) == fault.latency_ns
            assert min(fault.phases) >= 0
            assert min(fault.ahead) >= 0
    assert attribution.open == len(asleep)


@given(st.lists(st.integers(0, 1_000), min_size=8, max_size=8), st.integers(0, 1_000))
def test_milestones_in_their_order_are_the_parts_as_they_are(lengths: list[int], began: int) -> None:
    """Nothing is moved from one part to another where everything came in order."""
    requested, left, asked, started, departed, received, mapped, woken = (
        began + sum(lengths[: number + 1]) for number in range(8)
    )
    told = [
        Event(began, "destination", Happening.FAULTED, 3, vcpu=0, write=True),
        Event(requested, "destination", Happening.REQUESTED, 3, 1, Level.PTE),
        Event(
            asked,
            "link",
            Happening.CARRIED,
            3,
            1,
            Level.PTE,
            detail="return",
            wire=CarriedFrame(requested, requested, left, 9),
        ),
        Event(asked, "source", Happening.ASKED, 3, 1, Level.PTE),
        Event(asked, "source", Happening.SENT, 3, 1, Level.PTE, urgent=True),
        Event(
            received,
            "link",
            Happening.CARRIED,
            3,
            1,
            Level.PTE,
            detail="main",
            wire=CarriedFrame(asked, started, departed, 9),
        ),
        Event(received, "destination", Happening.RECEIVED, 3, 1, Level.PTE, urgent=True),
        Event(mapped, "destination", Happening.CONTINUED, 3, 1, Level.PTE),
        Event(woken, "destination", Happening.WOKEN, 3, vcpu=0),
    ]
    attribution = Attribution(TINY, PAGES)
    (fault,) = (each for event in told if (each := attribution.take(event)))
    assert fault.phases == tuple(lengths)
