"""Is the memory that arrived the memory that was sent? Over a small memory in a bytearray, broken in every way."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Sequence
from random import Random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dest_node.guest.ledger import SLOT_BYTES
from dest_node.verification.verify import Verification
from migemu.mm.pages import TINY, Geometry, Level, PageIndex
from migemu.ports import GuestContents, Word
from migemu.store.mapped import digests_of
from migemu.wire.digest import MemoryDigest, first_difference, page_digests
from tests.vcpus import stopped_vcpus

PAGE = TINY.page_bytes
PAGES = 2 * TINY.pages(Level.PUD)
SOURCE = Random(7).randbytes(PAGES * PAGE)
DIGESTS = page_digests(memoryview(SOURCE), PAGE)
HALF = PAGES // 2


class PlainMemory:
    """ports.GuestContents over a bytearray, which may be written to."""

    def __init__(self, content: bytes, geometry: Geometry = TINY) -> None:
        self.geometry = geometry
        self.memory_bytes = len(content)
        self.bytes = bytearray(content)

    def landing(self, first: PageIndex, count: int) -> memoryview:
        return memoryview(self.bytes)[first * PAGE : (first + count) * PAGE]

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Awaitable[None]:
        at = page * PAGE + offset
        (before,) = struct.unpack_from("<Q", self.bytes, at)
        if stamp is not None:
            struct.pack_into("<Q", self.bytes, at, stamp)
        return int(before)

    def contents(self, first: PageIndex, count: int) -> memoryview:
        return self.landing(first, count)

    def digests(self, first: PageIndex, count: int, words: Sequence[Word]) -> tuple[bytes, list[int]]:
        return digests_of(self.landing(first, count), PAGE, first, words)


class Destination:
    """A memory, its guest, and what comes of comparing the two halves with the source's digests."""

    def __init__(self, content: bytes = SOURCE) -> None:
        self.memory = PlainMemory(content)
        seam: GuestContents = self.memory
        vcpus = stopped_vcpus(self.memory)
        self.ledger = vcpus.ledger
        self.verification = Verification(seam, vcpus)

    def access(self, vcpu: int, page: PageIndex, stamp: int | None) -> None:
        found = self.memory.touch(vcpu, page, vcpu * SLOT_BYTES, stamp)
        assert isinstance(found, int)
        self.ledger.accessed(vcpu, page, found, stamp)

    async def verify(self, digests: bytes = DIGESTS) -> str | None:
        for first in (0, HALF):
            await self.verification.compare(first, digests[first * 8 : (first + HALF) * 8])
        return self.verification.problem


# --- the digests ---


def test_page_digests_are_xxh3_64_of_each_page_little_endian() -> None:
    for page in (0, 1, PAGES - 1):
        expected = xxhash.xxh3_64_intdigest(SOURCE[page * PAGE : (page + 1) * PAGE]).to_bytes(8, "little")
        assert DIGESTS[page * 8 : page * 8 + 8] == expected
    assert len(DIGESTS) == PAGES * 8


def test_the_first_difference_is_a_page() -> None:
    assert first_difference(DIGESTS, DIGESTS) is None
    assert first_difference(b"", b"") is None
    for page in (0, 3, PAGES - 1):
        for byte in (0, 7):
            other = bytearray(DIGESTS)
            other[page * 8 + byte] ^= 1
            other[-1] ^= 128
            assert first_difference(bytes(other), DIGESTS) == page
    assert first_difference(DIGESTS[:24], DIGESTS) == 3


def test_the_digest_of_a_memory_is_that_of_its_digests_however_they_are_added() -> None:
    whole, parts = MemoryDigest(), MemoryDigest()
    whole.add(DIGESTS)
    for at in range(0, len(DIGESTS), 24):
        parts.add(DIGESTS[at : at + 24])
    assert whole.hexdigest() == parts.hexdigest() == xxhash.xxh3_128_hexdigest(DIGESTS)


# --- what passes ---


async def test_the_same_memory_passes_and_has_the_sources_digest() -> None:
    destination = Destination()
    assert await destination.verify() is None
    assert destination.verification.digest == xxhash.xxh3_128_hexdigest(DIGESTS)


async def test_guest_writes_are_taken_account_of_and_stay() -> None:
    """Words of several vCPUs, in the first and the last page, written several times."""
    destination = Destination()
    for vcpu, page in [(0, 0), (63, 0), (1, 5), (0, PAGES - 1), (63, PAGES - 1), (0, 0)]:
        destination.access(vcpu, page, 1000 + vcpu)
        destination.access(vcpu, page, None)
    after = bytes(destination.memory.bytes)
    assert after != SOURCE
    assert await destination.verify() is None
    assert bytes(destination.memory.bytes) == after, "the guest's words must be there again"
    assert destination.verification.digest == xxhash.xxh3_128_hexdigest(DIGESTS)
    for image_bytes in (len(SOURCE), len(SOURCE) - 1, 5 * PAGE + 3, 1):
        assert b"".join(destination.verification.image(image_bytes)) == SOURCE[:image_bytes]
    assert bytes(destination.memory.bytes) == after


