"""What is fuzzed: each target takes the bytes of an input (without its letter) and counts what came of it in a `Tally`.

An AssertionError, or any error that is not the peer's, is a finding.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Final

from dest_node.verification.integrity import check_seal
from migemu.checkpoint.format import decode
from migemu.checkpoint.write_log import HEADER_BYTES, RECORD_BYTES, encoded, parsed
from migemu.errors import PeerError
from migemu.mm.pages import TINY, Level, PieceRun
from migemu.wire.bitmap import BitmapReader
from migemu.wire.codec import STAGING_BYTES, FrameDecoder, preamble
from migemu.wire.header import decode_header
from migemu.wire.limits import Limits
from migemu.wire.messages import ChannelRole, Message, Page, ReceivedBitmap, Zero
from migemu.wire.seal import opened, sealed
from migemu.wire.states import Legality, Role, Stage
from tests.fuzz.conversation import judge_conversation
from tests.fuzz.nodes import judge_node
from tests.fuzz.strangers import judge_gate
from tests.fuzz.tally import Tally
from tests.samples import PAGE, PAGES

#: Those of a role. Their order is part of the corpus.
_STAGES: Final = (
    Stage.NONE, Stage.SETUP, Stage.ADVISE, Stage.LISTEN, Stage.PAUSED, Stage.RECOVER, Stage.RUNNING, Stage.END,
    Stage.FAILED,
)  # fmt: skip
PAYLOAD_BYTES_MAX: Final = 1 << 17
#: Where a stream begins: (who is heard, on which channel, the state of either role). Every one, reachable or not.
STARTS: Final = [
    (role, channel, source, there)
    for role, channel in (
        (Role.SOURCE, ChannelRole.MAIN),
        (Role.DESTINATION, ChannelRole.MAIN),
        (Role.SOURCE, ChannelRole.PREEMPT),
    )
    for source in _STAGES
    for there in _STAGES
]
STREAM_HEAD: Final = struct.Struct(">BBB")
#: Bits of the third byte of a stream: it has a preamble of its own; it is compared with the same bytes in one piece.
OWN_PREAMBLE, COMPARED = 1, 2
PART_HEAD: Final = struct.Struct(">QQBH")
BITMAP_PAGES: Final = 4096
_GUARD: Final = 4 * PAGE
_GUARDS: Final = b"\xee" * _GUARD
_MIGRATION: Final = "0" * 32
_LOG: Final = "log.1"


class Memory:
    """The guest's memory between two guards; only runs that were announced may be written."""

    def __init__(self) -> None:
        self.bytes = bytearray(_GUARDS + bytes(PAGES * PAGE) + _GUARDS)
        self.view = memoryview(self.bytes)
        self.announced: dict[int, None] = {}

    def landing(self, page: Page, offset: int) -> memoryview:
        end = page.first + page.count * TINY.pages(page.level)
        self.announced.update(dict.fromkeys(range(page.first, end)))
        return self.view[_GUARD + page.first * PAGE + offset : _GUARD + end * PAGE]

    def check(self) -> None:
        """Nothing else was written; then as new."""
        for page in self.announced:
            at = _GUARD + page * PAGE
            self.bytes[at : at + PAGE] = bytes(PAGE)
        self.announced.clear()
        if self.bytes != _UNTOUCHED:
            self.bytes[:] = _UNTOUCHED
            raise AssertionError("bytes landed outside of the run that was announced")


_UNTOUCHED: Final = _GUARDS + bytes(PAGES * PAGE) + _GUARDS
_MEMORY: Final = Memory()


class Listener:
    """One end of a connection: the decoder as the nodes use it, states and seals judged before anything lands."""

    def __init__(self, start: int) -> None:
        self.role, self.channel, source, there = STARTS[start % len(STARTS)]
        self.legality = Legality()
        self.legality.states = {Role.SOURCE: source, Role.DESTINATION: there}
        self.last: Message | None = None
        self.heard: list[tuple[Message, bytes]] = []
        self.landed = False
        limits = Limits(PAYLOAD_BYTES_MAX, geometry=TINY, memory_pages=PAGES)
        self.decoder = FrameDecoder(limits, self._announced, self._landing)

    def _announced(self, message: Message, payload_bytes: int) -> None:
        self.last = message
        self.legality.said(self.role, message, self.channel)
        if isinstance(message, Page | Zero) and message.digests:
            check_seal(message)
        assert payload_bytes <= PAYLOAD_BYTES_MAX

    def _landing(self, page: Page, offset: int) -> memoryview:
        assert self.role is Role.SOURCE, "a destination sends no pages"
        self.landed = True
        return _MEMORY.landing(page, offset)

    def feed(self, data: memoryview, sizes: Iterator[int]) -> PeerError | None:
        """All of `data`, in pieces of `sizes`; the error that ended it."""
        decoder = self.decoder
        while data:
            buffer = decoder.get_buffer()
            assert 0 < len(buffer) <= max(STAGING_BYTES, PAYLOAD_BYTES_MAX), "what was lent is empty, or too much"
            taken = min(len(buffer), len(data), next(sizes))
            buffer[:taken] = data[:taken]
            data = data[taken:]
            try:
                for frame in decoder.buffer_updated(taken):
                    self.heard.append(frame)
            except PeerError as error:
                return error
        assert len(self.heard) * 8 <= decoder.received_bytes, "more frames than bytes can hold"
        return None


