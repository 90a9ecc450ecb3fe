"""The bytes of each protocol version, captured: `protocol_1.txt` and so on.

A capture is a text file: `#` lines tell what it is, every other line is a name and the bytes as hexadecimal digits. It
holds the preamble and one instance of every message (tests/samples.py), heads only where a payload follows: payloads
are passed through untouched. A change of the protocol is a new version with a capture of its own, written by

    python -m tests.golden.captures > tests/golden/protocol_3.txt

and never an edit of an old one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from migemu.wire.codec import preamble
from migemu.wire.header import encode_head
from migemu.wire.messages import PROTOCOL_VERSION
from tests.samples import SAMPLES

FOLDER: Final = Path(__file__).parent


def lines() -> list[tuple[str, str]]:
    """What this program says: (name, bytes as hexadecimal digits)."""
    said = [("preamble", preamble().hex())]
    said += [(type(message).__name__, encode_head(message, len(payload)).hex()) for message, payload in SAMPLES]
    return said


def capture(version: int) -> list[tuple[str, str]]:
    """What a version has said."""
    text = FOLDER.joinpath(f"protocol_{version}.txt").read_text(encoding="ascii")
    words = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [(name, digits) for name, digits in words]


if __name__ == "__main__":
    print(f"# migemu protocol version {PROTOCOL_VERSION}: preamble, and the head of one frame of each kind")
    for name, digits in lines():
        print(f"{name} {digits}")
