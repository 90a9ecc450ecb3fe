"""A collapse policy of one's own: what the guest waited for is collapsed early, the rest at the end."""

from __future__ import annotations

from collections.abc import Sequence

from migemu.mm.pages import Geometry, Level, PageIndex, Span
from migemu.policy.collapse_policy import MappingView


class HotFirst:
    """Collapses a 2M at once if the guest has faulted in it; all the rest to 1G when everything has arrived.

    Setting `faults`: how many faults make a 2M hot.
    """

    #: A promise that the checkers hold it to: in the end every 1G page is one entry.
    collapses = True

    def __init__(self, geometry: Geometry, *, faults: int = 1) -> None:
        self._faults = faults
        self._per_pmd = geometry.pages(Level.PMD)
        self._proposed: set[Span] = set()  # and not collapsed yet: nothing is proposed twice

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        """`count` base pages from `first` on have become accessible: the 2M ranges to collapse now."""
        spans = (Span(start, Level.PMD) for start in range(first & -self._per_pmd, first + count, self._per_pmd))
        hot = [span for span in spans if self._is_ready(span, view) and view.faults_in(span) >= self._faults]
        self._proposed.update(hot)
        return hot

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        """`span` is one entry now; nothing follows from that here."""
        self._proposed.discard(span)
        return []

    def ended(self, view: MappingView) -> Sequence[Span]:
        """Everything is there: every 1G page that is not one entry yet."""
        whole = view.geometry.largest_pages
        spans = (Span(first, view.geometry.largest) for first in range(0, view.mapped.total, whole))
        return [span for span in spans if self._is_ready(span, view)]

    def _is_ready(self, span: Span, view: MappingView) -> bool:
        """MADV_COLLAPSE fills holes without asking: only what is mapped as a whole may be proposed."""
        return span not in self._proposed and view.mapped.full(span) and not view.is_leaf(span)
