"""The verdict on one migration: the source's digests as they come, what they say of the memory here, and who signs.

Rules
    1. Digests come in order, one hugetlb page at a time; after a recovery they come from the start again.
    2. The guest is stopped first: from then on nothing changes the memory.
    3. The source signs what it has counted and hashed itself, or nobody does.
"""

from __future__ import annotations

import asyncio

from dest_node.assembly import Assembly
from dest_node.resumption import CheckpointSink, RestoredMigration
from migemu.errors import PeerError
from migemu.mm.pages import PageIndex
from migemu.wire.limits import Limits
from migemu.wire.messages import Agreed, Complete, Digests
from migemu.wire.seal import seal_of


class Verdict:
    """Whether one migration's memory is the source's: takes the source's digests, and compares (`reach`)."""

    def __init__(
        self, limits: Limits, checkpoint: CheckpointSink | None = None, restored: RestoredMigration | None = None
    ) -> None:  # fmt: skip
        """`limits` know the memory as soon as somebody does; `checkpoint` has the verdict before the source hears it.

        A verdict that was `restored` stands.
        """
        self._limits = limits
        self._came: dict[PageIndex, bytes] = {}
        self._due = self._compared = 0
        self._news = asyncio.Event()
        self._checkpoint = checkpoint
        self._pronounced = (restored.verdict if restored else None) or Complete(False, "", "")

    def digests_begin(self) -> None:
        """The source says its digests next, from those of the first hugetlb page on; it may have done so before."""
        self._due = 0

    def take(self, digests: Digests, payload: bytes) -> None:
        """The digests of one hugetlb page, 8 bytes a base page. PeerError when others were due, or they are corrupt."""
        first = digests.first
        if first != self._due:
            raise PeerError(f"digests of page {first} came where those of page {self._due} were due")
        if digests.seal and digests.seal != seal_of(first, payload):
            raise PeerError(f"the digests of page {first} came corrupt")
        self._due += self._limits.geometry.largest_pages
        if first >= self._compared:
            self._came[first] = payload
            self._news.set()

    @property
    def digests_due(self) -> bool:
        """Whether there are more to come."""
        return self._due < self._limits.memory_pages

    async def reach(self, assembly: Assembly) -> Complete:
        """Compare every byte, when everything has arrived. What a vCPU has raised is raised here."""
        await assembly.vcpus.stop()
        await assembly.vcpus.join()
        for first in range(0, assembly.receiver.received.total, self._limits.geometry.largest_pages):
            while first not in self._came:
                self._news.clear()
                await self._news.wait()
            self._compared = first + 1  # what comes again of it is not needed
            await assembly.verification.compare(first, self._came.pop(first))
        problem = assembly.verification.problem
        self._pronounced = Complete(problem is None, assembly.verification.digest, problem or "")
        if self._checkpoint is not None and problem is None:
            await self._checkpoint.verified(self._pronounced.digest)
        return self._pronounced

    def countersigned(self, agreed: Agreed) -> None:
        """The source has signed. PeerError when its figures are others: what was compared stands, unsigned."""
        ours = (self._limits.memory_pages, self._pronounced.digest)
        if (agreed.pages, agreed.digest) != ours:
            raise PeerError(
                f"the source signs for {agreed.pages} base pages with digest {agreed.digest}; here are {ours[0]} with "
                f"{ours[1]}"
            )

    def __repr__(self) -> str:
        return f"<Verdict {self._pronounced}, digests of page {self._due} are due>"
