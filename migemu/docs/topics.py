"""The pages of the documentation: Markdown files beside this one, in a folder for each kind of page.

    tutorial/    read it from beginning to end, and type along
    howto/       one task each, for who knows the program
    reference/   what there is: settings, results, events, errors
    evidence/    what the models rest on, and what came of the question

A page is known by its topic: its path without `.md` ("howto/tls"), or the last part of it ("tls").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from migemu import named
from migemu.errors import InputError
from migemu.values import unknown

#: The package is installed as files; a zipped one is not supported.
FOLDER: Final = Path(str(files("migemu.docs")))
SECTIONS: Final = ("tutorial", "howto", "reference", "evidence")
_COMMENT: Final = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_FROM_DOCSTRINGS: Final = re.compile(r"^::: (\S+)\n(?:    .*\n)*", re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([\w./-]+)\.md(?:#[\w-]+)?\)")


@dataclass(frozen=True, slots=True)
class Topic:
    """One page. `name` is what `migemu help` knows it by; `text` is Markdown, as the file has it."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """Its first heading without the `# `; the topic of a page that has none."""
        return next((line[2:] for line in self.text.splitlines() if line.startswith("# ")), self.name)

    @property
    def section(self) -> str:
        """The folder that it lies in; "" is the first page."""
        return self.name.rpartition("/")[0]

    def readable(self) -> str:
        """The text for a reader who has no site: without comments, links by what `migemu help` is asked for."""
        text = _COMMENT.sub("", self.text)
        text = _FROM_DOCSTRINGS.sub(r"`\1`: read `python -m pydoc \1`\n", text)
        return _LINK.sub(lambda link: f"{link[1]} (`migemu help {link[2].rpartition('/')[2]}`)", text)

    def holds(self, words: Sequence[str]) -> bool:
        """Whether its headings or its topic have all the words, in any order and case."""
        headings = [line for line in self.text.splitlines() if line.startswith("#")]
        told = " ".join([self.name, *headings]).casefold()
        return all(word.casefold() in told for word in words)


def topics() -> list[Topic]:
    """Every page: the first one, then section by section."""
    found = [FOLDER / "index.md"]
    for section in SECTIONS:
        found += sorted((FOLDER / section).glob("*.md"))
    return [Topic(path.relative_to(FOLDER).with_suffix("").as_posix(), named.read_text(path)) for path in found]


def find(words: Sequence[str]) -> list[Topic]:
    """The page of that topic; or else all whose headings have the words. InputError when there is none."""
    every = topics()
    topic = "-".join(words).removesuffix(".md")
    exact = [page for page in every if topic in (page.name, page.name.rpartition("/")[2])]
    if found := exact or [page for page in every if page.holds(words)]:
        return found
    names = [name for page in every for name in dict.fromkeys((page.name, page.name.rpartition("/")[2]))]
    raise InputError(unknown("topic", topic, names, "`migemu help` lists all topics"))
