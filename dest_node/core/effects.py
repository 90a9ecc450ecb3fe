"""What the receiver wants done, one frozen type each. Pure; `EffectExecutor` carries them out, in order."""

from __future__ import annotations

from typing import Final, NamedTuple

from migemu.mm.pages import PageIndex, PieceRun, Span

#: The node, in traces.
NODE: Final = "destination"


class Continue(NamedTuple):
    """UFFDIO_CONTINUE each piece of the run; its waiters are woken by it."""

    run: PieceRun


class Keep(NamedTuple):
    """The run is new, and stays unmapped until all of its hugetlb page is here. Nothing to carry out but to note it."""

    run: PieceRun


class Collapse(NamedTuple):
    """MADV_COLLAPSE each span, in order, by one process_madvise if there are several."""

    spans: tuple[Span, ...]


class Wake(NamedTuple):
    """UFFDIO_WAKE `count` base pages from `first` on."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run


class Ask(NamedTuple):
    """Ask the source for a run, urgently."""

    run: PieceRun


class Refuse(NamedTuple):
    """A policy proposed to collapse `span`, which is not done. Nothing to carry out but to note it."""

    span: Span
    reason: str


class Finish(NamedTuple):
    """Everything has arrived and is mapped as the policy wants it."""


Effect = Continue | Keep | Collapse | Wake | Ask | Refuse | Finish
