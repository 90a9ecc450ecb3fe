"""GuestBytes and GuestContents: what landed is what verification reads and, once it is mapped, what a vCPU finds.

Positions are given in base pages and as the geometry's own sizes, so that one test speaks of a hugetlb page of 16 base
pages and of a real one.
"""

from __future__ import annotations

import struct

import pytest

from tests.conformance.guest import (
    Guest,
    every_byte_store,
    every_store,
    every_store_in_place,
)
from tests.conformance.stores import BYTE_STORES, Store


@every_store
async def test_memory_is_zeros_before_anything_has_landed(store: Store) -> None:
    guest = Guest(store)
    assert guest.memory.geometry is store.geometry
    assert guest.memory.memory_bytes == guest.pages * guest.page
    for page in (0, 1, guest.pmd, guest.pages - 1):
        assert guest.holds(page) == guest.holds(page, guest.page - 8) == 0
        guest.map(page)
        assert guest.read(0, page) == 0


@every_store
async def test_what_landed_is_what_a_vcpu_reads_in_every_word_of_the_page(store: Store) -> None:
    """In the first page, the last, and across a run of several."""
    guest = Guest(store)
    for first, count in ((0, 1), (guest.pmd - 1, 3), (guest.pages - 2, 2)):
        guest.land(first, count)
        guest.map(first, count)
        for at in (0, 8, 4080, guest.page - 8, (count - 1) * guest.page, count * guest.page - 8):
            page, offset = first + at // guest.page, at % guest.page
            assert guest.read(0, page, offset) == guest.holds(page, offset) == guest.image.word(page, offset)


@every_byte_store
async def test_words_are_little_endian(store: Store) -> None:
    guest = Guest(store)
    guest.memory.landing(3, 1)[:8] = b"\x01" + bytes(6) + b"\x80"  # type: ignore[index]
    guest.map(3)
    assert guest.read(0, 3) == 0x8000_0000_0000_0001


@every_store_in_place
async def test_what_lands_after_the_page_was_mapped_shows_too(store: Store) -> None:
    """Both mappings are of the same memory."""
    guest = Guest(store)
    guest.map(3)
    assert guest.read(0, 3) == 0
    guest.land(3)
    assert guest.read(0, 3) == guest.image.word(3, 0) != 0


@every_store
async def test_a_stamp_is_read_back_and_answers_the_word_before_it(store: Store) -> None:
    guest = Guest(store)
    guest.land(5)
    guest.map(5)
    last = guest.page - 8
    assert guest.write(0, 5, 2**64 - 1) == guest.image.word(5, 0)
    assert guest.write(1, 5, 6, offset=8) == guest.image.word(5, 8)
    assert guest.write(1, 5, 0, offset=8) == 6
    assert guest.write(1, 5, 5, offset=last) == guest.image.word(5, last)
    assert guest.read(2, 5) == guest.holds(5) == 2**64 - 1
    assert guest.read(2, 5, 8) == guest.holds(5, 8) == 0
    assert guest.read(2, 5, last) == guest.holds(5, last) == 5
    assert guest.read(2, 5, 16) == guest.image.word(5, 16), "and nothing else has changed"
    assert guest.holds(4) == guest.holds(6) == 0


@every_byte_store
async def test_a_stamp_is_seen_through_the_alias_and_changes_nothing_else(store: Store) -> None:
    guest = Guest(store)
    guest.map(5)
    guest.write(0, 5, 2**64 - 1)
    guest.write(1, 5, 5, offset=guest.page - 8)
    assert guest.bytes_of(5) == b"\xff" * 8 + bytes(guest.page - 16) + struct.pack("<Q", 5)
    assert guest.bytes_of(4) == guest.bytes_of(6) == bytes(guest.page)


@every_store
async def test_what_is_cleared_before_it_is_mapped_is_zeros_again(store: Store) -> None:
    guest = Guest(store)
    guest.land(4, 3)
    guest.memory.clear(5, 1)
    assert [guest.holds(page) for page in (4, 5, 6)] == [guest.image.word(4, 0), 0, guest.image.word(6, 0)]
    guest.map(4, 3)
    assert [guest.read(0, page) for page in (4, 5, 6)] == [guest.image.word(4, 0), 0, guest.image.word(6, 0)]


@every_store
async def test_contents_are_what_landed_mapped_or_not_where_there_are_bytes(store: Store) -> None:
    guest = Guest(store)
    guest.land(5)
    if store not in BYTE_STORES:
        with pytest.raises(ValueError, match="are modelled: they have no contents"):
            guest.memory.contents(5, 1)
        return
    word = guest.image.word(5, 0).to_bytes(8, "little")
    assert guest.bytes_of(5)[:8] == word
    guest.map(5)
    assert guest.bytes_of(5)[:8] == word
    guest.write(0, 5, 7)
    assert guest.bytes_of(5)[:8] == bytes([7, *bytes(7)])
