"""The READMEs and the pages of the documentation, taken apart into blocks: what is typed, a file, what is shown.

A block is fenced (with a language, or none) or indented. A comment of HTML above it says what it is, where that cannot
be told from its language:

    <!-- shown by: NAME -->          it is what the program shows; NAME is a sample in real/test_readme_samples.py
    <!-- not run: REASON -->         its commands are parsed, and not run
    <!-- two processes: WHAT -->     its lines are processes at once: each begins when the one before it listens
    <!-- not compared: REASON -->    a drawing, or something that takes too long to be made anew
    <!-- file: NAME -->              it is written to a file of that name before what follows is run

In a block with prompts (`$ migemu compare a b`) the lines without one are the answer, and compared; `...` stands for
whatever is left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
READMES: Final = tuple(
    sorted(path for path in ROOT.rglob("README.md") if not {*path.parts} & {".venv", "runs", "build"})
)
PAGES: Final = tuple(sorted({*(ROOT / "migemu" / "docs").rglob("*.md")} - {*READMES}))
_REMARK: Final = re.compile(r"<!-- (shown by|not run|not compared|two processes|file): (.+) -->")
#: Programs of this project: their command lines are parsed by themselves.
OURS: Final = ("migemu", "migemu-source", "migemu-dest")


@dataclass(frozen=True)
class Block:
    """One of them. `remark` is (what, words) of the comment above it, or ("", "")."""

    path: Path
    line: int
    language: str
    text: str
    remark: tuple[str, str]

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[str]:
        """What is typed: a line each, without its prompt and its comment; `\\` at the end goes on in the next line."""
        text = self.text.replace("\\\n", " ")
        shown = "\n$ " in f"\n{text}"  # a terminal: what has no prompt is an answer
        for line in text.splitlines():
            if shown and not line.startswith("$ "):
                continue
            command = re.sub(r"(^|\s+)# .*", "", line.removeprefix("$ ")).strip()
            if command:
                yield command

    def answers(self) -> Iterator[tuple[str, str]]:
        """(command, what it prints) of a block with prompts; nothing of any other."""
        for part in f"\n{self.text}".replace("\\\n", " ").split("\n$ ")[1:]:
            command, _, answer = part.partition("\n")
            yield re.sub(r"\s+# .*", "", command).strip(), answer.strip("\n")

    def is_typed(self) -> bool:
        """Whether it holds commands."""
        first = next(self.commands(), "").split(maxsplit=1)[:1]
        return self.language in ("sh", "console") or (
            not self.language and first in (["make"], [".venv/bin/python"], ["migemu"])
        )


def ours(command: str) -> Iterator[list[str]]:
    """The command lines of this project's programs in a line of a shell, without where their output goes."""
    words: list[str] = []
    everything = iter([*shlex.split(command.replace(";", " ; ")), ";"])
    for word in everything:
        if word in (">", ">>", "2>"):
            next(everything)
        elif word in ("&&", "||", ";", "|"):
            if words and words[0] in OURS:
                yield words
            words = []
        else:
            words.append(word)


def is_plain(command: str) -> bool:
    """Whether a line holds programs of this project alone, one after the other, whose output goes nowhere else."""
    words = shlex.split(command.replace(";", " ; "))
    first = [words[0], *(after for word, after in pairwise(words) if word in ("&&", "||", ";"))]
    return {*first} <= {*OURS} and not {"|", ">", ">>", "2>"} & {*words}


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of a README or a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        begin, line = at, lines[at]
        if line.startswith("```"):
            body = [*takewhile(lambda each: not each.startswith("```"), lines[at + 1 :])]
            at += len(body) + 2
            yield Block(path, begin + 1, line[3:].strip(), "\n".join(body), _remark(lines, begin))
        elif line.startswith("    ") and (
            begin == 0 or not lines[begin - 1].strip() or lines[begin - 1].endswith("-->")
        ):
            body = [*takewhile(lambda each: each.startswith("    ") or not each.strip(), lines[at:])]
            at += len(body)
            text = "\n".join(each.removeprefix("    ") for each in body).rstrip()
            yield Block(path, begin + 1, "", text, _remark(lines, begin))
        else:
            at += 1


def _remark(lines: list[str], begin: int) -> tuple[str, str]:
    """The comment above, with or without an empty line between."""
    above = [line for line in lines[max(0, begin - 2) : begin] if line.strip()]
    found = _REMARK.fullmatch(above[-1].strip()) if above else None
    return (found[1], found[2]) if found is not None else ("", "")
