"""Where the time of a fault went: situations by hand on TINY, in the order in which they happen."""

from __future__ import annotations

import pytest

from migemu.analysis.attribution import PHASES, Attribution, Cause, ResolvedFault
from migemu.mm.pages import TINY
from migemu.trace.events import CarriedFrame, Event
from tests.unit.trace.traces import PMD, PTE, destination, event, source


def carried(t: int, channel: str, wire: CarriedFrame, first: int = 5, count: int = 1) -> Event:
    return event("link", "carried", first, count, PTE, t=t, detail=channel, wire=wire)


def faulted(t: int, page: int = 5, vcpu: int = 0) -> Event:
    return destination("faulted", page, vcpu=vcpu, t=t)


def woken(t: int, page: int = 5, vcpu: int = 0) -> Event:
    return destination("woken", page, vcpu=vcpu, t=t)


def on(t: int, name: str, first: int = 5, count: int = 1, **fields: object) -> Event:
    """An event of the node that tells of it."""
    return (source if name in ("sent", "asked") else destination)(name, first, count, PTE, t=t, **fields)


def resolve(*events: Event) -> list[ResolvedFault]:
    attribution = Attribution(TINY, 32)
    return [fault for each in events if (fault := attribution.take(each))]


def parts_of(fault: ResolvedFault) -> dict[str, int]:
    assert sum(fault.phases) == fault.latency_ns
    return {name: ns for name, ns in zip(PHASES, fault.phases, strict=True) if ns}


def answer(*, requested: int = 102, urgent: bool = True) -> list[Event]:
    """A request at `requested` and what comes of it until the page is mapped, all milestones apart."""
    t = requested
    return [
        on(t, "requested"), carried(t + 9, "return", CarriedFrame(t, t + 1, t + 3, 40)), on(t + 10, "asked"),
        on(t + 11, "sent", urgent=urgent), carried(t + 50, "preempt", CarriedFrame(t + 11, t + 20, t + 26, 4128)),
        on(t + 52, "received", urgent=urgent), on(t + 57, "continued"),
    ]  # fmt: skip


def test_a_modelled_fault_has_all_parts() -> None:
    (fault,) = resolve(faulted(100), *answer(), woken(170))
    assert parts_of(fault) == {
        "detect": 2, "request": 3, "uplink": 7, "queue": 10, "serialisation": 6, "downlink": 24, "install": 7,
        "wake": 11,
    }  # fmt: skip
    assert (fault.cause, fault.latency_ns, fault.received) == (Cause.ANSWERED, 70, 152)


def test_a_measured_fault_has_fewer_and_they_sum_too() -> None:
    """Nobody saw the wire: up to the source's `sent` it is uplink, and from there downlink."""
    seen = [each for each in answer() if each.node != "link" and each.event.value != "asked"]
    (fault,) = resolve(faulted(100), *seen, woken(170))
    assert parts_of(fault) == {"detect": 2, "uplink": 11, "downlink": 41, "install": 5, "wake": 11}
    assert fault.ahead == (0, 0)


def test_a_destination_alone_knows_less_still() -> None:
    seen = [each for each in answer() if each.node == "destination"]
    (fault,) = resolve(faulted(100), *seen, woken(170))
    assert parts_of(fault) == {"detect": 2, "downlink": 52, "install": 5, "wake": 11}
    assert fault.cause is Cause.ANSWERED


ANOTHER = faulted(70, vcpu=1)
EARLIER = answer(requested=80)
CAUSES = {
    "answered": ([], answer(), Cause.ANSWERED),
    "another vCPU has asked": ([ANOTHER, on(95, "requested")], answer()[2:], Cause.SHARED),
    "the answer to another is on its way": ([ANOTHER, *EARLIER[:4]], EARLIER[4:], Cause.SHARED),
    "pushed and on its way": (
        [on(60, "sent", 4, 4, urgent=False)],
        [on(110, "requested"), on(130, "received", 4, 4), on(131, "continued", 4, 4)], Cause.UNDER_WAY,
    ),
    "the push comes to it first": (
        [], [on(110, "requested"), on(120, "sent"), on(140, "received"), on(145, "continued")], Cause.PUSHED,
    ),
    "zero": (
        [], [on(110, "requested"), on(140, "received", urgent=True, detail="zero"), on(141, "continued")], Cause.ZERO,
    ),
    "received, and not mapped yet": ([on(50, "sent"), on(60, "received")], [on(120, "continued")], Cause.NOT_MAPPED),
    "nothing is told of what brought it": ([], [on(120, "wake")], Cause.UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "cause"), CAUSES.values(), ids=CAUSES)