def judge_stream(data: bytes, tally: Tally) -> None:
    """Three bytes that say how it begins and how it is cut, then the bytes of one direction of a connection."""
    if len(data) < STREAM_HEAD.size:
        return
    start, cut, flags = STREAM_HEAD.unpack_from(data)
    said = data[STREAM_HEAD.size :]
    view = memoryview(said if flags & OWN_PREAMBLE else preamble() + said)
    listener = Listener(start)
    error = listener.feed(view, _sizes(cut))
    for message, _ in listener.heard:
        tally.frame(type(message).__name__, "heard")
    if error is not None:
        tally.refused(error, type(listener.last).__name__ if listener.last is not None else "")
    elif listener.decoder.mid_frame:
        tally.outcomes["stream: cut within a frame"] += 1
    if listener.landed:
        _MEMORY.check()
    if flags & COMPARED:
        whole = Listener(start)
        same = whole.feed(view, repeat(len(view)))
        assert (whole.heard, _said(same)) == (listener.heard, _said(error)), "cut elsewhere, it means something else"
        if whole.landed:
            _MEMORY.check()


def _said(error: PeerError | None) -> str:
    """What an error says, but for the first bytes of a stranger, which it quotes as far as they have come."""
    return str(error).partition(" (its first bytes")[0]


def _sizes(cut: int) -> Iterator[int]:
    """How a stream is cut: in one piece, byte by byte, or in pieces that look drawn."""
    if cut == 0:
        return repeat(1 << 30)
    if cut < 16:
        return repeat(cut)
    return (1 + (number * cut * 2_654_435_761 >> 7) % (cut * 37) for number in count(1))


def judge_header(data: bytes, tally: Tally) -> None:
    """One header."""
    try:
        message = decode_header(data)
    except PeerError as error:
        tally.refused(error)
    else:
        tally.frame(type(message).__name__, "heard")


def judge_bitmap(data: bytes, tally: Tally) -> None:
    """Parts of a bitmap: first page, pages, full, bytes of the payload; then those bytes."""
    limits = Limits(PAYLOAD_BYTES_MAX, geometry=TINY, memory_pages=BITMAP_PAGES)
    reader, at, expected = BitmapReader(TINY, BITMAP_PAGES), 0, bytearray()
    while at + PART_HEAD.size <= len(data) and not reader.complete:
        first, pages, full, size = PART_HEAD.unpack_from(data, at)
        at += PART_HEAD.size
        part, payload = ReceivedBitmap(first & (1 << 63) - 1, pages & (1 << 63) - 1, bool(full & 1)), data[at:][:size]
        at += size
        try:
            limits.check(part, len(payload))
            reader.take(part, payload)
        except PeerError as error:
            tally.refused(error, "ReceivedBitmap")
            return
        bits = zlib.decompress(payload) if payload and not part.full else bytes(-(-part.count // 8))
        expected += bytes(part.full or bits[page >> 3] >> (page & 7) & 1 for page in range(part.count))
        tally.outcomes["bitmap: part taken"] += 1
    assert reader.received.pages[: len(expected)] == expected, "it was read otherwise than it was said"
    assert not any(reader.received.pages[len(expected) :])
    assert reader.complete == (len(expected) == BITMAP_PAGES)


def judge_seal(data: bytes, tally: Tally) -> None:
    """The place of a run, then digests with their seal."""
    if len(data) < 18:
        return
    first, pages, level, urgent = struct.unpack_from("<QQBB", data)
    run, digests = PieceRun(first, pages, Level.PMD if level & 1 else Level.PTE), data[18:]
    inside = opened(run, bool(urgent & 1), digests)
    assert inside is None or sealed(run, bool(urgent & 1), inside) == digests
    tally.outcomes["seal: broken" if inside is None else "seal: whole"] += 1


def judge_log(data: bytes, tally: Tally) -> None:
    """A log of guest writes. It has no errors: what is not whole does not count."""
    log = parsed(data, _LOG, _MIGRATION)
    if log is None:
        tally.outcomes["log: no header"] += 1
        return
    records = len(log.words.word)
    assert log.size == HEADER_BYTES + records * RECORD_BYTES <= len(data)
    assert encoded(log.words, _LOG, _MIGRATION)[HEADER_BYTES:] == data[HEADER_BYTES : log.size]
    tally.outcomes["log: whole" if log.size == len(data) else "log: up to a torn record"] += 1


def judge_checkpoint(data: bytes, tally: Tally) -> None:
    """A generation. ValueError says what is wrong with it; the other errors are those that its reader reckons with."""
    try:
        state = decode(data)
    except (ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        tally.outcomes[f"checkpoint: {type(error).__name__}"] += 1
    else:
        assert state.generation is not None
        tally.outcomes["checkpoint: read"] += 1


Target = Callable[[bytes, Tally], None]
#: The letter of an input -> its name and what judges it.
TARGETS: Final[dict[int, tuple[str, Target]]] = {
    ord("S"): ("stream", judge_stream),
    ord("H"): ("header", judge_header),
    ord("T"): ("talk", judge_conversation),
    ord("B"): ("bitmap", judge_bitmap),
    ord("G"): ("gate", judge_gate),
    ord("E"): ("seal", judge_seal),
    ord("L"): ("log", judge_log),
    ord("C"): ("checkpoint", judge_checkpoint),
    ord("N"): ("node", judge_node),
}


def judge(data: bytes, tally: Tally) -> None:
    """One input, letter and all. An input without a known letter is none."""
    name, target = TARGETS.get(data[0] if data else 0, ("", None))
    if target is not None:
        tally.inputs[name] += 1
        target(data[1:], tally)
