"""What the reference says of traces and of `migemu check` is what the program does."""

from __future__ import annotations

import itertools
import re

from migemu.docs.topics import FOLDER
from migemu.trace.events import SCHEMA_VERSION, Happening
from migemu.trace.wrong import SCENARIOS

SECTION = "".join((FOLDER / "reference" / name).read_text(encoding="utf-8") for name in ("events.md", "checks.md"))


def table(first_column: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = SECTION.split(f"| {first_column} |")[1].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_vocabulary_is_the_programs() -> None:
    """Every event once, none that is not."""
    named = [name for row in table("event | told by") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(one.value for one in Happening)
    assert f"version {SCHEMA_VERSION}" in SECTION


def test_the_bugs_are_those_that_are_there_and_are_caught_as_told() -> None:
    told = {row[0].strip("`"): (row[1], row[2].strip("`")) for row in table("wrong on purpose")}
    assert told == {scenario.name: (scenario.happened, scenario.rule) for scenario in SCENARIOS.values()}
