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
    """Pages given as bits, in words: "base pages 0, 4-7"."""
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
    """A span in words: "the 2M at base page 4"."""
    return f"the {_SIZES[span.level]} at base page {span.first}"


def writes_kept(overwritten: int) -> None:
    """BrokenRuleError when bytes were stored over what the guest has written (`overwritten`, as bits)."""
    if overwritten:
        raise BrokenRuleError(
            "writes_kept", f"a late piece lands on what the guest has written: {pages_in_words(overwritten)}"
        )


def asked_in_need(missing: int) -> None:
    """BrokenRuleError when every page of a request has arrived already."""
    if not missing:
        raise BrokenRuleError("asked_in_need", "the source is asked for what has been received")


def mapped_within_received(view: View, landed: int) -> None:
    """BrokenRuleError when an entry maps a page that has not arrived."""
    if not view.mapped & ~landed:
        return
    if large := view.large & ~landed:
        raise BrokenRuleError("no_hole_collapsed", f"a large entry maps what has not come: {pages_in_words(large)}")
    raise BrokenRuleError(
        "mapped_within_received", f"mapped, and has not come: {pages_in_words(view.mapped & ~landed)}"
    )


def table_known(view: View, claimed: bytes) -> None:
    """BrokenRuleError when the receiver's copy of the page table differs from the page table."""
    if view.levels != claimed:
        page = next(page for page in range(PAGES) if view.levels[page] != claimed[page])
        real, said = _SIZES[view.levels[page]], _SIZES[claimed[page]]
        raise BrokenRuleError("table_known", f"base page {page} is mapped by {real}, the receiver takes it for {said}")


def sleepers_woken(view: View, vcpu: int, page: PageIndex) -> None:
    """BrokenRuleError when nothing is pending and a vCPU whose fault was read sleeps on a mapped page."""
    if view.mapped >> page & 1:
        reason = f"vCPU {vcpu} sleeps on base page {page}, which is mapped, and nothing is pending that would wake it"
        raise BrokenRuleError("sleepers_woken", reason)


class Judge:
    """The rules that depend on what the policy promised and on what is allowed."""

    def __init__(self, promised: Sequence[str], refusals_allowed: bool) -> None:
        """`promised`: the words of `policy.collapse.promises`."""
        self.promised = promised
        self._refusals_allowed = refusals_allowed

    def refused(self, refuse: Refuse, landed: int) -> None:
        """BrokenRuleError when the policy proposed what the receiver refuses, unless that is allowed."""
        if self._refusals_allowed:
            return
        reason = f"the policy proposed to collapse {span_in_words(refuse.span)}; refused: {refuse.reason}"
        if missing := _bits_of(refuse.span) & ~landed:
            reason += f" ({pages_in_words(missing)})"
        raise BrokenRuleError("proposals_sound", reason)

    def before(self, effect: Effect, view: View) -> None:
        """The rules on an effect before it is carried out: map before wake, smaller collapses before larger.

        BrokenRuleError.
        """
        if isinstance(effect, Wake):
            if early := bits(range(effect.first, effect.first + effect.count)) & ~view.mapped:
                raise BrokenRuleError("mapped_before_woken", f"a wake before the mapping of {pages_in_words(early)}")
        elif isinstance(effect, Collapse):
            levels = bytearray(0 if level == UNMAPPED else level for level in view.levels)
            for span in effect.spans:
                self._steps_down_or_leaps(span, levels)
                levels[span.first : span.first + TINY.pages(span.level)] = bytes((span.level,)) * TINY.pages(span.level)

    def _steps_down_or_leaps(self, span: Span, levels: bytearray) -> None:
        """BrokenRuleError when `span` comes after a larger collapse, or too early. `levels`: entries at its turn."""
        here = levels[span.first : span.first + TINY.pages(span.level)]
        name = span_in_words(span)
        if here[0] > span.level:
            raise BrokenRuleError("smaller_before_larger", f"{name} is collapsed after the {_SIZES[here[0]]} around it")
        if here[0] == span.level:
            raise BrokenRuleError("proposals_sound", f"{name} is collapsed for the second time")
        if span.level > Level.PMD and "steps" in self.promised and min(here) < Level.PMD:
            small = sum(1 << page for page, level in enumerate(levels) if level < Level.PMD)
            raise BrokenRuleError(
                "smaller_before_larger",
                f"steps were promised, and {name} is collapsed while 4K entries map {pages_in_words(small)}",
            )

    def collapsed(self, effect: Effect, result: Collapsed) -> None:
        """The rules on a collapse that was carried out: no error; tables are freed after clear and flush.

        BrokenRuleError.
        """
        assert isinstance(effect, Collapse)
        if result.errno:
            span = effect.spans[result.done]
            raise BrokenRuleError(
                "smaller_before_larger",
                f"the collapse of {span_in_words(span)} fails with {errorcode.get(result.errno, result.errno)}",
            )
        flushed_before_freed(result.steps)

    def finishes(self, view: View, ended: bool, finished: bool) -> None:
        """BrokenRuleError when the receiver finishes twice, or before the end has come and all is mapped."""
        if finished or not ended or view.mapped != ALL:
            when = "a second time" if finished else "before everything has come and is mapped"
            raise BrokenRuleError("completion_is_told", f"the receiver finishes {when}")

    def ended(self, view: View, finished: bool) -> None:
        """BrokenRuleError when all is carried out and the receiver has not finished, or a promise is not kept."""
        if not finished:
            raise BrokenRuleError("completion_is_told", "everything has come, nothing is pending, and no finish")
        if "collapses" in self.promised and set(view.levels) != {TINY.largest}:
            page = next(page for page in range(PAGES) if view.levels[page] != TINY.largest)
            raise BrokenRuleError(
                "huge_at_the_end",
                f"the policy promises to collapse, and base page {page} stays mapped by {_SIZES[view.levels[page]]}",
            )


def flushed_before_freed(steps: Sequence[GatherStep]) -> None:
    """BrokenRuleError when a table is freed without a flush after the clears."""
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
