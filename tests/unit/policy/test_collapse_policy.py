"""What each collapse policy proposes, and when, on two TINY hugetlb pages (a "1G" of 4 "2M" of 4 pages)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migemu.mm.pages import TINY, Geometry, Level, PageBitmap, PageIndex, Span
from migemu.policy.collapse_policy import CollapsePolicy, collapse_policies, promises

SHIPPED = ("at_end", "batched", "budget", "direct", "eager", "never")
TOTAL = 2 * TINY.pages(Level.PUD)


class Mapping:
    """A destination's memory, as a policy sees it."""

    def __init__(self, geometry: Geometry = TINY, total: int = TOTAL) -> None:
        self.geometry = geometry
        self.received = PageBitmap(geometry, total)
        self.mapped = PageBitmap(geometry, total)
        self.leaves: set[Span] = set()
        self.now_ns = 0
        self.faults: dict[Span, int] = {}
        self.costs: dict[Span, int] = {}

    def faults_in(self, span: Span) -> int:
        return self.faults.get(span, 0)

    def collapse_ns(self, span: Span) -> int:
        return self.costs.get(span, 0)

    def is_leaf(self, span: Span) -> bool:
        whole = Span(span.first - span.first % self.geometry.largest_pages, self.geometry.largest)
        return span in self.leaves or whole in self.leaves

    def map(self, first: PageIndex, count: int) -> None:
        self.received.add(first, count)
        self.mapped.add(first, count)


def pmd(number: int) -> Span:
    return Span(4 * number, Level.PMD)


def pud(number: int) -> Span:
    return Span(16 * number, Level.PUD)


def fill(policy: CollapsePolicy, view: Mapping, order: list[int]) -> list[tuple[int, list[Span]]]:
    """Map one page after the other and collapse what is proposed; which page brought about which collapses."""
    happened = []
    for page in order:
        view.map(page, 1)
        spans = carry_out(policy, view, policy.mapped(page, 1, view))
        if spans:
            happened.append((page, spans))
    spans = carry_out(policy, view, policy.ended(view))
    if spans:
        happened.append((-1, spans))
    return happened


def carry_out(policy: CollapsePolicy, view: Mapping, proposed: object) -> list[Span]:
    done = []
    queue = list(proposed)  # type: ignore[call-overload]
    while queue:
        span = queue.pop(0)
        assert view.mapped.full(span), f"{span} is not full"
        assert not view.is_leaf(span), f"{span} is a leaf"
        view.leaves.add(span)
        done.append(span)
        queue += policy.collapsed(span, view)
    return done


UP = list(range(TOTAL))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("never", []),
        ("at_end", [(-1, [pud(0), pud(1)])]),
        ("direct", [(15, [pud(0)]), (31, [pud(1)])]),
        ("eager", [(3, [pmd(0)]), (7, [pmd(1)]), (11, [pmd(2)]), (15, [pmd(3), pud(0)]),
                   (19, [pmd(4)]), (23, [pmd(5)]), (27, [pmd(6)]), (31, [pmd(7), pud(1)])]),
        ("batched:spans=1", [(3, [pmd(0)]), (7, [pmd(1)]), (11, [pmd(2)]), (15, [pmd(3), pud(0)]),
                             (19, [pmd(4)]), (23, [pmd(5)]), (27, [pmd(6)]), (31, [pmd(7), pud(1)])]),
        ("batched:spans=3", [(11, [pmd(0), pmd(1), pmd(2)]), (23, [pmd(3), pmd(4), pmd(5), pud(0)]),
                             (-1, [pmd(6), pmd(7), pud(1)])]),
        ("batched", [(-1, [pmd(0), pmd(1), pmd(2), pmd(3), pud(0), pmd(4), pmd(5), pmd(6), pmd(7), pud(1)])]),
    ],
)  # fmt: skip
def test_pages_arrive_in_order(spec: str, expected: list[tuple[int, list[Span]]]) -> None:
    assert fill(collapse_policies.create(spec, TINY), Mapping(), UP) == expected


def test_a_batch_keeps_the_order_in_which_its_ranges_became_full() -> None:
    happened = fill(collapse_policies.create("batched:spans=2", TINY), Mapping(), UP[::-1])
    assert happened[0] == (24, [pmd(7), pmd(6)])


def test_what_somebody_else_collapsed_leaves_its_batch() -> None:
    policy, view = collapse_policies.create("batched:spans=2", TINY), Mapping()
    view.map(0, 4)
    assert list(policy.mapped(0, 4, view)) == []
    view.leaves.add(pmd(0))
    view.map(4, 4)
    assert list(policy.mapped(4, 4, view)) == [pmd(1)]


def test_2m_pieces_need_no_2m_step() -> None:
    for spec in ("eager", "batched", "direct"):
        policy, view = collapse_policies.create(spec, TINY), Mapping()
        for number in (0, 2, 3):
            view.map(4 * number, 4)
            view.leaves.add(pmd(number))
            assert list(policy.mapped(4 * number, 4, view)) == []
        view.map(4, 4)
        view.leaves.add(pmd(1))
        assert list(policy.mapped(4, 4, view)) == [pud(0)], spec


