"""However the bytes of a stream are cut, the same is understood and the same lands; and no bytes do harm.

Every stream is fed whole, byte by byte, in drawn pieces, and with junk behind it (as in h11's reader tests). Landing is
the destination's: in place what has not been received, in scrap what has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, cycle
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dest_node.core.receiver import Receiver
from migemu.errors import PeerError
from migemu.mm.pages import TINY, Level, PageBitmap, PageIndex, PieceRun
from migemu.policy.collapse_policy import collapse_policies
from migemu.wire.codec import DIRECT_BYTES_MIN, STAGING_BYTES, FrameDecoder, encode, preamble
from migemu.wire.header import HEADER_BYTES_MAX
from migemu.wire.limits import Limits
from migemu.wire.messages import TAGS, Alive, DeviceState, Failed, Message, Page, Request, Zero
from tests.samples import PAGE, PAGES, SAMPLES, tiny_limits

LANDING_MAX = 64 * 1024


class Destination:
    """Where a stream arrives: a decoder over a receiver and its memory. `lent_max` is the most it was ever lent."""

    def __init__(self, payload_bytes_max: int = 1 << 20) -> None:
        self.receiver = Receiver(TINY, PAGES, collapse_policies.create("never", TINY), urgent_piece=Level.PTE)
        self.memory = memoryview(bytearray(PAGES * PAGE))
        self.scrap = memoryview(bytearray(LANDING_MAX))
        self.messages: list[tuple[Message, bytes]] = []
        self.lent_max = 0
        self.decoder = FrameDecoder(tiny_limits(payload_bytes_max), lambda message, payload_bytes: None, self.landing)

    def landing(self, page: Page, offset: int) -> memoryview:
        at, within = page.first + offset // PAGE, offset % PAGE
        until = self.receiver.fresh_until(at, page.first + page.count * TINY.pages(page.level))
        if until > at:
            return self.memory[at * PAGE + within : until * PAGE]
        return self.scrap[: PAGE - within]

    def arrive(self, run: PieceRun, *, zero: bool = False) -> None:
        for effect in self.receiver.arrived(run, 0, zero=zero):
            self.receiver.done(effect, 0, 0)

    def feed(self, data: bytes, sizes: Iterable[int]) -> Iterator[None]:
        """Receive `data` in pieces of at most `sizes`, yielding between two receives."""
        view, size = memoryview(data), iter(sizes)
        while view:
            buffer = self.decoder.get_buffer()
            assert len(buffer) > 0, "an empty buffer was lent"
            self.lent_max = max(self.lent_max, len(buffer))
            taken = min(len(buffer), len(view), next(size))
            buffer[:taken] = view[:taken]
            view = view[taken:]
            for message, payload in self.decoder.buffer_updated(taken):
                self.messages.append((message, payload))
                if isinstance(message, Page | Zero):
                    run = PieceRun(message.first, message.count, message.level)
                    self.arrive(run, zero=isinstance(message, Zero))
            yield

    def take(self, data: bytes, sizes: Iterable[int]) -> None:
        for _ in self.feed(data, sizes):
            pass

    def outcome(self) -> tuple[Any, ...]:
        """Everything that must not depend on how the bytes were cut."""
        return self.messages, bytes(self.memory), self.receiver.statistics(), self.decoder.mid_frame


def wire(message: Message, payload: bytes = b"") -> bytes:
    return b"".join(encode(message, payload or None))


def whole() -> Iterator[int]:
    return cycle([1 << 30])


# --- streams ---


@dataclass(frozen=True)
class Stream:
    """Some messages as bytes, and what they must leave in the memory."""

    data: bytes
    messages: list[Message]
    memory: bytes = field(repr=False)


def stream(parts: list[tuple[Message, int]]) -> Stream:
    """A stream of messages, payloads made of a number each; what comes twice counts as it came first."""
    data, memory, messages, received = [preamble()], bytearray(PAGES * PAGE), [], PageBitmap(TINY, PAGES)
    for message, seed in parts:
        payload = b""
        if isinstance(message, Page):
            payload = bytes([seed % 255 + 1]) * (message.count * TINY.size(message.level))
        elif isinstance(message, DeviceState):
            payload = (seed.to_bytes(4, "big") * (seed % 9000 + 1))[: seed % 36_000]
        if isinstance(message, Page | Zero):
            pages = message.count * TINY.pages(message.level)
            for first, count in list(received.clear_runs(message.first, pages)):
                at = (first - message.first) * PAGE
                memory[first * PAGE : (first + count) * PAGE] = payload[at : at + count * PAGE] or bytes(count * PAGE)
            received.add(message.first, pages)
        data.append(wire(message, payload))
        messages.append(message)
    return Stream(b"".join(data), messages, bytes(memory))


def runs(kind: type[Page | Zero]) -> st.SearchStrategy[Message]:
    small = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 9)).map(
        lambda run: kind(run[0], min(run[1], PAGES - run[0]), Level.PTE, False)
    )
    large = st.tuples(st.integers(0, 7), st.integers(1, 2)).map(
        lambda run: kind(run[0] * 4, min(run[1], 8 - run[0]), Level.PMD, False)
    )
    return small | large


others = st.sampled_from([Alive(), Request(3, 1, Level.PTE), Failed("x" * 3000), DeviceState(7)])
parts = st.lists(st.tuples(runs(Page) | runs(Zero) | others, st.integers(0, 2**32 - 1)), max_size=7)
sizes = st.lists(
    st.integers(1, 40) | st.integers(1, 5000) | st.sampled_from([PAGE - 1, PAGE, PAGE + 1, 16_384, 1 << 20]), min_size=1
)
junk = st.binary(min_size=1, max_size=30).filter(lambda data: data[0] > 0)  # a payload of 16 MiB at least

SAMPLE_STREAM = [(message, 300 + index) for index, (message, _) in enumerate(SAMPLES) if TAGS[type(message)] != 12]


def check(drawn: Stream, destination: Destination) -> None:
    assert [message for message, _ in destination.messages] == drawn.messages
    assert bytes(destination.memory) == drawn.memory
    assert not destination.decoder.mid_frame


@settings(max_examples=60)
@given(parts=parts, sizes=sizes, junk=junk)
@example(parts=SAMPLE_STREAM, sizes=[1], junk=b"\xff" * 30)
@example(parts=[(Page(0, PAGES, Level.PTE, False), 5)] * 2, sizes=[4099], junk=b"\x7f")
def test_a_stream_is_understood_however_it_is_cut(
    parts: list[tuple[Message, int]], sizes: list[int], junk: bytes
) -> None:
    """Whole, in the drawn pieces, and with junk behind: the same messages, payloads, bytes in place, and counts."""
    drawn = stream(parts)
    at_once = Destination()
    at_once.take(drawn.data, whole())
    check(drawn, at_once)
    for ways in (cycle(sizes), chain(sizes, whole()), chain([len(preamble()) + 1], cycle(sizes))):
        destination = Destination()
        destination.take(drawn.data, ways)
        assert destination.outcome() == at_once.outcome()
        assert destination.decoder.received_bytes == len(drawn.data)

    for ways in (whole(), cycle(sizes)):
        destination = Destination()
        try:
            destination.take(drawn.data + junk, ways)
            refused = False
        except PeerError:
            refused = True
        assert refused == (len(junk) >= 6)
        assert destination.outcome()[:3] == at_once.outcome()[:3]


@settings(max_examples=4)
@given(parts=parts)
@example(parts=SAMPLE_STREAM)
@example(parts=[(Page(1, 5, Level.PTE, False), 5), (Page(0, 2, Level.PMD, False), 6), (Alive(), 0)])
def test_a_stream_is_understood_byte_by_byte(parts: list[tuple[Message, int]]) -> None:
    drawn, destination = stream(parts), Destination()
    destination.take(drawn.data, cycle([1]))
    check(drawn, destination)


# --- two channels ---


@settings(max_examples=150)
@given(
    first=st.integers(0, PAGES - 8), count=st.integers(4, 8), level=st.sampled_from([Level.PTE, Level.PMD]),
    sizes=sizes, overtaking=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=10),
)  # fmt: skip
def test_what_overtakes_a_page_in_flight_is_not_landed_on(
    first: PageIndex, count: int, level: Level, sizes: list[int], overtaking: list[tuple[int, int]]
) -> None:
    """Pages that come on the other channel meanwhile are mapped, and the guest writes to them at once.

    `overtaking` are (after how many receives, which page). The late bytes of the run must land in scrap: every guest
    write is still there in the end, all other bytes are the source's.
    """
    if level is Level.PMD:
        first, count = first - first % 4, 2
    pages = count * TINY.pages(level)
    payload = b"".join(bytes([page + 1]) * PAGE for page in range(first, first + pages))
    destination = Destination()
    written: dict[PageIndex, int] = {}

    def overtake(step: int) -> None:
        for after, offset in overtaking:
            page = first + offset % pages
            if after == step and not destination.receiver.received.pages[page]:
                destination.memory[page * PAGE : (page + 1) * PAGE] = bytes([page + 1]) * PAGE
                destination.arrive(PieceRun(page, 1, Level.PTE))
                for at in (0, 1000, PAGE - 1):
                    destination.memory[page * PAGE + at] = 200
                written[page] = step

    data = preamble() + wire(Page(first, count, level, False), payload) + wire(Alive())
    for step, _ in enumerate(destination.feed(data, cycle(sizes))):
        overtake(step)
    assert [message for message, _ in destination.messages] == [Page(first, count, level, False), Alive()]
    for page in range(first, first + pages):
        expected = bytearray([page + 1]) * PAGE
        if page in written:
            for at in (0, 1000, PAGE - 1):
                expected[at] = 200
        assert destination.memory[page * PAGE : (page + 1) * PAGE] == expected, f"base page {page}, {written}"
    statistics = destination.receiver.statistics()
    assert statistics.pages_duplicate == len([page for page in written if first <= page < first + pages])
    assert statistics.pages_received == statistics.pages_mapped == pages
    assert statistics.pieces_4k + 4 * statistics.pieces_2m == pages


# --- hostile bytes ---

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
headers = (
    st.binary(max_size=40)
    | values.map(msgpack.packb)
    | st.tuples(st.integers(0, 17), st.lists(values, max_size=6)).map(lambda made: msgpack.packb([made[0], *made[1]]))
    | st.sampled_from([message for message, _ in SAMPLES]).map(lambda message: encode(message)[0][6:])
)
lengths = st.integers(0, 200) | st.sampled_from(
    [DIRECT_BYTES_MIN - 1, DIRECT_BYTES_MIN, PAGE, 4 * PAGE, 1 << 17, (1 << 17) + 1, 2**32 - 1]
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame that looks like one: any header, any announced lengths, right or wrong."""
    header = draw(headers)
    header_bytes = draw(st.just(len(header)) | st.sampled_from([0, 1, HEADER_BYTES_MAX, HEADER_BYTES_MAX + 1, 65_535]))
    payload_bytes = draw(lengths)
    payload = bytes(min(payload_bytes, 1 << 16, draw(lengths)))
    return payload_bytes.to_bytes(4, "big") + header_bytes.to_bytes(2, "big") + header + payload


