"""DIR/migration.json, damaged in every way: one line that says so, never a traceback, never another migration."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from migemu.address import TcpAddress
from migemu.errors import InputError, one_line
from migemu.scenario.scenario import load as scenario_of
from source_node.record import NAME, Migration, Record, load

MADE = ("memory.geometry=tiny", "memory.size=1M")
OTHERS: tuple[Any, ...] = (None, True, -1, 0, 1.5, 1 << 70, "", "x", "\x1b[2J", [], [1], {}, {"a": 1}, {"memory": 7})


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    made = Migration.of("0" * 32, TcpAddress("127.0.0.1", 4444), scenario_of(None, [*MADE, f"memory.image={image}"]))
    record = Record(tmp_path, made)
    record.claim()
    record.save(switched=True, downtime_ns=1000)
    return (tmp_path / NAME).read_bytes()


def judged(directory: Path, text: bytes) -> str:
    """What is said of it; "" if it is taken."""
    (directory / NAME).write_bytes(text)
    said = ""
    try:
        load(directory).resumable()
    except InputError as error:
        said = str(error)
    assert len(one_line(ValueError(said))) < 1000
    return said


def test_it_is_taken_whole(whole: bytes, tmp_path: Path) -> None:
    assert judged(tmp_path, whole) == ""


def test_cut_anywhere_it_is_refused(whole: bytes, tmp_path: Path) -> None:
    for length in range(len(whole.rstrip())):
        assert "is not the record of a migration" in judged(tmp_path, whole[:length])


def test_a_byte_that_is_another_one_is_a_line_at_most(whole: bytes, tmp_path: Path) -> None:
    rng = Random(14)
    for at in range(len(whole)):
        for byte in (whole[at] ^ 1 << rng.randrange(8), rng.randrange(256)):
            judged(tmp_path, whole[:at] + bytes([byte]) + whole[at + 1 :])


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [above] if above else []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += paths(inner, (*above, name))
    return found


def test_a_value_of_another_kind_is_a_line_at_most(whole: bytes, tmp_path: Path) -> None:
    for path in paths(json.loads(whole)):
        for other in OTHERS:
            values = json.loads(whole)
            inner = values
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = other
            judged(tmp_path, json.dumps(values).encode())
            del inner[path[-1]]
            judged(tmp_path, json.dumps(values).encode())


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"7", b"null", b'"x"', b"{}", b"\xff\xfe", b'{"version": 2}', b"[" * 100_000, b'{"a":' * 50_000],
)
def test_what_is_something_else_is_refused(text: bytes, tmp_path: Path) -> None:
    assert "is not the record of a migration" in judged(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("migration", "0" * 31), ("migration", "G" * 32), ("migration", 7), ("address", 7), ("image", []),
        ("image", {"path": 7}), ("scenario", []), ("switched", "yes"), ("downtime_ns", "1"), ("downtime_ns", -1),
        ("completed", 1),
    ],
)  # fmt: skip
def test_a_field_that_is_none_is_refused(name: str, other: Any, whole: bytes, tmp_path: Path) -> None:
    assert "is not the record of a migration" in judged(
        tmp_path, json.dumps(json.loads(whole) | {name: other}).encode()
    )
