"""What the guest has read and written, word by word, and whether all of it adds up in the end.

Each vCPU reads and writes one 8-byte word per base page. The ledger keeps, per word that was ever touched,

    original   what the first access found there
    current    what the next access must find: the last stamp written, else the original

Every access is checked on the spot: a late piece over a guest write, a collapse that exposed a page before its bytes
were there, a piece in the wrong place all show as a word that is not `current`. In the end the originals are put back,
page by page, and the page's digest is compared with the source's: so every byte of memory is accounted for, and every
word that the guest was given before its page was verified is verified after the fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from migemu.mm.pages import PageIndex
from migemu.ports import Word

#: A vCPU's word lies in a cache line of its own, as far as a base page has cache lines: vCPUs beyond that share words.
SLOTS: Final = 64
SLOT_BYTES: Final = 64


class Mistake(NamedTuple):
    """A vCPU found a word that is not what it must be."""

    vcpu: int
    page: PageIndex
    expected: int
    found: int

    def __str__(self) -> str:
        return f"vCPU {self.vcpu} found {self.found:#018x} in base page {self.page} instead of {self.expected:#018x}"


class Ledger:
    """Bounded by `words_max`: beyond it, writes are declined and reads of new words go unrecorded (and are counted)."""

    def __init__(self, words_max: int) -> None:
        self.words_max = words_max
        self.reads = 0
        self.writes = 0
        self.unrecorded = 0
        self.mistakes = 0
        self.first_mistake: Mistake | None = None
        self._original: dict[int, int] = {}  # of words that were written; of others it is the current one
        self._current: dict[int, int] = {}

    def may_write(self, vcpu: int, page: PageIndex) -> bool:
        """Whether a write of this word can be kept account of."""
        return len(self._current) < self.words_max or page * SLOTS + vcpu % SLOTS in self._current

    def accessed(self, vcpu: int, page: PageIndex, found: int, stamp: int | None) -> None:
        """The vCPU found `found` in its word of `page` and, unless it only read, wrote `stamp` to it."""
        key = page * SLOTS + vcpu % SLOTS
        expected = self._current.get(key)
        if expected is None:
            if stamp is None and len(self._current) >= self.words_max:
                self.reads += 1
                self.unrecorded += 1
                return
            self._current[key] = expected = found
        elif expected != found:
            self.mistakes += 1
            self.first_mistake = self.first_mistake or Mistake(vcpu, page, expected, found)
        if stamp is None:
            self.reads += 1
        else:
            self.writes += 1
            self._current[key] = stamp
            self._original.setdefault(key, expected)

    def restore(self, words: Iterable[Word]) -> None:
        """Begin with the `words` of an earlier destination. They count neither as reads nor as writes of this one."""
        for page, offset, original, current in words:
            key = page * SLOTS + offset // SLOT_BYTES
            self._original[key], self._current[key] = original, current

    def words(self) -> Iterator[Word]:
        """Every word ever touched, in order of address."""
        for key in sorted(self._current):
            current = self._current[key]
            yield Word(key // SLOTS, key % SLOTS * SLOT_BYTES, self._original.get(key, current), current)

    def __len__(self) -> int:
        return len(self._current)

    def __repr__(self) -> str:
        return f"<Ledger {self.reads} reads, {self.writes} writes, {len(self)} words, {self.mistakes} mistakes>"
