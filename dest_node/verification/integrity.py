"""Are the bytes that came those that were sent? Judged per base page, where the source sends digests with its pieces.

Rules
    1. A seal that does not fit means that the run may belong somewhere else: what was meant is not known, so none of it
       may land. The connection is given up; the bitmap tells the source what is missing.
    2. A base page whose bytes have another digest is not received: it is counted, and asked for again. What was
       received before is not looked at: its bytes went nowhere.
    3. A page that comes corrupt more than `errors_max` times in a row gives the connection up too: something on the way
       breaks it, and another way may not.
"""

from __future__ import annotations

from migemu.errors import PeerError
from migemu.mm.pages import Level, PageBitmap, PageIndex, PieceRun
from migemu.ports import GuestContents
from migemu.wire.digest import DIGEST_BYTES
from migemu.wire.messages import Page, Zero
from migemu.wire.seal import SEAL_BYTES, opened


def check_seal(message: Page | Zero) -> None:
    """Before anything of it lands. PeerError by rule 1."""
    first, count, level, urgent, digests = message
    if digests and opened(PieceRun(first, count, level), urgent, digests) is None:
        raise PeerError(f"a piece of base page {first} has the seal of another address: it was misplaced on the way")


class Integrity:
    """That of one memory. `corrupt` counts base pages that were refused."""

    def __init__(self, memory: GuestContents, received: PageBitmap, errors_max: int) -> None:
        self.corrupt = 0
        self._memory = memory
        self._received = received
        self._errors_max = errors_max
        self._refused: dict[PageIndex, int] = {}

    def judge(self, run: PieceRun, digests: bytes) -> tuple[list[PieceRun], list[PieceRun]]:
        """What of `run`, whose bytes have landed, is as it was sent, and what has to come again. PeerError: rule 3."""
        pages = digests[:-SEAL_BYTES]
        count = len(pages) // DIGEST_BYTES
        bad = self._bad(run.first, count, pages)
        if not bad:
            if self._refused:
                for page in range(run.first, run.first + count):
                    self._refused.pop(page, None)
            return [run], []
        self.corrupt += len(bad)
        for page in bad:
            times = self._refused[page] = self._refused.get(page, 0) + 1
            if times > self._errors_max:
                self._refused[page] = 0  # the next connection gets as many
                raise PeerError(f"base page {page} came corrupt {times} times (recovery.errors_max)")
        return _without(run.first, count, bad), [PieceRun(page, 1, Level.PTE) for page in bad]

    def _bad(self, first: PageIndex, count: int, expected: bytes) -> list[PageIndex]:
        """Base pages that are not received and not what they should be."""
        found, _ = self._memory.digests(first, count, ())
        if found == expected:
            return []
        return [
            first + page
            for page, at in enumerate(range(0, len(expected), DIGEST_BYTES))
            if found[at : at + DIGEST_BYTES] != expected[at : at + DIGEST_BYTES]
            and not self._received.pages[first + page]
        ]

    def __repr__(self) -> str:
        return f"<Integrity: {self.corrupt} base pages refused>"


def _without(first: PageIndex, count: int, bad: list[PageIndex]) -> list[PieceRun]:
    """The rows of base pages between `bad` ones."""
    rows, begin = [], first
    for page in [*bad, first + count]:
        if page > begin:
            rows.append(PieceRun(begin, page - begin, Level.PTE))
        begin = page + 1
    return rows
