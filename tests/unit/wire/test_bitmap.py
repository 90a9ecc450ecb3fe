"""The received bitmap on the wire: small, whole, and judged."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import PeerError
from migemu.mm.pages import TINY, X86_64, Level, PageBitmap
from migemu.wire.bitmap import BITMAP_PAGES_MAX, BitmapReader, parts
from migemu.wire.limits import Limits
from migemu.wire.messages import ReceivedBitmap

TOTAL = 4 * TINY.pages(Level.PUD)


def bitmap(*rows: tuple[int, int]) -> PageBitmap:
    made = PageBitmap(TINY, TOTAL)
    for first, count in rows:
        made.add(first, count)
    return made


def read(*said: tuple[ReceivedBitmap, bytes]) -> BitmapReader:
    reader = BitmapReader(TINY, TOTAL)
    for part, payload in said:
        reader.take(part, payload)
    return reader


@given(st.lists(st.tuples(st.integers(0, TOTAL - 1), st.integers(1, 20)), max_size=12))
def test_what_is_told_is_what_is_read(rows: list[tuple[int, int]]) -> None:
    told = bitmap(*((first, min(count, TOTAL - first)) for first, count in rows))
    limits = Limits(1 << 20, geometry=TINY, memory_pages=TOTAL)
    reader = BitmapReader(TINY, TOTAL)
    for part, payload in parts(told):
        assert not reader.complete
        limits.check(part, len(payload))
        reader.take(part, payload)
    assert reader.complete
    assert reader.received.pages == told.pages
    assert reader.received.set_pages == told.set_pages


def test_what_is_whole_or_empty_costs_no_bytes_and_neighbours_are_one_part() -> None:
    assert list(parts(bitmap())) == [(ReceivedBitmap(0, TOTAL, False), b"")]
    assert list(parts(bitmap((0, TOTAL)))) == [(ReceivedBitmap(0, TOTAL, True), b"")]
    told = [part for part, _ in parts(bitmap((0, 33)))]
    assert told == [ReceivedBitmap(0, 32, True), ReceivedBitmap(32, 16, False), ReceivedBitmap(48, 16, False)]


def test_a_part_is_never_larger_than_it_may_be() -> None:
    total = 3 * X86_64.pages(Level.PUD)
    assert [part.count for part, _ in parts(PageBitmap(X86_64, total))] == [BITMAP_PAGES_MAX] * 3


def test_a_part_is_as_large_as_it_may_be_wherever_it_begins() -> None:
    told = PageBitmap(TINY, BITMAP_PAGES_MAX + 48)
    told.add(16, BITMAP_PAGES_MAX + 32)
    assert [part for part, _ in parts(told)] == [
        ReceivedBitmap(0, 16, False),
        ReceivedBitmap(16, BITMAP_PAGES_MAX, True),
        ReceivedBitmap(BITMAP_PAGES_MAX + 16, 32, True),
    ]


def test_a_hugetlb_page_received_in_rows_costs_little() -> None:
    told = PageBitmap(X86_64, X86_64.pages(Level.PUD))
    for first in range(0, told.total, 4096):
        told.add(first, 2048)
    ((part, payload),) = parts(told)
    assert len(payload) < 500
    reader = BitmapReader(X86_64, told.total)
    reader.take(part, payload)
    assert reader.received.pages == told.pages


@pytest.mark.parametrize(
    ("part", "payload"),
    [
        (ReceivedBitmap(0, 16, True), b""), (ReceivedBitmap(0, 32, True), b""),
        (ReceivedBitmap(0, 16, False), zlib.compress(b"\x01\x80")),
    ],
)  # fmt: skip
def test_what_was_never_sent_cannot_have_arrived(part: ReceivedBitmap, payload: bytes) -> None:
    sent = PageBitmap(TINY, 32)
    sent.add(0, 15)
    reader = BitmapReader(TINY, 32, sent)
    with pytest.raises(PeerError, match="of which some were never sent"):
        reader.take(part, payload)
    taken = BitmapReader(TINY, 32, sent)
    taken.take(ReceivedBitmap(0, 16, False), zlib.compress(b"\xff\x7f"))
    assert taken.received.set_pages == 15


def test_a_part_that_is_no_whole_number_of_bytes_speaks_of_no_page_behind_it() -> None:
    with pytest.raises(PeerError, match="the pages from 0 on speaks of pages behind them"):
        read((ReceivedBitmap(0, 12, False), zlib.compress(b"\xff\x10")))
    assert read((ReceivedBitmap(0, 12, False), zlib.compress(b"\xff\x0f"))).received.set_pages == 12


def test_a_payload_that_inflates_without_end_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(1 << 24))
    tracemalloc.start()
    try:
        with pytest.raises(PeerError, match="is not 2 bytes long"):
            read((ReceivedBitmap(0, 16, False), bomb))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


BITS = zlib.compress(b"\xff\x00")
LIES: list[tuple[str, list[tuple[ReceivedBitmap, bytes]], str]] = [
    ("not from the start", [(ReceivedBitmap(16, 16, True), b"")], "from 16 on came where 0 was due"),
    ("twice", [(ReceivedBitmap(0, 16, True), b"")] * 2, "from 0 on came where 16 was due"),
    ("a gap", [(ReceivedBitmap(0, 16, True), b""), (ReceivedBitmap(32, 16, True), b"")], "came where 16 was due"),
    ("no zlib", [(ReceivedBitmap(0, 16, False), b"\xff\xff")], "is not zlib"),
    ("cut", [(ReceivedBitmap(0, 16, False), BITS[:-1])], "is not 2 bytes long"),
    ("more behind", [(ReceivedBitmap(0, 16, False), BITS + b"x")], "is not 2 bytes long"),
    ("too short", [(ReceivedBitmap(0, 16, False), zlib.compress(b"x"))], "is not 2 bytes long"),
    ("a bomb", [(ReceivedBitmap(0, 16, False), zlib.compress(bytes(1 << 24)))], "is not 2 bytes long"),
]


@pytest.mark.parametrize(("said", "told"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_bitmap_that_lies_is_refused(said: list[tuple[ReceivedBitmap, bytes]], told: str) -> None:
    with pytest.raises(PeerError, match=told):
        read(*said)
