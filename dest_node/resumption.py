"""What a destination keeps for another one, which goes on with the migration when this one is gone.

Rules
    1. The guest that comes back is the one that was lost: every word that it wrote (and that was acknowledged) is
       there, and judged at the end as if nothing had happened.
    2. What had arrived is received, and mapped at once; the collapse policy sees it as it sees any other arrival.
    3. A guest that had begun to run runs on at once, where its pages are here; faults wait for the source, as in any
       other pause. One that had not waits for the switch, which is made again.
    4. A verdict stands: if no source comes any more, it has heard it.

Simplified: registers are not modelled, so vCPUs begin their workload anew; what they write bears another mark in each
generation, so that a write that is lost cannot be mistaken for one of another generation.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from migemu.mm.pages import PageIndex
from migemu.node.outcome import Whereabouts
from migemu.ports import Word
from migemu.wire.messages import Advise, Complete


class RestoredMigration(NamedTuple):
    """A migration as it is found in a checkpoint: `rows` of base pages (first, count) had arrived.

    `words` are all that the guest has written. `ran`: the guest had begun to run. `generation` is another number each
    time that it is restored. `digest` is that of the whole memory if all of it was found to be the source's, else "".
    """

    migration: str
    advise: Advise
    ran: bool
    rows: list[tuple[PageIndex, int]]
    words: list[Word]
    generation: int
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


class CheckpointSink(Protocol):
    """Where a destination keeps what another one can go on with, if it is killed."""

    def runs(self) -> None:
        """The guest is about to run: durable on return, before the source is told."""

    async def verified(self, digest: str) -> None:
        """All is here, and the source's: durable on return, before the source is told."""

    @property
    def lost(self) -> str | None:
        """Why another destination could not go on from here; None if it could."""