def test_a_run_over_several_2m() -> None:
    policy, view = collapse_policies.create("eager", TINY), Mapping()
    view.map(2, 16)
    assert list(policy.mapped(2, 16, view)) == [pmd(1), pmd(2), pmd(3)]


def test_a_run_that_begins_in_a_hole_may_fill_the_next_1g_all_the_same() -> None:
    policy, view = collapse_policies.create("direct", TINY), Mapping()
    view.map(13, 19)
    assert list(policy.mapped(13, 19, view)) == [pud(1)]


def test_a_1g_that_could_not_be_collapsed_is_left_to_its_caller_until_the_end() -> None:
    policy, view = collapse_policies.create("direct", TINY), Mapping(total=3 * TINY.pages(Level.PUD))
    view.map(0, 16)
    assert list(policy.mapped(0, 16, view)) == [pud(0)]
    assert list(policy.ended(view)) == [], "it is under way"
    assert list(policy.collapsed(pud(0), view)) == []
    view.map(32, 16)
    assert list(policy.mapped(32, 16, view)) == [pud(2)]
    assert list(policy.ended(view)) == [pud(0)]


def test_what_could_not_be_collapsed_step_by_step_is_left_to_its_caller_until_the_end() -> None:
    policy, view = collapse_policies.create("eager", TINY), Mapping(total=3 * TINY.pages(Level.PUD))
    view.map(0, 16)
    assert list(policy.mapped(0, 16, view)) == [pmd(0), pmd(1), pmd(2), pmd(3)]
    for number in range(4):
        assert list(policy.collapsed(pmd(number), view)) == [], "none of them became a leaf"
    assert list(policy.ended(view)) == [pmd(0), pmd(1), pmd(2), pmd(3), pud(0)]
    view.leaves.update(map(pmd, range(4)))
    for span in (*map(pmd, range(4)), pud(0)):
        assert list(policy.collapsed(span, view)) == [], "the 1G is under way, and then failed"
    view.map(32, 4)
    assert list(policy.mapped(32, 4, view)) == [pmd(8)]
    assert list(policy.ended(view)) == [pud(0)]


def test_after_the_end_no_2m_waits_for_its_batch() -> None:
    policy, view = collapse_policies.create("batched:spans=9", TINY), Mapping()
    view.map(0, 16)
    assert list(policy.mapped(0, 16, view)) == []
    assert repr(policy) == "<Batched: 4 full 2M wait, 0 spans proposed>"
    assert list(policy.ended(view)) == [pmd(0), pmd(1), pmd(2), pmd(3), pud(0)]
    assert repr(policy) == "<Batched: 0 full 2M wait, 5 spans proposed>"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("never", ()),
        ("at_end", ("collapses",)),
        ("direct", ("collapses",)),
        ("eager", ("collapses", "steps")),
        ("batched", ("collapses", "steps")),
        ("budget", ("collapses", "steps")),
    ],
)
def test_what_a_policy_promises_to_who_checks_its_trace(name: str, words: tuple[str, ...]) -> None:
    assert promises(collapse_policies.create(name, TINY)) == words


def test_1g_pieces_need_nothing() -> None:
    for spec in SHIPPED:
        policy, view = collapse_policies.create(spec, TINY), Mapping()
        view.map(0, 16)
        view.leaves.add(pud(0))
        assert list(policy.mapped(0, 16, view)) == []
        assert list(policy.ended(view)) == []


def test_nothing_is_proposed_again_while_a_proposal_is_under_way() -> None:
    """Collapses may be carried out later: what was proposed is neither a leaf yet nor free to be proposed."""
    policy, view = collapse_policies.create("eager", TINY), Mapping()
    view.map(0, 16)
    assert list(policy.mapped(0, 16, view)) == [pmd(0), pmd(1), pmd(2), pmd(3)]
    assert list(policy.mapped(3, 1, view)) == []
    # The end comes before any of them was carried out: only the 1G is missing, and it is asked for once.
    assert list(policy.ended(view)) == [pud(0)]
    for number in range(4):
        view.leaves.add(pmd(number))
        assert list(policy.collapsed(pmd(number), view)) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_every_policy_tells_what_it_does(name: str) -> None:
    entry, _ = collapse_policies.parse(name)
    assert entry.summary.startswith(("Collapses ", "Never collapses"))
    policy = collapse_policies.create(name, TINY)
    assert repr(policy).startswith(f"<{type(policy).__name__}")


@pytest.mark.parametrize("spans", [0, 65537])
def test_settings_are_judged(spans: int) -> None:
    with pytest.raises(ValueError, match=f"spans: '{spans}' is not accepted here: give a whole number from 1 to 65536"):
        collapse_policies.create(f"batched:spans={spans}", TINY)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "never"])
@pytest.mark.parametrize("backwards", [False, True])
def test_of_memory_whose_largest_leaf_is_2m_each_of_these_is_collapsed_once(name: str, backwards: bool) -> None:
    geometry = replace(TINY, largest=Level.PMD)
    view, policy = Mapping(geometry), collapse_policies.create(name, geometry)
    happened = fill(policy, view, sorted(range(TOTAL), reverse=backwards))
    assert sorted(span for _, spans in happened for span in spans) == [pmd(number) for number in range(TOTAL // 4)]