hostile = st.binary(max_size=300) | st.lists(frames() | st.binary(max_size=20), max_size=4).map(b"".join)


@settings(max_examples=500)
@given(data=hostile, sizes=sizes, greeted=st.sampled_from([True, True, True, False]))
@example(data=b"\x00\x00\x3f\xff\x44\x00" + bytes(40_000), sizes=[70_000], greeted=True)
def test_any_bytes_are_messages_or_a_peer_error(data: bytes, sizes: list[int], greeted: bool) -> None:
    """Nothing else is raised, no empty buffer is lent, nothing beyond the limits is held, nothing lands outside."""
    payload_bytes_max = 1 << 17
    destination = Destination(payload_bytes_max)
    before = bytes(destination.memory)
    refused = False
    try:
        destination.take((preamble() if greeted else b"") + data, cycle(sizes))
    except PeerError as error:
        refused = True
        assert "\n" not in str(error)  # noqa: PT017 - any error but this one must escape as it is
    assert refused or len(destination.decoder.get_buffer()) > 0
    assert destination.lent_max <= max(STAGING_BYTES, payload_bytes_max, LANDING_MAX)
    if not any(isinstance(message, Page) for message, _ in destination.messages) and not destination.decoder.mid_frame:
        assert refused or bytes(destination.memory) == before
    for message, payload in destination.messages:
        assert len(payload) <= payload_bytes_max
        Limits(payload_bytes_max, geometry=TINY, memory_pages=PAGES).check(
            message, PAGE * message.count * TINY.pages(message.level) if isinstance(message, Page) else len(payload)
        )


