"""Is the memory that arrived the memory that was sent? Every byte is compared, guest writes accounted for.

Per base page: each word that the guest touched must hold what the vCPUs say was last there; then the originals are
put back, the page is hashed, its digest compared with the source's, and the guest's words restored. A page passes only
if all of its bytes are the source's and all changes to it are known writes of the guest.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

from migemu.mm.pages import PageIndex
from migemu.ports import GuestContents, Vcpus, Word
from migemu.units import format_size
from migemu.wire.digest import MemoryDigest, first_difference

_WORD = struct.Struct("<Q")
_PAGES_PER_TURN = 512


class Verification:
    """Compares one memory with the source's digests, hugetlb page by hugetlb page, in order."""

    def __init__(self, memory: GuestContents, vcpus: Vcpus) -> None:
        self.problem: str | None = None
        self._memory = memory
        self._vcpus = vcpus
        self._page_bytes = memory.geometry.page_bytes
        self._digest = MemoryDigest()
        self._words: Iterator[Word] | None = None
        self._next: Word | None = None

    @property
    def digest(self) -> str:
        """The digest of the memory as it arrived, as far as it has been compared."""
        return self._digest.hexdigest()

    async def compare(self, first: PageIndex, expected: bytes) -> None:
        """Compare the pages from `first` on with their digests (8 bytes each), giving the loop a turn now and then."""
        pages = len(expected) // 8
        for start in range(first, first + pages, _PAGES_PER_TURN):
            count = min(_PAGES_PER_TURN, first + pages - start)
            theirs = expected[(start - first) * 8 : (start - first + count) * 8]
            self._compare(start, count, theirs)
            await asyncio.sleep(0)
        if first + pages == self._memory.memory_bytes // self._page_bytes:
            guest = self._vcpus.statistics()
            if guest.mistakes:
                self._report(f"{guest.mistakes} accesses went wrong, first: {guest.first_mistake}")

    def image(self, image_bytes: int) -> Iterator[bytes]:
        """The first `image_bytes` of the memory as it came from the source, without what the guest has written since.

        In parts of `_PAGES_PER_TURN` base pages.
        """
        page_bytes, words = self._page_bytes, self._vcpus.words()
        word = next(words, None)
        for start in range(0, image_bytes, _PAGES_PER_TURN * page_bytes):
            first = start // page_bytes
            pages = min(_PAGES_PER_TURN, self._memory.memory_bytes // page_bytes - first)
            part = bytearray(self._memory.contents(first, pages))
            while word is not None and word.page < first + pages:
                _WORD.pack_into(part, (word.page - first) * page_bytes + word.offset, word.original)
                word = next(words, None)
            yield bytes(part[: image_bytes - start])

    def _compare(self, first: PageIndex, count: int, expected: bytes) -> None:
        words = list(self._touched(first, count))
        ours, found = self._memory.digests(first, count, words)
        self._digest.add(ours)
        wrong = next((both for both in zip(words, found, strict=True) if both[1] != both[0].current), None)
        different = first_difference(ours, expected)
        if wrong is not None and (different is None or wrong[0].page <= first + different):
            self._report_word(*wrong)
        elif different is not None:
            page = first + different
            self._report(
                f"the first bad piece is base page {page} (bytes {page * self._page_bytes:#x} to "
                f"{(page + 1) * self._page_bytes - 1:#x} of {format_size(self._memory.memory_bytes)}): "
                f"its digest is {ours[different * 8 : different * 8 + 8][::-1].hex()}, "
                f"the source's {expected[different * 8 : different * 8 + 8][::-1].hex()}"
            )

    def _report_word(self, word: Word, found: int) -> None:
        read_only = word.current == word.original
        self._report(
            f"{'a word changed after the guest read it' if read_only else 'a guest write was lost'}: base page "
            f"{word.page} holds {found:#018x} at byte {word.offset} where the guest "
            f"{'found' if read_only else 'left'} {word.current:#018x}"
        )

    def _touched(self, first: PageIndex, count: int) -> Iterator[Word]:
        """The touched words of these pages; pages must be asked for in order."""
        if self._words is None:
            self._words = self._vcpus.words()
            self._next = next(self._words, None)
        while self._next is not None and self._next.page < first + count:
            yield self._next
            self._next = next(self._words, None)

    def _report(self, problem: str) -> None:
        """The first problem counts: pages are compared in order of address."""
        if self.problem is None:
            self.problem = problem