async def test_memory_larger_than_a_turn_of_the_loop_is_compared_whole() -> None:
    """The comparison gives the loop a turn every 512 pages; no page may fall between two turns."""
    pages = 1040
    content = Random(1).randbytes(pages * 8)
    content = b"".join(content[at : at + 8] + bytes(PAGE - 8) for at in range(0, len(content), 8))
    expected = page_digests(memoryview(content), PAGE)
    for bad in (None, 0, 511, 512, 1023, 1024, 1039):
        memory = PlainMemory(content)
        if bad is not None:
            memory.bytes[bad * PAGE + PAGE - 1] ^= 1
        verification = Verification(memory, stopped_vcpus(memory))
        await verification.compare(0, expected)
        assert (verification.problem is None) == (bad is None)
        assert bad is None or f"base page {bad} " in str(verification.problem)


# --- what does not ---


@pytest.mark.parametrize("page", [0, 3, HALF - 1, HALF, PAGES - 1])
@pytest.mark.parametrize("byte", [0, 8, 4095])
async def test_a_flipped_byte_names_the_first_bad_piece(page: PageIndex, byte: int) -> None:
    destination = Destination()
    destination.memory.bytes[page * PAGE + byte] ^= 1
    destination.memory.bytes[-1] ^= 2
    ours = page_digests(destination.memory.landing(page, 1), PAGE)[::-1].hex()
    assert await destination.verify() == (
        f"the first bad piece is base page {page} (bytes {page * PAGE:#x} to {(page + 1) * PAGE - 1:#x} of 128K): "
        f"its digest is {ours}, the source's {DIGESTS[page * 8 : page * 8 + 8][::-1].hex()}"
    )


async def test_a_guest_write_that_was_lost_is_told_as_one() -> None:
    """All bytes are the source's, and that is what is wrong."""
    destination = Destination()
    destination.access(2, 9, stamp=0xABCD)
    destination.memory.bytes[:] = SOURCE
    (found,) = struct.unpack_from("<Q", SOURCE, 9 * PAGE + 2 * SLOT_BYTES)
    assert await destination.verify() == (
        f"a guest write was lost: base page 9 holds {found:#018x} at byte {2 * SLOT_BYTES} "
        "where the guest left 0x000000000000abcd"
    )


async def test_a_page_in_the_wrong_place_is_seen_also_where_the_guest_wrote() -> None:
    destination = Destination(SOURCE[: 4 * PAGE] + SOURCE[5 * PAGE : 6 * PAGE] * 2 + SOURCE[6 * PAGE :])
    destination.access(0, 4, stamp=1)
    assert str(await destination.verify()).startswith("the first bad piece is base page 4 ")


async def test_a_word_that_was_wrong_when_it_was_read_is_told_though_all_is_well_now() -> None:
    """A page that was exposed before its bytes were there, for instance."""
    destination = Destination()
    destination.ledger.accessed(1, 3, found=0, stamp=None)
    destination.access(1, 3, None)
    (word,) = struct.unpack_from("<Q", SOURCE, 3 * PAGE + SLOT_BYTES)
    assert await destination.verify() == (
        f"a word changed after the guest read it: base page 3 holds {word:#018x} at byte 64 "
        "where the guest found 0x0000000000000000"
    )


async def test_mistakes_of_the_run_are_told_where_nothing_else_is() -> None:
    destination = Destination()
    destination.access(1, 3, None)
    (word,) = struct.unpack_from("<Q", SOURCE, 3 * PAGE + SLOT_BYTES)
    destination.ledger.accessed(1, 3, found=5, stamp=None)
    assert await destination.verify() == (
        f"1 accesses went wrong, first: vCPU 1 found 0x0000000000000005 in base page 3 instead of {word:#018x}"
    )


async def test_the_first_problem_in_order_of_address_counts() -> None:
    """Within one comparison too: a bad page in front of a lost write is the first."""
    destination = Destination()
    destination.access(0, 12, stamp=77)
    destination.memory.bytes[12 * PAGE : 13 * PAGE] = SOURCE[12 * PAGE : 13 * PAGE]
    destination.memory.bytes[2 * PAGE + 100] ^= 1
    assert str(await destination.verify()).startswith("the first bad piece is base page 2 ")

    destination = Destination()
    destination.access(0, 2, stamp=77)
    destination.memory.bytes[2 * PAGE : 3 * PAGE] = SOURCE[2 * PAGE : 3 * PAGE]
    destination.memory.bytes[12 * PAGE + 100] ^= 1
    assert str(await destination.verify()).startswith("a guest write was lost: base page 2 ")


@given(seed=st.integers(0, 2**32), flip=st.none() | st.integers(0, PAGES * PAGE - 1))
async def test_whatever_the_guest_did_a_change_of_any_other_byte_is_seen(seed: int, flip: int | None) -> None:
    """And no change by the guest is."""
    random, destination = Random(seed), Destination()
    touched: set[int] = set()
    for _ in range(random.randrange(40)):
        vcpu, page = random.randrange(64), random.randrange(PAGES)
        destination.access(vcpu, page, random.choice([None, random.getrandbits(64)]))
        touched.add(page * PAGE + vcpu * SLOT_BYTES)
    if flip is not None:
        destination.memory.bytes[flip] ^= 1 << random.randrange(8)
    problem = await destination.verify()
    if flip is None:
        assert problem is None
    else:
        in_a_word = any(at <= flip < at + 8 for at in touched)
        assert problem is not None
        assert f"base page {flip // PAGE} " in problem
        assert problem.startswith(("a guest write was lost", "a word changed") if in_a_word else "the first bad piece")
