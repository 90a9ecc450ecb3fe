"""A guest's memory that is filled from a bounce buffer: pieces are copied into it when they are installed.

As QEMU's doublemap series does it: what arrives lands in a buffer, is copied through the alias, and then continued. As
with UFFDIO_COPY, nothing is in the memory before it is installed, and what lands later on the same page never will be.
It shows that the services know neither.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from migemu.mm.pages import Geometry, PageIndex, PieceRun
from migemu.ports import Installed, Word
from migemu.store.mapped import MappedMemory, digests_of


class BouncedMemory(MappedMemory):
    """ports.GuestStore over real bytes, with a buffer as large again."""

    def __init__(self, geometry: Geometry, memory_bytes: int, memory: mmap.mmap | bytearray, hgm: bool = True) -> None:
        super().__init__(geometry, memory_bytes, memory, hgm)
        self._buffer = memoryview(bytearray(memory_bytes))
        self._is_installed = bytearray(memory_bytes // geometry.page_bytes)

    def landing(self, first: PageIndex, count: int) -> memoryview:
        """A part of the buffer."""
        return self._buffer[first * self._page_bytes : (first + count) * self._page_bytes]

    def clear(self, first: PageIndex, count: int) -> None:
        """In the buffer: nothing of these pages has been installed."""
        self.landing(first, count)[:] = bytes(count * self._page_bytes)

    def install(self, run: PieceRun) -> Installed:
        """Copied, but for what had been before, and continued."""
        for page in range(run.first, run.first + run.count * self.geometry.pages(run.level)):
            if 0 <= page < len(self._is_installed) and not self._is_installed[page]:
                self._is_installed[page] = 1
                super().landing(page, 1)[:] = self.landing(page, 1)
        return super().install(run)

    def contents(self, first: PageIndex, count: int) -> memoryview:
        """Of each page the bytes that a vCPU will find there."""
        pages = range(first, first + count)
        return memoryview(
            b"".join(super(BouncedMemory, self).landing(page, 1) if self._is_installed[page] else self.landing(page, 1)
                     for page in pages)
        )  # fmt: skip

    def digests(self, first: PageIndex, count: int, words: Sequence[Word]) -> tuple[bytes, list[int]]:
        """Of `contents`."""
        return digests_of(memoryview(bytearray(self.contents(first, count))), self._page_bytes, first, words)
