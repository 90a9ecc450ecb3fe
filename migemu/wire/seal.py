"""Digests that travel with pieces (`integrity.digests`): what came is what was sent, where it was meant to go.

Behind the xxh3_64 of each base page stands one more, the seal: over the position of the run and those digests. A piece
whose bytes were changed on the way shows in its own digest; one that was put somewhere else, in the seal. Zero pieces
have a seal alone, and so have the digests that the source sends at the end.

It guards against mistakes of hardware and software, not against forgery: xxh3 is no cryptographic hash (for that there
is TLS).
"""

from __future__ import annotations

import struct
from typing import Final

import xxhash

from migemu.mm.pages import PageIndex, PieceRun
from migemu.wire.digest import DIGEST_BYTES

SEAL_BYTES: Final = DIGEST_BYTES
_PLACE = struct.Struct("<QQBB")
#: What stands for the level of a piece in the seal of `Digests`: no piece has it, whatever the memory is made of.
_DIGESTS: Final = 4


def sealed(run: PieceRun, urgent: bool, digests: bytes = b"") -> bytes:
    """The digests of the base pages of `run` (none of a zero one) with their seal behind them."""
    return digests + _seal(*run, urgent, digests)


def seal_of(first: PageIndex, digests: bytes) -> bytes:
    """The seal of what `Digests` says of the hugetlb page at `first`."""
    return _seal(first, 1, _DIGESTS, False, digests)


def opened(run: PieceRun, urgent: bool, digests: bytes) -> bytes | None:
    """The digests of the base pages without their seal; None if they are not of this run."""
    pages = digests[:-SEAL_BYTES]
    return pages if digests[-SEAL_BYTES:] == _seal(*run, urgent, pages) else None


def _seal(first: PageIndex, count: int, level: int, urgent: bool, digests: bytes) -> bytes:
    place = _PLACE.pack(first, count, level, urgent)
    return xxhash.xxh3_64_intdigest(place + digests).to_bytes(DIGEST_BYTES, "little")
