"""Memory without bytes: who was where, and who has written what, for migrations in virtual time.

What this models
    The source's memory as a seeded function of the address, the guest's as the record of which of the source's pages
    have landed where, and of the words that the guest has written since. A late piece over a guest write, a page in the
    wrong place, a page exposed before its bytes were there: all of them show as they would with real bytes, at the
    access or in the comparison at the end, at a cost that grows with pieces and accesses, not with bytes.

Rules
    1. A word is a permutation of its address; of a zero page it is 0. No two pages are alike.
    2. Zero pages come in rows of `ZERO_ROW_PAGES`, as in the real pattern; which rows is drawn from the seed.
    3. What lands on a page replaces all of it, the guest's words included.
    4. The digest of a page is that of its content: 8 bytes mixed from the page's number, so that the services compare
       modelled memories exactly as they compare real ones.

Words
    contents  a stretch of the source's pages, on its way: it knows its length, where it came from, and which of its
              pages were damaged on the way; of a damaged page every word differs from the source's
    landing   a place in the guest's memory that takes contents, where real memory would lend bytes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun
from migemu.permutation import GAMMA, MASK_64, mix, mix_all
from migemu.ports import Word
from migemu.store.image import ZERO_ROW_PAGES
from migemu.store.primary import Primary
from migemu.units import format_size
from migemu.wire.codec import Sized

_ZERO_DIGEST: Final = 0
#: What damage does to a word, and to a digest (assumed: any bits will do).
_DAMAGE: Final = 1 << 40

_Words = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What `pages` of the source's base pages from `first` on hold; the `damaged` ones of them hold something else."""

    first: PageIndex
    pages: int
    page_bytes: int
    damaged: range = range(0)

    def __len__(self) -> int:
        return self.pages * self.page_bytes


