"""The tree of errors. Each class says who is to blame, because that decides what the reader does next.

    MigemuError                 anything migemu reports in one line, without a traceback
    |-- InputError              you:   a scenario, an option, an image that cannot be used          exit 2
    |   |-- ScenarioError              ... with the file, the key, the value and what is accepted
    |   `-- ExtraError                 ... it needs a library that is optional and not installed
    |-- BrokenError             world: connection lost, port in use, no memory, timeout             exit 3
    |   |-- GaveUpError                ... the other side gave up and said why: it reports the cause itself
    |   |-- OverdueError               ... the other side is there, and does not answer
    |   `-- UnreadableError            ... the source's memory: a disk, a file that was shortened; it may be mended
    |-- PeerError               peer:  bytes or messages that break the protocol                    exit 4
    |   `-- VersionError               ... because it speaks another version of it
    |-- VerificationError       the memory that arrived is not the memory that was sent             exit 5
    |-- StoppedError            an operator has ended it (migemu cancel)                          exit 130
    `-- ClosedError             us:    used after we closed it ourselves; reaching a user is a bug

Everything else that escapes is our own bug and keeps its traceback (exit 1). Exit 130 is Ctrl-C, as in every shell.
A message is one line: what is wrong, then, after a semicolon or a full stop, what to do.
"""

from __future__ import annotations

from typing import Self

EXIT_INTERRUPTED = 130
LINE_MAX = 1000


class MigemuError(Exception):
    """Base of all errors that are reported in one line."""

    exit_code = 1

    def with_text(self, text: str) -> Self:
        """Another error of the same kind, with the same attributes, whose one line is `text`."""
        other = type(self).__new__(type(self), text)
        other.__dict__.update(self.__dict__)
        return other


class InputError(MigemuError):
    """What the user gave cannot be used."""

    exit_code = 2


class ScenarioError(InputError):
    """A key of a scenario is wrong. `where` is the file (or `--set`), `key` is `section.key`."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.where = where
        self.key = key


class ExtraError(InputError):
    """`what` needs `library`, of the optional dependencies `extra` in pyproject.toml; no index has migemu itself."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} needs {library}; install it, in the checkout of migemu: pip install -e '.[{extra}]'")


class BrokenError(MigemuError):
    """The world broke: network, memory, disk, another process."""

    exit_code = 3


class GaveUpError(BrokenError):
    """The other side gave up and said why; the cause is its to report."""


class OverdueError(BrokenError):
    """The other side is there, and what it owes has not come; there has been no progress since `since_ns`."""

    def __init__(self, text: str, since_ns: int) -> None:
        super().__init__(text)
        self.since_ns = since_ns


class UnreadableError(BrokenError):
    """The source cannot read its own memory. That is no end: whoever mends it can recover the migration."""


class PeerError(MigemuError):
    """The peer sent what the protocol does not allow at this point."""

    exit_code = 4


class VersionError(PeerError):
    """The peer speaks another version of the protocol; both versions are named."""


class VerificationError(MigemuError):
    """At the end the two sides do not hold the same memory; the first bad piece is named."""

    exit_code = 5


class StoppedError(MigemuError):
    """An operator has ended it, on purpose (`migemu cancel`)."""

    exit_code = EXIT_INTERRUPTED


class ClosedError(MigemuError):
    """Something was used after this side had closed it."""


def sentences(*parts: object) -> str:
    """Parts as sentences of one line; each begins as it does, and ends once: a question keeps its mark."""
    said = [text for part in parts if (text := str(part).strip())]
    return " ".join([*(each if each.endswith((".", "?", "!")) else f"{each}." for each in said[:-1]), *said[-1:]])


def because(first: object, second: str) -> str:
    """Two parts of one sentence; of two, where the first is a question."""
    text = str(first)
    return f"{text} {second[:1].upper()}{second[1:]}" if text.endswith(("?", "!", ".")) else f"{text}; {second}"


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most `LINE_MAX` characters, whatever it quotes.

    It may quote a peer: what a terminal would obey is shown as `?`.
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(error).split()))
    return line if len(line) <= LINE_MAX else line[: LINE_MAX - 3] + "..."
