"""The guest's memory at a destination with a checkpoint: real bytes, in a file.

Simplified: without HGM nothing is kept of a hugetlb page until all of it has come, as nothing of it is mapped.

What is different from memory that dies with its process
    a page that becomes accessible   its digest is taken first, while nobody can have written to it, and it is marked
                                     for the next generation
    a guest write                    is logged first
    a page that comes again          after a restart: what the guest had written to it is stored over it first

All three happen under the system call or the access that the destination makes anyway; nothing above knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from migemu.checkpoint.restore import RestoredCheckpoint, rows
from migemu.checkpoint.write_log import WORD_BYTES
from migemu.mm.pages import GEOMETRIES, PageIndex, PieceRun
from migemu.ports import Installed, Word
from migemu.store.mapped import MappedMemory
from migemu.wire.digest import DIGEST_BYTES, page_digests

_WORD = struct.Struct("<Q")


class CheckpointedMemory(MappedMemory):
    """ports.GuestStore whose bytes and guest writes are in a checkpoint directory and survive this process."""

    def __init__(self, restored: RestoredCheckpoint, hgm: bool = True) -> None:
        """Restored pages are present but not mapped: who restores the guest maps them by UFFDIO_CONTINUE."""
        identity = restored.checkpoint.identity
        super().__init__(GEOMETRIES[identity.geometry], identity.memory_bytes, restored.memory, hgm)
        self.checkpoint = restored.checkpoint
        self.received = restored.received
        self.fresh_bytes = 0
        self._digests = memoryview(restored.digests)
        self._restored = restored.words
        self._late: dict[PageIndex, list[tuple[int, int]]] = {}  # words of pages that are yet to come again
        for word in self.restored_words():
            if not self.received[word.page]:
                at = word.page * self._page_bytes + word.offset
                self._late.setdefault(word.page, []).append((at, word.current))

    def restored_words(self) -> Iterator[Word]:
        """The words that the guest had written before the restart, by address."""
        for at, original, current in zip(*(column.tolist() for column in self._restored), strict=True):
            page, offset = divmod(at * WORD_BYTES, self._page_bytes)
            yield Word(page, offset, original, current)

    def restored_rows(self) -> list[tuple[PageIndex, int]]:
        """The base pages that survived the restart, as rows (first, count)."""
        return [(first, end - first) for first, end in rows(self.received, 1)]

    def install(self, run: PieceRun) -> Installed:
        """As `Primary.install`; digests of the pages are stored first, so that the next generation has them."""
        first = run.first
        pages = run.count * self.geometry.pages(run.level)
        known = self.received.count(1, first, first + pages)
        if not known:
            self._keep(first, pages)
        elif known < pages:
            for start, end in rows(self.received[first : first + pages], 0):
                self._keep(first + start, end - start)
        return super().install(run)

    def release(self) -> None:
        """Nothing to do: the bytes are in the file, which outlives the guest."""

    def _keep(self, first: PageIndex, pages: int) -> None:
        digests = page_digests(self.landing(first, pages), self._page_bytes)
        self._digests[first * DIGEST_BYTES : (first + pages) * DIGEST_BYTES] = digests
        if self._late:
            for page in [page for page in self._late if first <= page < first + pages]:
                for at, stamp in self._late.pop(page):
                    _WORD.pack_into(self._view, at, stamp)
        self.received[first : first + pages] = b"\1" * pages
        self.fresh_bytes += pages * self._page_bytes

    def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
        if stamp is not None:
            at = page * self._page_bytes + offset
            self.checkpoint.wrote(at // WORD_BYTES, _WORD.unpack_from(self._view, at)[0], stamp)
        return super()._access(page, offset, stamp)
