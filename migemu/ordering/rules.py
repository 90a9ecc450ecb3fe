"""The rules that `explore` judges by, as predicates on states and on single steps.

They say what the checkers of traces say (`migemu.trace.checkers`), under the same names; a state here holds what a
checker has to collect from the events, so nothing has to be carried along. Those without such a name:

    table_known        what the receiver thinks is mapped is mapped, at the level it thinks
    asked_in_need      nothing is asked for that is here
    proposals_sound    the policy proposes nothing that the receiver has to refuse
    calls_accepted     the kernel accepts every call
    no_exception       neither the receiver nor its policy raises one
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import errorcode

from dest_node.core.effects import Collapse, Effect, Refuse, Wake
from migemu.mm.gather import GatherKind, GatherStep
from migemu.mm.pages import TINY, Level, PageIndex, Span
from migemu.ordering.broken import BrokenRuleError
from migemu.ordering.halves import ALL, PAGES, View, bits
from migemu.ordering.kernel_memory import UNMAPPED
from migemu.ports import Collapsed

_SIZES = {Level.PTE: "4K", Level.PMD: "2M", Level.PUD: "1G", UNMAPPED: "nothing"}


def pages_in_words(pages: int) -> str:
    """Pages given as bits, as a person would write them: "base pages 0, 4-7"."""
    rows: list[list[int]] = []
    for page in range(pages.bit_length()):
        if pages >> page & 1:
            if rows and rows[-1][-1] == page - 1:
                rows[-1][1:] = [page]
            else:
                rows.append([page])
    many = len(rows) > 1 or len(rows[0]) > 1
    return f"base page{'s' * many} {', '.join('-'.join(map(str, row)) for row in rows)}"


def span_in_words(span: Span) -> str:
    """A span, as in "the 2M at base page 4"."""
    return f"the {_SIZES[span.level]} at base page {span.first}"


def writes_kept(overwritten: int) -> None:
    """No bytes land on what the guest has written."""
    if overwritten:
        raise BrokenRuleError(
            "writes_kept", f"a late piece lands on what the guest has written: {pages_in_words(overwritten)}"
        )


def asked_in_need(missing: int) -> None:
    """What is asked for is not all here."""
    if not missing:
        raise BrokenRuleError("asked_in_need", "the source is asked for what has been received")


def mapped_within_received(view: View, landed: int) -> None:
    """No entry gives access to what has not come."""
    if not view.mapped & ~landed:
        return
    if large := view.large & ~landed:
        raise BrokenRuleError("no_hole_collapsed", f"a large entry maps what has not come: {pages_in_words(large)}")
    raise BrokenRuleError(
        "mapped_within_received", f"mapped, and has not come: {pages_in_words(view.mapped & ~landed)}"
    )


def table_known(view: View, claimed: bytes) -> None:
    """The receiver's idea of the page table is the page table."""
    if view.levels != claimed:
        page = next(page for page in range(PAGES) if view.levels[page] != claimed[page])
        real, said = _SIZES[view.levels[page]], _SIZES[claimed[page]]
        raise BrokenRuleError("table_known", f"base page {page} is mapped by {real}, the receiver takes it for {said}")


def sleepers_woken(view: View, vcpu: int, page: PageIndex) -> None:
    """With nothing pending, nobody whose fault was read sleeps on a mapped page."""
    if view.mapped >> page & 1:
        reason = f"vCPU {vcpu} sleeps on base page {page}, which is mapped, and nothing is pending that would wake it"
        raise BrokenRuleError("sleepers_woken", reason)


