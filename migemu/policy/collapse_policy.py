"""Collapse policies: when the destination turns small entries into one large one, and which.

What this models
    With HGM, post-copy leaves a hugetlb page mapped by thousands of 4K entries: more page-table walks for the guest,
    and page tables to hold. MADV_COLLAPSE maps a range by one entry again. When to call it is left to user space
    (SEMANTICS 7.2), and each call costs the guest time: vCPUs that fault in its range, or with v2 of the series
    anywhere in the process, wait until it is over (SEMANTICS 2.3). The one policy published collapses once, after
    everything has arrived (SEMANTICS 5.2).

Rules
    1. Only full spans: a policy here proposes a span when every base page of it has been mapped, hence received.
       MADV_COLLAPSE fills holes without checking that data arrived (SEMANTICS 0.2); nobody below would refuse.
    2. Nothing that is a leaf already, and nothing twice: a span that was proposed stays proposed until `collapsed`
       reports it. A collapse that fails is its caller's to try again.
    3. Steps are 4K to 2M to 1G, or 4K to 1G. The levels between them (CONT_PTE, CONT_PMD) are never proposed: no
       version of HGM could install contiguous entries (SEMANTICS 3.7). Of a memory whose largest leaf is 2M, that is
       the last step, and what is said of 1G here is meant of it.
    4. In `eager` and `batched` a 1G span comes after all its 2M ones (SEMANTICS 2.1), so that no call is
       long.
    5. What `ended` answers is complete when it is carried out in order: `collapsed` has nothing to add to it.

Words
    mapped     an entry of some size gives access
    leaf       an entry that maps memory; here: a span mapped by one entry of its level or a larger one
    full       every base page mapped

    stall      what a collapse makes vCPUs wait; here: how long the call takes (SEMANTICS 2.3), as the cost model has it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from migemu import values
from migemu.mm.pages import Geometry, Level, PageBitmap, PageIndex, Span
from migemu.registry import Registry

_NOTHING: Final[tuple[Span, ...]] = ()


class MappingView(Protocol):
    """What a policy may look at. The receiver implements it."""

    @property
    def geometry(self) -> Geometry:
        """The levels of this memory."""

    @property
    def received(self) -> PageBitmap:
        """The base pages whose bytes are here."""

    @property
    def mapped(self) -> PageBitmap:
        """The base pages that an entry of some size gives access to."""

    @property
    def now_ns(self) -> int:
        """The time, in ns of a clock that does not go back."""

    def is_leaf(self, span: Span) -> bool:
        """Whether `span` is mapped by one entry of its level or a larger one."""

    def faults_in(self, span: Span) -> int:
        """How many faults there have been on the pages of `span`, counted by 2M."""

    def collapse_ns(self, span: Span) -> int:
        """What a collapse of `span`, which is mapped, would take in ns, as the cost model has it."""


class CollapsePolicy(Protocol):
    """Proposes spans to collapse, in order. Factories take (geometry). The receiver refuses what is incomplete.

    Two promises may stand beside it as attributes, for those who check traces: `collapses` (in the end every 1G page is
    one entry; the default is that it is not) and `steps` (never a 1G before all its 2M).
    """

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """`count` base pages from `first` on were continued: the spans to collapse now."""

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """`span` was collapsed: the spans to collapse next."""

    def ended(self, view: MappingView) -> Sequence[Span]:
        """Everything has arrived and is mapped: the spans to collapse at last."""


@runtime_checkable
class TimedCollapsePolicy(CollapsePolicy, Protocol):
    """A policy that puts spans off until later."""

    def deadline(self, view: MappingView) -> int | None:
        """When `due` has something to propose, in ns; None while nothing is put off. It may be in the past."""

    def due(self, view: MappingView) -> Sequence[Span]:
        """The spans to collapse now, of those that were put off."""


collapse_policies: Registry[CollapsePolicy] = Registry("collapse policy", "migemu.collapse")


def promises(policy: CollapsePolicy) -> tuple[str, ...]:
    """The words of what `policy` promises, out of "collapses" and "steps"."""
    return tuple(word for word in ("collapses", "steps") if getattr(policy, word, False))


@collapse_policies.register("never")
class Never:
    """Never collapses: the memory stays mapped as it arrived."""

    __slots__ = ()

    def __init__(self, geometry: Geometry) -> None:
        """Any geometry will do."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """No proposals: the memory is never collapsed."""
        return _NOTHING

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """No proposals: the memory is never collapsed."""
        return _NOTHING

    def ended(self, view: MappingView) -> Sequence[Span]:
        """No proposals: the memory is never collapsed."""
        return _NOTHING

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@collapse_policies.register("at_end")
class AtEnd(Never):
    """Collapses to 1G after everything has arrived, as QEMU's doublemap RFC does."""

    collapses = True
    __slots__ = ()

    def ended(self, view: MappingView) -> Sequence[Span]:
        """Every 1G span that is not a leaf, in address order."""
        spans = (Span(first, view.geometry.largest) for first in _firsts(view))
        return [span for span in spans if not view.is_leaf(span) and view.mapped.full(span)]


