"""The guest's memory at the destination: real bytes in an mmap, under a modelled HGM page table.

The bytes are mapped once and written in place as they arrive: that mapping plays the part of the alias. The primary
mapping, the guest's, is the model: a vCPU may touch a byte only where the model has an entry for it. So the bytes are
real, what they cost to receive is real, and only whether they are accessible is modelled.

Backing: anonymous memory (2M THP where the kernel gives it), a memfd, or hugetlbfs (1G pages if the system has them
reserved, else 2M).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

from migemu.mm.pages import Geometry, PageIndex
from migemu.ports import Word
from migemu.store.primary import Primary
from migemu.wire.digest import page_digests

_WORD = struct.Struct("<Q")


class MappedMemory(Primary):
    """ports.GuestStore over real bytes: one mmap, written in place as pieces arrive."""

    def __init__(self, geometry: Geometry, memory_bytes: int, memory: mmap.mmap | bytearray, hgm: bool = True) -> None:
        """`memory` holds `memory_bytes` zero bytes, populated; `hgm` as in `Primary`."""
        super().__init__(geometry, memory_bytes, hgm)
        self._memory = memory
        self._view = memoryview(memory)[:memory_bytes]

    def landing(self, first: PageIndex, count: int) -> memoryview:
        """The bytes of `count` base pages from `first` on: arriving payload is written here."""
        return self._view[first * self._page_bytes : (first + count) * self._page_bytes]

    def contents(self, first: PageIndex, count: int) -> memoryview:
        """See ports.GuestContents."""
        return self.landing(first, count).toreadonly()

    def clear(self, first: PageIndex, count: int) -> None:
        """Write zeros to these base pages, one page at a time, so that no buffer of the run's size is needed."""
        zeros = bytes(self._page_bytes)
        for at in range(first * self._page_bytes, (first + count) * self._page_bytes, self._page_bytes):
            self._view[at : at + self._page_bytes] = zeros

    def digests(self, first: PageIndex, count: int, words: Sequence[Word]) -> tuple[bytes, list[int]]:
        """xxh3_64 of these base pages, with `words` put back to what they held before the guest wrote them."""
        return digests_of(self.landing(first, count), self._page_bytes, first, words)

    def release(self) -> None:
        """Free the pages now (MADV_DONTNEED); the mapping itself goes with the last reference to it."""
        if isinstance(self._memory, mmap.mmap):
            try:
                self._memory.madvise(mmap.MADV_REMOVE)  # of a memfd; private memory has no file to remove it from
            except OSError:
                self._memory.madvise(mmap.MADV_DONTNEED)

    def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
        at = page * self._page_bytes + offset
        (before,) = _WORD.unpack_from(self._view, at)
        if stamp is not None:
            _WORD.pack_into(self._view, at, stamp)
        return int(before)


def digests_of(view: memoryview, page_bytes: int, first: PageIndex, words: Sequence[Word]) -> tuple[bytes, list[int]]:
    """xxh3_64 of each base page in `view`, which begins at base page `first`; `words` as in ports."""
    places = [(word.page - first) * page_bytes + word.offset for word in words]
    found = [int(_WORD.unpack_from(view, at)[0]) for at in places]
    for at, word in zip(places, words, strict=True):
        _WORD.pack_into(view, at, word.original)
    digests = page_digests(view, page_bytes)
    for at, held in zip(places, found, strict=True):
        _WORD.pack_into(view, at, held)
    return digests, found