class ModelledSource:
    """ports.SourceMemory whose pages are placeholders: their content follows from the seed."""

    def __init__(self, geometry: Geometry, memory_bytes: int, seed: int, zero_share: float) -> None:
        """`memory_bytes` are whole hugetlb pages; a row of base pages is zero with probability `zero_share`."""
        self.geometry = geometry
        self.memory_bytes = self.image_bytes = memory_bytes
        self.content = PageContent(geometry, memory_bytes // geometry.page_bytes, seed, zero_share)

    def read(self, run: PieceRun) -> Sequence[tuple[PieceRun, Contents | None]]:
        """The pieces of `run` as sub-runs in order, each with its contents, or None where they are all zeros."""
        each = self.geometry.pages(run.level)
        page_bytes = self.geometry.page_bytes
        parts: list[tuple[PieceRun, Contents | None]] = []
        at, end = run.first, run.first + run.count * each
        while at < end:
            holds, until = self.content.alike(at, end, each)
            part = PieceRun(at, (until - at) // each, run.level)
            parts.append((part, Contents(at, until - at, page_bytes) if holds else None))
            at = until
        return parts

    def digests(self, first: PageIndex, count: int) -> bytes:
        """The digests of `count` base pages from `first` on, 8 bytes each, little endian."""
        return little(self.content.digests(np.arange(first, first + count, dtype=np.uint64)))

    def digests_of(self, payload: Sized) -> bytes:
        """The same of contents that `read` gave."""
        assert isinstance(payload, Contents)
        return self.digests(payload.first, payload.pages)

    def changed(self) -> None:
        """A function of the address stays what it is: never."""
        return

    def __repr__(self) -> str:
        return f"<ModelledSource {format_size(self.memory_bytes)}>"


class PageContent:
    """What the source's pages hold, as a function of their number."""

    def __init__(self, geometry: Geometry, pages: int, seed: int, zero_share: float) -> None:
        self._key = mix(seed)
        self._row_pages = min(ZERO_ROW_PAGES, geometry.pages(Level.PMD))
        rows = np.arange(-(-pages // self._row_pages), dtype=np.uint64)
        draws = mix_all(rows ^ np.uint64(mix(self._key))) >> np.uint64(11)
        #: One byte a row: 1 where it holds something.
        self._holds = (draws >= np.uint64(int(zero_share * (1 << 53)))).tobytes()

    def alike(self, first: PageIndex, end: PageIndex, piece: int) -> tuple[bool, PageIndex]:
        """Whether the piece of `piece` pages at `first` holds something, and up to where all pieces do, or do not."""
        holds = self._piece_holds(first, piece)
        at = first
        while at < end and self._piece_holds(at, piece) == holds:
            row_end = (at // self._row_pages + 1) * self._row_pages
            at = max(at + piece, min(row_end, end)) if piece < self._row_pages else at + piece
        return holds, min(at, end)

    def _piece_holds(self, first: PageIndex, piece: int) -> bool:
        row = first // self._row_pages
        return self._holds.find(1, row, (first + piece - 1) // self._row_pages + 1) >= 0

    def word(self, page: PageIndex, offset: int) -> int:
        """The word at byte `offset` of `page`."""
        if not self._holds[page // self._row_pages]:
            return 0
        return ((page << 12 | offset) + self._key) * GAMMA & MASK_64  # odd: no two words are alike

    def digests(self, pages: _Words) -> _Words:
        """The digest of each of `pages`."""
        holds = np.frombuffer(self._holds, dtype=np.uint8)[(pages // np.uint64(self._row_pages)).astype(np.int64)]
        return np.where(holds, mix_all(pages ^ np.uint64(self._key)), np.uint64(_ZERO_DIGEST))


class ModelledLanding:
    """A place for contents in a guest's memory: bytes `[start, end)`. Slices like a memoryview."""

    __slots__ = ("_end", "_memory", "_start")

    def __init__(self, memory: ModelledMemory, start: int, end: int) -> None:
        self._memory, self._start, self._end = memory, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, part: slice) -> ModelledLanding:
        start, stop, _ = part.indices(len(self))
        return ModelledLanding(self._memory, self._start + start, self._start + max(start, stop))

    def take(self, contents: Contents, offset: int) -> None:
        """The bytes of `contents` from `offset` on land here, as many as there is room for."""
        self._memory.landed(self._start, self._end, contents, offset)


class ModelledMemory(Primary):
    """ports.GuestStore without bytes. It is given the source's content, to know what it would hold."""

    def __init__(self, geometry: Geometry, memory_bytes: int, content: PageContent, hgm: bool = True) -> None:
        super().__init__(geometry, memory_bytes, hgm)
        self._content = content
        self._word = content.word
        self._per_pmd = geometry.pages(Level.PMD)
        self._pmd_shift, self._pmd_mask = self._per_pmd.bit_length() - 1, self._per_pmd - 1
        pages = memory_bytes // geometry.page_bytes
        self._all_landed = (1 << self._per_pmd) - 1
        self._landed = [0] * (pages // self._per_pmd)  # one bit a base page
        self._misplaced: dict[PageIndex, PageIndex] = {}
        self._damaged: dict[PageIndex, None] = {}
        self._written: dict[int, int] = {}  # byte address -> what the guest wrote there
        self._written_in: dict[int, list[int]] = {}  # 2M -> the addresses above that lie in it

    def landing(self, first: PageIndex, count: int) -> Any:
        """A place for the contents of `count` base pages from `first` on."""
        return ModelledLanding(self, first * self._page_bytes, (first + count) * self._page_bytes)

    def landed(self, start: int, end: int, contents: Contents, offset: int) -> None:
        """The bytes of `contents` from `offset` on have landed on bytes `[start, end)`; whole base pages."""
        if (start | end | offset) % self._page_bytes:
            raise ValueError("without bytes only whole base pages can land")
        first, last = start // self._page_bytes, end // self._page_bytes
        came_from = contents.first + offset // self._page_bytes
        if came_from != first or self._misplaced:
            for page in range(first, last):
                self._misplaced.pop(page, None)
                if came_from != first:
                    self._misplaced[page] = came_from + page - first
        if contents.damaged or self._damaged:
            for page in range(first, last):
                self._damaged.pop(page, None)
                if came_from + page - first in contents.damaged:
                    self._damaged[page] = None
        while first < last:
            pmd, within = divmod(first, self._per_pmd)
            count = min(last - first, self._per_pmd - within)
            landed = self._landed[pmd] | ((1 << count) - 1) << within
            self._landed[pmd] = self._all_landed if landed == self._all_landed else landed  # one object for all of them
            if pmd in self._written_in:
                self._overwrite(pmd, first * self._page_bytes, (first + count) * self._page_bytes)
            first += count

    def clear(self, first: PageIndex, count: int) -> None:
        """As if nothing had landed there."""
        for page in range(first, first + count):
            self._misplaced.pop(page, None)
            self._damaged.pop(page, None)
            self._landed[page >> self._pmd_shift] &= ~(1 << (page & self._pmd_mask))

    def _overwrite(self, pmd: int, start: int, end: int) -> None:
        """Bytes `[start, end)` of a 2M are the source's again."""
        written = self._written_in[pmd]
        self._written_in[pmd] = [at for at in written if not start <= at < end]
        for at in written:
            if start <= at < end:
                del self._written[at]

    def digests(self, first: PageIndex, count: int, words: Sequence[Word]) -> tuple[bytes, list[int]]:
        """The digests of what has landed; a word that is not what landed there changes the digest of its page."""
        pages = np.arange(first, first + count, dtype=np.uint64)
        digests = self._content.digests(pages)
        self._blank_unlanded(digests, first)
        if self._misplaced:
            for page in range(first, first + count):
                if page in self._misplaced:
                    digests[page - first] = self._content.digests(np.array([self._misplaced[page]], np.uint64))[0]
        for page in self._damaged:
            if first <= page < first + count:
                digests[page - first] ^= np.uint64(_DAMAGE)
        found = [self._held(word.page, word.offset) for word in words]
        originals = {(word.page, word.offset): word.original for word in words}
        for pmd in range(first // self._per_pmd, (first + count - 1) // self._per_pmd + 1):
            for at in self._written_in.get(pmd, ()):
                page, offset = divmod(at, self._page_bytes)
                if first <= page < first + count:
                    originals.setdefault((page, offset), self._written[at])
        for (page, offset), value in originals.items():
            if value != self._arrived(page, offset):
                digests[page - first] ^= np.uint64(mix(value ^ mix(offset)))
        return little(digests), found

    def contents(self, first: PageIndex, count: int) -> memoryview:
        """Raise ValueError: a modelled memory has no bytes."""
        raise ValueError(f"the bytes of base pages [{first}, {first + count}) are modelled: they have no contents")

    def _blank_unlanded(self, digests: _Words, first: PageIndex) -> None:
        """Of `digests`, those of base pages from `first` on, set to zero where nothing has landed."""
        page, end = first, first + len(digests)
        while page < end:
            pmd, within = divmod(page, self._per_pmd)
            count = min(end - page, self._per_pmd - within)
            if self._landed[pmd] != self._all_landed:
                bits = (self._landed[pmd] >> within & (1 << count) - 1).to_bytes(-(-count // 8), "little")
                landed = np.unpackbits(np.frombuffer(bits, np.uint8), count=count, bitorder="little")
                digests[page - first : page - first + count][landed == 0] = _ZERO_DIGEST
            page += count

    def _arrived(self, page: PageIndex, offset: int) -> int:
        """The word without what the guest has written: 0 where nothing has landed."""
        if not self._landed[page >> self._pmd_shift] >> (page & self._pmd_mask) & 1:
            return 0
        word = self._word(self._misplaced.get(page, page) if self._misplaced else page, offset)
        return word ^ _DAMAGE if page in self._damaged else word

    def _held(self, page: PageIndex, offset: int) -> int:
        word = self._written.get(page * self._page_bytes + offset)
        return self._arrived(page, offset) if word is None else word

    def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
        at = page * self._page_bytes + offset
        before = self._written.get(at)
        if stamp is not None:
            if before is None:
                self._written_in.setdefault(page >> self._pmd_shift, []).append(at)
            self._written[at] = stamp
        return self._arrived(page, offset) if before is None else before


def little(digests: _Words) -> bytes:
    """The digests as bytes: 8 each, little endian."""
    return (digests.byteswap() if sys.byteorder == "big" else digests).tobytes()
