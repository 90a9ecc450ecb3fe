"""The source's memory: the bytes of a file, or a seeded pattern.

A file is read as it is sent: a 64 GiB dump costs no memory (`migemu.store.image_file` says how, and what happens when
it changes). Its size is padded with zeros to whole hugetlb pages; the padding is never stored. Any bytes will do: a raw
dump, a disk image; of an ELF core its bytes, or its memory (`migemu.store.core_file`).

A pattern needs no file: each non-zero base page holds a 2 MiB block of random bytes' own stretch, mixed with a key of
the page, so that no two pages are alike and a piece that lands in the wrong place shows. Zero pages come in rows of
`ZERO_ROW_PAGES` (assumed: free memory of a guest lies in rows, the buddy allocator hands out up to 4M at once).

Zero pieces are found as QEMU's buffer_is_zero does it: by a look at one word of each page first, and at the rest of
a page only where that word is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from migemu import named
from migemu.errors import InputError, UnreadableError
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun
from migemu.store.allocate import anonymous
from migemu.store.core_file import core_bytes
from migemu.store.image_file import Bytes, FileBytes, Held, advice
from migemu.store.output import hold
from migemu.units import MIB, format_size
from migemu.wire.codec import Sized
from migemu.wire.digest import page_digests

if TYPE_CHECKING:
    from typing_extensions import Buffer

ZERO_ROW_PAGES: Final = 64
_BLOCK_BYTES: Final = 2 * MIB
_WORD: Final = 8
_FIRST: Final = struct.Struct("<Q")


class ImageMemory:
    """ports.SourceMemory over any bytes, padded with zeros to whole hugetlb pages."""

    def __init__(self, geometry: Geometry, image: Bytes, image_bytes: int, name: str = "") -> None:
        """`image` holds `image_bytes` bytes; the memory is the next whole number of hugetlb pages."""
        hugepage_bytes = geometry.largest_bytes
        self.geometry = geometry
        self.image_bytes = image_bytes
        self.memory_bytes = -(-image_bytes // hugepage_bytes) * hugepage_bytes
        self.name = name
        self._image = image
        self._page_bytes = geometry.page_bytes
        self._zeros = memoryview(bytes(_BLOCK_BYTES))

    def read(self, run: PieceRun) -> Sequence[tuple[PieceRun, memoryview | None]]:
        """The pieces of `run` as sub-runs in order, each with its bytes, or None where they are all zeros."""
        first, count, level = run
        page_bytes = self._page_bytes
        at = first * page_bytes
        if count == 1 and level == Level.PTE and at + page_bytes <= self.image_bytes:
            data = memoryview(self._image.read(at, page_bytes))
            return ((run, data if _FIRST.unpack_from(data)[0] or np.frombuffer(data, dtype=np.uint64).any() else None),)
        if at >= self.image_bytes:
            return ((run, None),)
        each = self.geometry.pages(level)
        data = self._bytes(first, count * each)
        pages = np.frombuffer(data, dtype=np.uint64).reshape(count * each, page_bytes // _WORD)
        holds: np.ndarray[Any, np.dtype[np.bool_]] = pages[:, 0] != 0
        if holds.all():
            return ((run, data),)  # the common case: no page can be zero
        doubtful = np.flatnonzero(~holds)
        holds[doubtful] = (pages if len(doubtful) == len(pages) else pages[doubtful]).any(axis=1)
        holds = np.any(holds.reshape(count, each), axis=1)
        parts: list[tuple[PieceRun, memoryview | None]] = []
        begin, piece_bytes = 0, each * page_bytes
        for end in [*(np.flatnonzero(holds[1:] != holds[:-1]) + 1).tolist(), count]:
            part = PieceRun(first + begin * each, end - begin, level)
            parts.append((part, data[begin * piece_bytes : end * piece_bytes] if holds[begin] else None))
            begin = end
        return parts

    def digests(self, first: PageIndex, count: int) -> bytes:
        """xxh3_64 of each of `count` base pages from `first` on, as they are now; 8 bytes each, little endian."""
        return page_digests(self._bytes(first, count), self._page_bytes)

    def digests_of(self, payload: Sized) -> bytes:
        """xxh3_64 of each base page in what `read` returned: of the bytes that are sent, even if the image changes."""
        return page_digests(memoryview(cast("Buffer", payload)), self._page_bytes)

    def changed(self) -> str | None:
        """How the image has changed since it was opened, in a line that names it; None if it has not."""
        changed = self._image.changed()
        return f"{self.name} changed while it was read: {changed}" if changed is not None else None

    def _bytes(self, first: PageIndex, pages: int) -> memoryview:
        """The bytes of these base pages, padding included. UnreadableError."""
        at, count = first * self._page_bytes, pages * self._page_bytes
        if at + count <= self.image_bytes:
            return memoryview(self._image.read(at, count))
        if at >= self.image_bytes:
            return self._zeros[:count] if count <= _BLOCK_BYTES else memoryview(bytes(count))
        padded = bytearray(count)
        held = self.image_bytes - at
        padded[:held] = self._image.read(at, held)
        return memoryview(padded)

    def __repr__(self) -> str:
        return f"<ImageMemory {format_size(self.image_bytes)} in {format_size(self.memory_bytes)}>"


def open_image(path: str | Path, geometry: Geometry, image_format: str = "raw", *, copy: bool = False) -> ImageMemory:
    """The memory in a file; `image_format` as in [memory]. InputError when it is no image, is empty or damaged.

    `copy` makes a private copy of it first. BrokenError when there is no room for one.
    """
    try:
        with named.opened(path, devices=True) as file:
            hold(file.fileno())  # for as long as it is read: a copy of the descriptor is one of the same open file
            data = FileBytes(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if data.size == 0:
        raise InputError(f"{path}: the image is empty; there is nothing to migrate")
    if copy:
        data = data.private()
    try:
        image = core_bytes(data, geometry.largest_bytes) if image_format == "core" else data
    except UnreadableError as error:
        raise InputError(str(error)) from None
    return ImageMemory(geometry, image, image.size, str(path))


def image_advice(path: str | Path) -> str | None:
    """A warning if the file holds a memory in another format and is read as raw bytes; None if not. InputError."""
    try:
        with named.opened(path, devices=True) as file:
            what = advice(FileBytes(file, str(path)))
    except (OSError, UnreadableError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return f"{path} {what}" if what is not None else None


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
    return ImageMemory(geometry, Held(image), memory_bytes)
