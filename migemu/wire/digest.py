"""The digest of a memory, and where two memories differ.

Every base page has an xxh3_64; they are what crosses the wire and what names a bad piece. The digest of the whole is
the xxh3_128 over the concatenation of all of them, little endian, in order of address, as 32 hexadecimal digits:

    python -c "import sys, xxhash; d = open(sys.argv[1], 'rb').read(); print(xxhash.xxh3_128_hexdigest(b''.join(
        xxhash.xxh3_64_intdigest(d[i:i + 4096]).to_bytes(8, 'little') for i in range(0, len(d), 4096))))" IMAGE

(for an image of whole hugetlb pages; a shorter one is padded with zeros). It is a check against mistakes, not against
forgery: xxh3 is no cryptographic hash.
"""

from __future__ import annotations

from array import array
from sys import byteorder
from typing import Final

import xxhash

from migemu.mm.pages import PageIndex

DIGEST_BYTES: Final = 8


def page_digests(memory: memoryview, page_bytes: int) -> bytes:
    """xxh3_64 of each page of `memory`, 8 bytes each, little endian."""
    digest = xxhash.xxh3_64_intdigest
    digests = array("Q", [digest(memory[start : start + page_bytes]) for start in range(0, len(memory), page_bytes)])
    if byteorder == "big":
        digests.byteswap()
    return digests.tobytes()


def first_difference(ours: bytes, theirs: bytes) -> PageIndex | None:
    """The first page whose digests differ, counted from the start of both; None if they are the same."""
    if ours == theirs:
        return None
    for page in range(min(len(ours), len(theirs)) // DIGEST_BYTES):
        at = page * DIGEST_BYTES
        if ours[at : at + DIGEST_BYTES] != theirs[at : at + DIGEST_BYTES]:
            return page
    return min(len(ours), len(theirs)) // DIGEST_BYTES


class MemoryDigest:
    """The digest of a whole memory, fed with the digests of its pages in order."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def add(self, digests: bytes) -> None:
        """The digests of the next pages."""
        self._hash.update(digests)

    def hexdigest(self) -> str:
        """The digest of what was added so far."""
        return self._hash.hexdigest()