class Judge:
    """The rules that depend on what was promised, and on what is allowed."""

    def __init__(self, promised: Sequence[str], refusals_allowed: bool) -> None:
        """`promised`: the words of `policy.collapse.promises`."""
        self.promised = promised
        self._refusals_allowed = refusals_allowed

    def refused(self, refuse: Refuse, landed: int) -> None:
        """A policy proposes nothing in vain."""
        if self._refusals_allowed:
            return
        reason = f"the policy proposed to collapse {span_in_words(refuse.span)}; refused: {refuse.reason}"
        if missing := _bits_of(refuse.span) & ~landed:
            reason += f" ({pages_in_words(missing)})"
        raise BrokenRuleError("proposals_sound", reason)

    def before(self, effect: Effect, view: View) -> None:
        """Nobody is woken before the mapping; collapses go from small to large, by steps where that was promised."""
        if isinstance(effect, Wake):
            if early := bits(range(effect.first, effect.first + effect.count)) & ~view.mapped:
                raise BrokenRuleError("mapped_before_woken", f"a wake before the mapping of {pages_in_words(early)}")
        elif isinstance(effect, Collapse):
            levels = bytearray(0 if level == UNMAPPED else level for level in view.levels)
            for span in effect.spans:
                self._steps_down_or_leaps(span, levels)
                levels[span.first : span.first + TINY.pages(span.level)] = bytes((span.level,)) * TINY.pages(span.level)

    def _steps_down_or_leaps(self, span: Span, levels: bytearray) -> None:
        """`levels` are those of the entries when it is the turn of `span`."""
        here = levels[span.first : span.first + TINY.pages(span.level)]
        name = span_in_words(span)
        if here[0] > span.level:
            raise BrokenRuleError("smaller_before_larger", f"{name} is collapsed after the {_SIZES[here[0]]} around it")
        if here[0] == span.level:
            raise BrokenRuleError("proposals_sound", f"{name} is collapsed for the second time")
        if span.level == Level.PUD and "steps" in self.promised and min(here) < Level.PMD:
            small = sum(1 << page for page, level in enumerate(levels) if level < Level.PMD)
            raise BrokenRuleError(
                "smaller_before_larger",
                f"steps were promised, and {name} is collapsed while 4K entries map {pages_in_words(small)}",
            )

    def collapsed(self, effect: Effect, result: Collapsed) -> None:
        """The kernel takes the collapse, and frees tables after the flush that follows the clears."""
        assert isinstance(effect, Collapse)
        if result.errno:
            span = effect.spans[result.done]
            raise BrokenRuleError(
                "smaller_before_larger",
                f"the collapse of {span_in_words(span)} fails with {errorcode.get(result.errno, result.errno)}",
            )
        flushed_before_freed(result.steps)

    def finishes(self, view: View, ended: bool, finished: bool) -> None:
        """The receiver is finished once, at the end."""
        if finished or not ended or view.mapped != ALL:
            when = "a second time" if finished else "before everything has come and is mapped"
            raise BrokenRuleError("completion_is_told", f"the receiver finishes {when}")

    def ended(self, view: View, finished: bool) -> None:
        """Everything has come and is carried out; that all is mapped and nobody sleeps follows from the others."""
        if not finished:
            raise BrokenRuleError("completion_is_told", "everything has come, nothing is pending, and no finish")
        if "collapses" in self.promised and set(view.levels) != {Level.PUD}:
            page = next(page for page in range(PAGES) if view.levels[page] != Level.PUD)
            raise BrokenRuleError(
                "huge_at_the_end",
                f"the policy promises to collapse, and base page {page} stays mapped by {_SIZES[view.levels[page]]}",
            )


def flushed_before_freed(steps: Sequence[GatherStep]) -> None:
    """Tables are freed after a flush that follows all clears before."""
    unflushed = False
    for step in steps:
        if step.kind is GatherKind.CLEARED:
            unflushed = True
        elif step.kind is GatherKind.FLUSHED:
            unflushed = False
        elif step.kind is GatherKind.FREED and unflushed:
            raise BrokenRuleError("flushed_before_freed", f"{step.count} tables are freed before the flush")


def _bits_of(span: Span) -> int:
    return bits(range(span.first, span.first + TINY.pages(span.level)))
