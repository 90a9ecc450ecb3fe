"""What a destination that is gone has left for another one, and how that goes on with it.

Rules
    1. The guest that comes back is the one that was lost: every word that it wrote (and that was acknowledged) is
       there, and judged at the end as if nothing had happened.
    2. What had arrived is received, and mapped at once; the collapse policy sees it as it sees any other arrival.
    3. A guest that had begun to run runs on at once, where its pages are here; faults wait for the source, as in any
       other pause. One that had not waits for the switch, which is made again.
    4. A verdict stands: if no source comes any more, it has heard it.

Simplified: registers are not modelled, so vCPUs begin their workload anew; what they write bears another mark in each
life, so that a write that is lost cannot be mistaken for one of another life.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dest_node.assembly import Parts
from migemu.mm.pages import Level, PageIndex, PieceRun
from migemu.node.outcome import Whereabouts
from migemu.ports import Word
from migemu.wire.messages import Advise, Complete


class Left(NamedTuple):
    """`rows` of base pages (first, count) are kept; `words` are all that the guest has written.

    `ran`: the guest had begun to run. `life` is another number each time. `digest` is that of the whole memory if all
    of it was found to be the source's.
    """

    migration: str
    advise: Advise
    ran: bool
    rows: list[tuple[PageIndex, int]]
    words: list[Word]
    life: int
    digest: str = ""

    @property
    def verdict(self) -> Complete | None:
        """The verdict, where there was one; the source may not have heard it."""
        return Complete(True, self.digest, "") if self.digest else None


def may_go(where: Whereabouts, countersigned: bool) -> bool:
    """Whether nobody will come back for what a destination has kept that ends now.

    The source has said that it has the guest, or that it has heard the verdict. In doubt everything stays.
    """
    return where is Whereabouts.SOURCE or (where is Whereabouts.VERIFIED and countersigned)


class Keeping(Protocol):
    """Keeps what another destination can go on with."""

    def runs(self) -> None:
        """The guest is about to run: durable on return, before the source is told."""

    async def verified(self, digest: str) -> None:
        """All is here, and the source's: durable on return, before the source is told."""

    @property
    def lost(self) -> str:
        """Why another destination could not go on from here; empty if it could."""


def give_back(left: Left, parts: Parts) -> None:
    """Pages and words of `left`, to parts that are new."""
    parts.vcpus.restore(left.words, left.life)
    for first, count in left.rows:
        parts.effects.arrived(PieceRun(first, count, Level.PTE), urgent=False, zero=False)
