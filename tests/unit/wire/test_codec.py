"""The codec: every message there and back, in the right order, to the right place."""

from __future__ import annotations

import msgpack
import pytest

from migemu.errors import PeerError, VersionError
from migemu.mm.pages import TINY, Level
from migemu.wire.codec import DIRECT_BYTES_MIN, STAGING_BYTES, Frame, FrameDecoder, encode, frames_of, preamble
from migemu.wire.header import HEADER_BYTES_MAX, TEXT_BYTES_MAX, decode_header, encode_head
from migemu.wire.limits import Limits
from migemu.wire.messages import (
    PROTOCOL_VERSION,
    TAGS,
    Advise,
    Alive,
    ChannelRole,
    Complete,
    DeviceState,
    End,
    Failed,
    Hello,
    Message,
    Page,
    Request,
    Run,
)  # fmt: skip
from tests.samples import MIGRATION, PAGE, PAGES, SAMPLES, tiny_limits
from tests.unit.wire.stream import Receiver, raw, refused, wire

# --- there and back ---


def test_the_samples_hold_every_message() -> None:
    assert {type(message) for message, _ in SAMPLES} == set(TAGS)
    assert sorted(TAGS.values()) == list(range(1, len(TAGS) + 1))


@pytest.mark.parametrize(("message", "payload"), SAMPLES, ids=lambda value: type(value).__name__)
def test_every_message_comes_back_as_it_was(message: Message, payload: bytes) -> None:
    """The type, every field and its type, the payload: a page's in the memory, any other's in the frame."""
    receiver = Receiver()
    (frame,) = receiver.feed(preamble(), wire(message, payload))
    assert frame.message == message
    assert type(frame.message) is type(message)
    assert [type(field) for field in frame.message] == [type(field) for field in message]
    assert receiver.announced == [(message, len(payload))]
    if isinstance(message, Page):
        assert frame.payload == b""
        assert bytes(receiver.memory[message.first * PAGE :][: len(payload)]) == payload
        assert bytes(receiver.memory).count(0) >= len(receiver.memory) - len(payload), "bytes landed elsewhere"
    else:
        assert frame.payload == payload
    assert not receiver.decoder.mid_frame


def test_all_of_them_in_a_row() -> None:
    receiver = Receiver()
    data = preamble() + b"".join(wire(*sample) for sample in SAMPLES)
    assert [frame.message for frame in receiver.feed(data)] == [message for message, _ in SAMPLES]
    assert receiver.decoder.received_bytes == len(data)


@pytest.mark.parametrize(("message", "payload"), SAMPLES, ids=lambda value: type(value).__name__)
def test_a_head_is_the_frame_without_its_payload(message: Message, payload: bytes) -> None:
    assert encode_head(message, len(payload)) + payload == wire(message, payload)
    assert decode_header(encode_head(message, len(payload))[6:]) == message


class Placeholder:
    """A payload that knows nothing but its length."""

    def __len__(self) -> int:
        return 123


def test_a_payload_passes_through_untouched() -> None:
    """The very object comes back: a view of the guest's page, or a placeholder that has no bytes at all."""
    for payload in (Placeholder(), memoryview(bytearray(PAGE)), b"abc"):
        buffers = encode(DeviceState(0), payload)
        assert len(buffers) == 2
        assert buffers[1] is payload
        assert int.from_bytes(buffers[0][:4], "big") == len(payload)
    assert len(encode(Alive())) == 1


