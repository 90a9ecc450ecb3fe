"""Honest inputs, to be changed: what each target takes when nobody lies. And the corpus in files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final

import numpy as np

from migemu.checkpoint.format import DirectoryState as Generation
from migemu.checkpoint.format import Identity, encode
from migemu.checkpoint.write_log import Words, encoded
from migemu.errors import PeerError
from migemu.mm.pages import TINY, Level, PageBitmap, PieceRun
from migemu.transport.security.psk import PskEnd
from migemu.wire.bitmap import parts
from migemu.wire.codec import encode as frame
from migemu.wire.messages import (
    Advise,
    Agreed,
    ChannelRole,
    Complete,
    DeviceState,
    Hello,
    Listen,
    Message,
    Page,
    Ready,
    ReceivedBitmap,
    Recover,
    Request,
    Resume,
    Resumed,
    Run,
    Running,
)  # fmt: skip
from migemu.wire.messages import End as Ended
from migemu.wire.seal import sealed
from migemu.wire.states import Legality, Role, Stage
from tests.fuzz.conversation import LOST_MAIN, event
from tests.fuzz.mutation import Part, parts_of
from tests.fuzz.nodes import COME, DIGESTS, LEAVE, PREEMPT, script
from tests.fuzz.nodes import SOURCE as AT_SOURCE
from tests.fuzz.strangers import SOURCE, honest
from tests.fuzz.targets import BITMAP_PAGES, COMPARED, PART_HEAD, STARTS, STREAM_HEAD
from tests.samples import SAMPLES

CORPUS: Final = Path(__file__).parent / "corpus"
CRASHES: Final = Path(__file__).parent / "corpus-crash"


def wire(message: Message, payload: bytes = b"") -> bytes:
    """A frame."""
    return b"".join(frame(message, payload or None))


#: Honest frames, taken apart; and their headers.
FRAMES: Final[list[Part]] = [part for message, payload in SAMPLES for part in parts_of(wire(message, payload))]
HEADERS: Final = [part.header for part in FRAMES]
_ON_MAIN: Final = ChannelRole.MAIN


def _allows(start: int, message: Message) -> bool:
    role, channel, source, there = STARTS[start]
    legality = Legality()
    legality.states = {Role.SOURCE: source, Role.DESTINATION: there}
    try:
        legality.said(role, message, channel)
    except PeerError:
        return False
    return True


#: For each of `FRAMES` the starts of streams at which it is allowed.
ALLOWED: Final = [[start for start in range(len(STARTS)) if _allows(start, message)] for message, _ in SAMPLES]


def stream(start: int, cut: int, flags: int, said: bytes) -> bytes:
    """An input of the stream."""
    return b"S" + STREAM_HEAD.pack(start, cut, flags) + said


def talk(*said: tuple[Role, type[Message]] | None) -> bytes:
    """An input of a conversation on the main channel; None loses it."""
    return b"T\0" + bytes(LOST_MAIN if each is None else event(*each) for each in said)


_S, _D = Role.SOURCE, Role.DESTINATION
_BEGUN: Final = ((_S, Hello), (_S, Advise), (_D, Ready), (_S, Listen), (_S, Run), (_D, Running), (_S, Page))
_AGAIN: Final = (None, (_S, Hello), (_S, Recover), (_D, ReceivedBitmap), (_S, Resume), (_D, Resumed), (_S, Page))


_TO_DESTINATION: Final = (COME, "hello", ("advise", 17), "listen", ("device state", 5), "run")
_THE_END: Final = ("end", ("digests", 0), ("digests", 1), ("wait", 2), "agreed")
_TO_SOURCE: Final = (("wait", 2), "ready", ("wait", 2), "running")


def bitmap(*said: tuple[int, int, bool, bytes]) -> bytes:
    """An input of the bitmap: (first, pages, full, payload) of each part."""
    return b"B" + b"".join(PART_HEAD.pack(first, pages, full, len(bits)) + bits for first, pages, full, bits in said)


def honest_inputs() -> dict[str, bytes]:
    """name -> an input that nothing is wrong with."""
    received = PageBitmap(TINY, BITMAP_PAGES)
    received.add(5, 40)
    received.add(100, 900)
    told = [(part.first, part.count, part.full, bits) for part, bits in parts(received)]
    words = Words(*(np.array(column, dtype=np.uint64) for column in ((1, 9, 1), (0, 7, 3), (3, 4, 5))))
    identity = Identity("0" * 32, "tiny", 1 << 17, 1 << 17, 0, True, "{}", "{}")
    generation = Generation(3, identity, (("log.1", 160),), bytes((0, 1)) * 16)
    running = STARTS.index((_S, _ON_MAIN, Stage.RUNNING, Stage.RUNNING))
    answers = STARTS.index((_D, _ON_MAIN, Stage.END, Stage.RUNNING))
    small = [wire(message, payload) for message, payload in SAMPLES if isinstance(message, Page)]
    answered = [wire(message) for message, _ in SAMPLES if isinstance(message, Request)]
    answered.append(wire(Complete(True, "0" * 32, "")))
    return {
        "stream-pages": stream(running, 40, COMPARED, b"".join(small[:1])),
        "stream-of-the-destination": stream(answers, 3, COMPARED, b"".join(answered)),
        "talk-through": talk(*_BEGUN, (_S, Ended), (_D, Complete), (_S, Agreed)),
        "talk-recovered": talk(*_BEGUN, *_AGAIN, (_S, Ended), None, *_AGAIN[1:-1]),
        "bitmap-whole": bitmap(*told),
        "gate-source": b"G" + bytes((SOURCE, 7)) + honest(PskEnd.SOURCE),
        "gate-destination": b"G" + bytes((0, 255)) + honest(PskEnd.DESTINATION),
        "seal-whole": b"E"
        + (9).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"\0\1"
        + sealed(PieceRun(9, 1, Level.PTE), True, bytes(8)),
        "log-whole": b"L" + encoded(words, "log.1", "0" * 32),
        "checkpoint-whole": b"C" + encode(generation),
        "node-destination": script(0, *_TO_DESTINATION, "zero", *_THE_END),
        "node-destination-recovers": script(
            0, *_TO_DESTINATION, ("page", 3), LEAVE, COME, ("hello", 2), "recover", "resume", "zero", *_THE_END
        ),
        "node-source": script(AT_SOURCE | DIGESTS, *_TO_SOURCE, ("request", 3), ("complete", 5)),
        "node-source-recovers": script(
            AT_SOURCE | PREEMPT, *_TO_SOURCE, LEAVE, ("wait", 20), "bitmap", "resumed", ("request", 3), ("wait", 5),
            ("complete", 5),
        ),
        **{f"header-{number}": b"H" + header for number, header in enumerate(HEADERS)},
    }  # fmt: skip


def lies() -> dict[str, bytes]:
    """name -> an input that stands for one kind of lie; together with the honest ones, the corpus that is kept."""
    bomb = zlib.compress(bytes(1 << 24))[:300]
    return {
        "bitmap-bomb": bitmap((0, 16, False, zlib.compress(bytes(1 << 16)))),
        "bitmap-bomb-cut": bitmap((0, 4096, False, bomb)),
        "bitmap-twice": bitmap((0, 16, True, b""), (0, 16, True, b"")),
        "bitmap-overflow": bitmap((0, 2**63 - 16, False, b"")),
        "talk-recover-before-run": talk(*_BEGUN[:3], (_S, Recover), (_S, Resume), None, (_S, Hello), (_S, Resume)),
        "gate-tls-hello": b"G" + bytes((2, 255)) + b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        "gate-tls-nonsense": b"G" + bytes((3, 0)) + b"\x16\x03\x03\xff\xff" + bytes(40),
        "gate-plain": b"G" + bytes((0, 0)) + b"MIGEMU\0\2",
        "stream-newer": stream(0, 1, 1, b"MIGEMU\x00\x03" + wire(SAMPLES[0][0])),
        "stream-older": stream(0, 1, 1, b"MIGEMU\x00\x01" + wire(SAMPLES[0][0])),
        "stream-large-payload": stream(
            STARTS.index((_S, _ON_MAIN, Stage.LISTEN, Stage.ADVISE)), 40, COMPARED,
            wire(DeviceState(0), b"".join(number.to_bytes(2, "big") for number in range(9000))),
        ),
        "stream-huge": stream(0, 0, COMPARED, b"\xff" * 6),
        "stream-nested": stream(0, 9, COMPARED, b"\0\0\0\0\x07\xd0" + b"\x91" * 2000),
        "header-lengths-in-lengths": b"H" + b"\xdc\x40\x00" * 1000,
        "stream-required": stream(
            STARTS.index((_S, _ON_MAIN, Stage.END, Stage.END)), 2, COMPARED,
            b"\0\0\0\0\x00\x0c\x92\x0e\x81\xa8colour!!\xc3",
        ),
    }  # fmt: skip


def corpus() -> dict[str, bytes]:
    """The files of the corpus."""
    return {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}


if __name__ == "__main__":
    for name, data in {**honest_inputs(), **lies()}.items():
        if not name.rpartition("-")[2].isdecimal():  # the headers of all frames are no news
            (CORPUS / name).write_bytes(data)