def test_the_cause_is_what_had_become_of_the_page(before: list[Event], after: list[Event], cause: Cause) -> None:
    found = resolve(*before, faulted(100), *after, woken(200))
    assert [fault.cause for fault in found if fault.vcpu == 0] == [cause]


def test_what_lay_before_the_fault_is_cut_off() -> None:
    """A piece on its way: its frame had begun to go out before anybody wanted it."""
    (fault,) = resolve(
        on(60, "sent"), faulted(100), on(103, "requested"), carried(150, "main", CarriedFrame(60, 90, 110, 9000)),
        on(151, "received"), on(153, "continued"), woken(160),
    )  # fmt: skip
    assert parts_of(fault) == {"serialisation": 10, "downlink": 40, "install": 3, "wake": 7}


def test_a_page_that_only_has_to_be_mapped_costs_install_and_wake() -> None:
    before = [on(10, "sent"), carried(19, "main", CarriedFrame(10, 11, 12, 4128)), on(20, "received")]
    (fault,) = resolve(*before, faulted(100), on(130, "continued"), woken(160))
    assert parts_of(fault) == {"install": 30, "wake": 30}
    assert fault.received is None


def test_a_collapse_maps_too() -> None:
    (fault,) = resolve(on(20, "received"), faulted(100), destination("collapsed", 4, level=PMD, t=140), woken(160))
    assert parts_of(fault) == {"install": 40, "wake": 20}


def test_a_request_that_came_too_late_had_no_part_in_it() -> None:
    """The push came to the page by itself while the request was under way: from there on its own time counts."""
    asked = carried(115, "return", CarriedFrame(102, 103, 104, 40)), on(118, "sent"), on(125, "asked")
    rest = carried(160, "main", CarriedFrame(118, 120, 130, 4128)), on(161, "received"), on(162, "continued")
    (fault,) = resolve(faulted(100), on(102, "requested"), *asked, *rest, woken(170))
    assert parts_of(fault) == {
        "detect": 2, "request": 2, "uplink": 14, "queue": 2, "serialisation": 10, "downlink": 30, "install": 2,
        "wake": 8,
    }  # fmt: skip


def test_what_stood_in_front_is_named_and_counted() -> None:
    """What was on the wire between the request's arrival and the piece's first byte, of either channel."""
    frames = [
        carried(111, "main", CarriedFrame(1, 90, 108, 70_000), 8),  # gone when the request was read
        carried(118, "main", CarriedFrame(2, 108, 115, 50_000), 9),
        carried(120, "preempt", CarriedFrame(110, 115, 118, 4_128), 10),
        carried(121, "return", CarriedFrame(112, 113, 120, 40), 11),  # the other direction
        carried(123, "main", CarriedFrame(3, 118, 122, 30_000), 12),
        carried(140, "preempt", CarriedFrame(112, 122, 125, 4_128)),
        carried(150, "main", CarriedFrame(4, 125, 149, 60_000), 13),  # behind it
    ]
    request = [on(102, "requested"), on(110, "asked"), on(111, "sent", urgent=True)]
    came = [on(151, "received", urgent=True), on(152, "continued"), woken(153)]
    (fault,) = resolve(faulted(100), *request, *frames, *came)
    assert fault.ahead == (80_000, 4_128)
    assert parts_of(fault)["queue"] == 12


def test_faults_of_several_vcpus_on_one_page_each_have_their_own_sum() -> None:
    first, second = resolve(
        faulted(100), *answer()[:4], faulted(130, vcpu=1), *answer()[4:], woken(170), woken(175, vcpu=1)
    )
    assert (first.vcpu, first.cause, second.vcpu, second.cause) == (0, Cause.ANSWERED, 1, Cause.SHARED)
    assert parts_of(second) == {"downlink": 22, "install": 7, "wake": 16}


def test_a_fault_that_ends_in_a_signal_has_no_latency() -> None:
    attribution = Attribution(TINY, 32)
    for each in (faulted(1), faulted(2, vcpu=1), destination("killed", 5, vcpu=0, detail="SIGBUS", t=3)):
        assert attribution.take(each) is None
    assert (attribution.killed, attribution.open) == (1, 1)


def test_a_page_that_was_dropped_starts_again() -> None:
    events = [on(1, "sent"), on(2, "received"), on(3, "continued"), destination("zapped", 4, 4, t=4)]
    (fault,) = resolve(*events, faulted(100), *answer(), woken(170))
    assert fault.cause is Cause.ANSWERED
    assert parts_of(fault)["detect"] == 2


def test_events_outside_the_memory_are_nobodys() -> None:
    """Whether they may be is for the checks to say."""
    resolve(on(1, "received", 30, 5), on(2, "sent", -3, 2), faulted(3, page=99), woken(4, page=99), woken(5, vcpu=7))