@pytest.mark.parametrize(
    "message",
    [
        Failed("x" * TEXT_BYTES_MAX),
        Complete(False, "d" * TEXT_BYTES_MAX, "r" * TEXT_BYTES_MAX),
        Advise("x86_64", 2**63 - 1, 2**63 - 1, 2**63 - 1, True, "s" * TEXT_BYTES_MAX),
        End(2**63 - 1, 2**63 - 1, 2**63 - 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_longest_headers_pass(message: Message) -> None:
    assert len(encode_head(message, 0)) <= HEADER_BYTES_MAX + 6
    assert Receiver().feed(preamble(), wire(message)) == [Frame(message, b"")]


@pytest.mark.parametrize("payload_bytes", [1, DIRECT_BYTES_MIN - 1, DIRECT_BYTES_MIN])
@pytest.mark.parametrize("text_bytes", [TEXT_BYTES_MAX // 2, TEXT_BYTES_MAX])
def test_the_longest_head_before_a_small_payload_finds_room(text_bytes: int, payload_bytes: int) -> None:
    """Together they exceed the staging buffer: the head must be judged without waiting for the payload."""
    header = msgpack.packb([TAGS[Complete], True, "d" * text_bytes, "r" * text_bytes])
    answer = refused(raw(header, payload_bytes) + bytes(payload_bytes))
    assert answer == f"Complete carries {payload_bytes} bytes of payload; it has none"


# --- the preamble ---


@pytest.mark.parametrize("data", [b"GET / HT", b"MIGEMv\x00\x01", b"\x00", b"migemu\x00\x01", b"QEVM\x00\x00\x00\x03"])
def test_a_stranger_is_recognised_by_its_first_bytes(data: bytes) -> None:
    with pytest.raises(PeerError, match="the peer does not speak migemu") as error:
        Receiver().feed(data)
    assert not isinstance(error.value, VersionError)
    assert str(error.value) == f"the peer does not speak migemu (its first bytes are {data[:8]!r})"


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            "it speaks TLS: set security.certificate and security.authority here too",
        ),
        (
            b"\x15\x03\x03\x00\x02\x02\x28\x00",
            "it speaks TLS: set security.certificate and security.authority here too",
        ),
        (b"MIGEPSK\x01", "it wants a pre-shared key: set security.psk_file here too"),
    ],
)
def test_one_of_ours_with_other_security_is_told_what_to_set(data: bytes, hint: str) -> None:
    with pytest.raises(PeerError) as error:
        Receiver().feed(data)
    assert str(error.value) == f"the peer does not speak migemu (its first bytes are {data!r}); {hint}"


@pytest.mark.parametrize(
    ("version", "age"), [(PROTOCOL_VERSION - 1, "an older"), (PROTOCOL_VERSION + 1, "a newer"), (65535, "a newer")]
)
def test_another_version_is_named_together_with_ours(version: int, age: str) -> None:
    with pytest.raises(VersionError) as error:
        Receiver().feed(preamble(version))
    assert f"speaks {age} version" in str(error.value)
    assert f"version {version} there, version {PROTOCOL_VERSION} here" in str(error.value)


def test_the_preamble_may_come_in_pieces() -> None:
    receiver = Receiver()
    for byte in preamble():
        assert receiver.decoder.mid_frame
        assert receiver.feed(bytes([byte])) == []
    assert not receiver.decoder.mid_frame
    assert receiver.feed(wire(Alive())) == [Frame(Alive(), b"")]


# --- truncation ---


@pytest.mark.parametrize(("message", "payload"), SAMPLES, ids=lambda value: type(value).__name__)
def test_a_stream_that_ends_within_a_frame_is_known_to(message: Message, payload: bytes) -> None:
    data = wire(message, payload)
    for cut in {1, 5, 6, len(data) // 2, len(data) - 1} & set(range(1, len(data))):
        receiver = Receiver()
        assert receiver.feed(preamble(), data[:cut]) == []
        assert receiver.decoder.mid_frame, f"after {cut} bytes of {len(data)}"


def test_a_stream_that_has_not_greeted_is_within_a_frame() -> None:
    assert Receiver().decoder.mid_frame


# --- the order of judgement ---


def test_a_frame_is_judged_before_its_payload_lands() -> None:
    """What `announced` raises comes before the first byte is anywhere."""
    landed: list[int] = []

    def refuse(message: Message, payload_bytes: int) -> None:
        raise PeerError(f"no {type(message).__name__}")

    def landing(page: Page, offset: int) -> memoryview:
        landed.append(offset)
        return memoryview(bytearray(PAGE))

    decoder = FrameDecoder(tiny_limits(), refuse, landing)
    with pytest.raises(PeerError, match="no Page"):
        list(frames_of(decoder, preamble() + wire(Page(0, 8, Level.PTE, False), bytes(8 * PAGE))))
    assert landed == []


def test_limits_are_judged_before_the_frame_is_announced() -> None:
    receiver = Receiver()
    with pytest.raises(PeerError, match="outside the memory"):
        receiver.feed(preamble(), wire(Page(PAGES, 1, Level.PTE, False), bytes(PAGE)))
    assert receiver.announced == []


def test_frames_before_a_broken_one_are_handed_out_first() -> None:
    """However the bytes are cut: what was in order before the mistake has been said."""
    seen: list[Frame] = []
    data = preamble() + wire(Failed("the disk is full")) + wire(DeviceState(0), b"x" * 100) + raw([99])

    def read_all() -> None:
        for frame in frames_of(Receiver().decoder, data):
            seen.append(frame)  # noqa: PERF402 - a list made of them would be lost with the error

    with pytest.raises(PeerError, match="known message"):
        read_all()
    assert seen == [Frame(Failed("the disk is full"), b""), Frame(DeviceState(0), b"x" * 100)]


def test_a_message_is_handed_out_before_the_next_one_is_judged() -> None:
    """What a message changes at its receiver (a state, the memory's size) counts for the next, in one receive too."""
    limits = Limits(1 << 20, geometry=TINY)
    decoder = FrameDecoder(limits, lambda message, payload_bytes: None, lambda page, offset: memoryview(bytearray()))
    messages = []
    for message, _ in frames_of(decoder, preamble() + wire(Run()) + wire(Request(0, 1, Level.PTE))):
        messages.append(message)
        limits.memory_pages = PAGES
    assert messages == [Run(), Request(0, 1, Level.PTE)]


# --- where bytes are received ---


def test_a_large_page_is_received_in_place() -> None:
    """Its head through the staging buffer, the rest where it belongs; small pages through the staging buffer."""
    receiver = Receiver()
    receiver.feed(preamble(), encode_head(Page(8, 8, Level.PTE, False), 8 * PAGE))
    buffer = receiver.decoder.get_buffer()
    assert len(buffer) == 8 * PAGE
    buffer[:3] = b"abc"
    assert bytes(receiver.memory[8 * PAGE : 8 * PAGE + 3]) == b"abc"
    assert list(receiver.decoder.buffer_updated(3)) == []
    assert len(receiver.decoder.get_buffer()) == 8 * PAGE - 3

    small = Receiver()
    small.feed(preamble(), encode_head(Page(8, 1, Level.PTE, False), PAGE))
    assert len(small.decoder.get_buffer()) > STAGING_BYTES - 100


@pytest.mark.parametrize("chunk", [1000, 7001, STAGING_BYTES])
def test_a_large_payload_of_another_message_may_come_in_pieces(chunk: int) -> None:
    payload = bytes(each * 31 % 251 for each in range(3 * STAGING_BYTES))
    stream = memoryview(preamble() + wire(DeviceState(0), payload) + wire(Alive()))
    receiver, frames = Receiver(), []
    for start in range(0, len(stream), chunk):
        frames += receiver.feed(bytes(stream[start : start + chunk]))
    assert frames == [Frame(DeviceState(0), payload), Frame(Alive(), b"")]


@pytest.mark.parametrize("shift", range(40))
def test_wherever_the_staging_buffer_ends_the_next_frame_has_room(shift: int) -> None:
    """In a prefix, a header, a small payload, and between two frames: what is left moves to the front."""
    state = [Frame(DeviceState(20 * number), bytes([number % 256]) * 20) for number in range(3000)]
    stream = preamble() + wire(Failed("x" * shift, False)) + b"".join(wire(*frame) for frame in state)
    assert Receiver().feed(stream) == [Frame(Failed("x" * shift, False), b""), *state]


def test_a_header_may_be_as_long_as_its_limit() -> None:
    message = Failed("why" * 100, False)
    limits = tiny_limits()
    limits.header_bytes_max = len(encode_head(message, 0)) - 6
    assert Receiver(limits).feed(preamble(), wire(message)) == [Frame(message, b"")]
    limits.header_bytes_max -= 1
    assert "is larger than the limit" in refused(wire(message), limits)


def test_a_landing_may_be_as_short_as_it_likes() -> None:
    memory = bytearray(PAGES * PAGE)
    view = memoryview(memory)

    def landing(page: Page, offset: int) -> memoryview:
        return view[page.first * PAGE + offset : (page.first + page.count) * PAGE][: 1 + offset % 700]

    payload = bytes(range(256)) * 16 * 8
    decoder = FrameDecoder(tiny_limits(), lambda message, payload_bytes: None, landing)
    page = Page(3, 8, Level.PTE, False)
    frames = list(frames_of(decoder, preamble() + wire(page, payload) + wire(Alive())))
    assert [frame.message for frame in frames] == [page, Alive()]
    assert memory[3 * PAGE : 11 * PAGE] == payload
    assert memory.count(0) == len(memory) - len(payload) + payload.count(0)


def test_hello_names_the_migration() -> None:
    assert decode_header(encode_head(Hello(ChannelRole.PREEMPT, MIGRATION), 0)[6:]) == Hello(
        ChannelRole.PREEMPT, MIGRATION
    )
