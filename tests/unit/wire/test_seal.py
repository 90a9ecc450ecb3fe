"""Digests of pieces: changed bytes and a changed place both show."""

from __future__ import annotations

import pytest
import xxhash

from migemu.mm.pages import Level, PieceRun
from migemu.wire.seal import opened, seal_of, sealed

RUN = PieceRun(8, 2, Level.PTE)
DIGESTS = bytes(range(16))


def test_what_was_sealed_is_opened() -> None:
    assert opened(RUN, False, sealed(RUN, False, DIGESTS)) == DIGESTS
    assert opened(RUN, True, sealed(RUN, True)) == b""


def test_a_seal_is_over_first_count_level_and_urgent_and_the_digests_little_endian() -> None:
    place = bytes([8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    number = xxhash.xxh3_64_intdigest(place + DIGESTS)
    assert sealed(RUN, True, DIGESTS) == DIGESTS + number.to_bytes(8, "little")


def test_the_digests_at_the_end_are_sealed_as_one_hugetlb_page_that_nobody_waits_for() -> None:
    assert DIGESTS + seal_of(16, DIGESTS) == sealed(PieceRun(16, 1, Level.PUD), False, DIGESTS)


@pytest.mark.parametrize(
    ("run", "urgent"),
    [
        (PieceRun(9, 2, Level.PTE), False),
        (PieceRun(8, 1, Level.PTE), False),
        (PieceRun(8, 2, Level.PMD), False),
        (RUN, True),
    ],
)
def test_another_place_is_another_seal(run: PieceRun, urgent: bool) -> None:
    assert opened(run, urgent, sealed(RUN, False, DIGESTS)) is None


@pytest.mark.parametrize("at", range(24))
def test_every_flipped_byte_shows(at: int) -> None:
    flipped = bytearray(sealed(RUN, False, DIGESTS))
    flipped[at] ^= 1
    assert opened(RUN, False, bytes(flipped)) is None
