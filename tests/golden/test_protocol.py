"""The bytes of each protocol version, captured: what was said then must be understood now, and said the same way.

A capture is a text file: `#` lines tell what it is, every other line is a name and the bytes as hexadecimal digits. It
holds the preamble and one instance of every message (tests/samples.py), heads only where a payload follows: payloads
are passed through untouched. A change of the protocol is a new version with a capture of its own, written by

    python -m tests.golden.test_protocol > tests/golden/protocol_3.txt

and never an edit of an old one. An old version is refused by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from migemu.errors import VersionError
from migemu.wire.codec import decode_header, encode_head, frames_of, preamble
from migemu.wire.messages import PROTOCOL_VERSION, TAGS
from tests.samples import SAMPLES
from tests.unit.wire.stream import Receiver

FOLDER: Final = Path(__file__).parent


def lines() -> list[tuple[str, str]]:
    """What this program says: (name, bytes as hexadecimal digits)."""
    said = [("preamble", preamble().hex())]
    said += [(type(message).__name__, encode_head(message, len(payload)).hex()) for message, payload in SAMPLES]
    return said


def capture(version: int) -> list[tuple[str, str]]:
    text = FOLDER.joinpath(f"protocol_{version}.txt").read_text(encoding="ascii")
    return [tuple(line.split()) for line in text.splitlines() if line and not line.startswith("#")]  # type: ignore[misc]


def test_what_is_said_is_what_was_captured() -> None:
    """If this fails, the protocol has changed: raise PROTOCOL_VERSION and capture the new version."""
    assert lines() == capture(PROTOCOL_VERSION)


def test_what_was_captured_is_understood() -> None:
    for (name, digits), (message, payload) in zip(capture(PROTOCOL_VERSION)[1:], SAMPLES, strict=True):
        head = bytes.fromhex(digits)
        understood = decode_header(head[6:])
        assert (type(understood).__name__, understood) == (name, message)
        assert int.from_bytes(head[:4], "big") == len(payload)
        assert int.from_bytes(head[4:6], "big") == len(head) - 6


@pytest.mark.parametrize("version", range(1, PROTOCOL_VERSION + 1))
def test_every_version_has_a_capture_of_all_its_messages(version: int) -> None:
    names = [name for name, _ in capture(version)]
    assert names[0] == "preamble"
    assert bytes.fromhex(capture(version)[0][1]) == preamble(version)
    if version == PROTOCOL_VERSION:
        assert set(names[1:]) == {kind.__name__ for kind in TAGS}


@pytest.mark.parametrize("version", range(1, PROTOCOL_VERSION))
def test_an_old_version_is_refused_by_its_name_whatever_it_says(version: int) -> None:
    said = b"".join(bytes.fromhex(digits) for _, digits in capture(version)[:2])
    with pytest.raises(VersionError, match=f"version {version} there, version {PROTOCOL_VERSION} here"):
        list(frames_of(Receiver().decoder, said))


if __name__ == "__main__":
    print(f"# migemu protocol version {PROTOCOL_VERSION}: preamble, and the head of one frame of each kind")
    for name, digits in lines():
        print(f"{name} {digits}")
