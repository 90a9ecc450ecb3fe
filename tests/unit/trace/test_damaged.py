"""A trace with any value in any field of any event: judged, or refused in a line; nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migemu.errors import InputError
from migemu.trace.findings import judge_file
from tests.unit.trace.traces import whole, write_lines

OTHERS: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**18, 1 << 63, 1 << 70, "", "x", [], [1], {}, {"a": 1}, 1e308, float("inf"),
)  # fmt: skip


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    return write_lines(tmp_path / "whole.jsonl", whole()).read_text().splitlines()


def judged(path: Path, lines: list[str]) -> bool:
    path.write_text("\n".join(lines) + "\n")
    try:
        judge_file(path, ())
    except InputError as error:
        return str(error).startswith(f"{path}: ")
    return True


def test_any_value_in_any_field_is_judged_or_refused(lines: list[str], tmp_path: Path) -> None:
    seen: dict[str, int] = {}
    for at, line in enumerate(lines):
        seen.setdefault(json.loads(line).get("event", "header"), at)
    assert len(seen) > 5
    for at in seen.values():
        said = json.loads(lines[at])
        for name in said:
            without = {key: value for key, value in said.items() if key != name}
            for other in (*({**said, name: value} for value in OTHERS), without):
                assert judged(tmp_path / "damaged.jsonl", [*lines[:at], json.dumps(other), *lines[at + 1 :]])
