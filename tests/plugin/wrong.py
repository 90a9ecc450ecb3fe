"""Policies and receivers that are wrong on purpose: each has one of the bugs that this kit is there to find."""

from __future__ import annotations

from collections.abc import Sequence

from dest_node.core.effects import Ask, Collapse, Continue, Effect, Wake
from dest_node.core.receiver import Receiver
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.policy.collapse_policy import AtEnd, Direct, Eager, MappingView
from migemu.ports import Collapsed

# --- policies ---


class Hasty(Eager):
    """Collapses a 2M when three quarters of it are mapped."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        pmd = view.geometry.pages(Level.PMD)
        span = Span(first - first % pmd, Level.PMD)
        return [span] if view.mapped.count(span.first, pmd) * 4 >= pmd * 3 and not view.is_leaf(span) else []


class Forgetful(Eager):
    """Forgets the third 2M."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        return [span for span in super().mapped(first, count, view) if span != Span(8, Level.PMD)]

    def ended(self, view: MappingView) -> Sequence[Span]:
        return []


class Promising(Eager):
    """Promises to collapse, and stops at 2M."""

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        return []

    def ended(self, view: MappingView) -> Sequence[Span]:
        return []


class Leaping(Direct):
    """Promises steps, and goes from 4K to 1G."""

    steps = True


class Backward(AtEnd):
    """Goes to 1G first, and then to 2M."""

    def ended(self, view: MappingView) -> Sequence[Span]:
        return [*super().ended(view), Span(0, Level.PMD)]


class Failing(Eager):
    """Divides by the number of faults."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        if view.mapped.full(Span(12, Level.PMD)):
            raise ZeroDivisionError("no faults on the last 2M")
        return super().mapped(first, count, view)


class Repeating(Eager):
    """Proposes each span twice."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        return [span for span in super().mapped(first, count, view) for _ in range(2)]


class Waiting(Eager):
    """Puts everything off for ever: its deadline is always to come."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.put_off: list[Span] = []

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        self.put_off += super().mapped(first, count, view)
        return []

    def deadline(self, view: MappingView) -> int | None:
        return view.now_ns + 1 if self.put_off else None

    def due(self, view: MappingView) -> Sequence[Span]:
        return []

    def ended(self, view: MappingView) -> Sequence[Span]:
        return []


class Counting(Eager):
    """Right, but it counts: every call is a state of its own."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.calls = 0

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        self.calls += 1
        return super().mapped(first, count, view)


class Heaping(Eager):
    """Right, and proposes what has been received, mapped or not: MADV_COLLAPSE fills the holes, and may."""

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        pmd = Span(first - first % 4, Level.PMD)
        return [pmd] if view.received.full(pmd) and not view.is_leaf(pmd) else self.collapsed(pmd, view)

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        pmds = all(view.is_leaf(Span(first, Level.PMD)) for first in range(0, 16, 4))
        return [Span(0, Level.PUD)] if pmds and not view.is_leaf(Span(0, Level.PUD)) else []

    def ended(self, view: MappingView) -> Sequence[Span]:
        return []


# --- receivers ---


class CollapsesUnasked(Receiver):
    """Takes every proposal: collapse before received."""

    def _objection(self, span: Span) -> str | None:
        return None


class NeverWakes(Receiver):
    """Forgets who sleeps on a hole that a collapse has filled."""

    def done(self, effect: Effect, now: int, result: int | Collapsed | None = None) -> Sequence[Effect]:
        return [each for each in super().done(effect, now, result) if not isinstance(each, Wake)]


class WakesFirst(Receiver):
    """Wakes who waits for a page when its bytes have come, and then maps it."""

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        effects = super().arrived(run, now, zero=zero)
        return [each for effect in effects for each in (*self._wakes(effect), effect)]

    def _wakes(self, effect: Effect) -> Sequence[Effect]:
        if isinstance(effect, Continue) and effect.run.level == Level.PTE:
            return [Wake(effect.run.first, effect.run.count)]
        return []


class StoresAll(Receiver):
    """Lets every piece land, first or late."""

    def fresh_until(self, page: PageIndex, end: PageIndex) -> PageIndex:
        return end


class StepsDown(Receiver):
    """Collapses the 2M once more when the 1G is done."""

    def done(self, effect: Effect, now: int, result: int | Collapsed | None = None) -> Sequence[Effect]:
        effects = list(super().done(effect, now, result))
        if isinstance(effect, Collapse) and effect.spans[0].level == Level.PUD:
            self._collapsing += 1
            effects.append(Collapse((Span(0, Level.PMD),)))
        return effects


class MapsAtOnce(Receiver):
    """Maps the whole 2M around what has come."""

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        super().arrived(run, now, zero=zero)
        return [Continue(PieceRun(run.first - run.first % 4, 4, Level.PTE))]


class AsksAgain(Receiver):
    """Asks for what has been received already."""

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        return [*super().arrived(run, now, zero=zero), Ask(PieceRun(run.first, 1, Level.PTE))]


class NeverFinishes(Receiver):
    """Takes the last Continue for the end, and it is not always that."""

    def ended(self, now: int) -> Sequence[Effect]:
        self.now_ns = now
        return ()


class FinishesEarly(Receiver):
    """Takes the last page for the end (of the connection): EOF is not completion."""

    def done(self, effect: Effect, now: int, result: int | Collapsed | None = None) -> Sequence[Effect]:
        self._ended = self._ended or self.received_pages.complete
        return super().done(effect, now, result)


class MapsTooLittle(Receiver):
    """Maps the first page of a run and believes that it was all."""

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        effects = super().arrived(run, now, zero=zero)
        for effect in effects:
            if isinstance(effect, Continue) and effect.run.count > 1:
                self.mapped_pages.add(effect.run.first, effect.run.count)
                return [Continue(effect.run._replace(count=1))]
        return effects


class MapsBeyond(Receiver):
    """Maps one page more than there are."""

    def arrived(self, run: PieceRun, now: int, *, zero: bool = False) -> Sequence[Effect]:
        return [*super().arrived(run, now, zero=zero), Continue(PieceRun(16, 1, Level.PTE))]