@settings(max_examples=100)
@given(data=st.data(), parts=parts.filter(bool))
def test_a_stream_with_one_byte_changed_does_no_harm(data: st.DataObject, parts: list[tuple[Message, int]]) -> None:
    """It is understood up to the change at least; behind it, messages or a PeerError, and memory of its size."""
    drawn = stream(parts)
    at = data.draw(st.integers(0, min(len(drawn.data) - 1, 400)), label="at")
    changed = bytearray(drawn.data)
    changed[at] ^= data.draw(st.integers(1, 255), label="bits")
    destination = Destination()
    try:
        destination.take(bytes(changed), cycle(data.draw(sizes, label="sizes")))
    except PeerError:
        pass  # as it should be; what had been said before it is compared below
    position = len(preamble())
    for index, ((message, _), (understood, _)) in enumerate(zip(parts, destination.messages, strict=False)):
        position += len(encode(message)[0])
        if position > at:
            break
        assert understood == message, f"message {index} stood before the change"
        position += message.count * TINY.size(message.level) if isinstance(message, Page) else 0
        if isinstance(message, DeviceState):
            break


def test_the_junk_is_no_frame() -> None:
    """What the tests above take for junk is refused once its prefix is there, never before."""
    destination = Destination()
    destination.take(preamble() + b"\x01\x00\x00\x00\x00", cycle([1]))
    with pytest.raises(PeerError, match="is larger than the limit"):
        destination.take(b"\x00", cycle([1]))
