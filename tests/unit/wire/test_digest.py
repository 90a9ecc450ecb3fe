"""The digest of a memory as its module's docstring says it, and the first page in which two memories differ."""

from __future__ import annotations

import pytest
import xxhash

from migemu.wire.digest import MemoryDigest, first_difference, page_digests

PAGE_BYTES = 64
MEMORY = bytes(each * 7 % 251 for each in range(5 * PAGE_BYTES))


def test_each_page_has_eight_bytes_of_its_own_little_endian() -> None:
    digests = page_digests(memoryview(MEMORY), PAGE_BYTES)
    assert len(digests) == 5 * 8
    for page in range(5):
        number = xxhash.xxh3_64(MEMORY[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]).intdigest()
        assert int.from_bytes(digests[page * 8 : page * 8 + 8], "little") == number


def test_the_digest_of_all_is_over_the_digests_of_the_pages_in_order() -> None:
    digest = MemoryDigest()
    digest.add(page_digests(memoryview(MEMORY)[: 2 * PAGE_BYTES], PAGE_BYTES))
    digest.add(page_digests(memoryview(MEMORY)[2 * PAGE_BYTES :], PAGE_BYTES))
    assert digest.hexdigest() == xxhash.xxh3_128_hexdigest(page_digests(memoryview(MEMORY), PAGE_BYTES))
    assert MemoryDigest().hexdigest() == xxhash.xxh3_128_hexdigest(b"")


@pytest.mark.parametrize(
    ("theirs", "page"),
    [
        (b"aaaaaaaabbbbbbbbcccccccc", None),
        (b"Xaaaaaaabbbbbbbbcccccccc", 0),
        (b"aaaaaaaXbbbbbbbbcccccccc", 0),
        (b"aaaaaaaaXbbbbbbbcccccccX", 1),
        (b"aaaaaaaabbbbbbbXcccccccc", 1),
        (b"aaaaaaaabbbbbbbbcccccccX", 2),
        (b"aaaaaaaabbbbbbbb", 2),
        (b"aaaaaaaabbbbbbbbccccccccdddddddd", 3),
        (b"", 0),
    ],
)
def test_the_first_page_that_differs_is_named_and_one_that_is_missing_differs(theirs: bytes, page: int | None) -> None:
    ours = b"aaaaaaaabbbbbbbbcccccccc"
    assert first_difference(ours, theirs) == page
    assert first_difference(theirs, ours) == page