@collapse_policies.register("direct")
class Direct(Never):
    """Collapses to 1G as soon as a 1G page is full, without a 2M step."""

    collapses = True
    __slots__ = ("_largest", "_per_largest", "_per_pmd", "_proposed")

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self._per_pmd = geometry.pages(Level.PMD)
        self._largest, self._per_largest = geometry.largest, geometry.largest_pages
        self._proposed: set[Span] = set()

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """The 1G spans that these pages have filled."""
        start = first & -self._per_pmd
        if first + count <= start + self._per_pmd and view.mapped.next_clear(start, start + self._per_pmd) is not None:
            return _NOTHING
        return self._propose(range(first & -self._per_largest, first + count, self._per_largest), view)

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """No proposals: a collapsed span may be proposed again only after it was removed."""
        self._proposed.discard(span)
        return _NOTHING

    def ended(self, view: MappingView) -> Sequence[Span]:
        """The 1G spans that have been missed: none, when this policy was told of every page."""
        return self._propose(_firsts(view), view)

    def _propose(self, firsts: range, view: MappingView) -> Sequence[Span]:
        spans = []
        for first in firsts:
            span = Span(first, self._largest)
            if span not in self._proposed and view.mapped.full(span) and not view.is_leaf(span):
                self._proposed.add(span)
                spans.append(span)
        return spans


@collapse_policies.register("batched", spans=values.whole(1, 65_536, "2M ranges"))
class Batched(Never):
    """Collapses 2M ranges several at a time, then 1G as soon as all its 2M are done.

    Setting `spans`: how many full 2M ranges make a batch, anywhere in the memory. Those left over when everything has
    arrived are collapsed then. Fewer calls for the same work, and the guest keeps small mappings for longer.
    """

    collapses = True
    steps = True
    __slots__ = ("_checked", "_full", "_largest", "_per_largest", "_per_pmd", "_proposed", "_spans")

    def __init__(self, geometry: Geometry, *, spans: int = 16) -> None:
        super().__init__(geometry)
        self._spans = spans
        self._per_pmd = geometry.pages(Level.PMD)
        self._largest, self._per_largest = geometry.largest, geometry.largest_pages
        self._full: dict[Span, None] = {}  # full 2M spans that wait for their batch, in the order they became full
        self._proposed: set[Span] = set()
        self._checked: dict[PageIndex, PageIndex] = {}  # a full 1G span -> all its 2M before here are leaves

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """A batch when these pages have filled its last 2M; a 1G span when they came as its last 2M entries."""
        start = first & -self._per_pmd
        if first + count <= start + self._per_pmd and view.mapped.next_clear(start, start + self._per_pmd) is not None:
            return _NOTHING
        for pmd_first in range(start, first + count, self._per_pmd):
            span = Span(pmd_first, Level.PMD)
            if span not in self._proposed and view.mapped.full(span) and not view.is_leaf(span):
                self._full[span] = None
        proposed: list[Span] = []
        if len(self._full) >= self._spans:
            proposed += [span for span in self._full if not view.is_leaf(span)]
            self._full.clear()
            self._proposed.update(proposed)
        for whole_first in range(first & -self._per_largest, first + count, self._per_largest):
            proposed += self._whole(whole_first, view)
        return proposed

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """The 1G span around `span`, when `span` was the last of its 2M."""
        self._proposed.discard(span)
        return self._whole(span.first & -self._per_largest, view) if span.level < self._largest else _NOTHING

    def ended(self, view: MappingView) -> Sequence[Span]:
        """For each 1G span in address order: its 2M that have not been proposed yet, then itself."""
        self._full.clear()
        proposed = []
        for whole_first in _firsts(view):
            whole = Span(whole_first, self._largest)
            if whole in self._proposed or not view.mapped.full(whole) or view.is_leaf(whole):
                continue
            if self._largest > Level.PMD:
                for pmd_first in range(whole_first, whole_first + self._per_largest, self._per_pmd):
                    span = Span(pmd_first, Level.PMD)
                    if span not in self._proposed and not view.is_leaf(span):
                        proposed.append(span)
            proposed.append(whole)
        self._proposed.update(proposed)
        return proposed

    def _whole(self, whole_first: PageIndex, view: MappingView) -> Sequence[Span]:
        """The 1G span at `whole_first`, if all its 2M are leaves and it is not."""
        whole = Span(whole_first, self._largest)
        if not view.mapped.full(whole) or whole in self._proposed or view.is_leaf(whole):
            return _NOTHING
        checked, end = self._checked.get(whole_first, whole_first), whole_first + self._per_largest
        for pmd_first in range(checked, end, self._per_pmd):
            if not view.is_leaf(Span(pmd_first, Level.PMD)):
                self._checked[whole_first] = pmd_first
                return _NOTHING
        self._checked.pop(whole_first, None)
        self._proposed.add(whole)
        return (whole,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._full)} full 2M wait, {len(self._proposed)} spans proposed>"


@collapse_policies.register("eager")
class Eager(Batched):
    """Collapses each 2M as soon as it is full, then 1G as soon as all its 2M are done."""

    __slots__ = ()

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry, spans=1)


def _firsts(view: MappingView) -> range:
    """The first pages of all spans of the largest level."""
    return range(0, view.mapped.total, view.geometry.largest_pages)
