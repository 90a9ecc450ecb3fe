"""What was captured is said the same way now, and understood; an old version is refused by its name."""

from __future__ import annotations

import pytest

from migemu.errors import VersionError
from migemu.wire.codec import frames_of, preamble
from migemu.wire.header import decode_header
from migemu.wire.messages import PROTOCOL_VERSION, TAGS
from tests.golden.captures import capture, lines
from tests.samples import SAMPLES
from tests.unit.wire.stream import Receiver


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
