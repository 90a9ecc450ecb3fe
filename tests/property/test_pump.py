"""Both cores together under hypothesis: whatever happens in whatever order, the same memory in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm.pages import TINY, Geometry, Level, PageIndex, Span
from migemu.ordering.conditions import check, check_end, drain
from migemu.ordering.cores import Cores
from migemu.ordering.source_side import MAIN, PREEMPT, Plan
from migemu.policy.collapse_policy import MappingView

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
PER_PUD, PER_PMD = TINY.pages(PUD), TINY.pages(PMD)
VCPUS = 3
Move = tuple[Any, ...]


class Impatient:
    """A policy of a third party: collapses what has been received, mapped or not, and asks again and again."""

    collapses = True

    def __init__(self, geometry: Geometry) -> None:
        pass

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        pmds = range(first - first % PER_PMD, first + count, PER_PMD)
        puds = range(first - first % PER_PUD, first + count, PER_PUD)
        return [*(Span(pmd, PMD) for pmd in pmds), *(Span(pud, PUD) for pud in puds)]

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        return [Span(span.first - span.first % PER_PUD, PUD)]

    def ended(self, view: MappingView) -> Sequence[Span]:
        return [Span(pud, PUD) for pud in range(0, view.mapped.total, PER_PUD)]


POLICIES = (
    "never", "at_end", "eager", "direct", "batched:spans=2", "batched", "budget:stall=10ms",
    "budget:stall=3ms", Impatient,
)  # fmt: skip

which = st.integers(0, 3 * PER_PUD - 1)
vcpus = st.integers(0, VCPUS - 1)
touches = st.tuples(vcpus, which, st.booleans())
moves = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from([1, 2, 5, 50])),
        st.tuples(st.just("urgent")),
        st.tuples(st.just("request")),
        st.tuples(st.just("read")),
        st.tuples(st.just("touch"), touches),
        st.tuples(st.just("pull"), vcpus, which),
        st.tuples(st.just("copy"), which),
        st.tuples(st.just("pass_deadline")),
        st.tuples(
            st.just("deliver"), st.sampled_from([MAIN, PREEMPT]), st.sampled_from([1, 2, 3, 4, 10, 50]),
            st.lists(touches | st.none(), max_size=6),
        ),
    ),
    min_size=12, max_size=60,
)  # fmt: skip
plans = st.builds(
    Plan,
    hugepages=st.integers(1, 3),
    order=st.sampled_from(["sequential", "fault_follow", "random", "random:block=1", "bubbling", "fill_pmd"]),
    policy=st.sampled_from(POLICIES),
    push_piece=st.sampled_from([PTE, PMD]),
    pull_piece=st.sampled_from([PTE, PMD]),
    run_pages_max=st.integers(1, 6),
    preempt=st.booleans(),
    resend=st.booleans(),
    merge=st.booleans(),
    zeros=st.frozensets(st.integers(0, 3 * PER_PUD - 1), max_size=30),
    seed=st.integers(0, 99),
)


@settings(max_examples=3 * settings.default.max_examples)
@given(plan=plans, moves=moves, preempt_last=st.booleans())
def test_any_interleaving_ends_with_the_same_memory(plan: Plan, moves: list[Move], preempt_last: bool) -> None:
    pump = Cores(plan)
    steps: dict[str, Callable[..., None]] = {
        "push": pump.push, "urgent": pump.urgent, "request": pump.request, "read": pump.read, "deliver": pump.deliver,
        "touch": lambda touch: pump.touch(*touch), "pull": pump.pull, "copy": pump.copy,
        "pass_deadline": pump.pass_deadline,
    }  # fmt: skip
    for name, *arguments in moves:
        pump.now += 1
        steps[name](*arguments)
        check(pump)
    drain(pump, preempt_last=preempt_last)
    check_end(pump)


# --- by hand: what is too rare to be left to chance ---


def tiny_pump(**different: Any) -> Cores:
    return Cores(replace(Plan(policy=Impatient, push_piece=PMD), **different))


def collapse_over_a_sleeper(pump: Cores, *, read: bool) -> None:
    """Page 1 overtakes its 2M piece; a vCPU sleeps on page 3 when a collapse fills that hole."""
    pump.push(1)
    pump.copy(1)
    pump.deliver(PREEMPT, 1)
    pump.touch(0, 3, True)
    if read:
        pump.read()
    pump.deliver(MAIN, 4)
    check(pump)
    assert pump.memory.leaves() == {PTE: 0, PMD: 1, PUD: 0}


def test_a_sleeper_that_was_heard_of_is_woken_after_a_collapse() -> None:
    pump = tiny_pump()
    collapse_over_a_sleeper(pump, read=True)
    assert not pump.asleep
    assert pump.guest_wrote == {3}


def test_a_sleeper_that_was_not_heard_of_is_woken_when_its_fault_is_read() -> None:
    pump = tiny_pump()
    collapse_over_a_sleeper(pump, read=False)
    assert set(pump.asleep) == pump.unread == {0}
    pump.read()
    assert not pump.asleep
    assert pump.guest_wrote == {3}


def test_a_guest_write_outlives_the_first_copy_that_comes_last() -> None:
    """Half of a piece has landed when a page of each half overtakes the rest and is written."""
    pump = tiny_pump(policy="eager")
    pump.push(1)
    pump.deliver(MAIN, 2)
    for which in (0, 2):
        pump.copy(which)
        pump.deliver(PREEMPT, 1)
        pump.touch(0, which + (which == 2), True)
    assert pump.guest_wrote == {0, 3}
    pump.deliver(MAIN, 2)
    check(pump)
    drain(pump)
    check_end(pump)
    assert pump.bytes[0] > 1000
    assert pump.bytes[3] > 1000


def test_a_request_that_comes_after_the_end_is_no_mistake() -> None:
    """Everything is under way, the end announced, when a fault asks for it: on one channel and on two."""
    for preempt, resend in ((False, True), (True, True), (True, False)):
        pump = tiny_pump(preempt=preempt, resend=resend)
        pump.push(PER_PUD)
        assert pump.source.end_sent
        pump.pull(0, 9)
        drain(pump)
        check_end(pump)
        assert pump.source.sender.statistics().pages_resent == (preempt and resend)


def test_a_fault_on_what_is_received_and_not_mapped_yet_asks_for_nothing() -> None:
    """It happens and is read between two effects of one arrival."""
    pump = tiny_pump(policy="never")
    pump.push(1)
    pump.copy(1)
    pump.deliver(PREEMPT, 1)
    pump.deliver(MAIN, 4, [(0, 3, True), None])
    assert pump.guest_wrote == {3}
    assert not pump.return_path
    assert pump.receiver.statistics().faults == 1
