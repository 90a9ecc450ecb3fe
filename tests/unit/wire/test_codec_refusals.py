"""Every way in which the bytes of a peer can be wrong, and what it is told."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from migemu.errors import PeerError
from migemu.mm.pages import TINY, X86_64, Level
from migemu.wire.codec import preamble
from migemu.wire.header import HEADER_BYTES_MAX, TEXT_BYTES_MAX, decode_header, encode_head
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    TAGS,
    Advise,
    Agreed,
    ChannelRole,
    Complete,
    DeviceState,
    Digests,
    End,
    Failed,
    Hello,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Request,
    Zero,
)  # fmt: skip
from tests.samples import PAGE, PAGES, SAMPLES, tiny_limits
from tests.unit.wire.stream import Receiver, raw, refused, wire, with_extra

MIB64 = 64 << 20

# --- headers ---


@pytest.mark.parametrize(
    "header",
    [
        b"", b"\xc1", b"\x92", b"\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\xc7\xff\x05", b"\x91" * 2000,
        b"\x81\x90\x01", msgpack.packb([14]) + b"\x00", msgpack.packb([14, {"a": list(range(65))}]),
        msgpack.packb([14, {str(each): 0 for each in range(65)}]),
    ],
    ids=lambda header: header[:4].hex() or "empty",
)  # fmt: skip
def test_a_header_that_is_not_msgpack(header: bytes) -> None:
    assert f"a header of {len(header)} bytes is not msgpack" in refused(raw(header))


@pytest.mark.parametrize(
    "values", [{}, 14, "Alive", None, [], [0], [21], [-1], [True], [14.0], ["14"], [[14]], [None, 14]], ids=repr
)
def test_a_header_without_the_tag_of_a_known_message(values: Any) -> None:
    assert "does not begin with the tag of a known message" in refused(raw(values))


@pytest.mark.parametrize("kind", TAGS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("extra", [-1, 1, 40])
def test_a_field_too_few_or_too_many(kind: type[Message], extra: int) -> None:
    fields = len(kind._fields)
    if fields + extra < 0:
        extra = 2
    expected = f"{kind.__name__} has {fields + extra} fields instead of {fields}"
    assert expected in refused(raw([TAGS[kind], *[0] * (fields + extra)]))


NOT_INTEGERS: list[Any] = [-1, 2**63, True, False, 1.0, "1", b"1", None, [1], {}, msgpack.Timestamp(1)]
NOT_BOOLEANS: list[Any] = [0, 1, "true", None, 1.0, []]
NOT_LEVELS: list[Any] = [1, 3, 4, 5, -2, 2.0, 0.0, False, True, "PTE", None, [0]]
NOT_DIGESTS: list[Any] = [b"1234567", b"123456789", "12345678", None, 0, [b"12345678"]]
NOT_TEXTS: list[Any] = [b"text", 1, None, ["text"], "x" * (TEXT_BYTES_MAX + 1)]
NOT_NAMES: list[Any] = ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n", 1, None, b"0" * 32]
WRONG: list[tuple[type[Message], str, list[Any]]] = [
    (Hello, "channel", ["", "MAIN", "third", 1, None, b"main", ["main"]]),
    (Hello, "migration", NOT_NAMES),
    (Hello, "again", NOT_BOOLEANS),
    (Advise, "geometry", ["", "X86_64", "riscv", 1, None, ["x86_64"]]),
    (Advise, "memory_bytes", NOT_INTEGERS), (Advise, "image_bytes", NOT_INTEGERS),
    (Advise, "device_state_bytes", NOT_INTEGERS), (Advise, "preempt", NOT_BOOLEANS), (Advise, "scenario", NOT_TEXTS),
    (Ready, "migration", NOT_NAMES),
    (DeviceState, "offset", NOT_INTEGERS),
    (Request, "first", NOT_INTEGERS), (Request, "count", NOT_INTEGERS), (Request, "level", NOT_LEVELS),
    (Request, "again", NOT_BOOLEANS),
    (Page, "first", NOT_INTEGERS), (Page, "count", NOT_INTEGERS), (Page, "level", NOT_LEVELS),
    (Page, "urgent", NOT_BOOLEANS), (Page, "digests", NOT_DIGESTS),
    (Zero, "first", NOT_INTEGERS), (Zero, "count", NOT_INTEGERS), (Zero, "level", NOT_LEVELS),
    (Zero, "urgent", NOT_BOOLEANS), (Zero, "digests", NOT_DIGESTS),
    (End, "pages", NOT_INTEGERS), (End, "wire_bytes", NOT_INTEGERS), (End, "downtime_ns", NOT_INTEGERS),
    (Digests, "first", NOT_INTEGERS), (Digests, "seal", NOT_DIGESTS),
    (Complete, "verified", NOT_BOOLEANS), (Complete, "digest", NOT_TEXTS), (Complete, "reason", NOT_TEXTS),
    (Failed, "reason", NOT_TEXTS), (Failed, "over", NOT_BOOLEANS),
    (ReceivedBitmap, "first", NOT_INTEGERS), (ReceivedBitmap, "count", NOT_INTEGERS),
    (ReceivedBitmap, "full", NOT_BOOLEANS),
    (Agreed, "pages", NOT_INTEGERS), (Agreed, "digest", NOT_TEXTS), (Agreed, "pages_lost", NOT_INTEGERS),
]  # fmt: skip


def test_the_table_of_wrong_values_has_every_field() -> None:
    assert [(kind, name) for kind, name, _ in WRONG] == [(kind, name) for kind in TAGS for name in kind._fields]


def _sample(kind: type[Message]) -> Message:
    return next(message for message, _ in SAMPLES if type(message) is kind)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, name, values in WRONG for value in values],
    ids=lambda value: getattr(value, "__name__", repr(value)[:20]),
)
def test_a_field_of_the_wrong_type_or_range_is_named(kind: type[Message], name: str, value: Any) -> None:
    values = [field.value if isinstance(field, ChannelRole) else field for field in _sample(kind)]
    values[kind._fields.index(name)] = value
    with pytest.raises(PeerError) as error:
        decode_header(msgpack.packb([TAGS[kind], *values]))
    assert str(error.value).startswith(f"{kind.__name__}.{name} ")


@pytest.mark.parametrize(
    ("kind", "name", "value", "problem"),
    [
        (Hello, "channel", 1, "is not a channel role"),
        (Hello, "channel", "third", "'third' is not a valid ChannelRole"),
        (Hello, "migration", "g" * 32, "is not 32 hexadecimal digits"),
        (Hello, "again", 1, "is not a boolean"),
        (Advise, "geometry", "riscv", "is not one of x86_64, arm64_4k, tiny"),
        (Advise, "scenario", 1, "is not a text of reasonable length"),
        (Page, "first", -1, "is not an integer from 0 to 2**63-1"),
        (Page, "level", 1, "is not a piece size (0 for PTE, 2 for PMD)"),
        (Page, "digests", b"1", "is not bytes in digests of 8"),
    ],
)
def test_a_wrong_field_is_told_what_it_is_not(kind: type[Message], name: str, value: Any, problem: str) -> None:
    values = [field.value if isinstance(field, ChannelRole) else field for field in _sample(kind)]
    values[kind._fields.index(name)] = value
    assert refused(raw([TAGS[kind], *values])) == f"{kind.__name__}.{name} {problem}"


def test_a_header_that_is_not_msgpack_is_told_how() -> None:
    assert refused(raw(b"\xc1")) == "a header of 1 bytes is not msgpack (FormatError)"
    assert refused(raw(b"\xa1\xff")) == "a header of 2 bytes is not msgpack (UnicodeDecodeError)"


def test_the_largest_values_pass() -> None:
    for message in (End(2**63 - 1, 0, 0), Failed("x" * TEXT_BYTES_MAX, False), Page(0, 1, Level.PMD, True, bytes(16))):
        assert decode_header(encode_head(message, 0)[6:]) == message


def test_a_message_of_another_version_is_told_what_to_do() -> None:
    answer = "a header does not begin with the tag of a known message"
    assert refused(raw([21])) == f"{answer} (it is 21); run the same migemu on both sides"
    assert refused(raw(["14"])) == answer


def test_lengths_within_lengths_set_no_memory_aside() -> None:
    """Each of these arrays announces 16384 elements, the next one being the first of them."""
    header = b"\xdc\x40\x00" * 1000
    tracemalloc.start()
    try:
        assert "is not msgpack" in refused(raw(header))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- fields that this version does not know ---


@pytest.mark.parametrize("message", [m for m, payload in SAMPLES if not payload], ids=lambda m: type(m).__name__)
def test_extra_fields_are_passed_over(message: Message) -> None:
    receiver = Receiver()
    (frame,) = receiver.feed(preamble(), with_extra(message, {"colour": "blue", "sizes": [1, {"a": 2}]}))
    assert frame.message == message


@pytest.mark.parametrize("message", [m for m, payload in SAMPLES if not payload], ids=lambda m: type(m).__name__)
def test_an_extra_field_that_must_be_known_is_refused_by_name(message: Message) -> None:
    answer = refused(with_extra(message, {"colour": 1, "sparse!": True}))
    assert f"{type(message).__name__} has the field 'sparse!', which this side must know" in answer


def test_extra_fields_have_names_and_there_are_few() -> None:
    assert "is not msgpack" in refused(with_extra(Agreed(1, "", 0), {1: 2}))
    assert "without a name" in refused(with_extra(Agreed(1, "", 0), {b"x": 2}))
    many = {str(each): 0 for each in range(17)}
    assert refused(with_extra(Agreed(1, "", 0), many)) == "Agreed has 17 extra fields; 16 are the most"
    del many["0"]
    assert len(Receiver().feed(preamble(), with_extra(Agreed(1, "", 0), many))) == 1


def test_of_a_long_name_forty_letters_are_told() -> None:
    assert refused(with_extra(Agreed(1, "", 0), {"x" * 50 + "!": 0})) == (
        f"Agreed has the field '{'x' * 40}', which this side must know and does not; run the same migemu on both sides"
    )


# --- limits ---


@pytest.mark.parametrize(
    ("first", "count", "full", "payload_bytes"),
    [
        (0, 0, True, 0), (0, 15, True, 0), (8, 16, True, 0), (32, 16, True, 0), (16, 32, False, 0), (0, 2**62, True, 0),
        (0, 16, True, 1), (0, 16, False, 67),
    ],
)  # fmt: skip
def test_a_bitmap_that_does_not_fit_the_memory(first: int, count: int, full: bool, payload_bytes: int) -> None:
    answer = refused(raw(encode_head(ReceivedBitmap(first, count, full), 0)[6:], payload_bytes) + bytes(payload_bytes))
    assert f"ReceivedBitmap of {count} pages from {first} on with {payload_bytes} bytes does not fit" in answer


def test_a_bitmap_as_large_as_it_may_be_fits() -> None:
    Limits(1 << 20, geometry=TINY, memory_pages=16).check(ReceivedBitmap(0, 16, False), 2 + 64)
    hugepage = X86_64.pages(Level.PUD)
    limits = Limits(1 << 20, geometry=X86_64, memory_pages=2 * hugepage)
    limits.check(ReceivedBitmap(hugepage, hugepage, False), hugepage // 8 + 64)
    with pytest.raises(PeerError, match="ReceivedBitmap of 524288 pages"):
        limits.check(ReceivedBitmap(0, 2 * hugepage, True), 0)


@pytest.mark.parametrize("digests", [8, 24, 32])
def test_digests_that_are_not_one_a_page_and_the_seal(digests: int) -> None:
    message = Page(0, 1, Level.PTE, False, bytes(digests))
    answer = refused(raw(encode_head(message, 0)[6:], PAGE) + bytes(PAGE))
    assert answer == "Page at page 0 has not one digest a base page"


@pytest.mark.parametrize(
    "message",
    [m for m, payload in SAMPLES if not payload and type(m) is not ReceivedBitmap],
    ids=lambda m: type(m).__name__,
)
def test_a_payload_where_none_belongs(message: Message) -> None:
    answer = refused(raw(encode_head(message, 0)[6:], 5) + b"bytes")
    assert answer == f"{type(message).__name__} carries 5 bytes of payload; it has none"


@pytest.mark.parametrize("kind", [Request, Page, Zero], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("first", "count", "level"),
    [
        (0, 0, Level.PTE), (0, 0, Level.PMD), (PAGES, 1, Level.PTE), (PAGES - 1, 2, Level.PTE),
        (0, PAGES + 1, Level.PTE), (1, 1, Level.PMD), (2, 1, Level.PMD), (PAGES - 4, 2, Level.PMD),
        (PAGES, 1, Level.PMD), (2**63 - 1, 1, Level.PTE), (0, 2**63 - 1, Level.PTE), (0, 2**63 - 1, Level.PMD),
    ],
)  # fmt: skip
def test_pieces_that_are_empty_or_not_aligned_or_outside(
    kind: type[Request | Page | Zero], first: int, count: int, level: Level
) -> None:
    head = msgpack.packb([TAGS[kind], first, count, level, False, *([b""] if kind is not Request else [])])
    payload = bytes(PAGE) if kind is Page else b""
    answer = refused(raw(head, len(payload)) + payload)
    problem = f"{kind.__name__} of {count} x {TINY.size(level)} bytes at page {first} is empty, not aligned, or outside"
    assert problem in answer


@pytest.mark.parametrize(
    ("message", "most"),
    [
        (Request(0, 17, Level.PTE), 16), (Request(0, 5, Level.PMD), 16), (Zero(0, 17, Level.PTE, False), 16),
        (Zero(0, 5, Level.PMD, False), 16), (Request(0, 5, Level.PTE, True), 4), (Request(0, 2, Level.PMD, True), 4),
        (Zero(4, 17, Level.PTE, False), 16),
    ],
)  # fmt: skip
def test_pieces_that_are_more_than_a_frame_or_a_hugetlb_page_could_hold(message: Request | Zero, most: int) -> None:
    pages = message.count * TINY.pages(message.level)
    answer = refused(raw(encode_head(message, 0)[6:]), tiny_limits(4 * PAGE))
    assert (
        answer
        == f"{type(message).__name__} at page {message.first} is of {pages} base pages at once; {most} are the most"
    )
    fits = message._replace(count=message.count - 1)
    assert [frame.message for frame in Receiver(tiny_limits(4 * PAGE)).feed(preamble(), wire(fits))] == [fits]


@pytest.mark.parametrize("kind", [Request, Page, Zero], ids=lambda kind: kind.__name__)
def test_no_piece_is_inside_a_memory_that_is_not_known_yet(kind: type[Request | Page | Zero]) -> None:
    head = msgpack.packb([TAGS[kind], 0, 1, 0, False, *([b""] if kind is not Request else [])])
    payload = bytes(PAGE) if kind is Page else b""
    answer = refused(raw(head, len(payload)) + payload, Limits(1 << 20))
    assert "outside the memory of 0 pages" in answer


@pytest.mark.parametrize(("count", "level"), [(1, Level.PTE), (3, Level.PTE), (1, Level.PMD), (2, Level.PMD)])
@pytest.mark.parametrize("difference", [-1, 1, -PAGE, PAGE])
def test_a_page_whose_payload_is_not_its_pieces_size(count: int, level: Level, difference: int) -> None:
    size = count * TINY.size(level)
    answer = refused(raw(encode_head(Page(0, count, level, False), 0)[6:], size + difference) + bytes(size + PAGE))
    assert answer == f"Page at page 0 carries {size + difference} bytes, not its pieces' size"


def test_pieces_up_to_the_last_page_pass() -> None:
    limits = tiny_limits()
    for level in (Level.PTE, Level.PMD):
        count = PAGES // TINY.pages(level)
        limits.check(Page(0, count, level, False), PAGES * PAGE)
        limits.check(Zero(PAGES - TINY.pages(level), 1, level, False), 0)
        limits.check(Request(0, count, level), 0)


@pytest.mark.parametrize(
    ("first", "payload_bytes"), [(1, 128), (8, 128), (PAGES, 128), (0, 127), (0, 136), (0, 0), (16, 256)]
)
def test_digests_that_do_not_fit_a_hugetlb_page(first: int, payload_bytes: int) -> None:
    answer = refused(raw(encode_head(Digests(first), 0)[6:], payload_bytes) + bytes(payload_bytes))
    assert answer == f"Digests at page {first} do not fit a hugetlb page of this memory"


@pytest.mark.parametrize(
    ("payload_bytes", "header_bytes"), [(1001, 2), (2**32 - 1, 2), (0, HEADER_BYTES_MAX + 1), (2**32 - 1, 65535)]
)
def test_a_frame_above_the_limits_is_refused_by_its_prefix(payload_bytes: int, header_bytes: int) -> None:
    """Before its header is there, and before anything is allocated for it."""
    prefix = payload_bytes.to_bytes(4, "big") + header_bytes.to_bytes(2, "big")
    answer = refused(prefix, tiny_limits(1000))
    assert f"a frame of {header_bytes}+{payload_bytes} bytes is larger than the limit of" in answer
    assert answer.endswith(
        f" {HEADER_BYTES_MAX}+1000; limits.frame_bytes_max on this side must not be below the other side's push.run"
    )


def test_what_is_announced_is_allocated_once_and_no_more() -> None:
    """A peer that announces the largest payload and sends none of it costs that payload, never more."""
    receiver = Receiver(Limits(MIB64, geometry=X86_64, memory_pages=X86_64.pages(Level.PUD)))
    receiver.feed(preamble())
    tracemalloc.start()
    try:
        receiver.feed(encode_head(DeviceState(0), MIB64))
        assert tracemalloc.get_traced_memory()[1] < MIB64 + (1 << 19)
        tracemalloc.reset_peak()
        with pytest.raises(PeerError):
            Receiver(Limits(MIB64)).feed(preamble(), encode_head(DeviceState(0), MIB64 + 1))
        assert tracemalloc.get_traced_memory()[1] < MIB64 + (1 << 19)
    finally:
        tracemalloc.stop()
    assert len(receiver.decoder.get_buffer()) == MIB64
