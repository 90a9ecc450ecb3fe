"""What has become of the mutants of a folder, and which of the survivors are known to be no different."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_EQUIVALENT = Path(__file__).with_name("equivalent.toml")


class Change(NamedTuple):
    """What a mutant says other than the program, without indentation."""

    function: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class Score:
    """The mutants of one folder, counted; those that nobody noticed are shown."""

    folder: str
    counts: Counter[str]
    unnoticed: tuple[str, ...]
    seconds: float

    def row(self) -> list[str]:
        """A row of the table."""
        killed = self.counts["killed"] + self.counts["timeout"] + self.counts["segfault"]
        numbers = [
            self.counts.total(), killed, self.counts["caught by type check"],
            self.counts["survived"] + self.counts["suspicious"], self.counts["equivalent"], self.counts["no tests"],
        ]  # fmt: skip
        return [self.folder, *(f"{number}" for number in numbers), f"{self.seconds / 60:.1f}"]


def known_equivalents(path: Path = _EQUIVALENT) -> frozenset[Change]:
    """The table of mutants that change nothing that can be seen, each of which says why."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["equivalent"]
    return frozenset(Change(row["function"], row["was"], row["now"]) for row in rows if row["why"])


def change_of(name: str, diff: str) -> Change:
    """The change of the mutant `name`, from a diff of its function."""
    lines = diff.splitlines()[2:]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    return Change(f"{module}.{function[2:].replace('ǁ', '.')}", was, now)  # "x_parts", "xǁLimitsǁcheck"


def score_of(folder: str, found: Path, equivalents: Collection[Change], seconds: float) -> Score:
    """What stands in the file `found` that `tests.mutants.tool` has written."""
    counts: Counter[str] = Counter()
    unnoticed = []
    for row in json.loads(found.read_text(encoding="utf-8")):
        status = row["status"]
        if status == "not checked":
            continue
        if row["diff"]:
            change = change_of(row["name"], row["diff"])
            if change in equivalents:
                status = "equivalent"
            else:
                unnoticed.append(f"{change.function} ({status})\n  - {change.was}\n  + {change.now}")
        counts[status] += 1
    return Score(folder, counts, tuple(unnoticed), seconds)
