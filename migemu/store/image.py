"""The source's memory: the bytes of a file, or a seeded pattern.

A file is mapped, not read: a 64 GiB dump costs no memory. Its size is padded with zeros to whole hugetlb pages; the
padding is never stored. Any bytes will do: a raw dump, a core, a disk image.

A pattern needs no file: each non-zero base page holds a 2 MiB block of random bytes' own stretch, mixed with a key of
the page, so that no two pages are alike and a piece that lands in the wrong place shows. Zero pages come in rows of
`ZERO_ROW_PAGES` (assumed: free memory of a guest lies in rows, the buddy allocator hands out up to 4M at once).

Zero pieces are found as QEMU's buffer_is_zero does it: by a look at one word of each page first, and at the rest of
a page only where that word is zero.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from migemu import named
from migemu.errors import InputError
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun
from migemu.store.allocate import anonymous
from migemu.store.output import hold
from migemu.units import MIB, format_size
from migemu.wire.digest import page_digests

ZERO_ROW_PAGES: Final = 64
_BLOCK_BYTES: Final = 2 * MIB
_WORD: Final = 8


class ImageMemory:
    """ports.SourceMemory over any buffer of bytes, padded with zeros to whole hugetlb pages."""

    def __init__(self, geometry: Geometry, image: mmap.mmap | bytes | bytearray, image_bytes: int) -> None:
        """`image` holds `image_bytes` bytes; the memory is the next whole number of hugetlb pages."""
        hugepage_bytes = geometry.size(Level.PUD)
        self.geometry = geometry
        self.image_bytes = image_bytes
        self.memory_bytes = -(-image_bytes // hugepage_bytes) * hugepage_bytes
        self._view = memoryview(image)
        page_bytes = geometry.page_bytes
        self._whole_pages = image_bytes // page_bytes  # these lie in the image as they are
        tail = self._view[self._whole_pages * page_bytes : image_bytes]
        self._tail = memoryview(bytes(tail).ljust(page_bytes, b"\0")) if len(tail) else None
        self._zeros = memoryview(bytes(_BLOCK_BYTES))
        words = np.frombuffer(image, dtype=np.uint64, count=self._whole_pages * page_bytes // _WORD)
        self._words = self._view[: self._whole_pages * page_bytes].cast("B").cast("Q")
        self._page_bytes, self._page_words = page_bytes, page_bytes // _WORD
        self._pages: np.ndarray[Any, np.dtype[np.uint64]] = words.reshape(self._whole_pages, page_bytes // _WORD)

    def read(self, run: PieceRun) -> Sequence[tuple[PieceRun, memoryview | None]]:
        """The pieces of `run` as sub-runs in order, each with its bytes, or None where they are all zeros."""
        first, count, level = run
        if count == 1 and level == Level.PTE and first < self._whole_pages and self._words[first * self._page_words]:
            return ((run, self._view[first * self._page_bytes : (first + 1) * self._page_bytes]),)
        each = self.geometry.pages(level)
        pages = count * each
        if first + pages <= self._whole_pages and self._pages[first : first + pages, 0].all():
            return ((run, self._bytes(first, pages)),)  # the common case: no page can be zero
        holds: np.ndarray[Any, np.dtype[np.bool_]] = np.any(
            self._holds_bytes(first, pages).reshape(count, each), axis=1
        )
        parts: list[tuple[PieceRun, memoryview | None]] = []
        begin = 0
        for end in [*(np.flatnonzero(holds[1:] != holds[:-1]) + 1).tolist(), count]:
            part = PieceRun(first + begin * each, end - begin, level)
            parts.append((part, self._bytes(part.first, part.count * each) if holds[begin] else None))
            begin = end
        return parts

    def digests(self, first: PageIndex, count: int) -> bytes:
        """xxh3_64 of each of `count` base pages from `first` on, 8 bytes each, little endian."""
        return page_digests(self._bytes(first, count), self.geometry.page_bytes)

    def _holds_bytes(self, first: PageIndex, pages: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of `pages` base pages from `first` on are not all zeros. Padding is."""
        holds = np.zeros(pages, dtype=np.bool_)
        whole = min(max(0, self._whole_pages - first), pages)
        if whole:
            rows = self._pages[first : first + whole]
            holds[:whole] = rows[:, 0] != 0
            doubtful = np.flatnonzero(~holds[:whole])
            holds[doubtful] = (rows if len(doubtful) == whole else rows[doubtful]).any(axis=1)
        if self._tail is not None and first <= self._whole_pages < first + pages:
            holds[whole] = any(self._tail)
        return holds

    def _bytes(self, first: PageIndex, pages: int) -> memoryview:
        page_bytes = self.geometry.page_bytes
        if first + pages <= self._whole_pages:
            return self._view[first * page_bytes : (first + pages) * page_bytes]
        if first > self._whole_pages or (self._tail is None and first >= self._whole_pages):
            return (
                self._zeros[: pages * page_bytes]
                if pages * page_bytes <= _BLOCK_BYTES
                else memoryview(bytes(pages * page_bytes))
            )
        padded = bytearray(pages * page_bytes)
        whole = self._view[first * page_bytes : self._whole_pages * page_bytes]
        padded[: len(whole)] = whole
        if self._tail is not None:
            padded[len(whole) : len(whole) + page_bytes] = self._tail
        return memoryview(padded)

    def __repr__(self) -> str:
        return f"<ImageMemory {format_size(self.image_bytes)} in {format_size(self.memory_bytes)}>"


def check_image(path: Path) -> int:
    """The size in bytes of a file that can be an image. InputError when it is no file, or empty."""
    try:
        with named.opened(path, devices=True) as file:
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if size == 0:
        raise InputError(f"{path}: the image is empty; there is nothing to migrate")
    return size


def open_image(path: Path, geometry: Geometry) -> ImageMemory:
    """The bytes of a file. InputError as `check_image`, or when it cannot be mapped."""
    size = check_image(path)
    try:
        with named.opened(path, devices=True) as file:
            hold(file.fileno())  # for as long as it is mapped: the mapping keeps a descriptor of the same open file
            image = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be mapped as an image: {getattr(error, 'strerror', None) or error}") from None
    return ImageMemory(geometry, image, size)


def pattern(geometry: Geometry, memory_bytes: int, seed: int, zero_share: float) -> ImageMemory:
    """A seeded pattern of whole hugetlb pages, `zero_share` of them zero pages. BrokenError when memory is short."""
    image = anonymous(memory_bytes)
    rng = Random(seed)
    words_per_page = geometry.page_bytes // _WORD
    pages = memory_bytes // geometry.page_bytes
    row_pages = min(ZERO_ROW_PAGES, geometry.pages(Level.PMD))
    block_pages = min(_BLOCK_BYTES, memory_bytes) // geometry.page_bytes
    noise = rng.randbytes(block_pages * geometry.page_bytes)
    block = np.frombuffer(noise, dtype="<u8").reshape(block_pages, words_per_page)
    memory = np.frombuffer(image, dtype="<u8").reshape(pages, words_per_page)
    for first in range(0, pages, block_pages):
        here = min(block_pages, pages - first)
        # A splitmix64 step of the page's number: no two pages get the same key (Steele, Lea, Flood 2014).
        keys = np.arange(first + 1, first + here + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        np.bitwise_xor(block[:here], keys[:, None], out=memory[first : first + here])
        for row in range(first, first + here, row_pages):
            if rng.random() < zero_share:
                memory[row : row + row_pages] = 0
    return ImageMemory(geometry, image, memory_bytes)
