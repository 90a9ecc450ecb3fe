"""The words of the project: what a docstring says on hover, and the field's terms in names.

Rules
    1. A public docstring of fewer than `WORDS_MIN` words says something only if it names something: a call, a standard,
       a seam, a setting, a value. "All of them." does not.
    2. The name of a class, a function, a parameter or an attribute has none of the `PRIVATE` words. They mean something
       to whoever wrote them; the field has terms for all of them.
    3. An exception has its reason in the table, and goes when nothing needs it any more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.test_house import PROGRAM, Module

WORDS_MIN: Final = 4
#: `code`, NAME_OF_A_CALL, module.Name, [section], "value", RFC 5681, 2.1.
_NAMED: Final = re.compile(r"`|[A-Z]{3,}|\w\.\w|\[\w|\"|\d")

#: What to write instead.
PRIVATE: Final = {
    "told": "reported, notified, recorded",
    "left": "remaining, excluded, departed",
    "kept": "restored, saved, checkpointed",
    "standing": "status, state",
    "life": "run, incarnation",
    "regained": "recovered, reconnected",
}
#: Names that have one of these words, by module, and why that is no mistake.
EXCEPTIONS: Final = {
    "migemu.ordering.rules.writes_kept": "the name of a rule, which users give to `migemu check --rule`",
    "migemu.trace.checkers.accesses.WritesKept": "the same rule",
    "migemu.trace.checkers.accesses.ProtectionKept": "the rule protection_kept",
    "migemu.trace.checkers.transfer.CompletionIsTold": "the rule completion_is_told",
    "migemu.trace.wrong.left_in_small_pages": "a wrong trace, which users give to `migemu check --wrong`",
    "migemu.process.status_socket.told": "a key of the answers on the status socket",
    "migemu.node.outcome.told": "an argument of both nodes: what the source has reported, or the line so far",
}


def _says_nothing(text: str) -> bool:
    return len(text.split()) < WORDS_MIN and not _NAMED.search(text)


def _empty_docstrings(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node)
            if text is not None and _says_nothing(text):
                yield f"{node.lineno}: {node.name}: {text!r} says nothing: shapes, units, errors, or what it is for"


def _names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _private_words(module: Module) -> Iterator[tuple[str, str]]:
    """(module.name, word) of each name with such a word."""
    for name in _names(module):
        for word in re.split(r"_+|(?<=[a-z0-9])(?=[A-Z])", name):
            if word.lower() in PRIVATE:
                yield f"{module.name}.{name}", word.lower()


def test_a_docstring_says_something() -> None:
    problems = [f"{module.name}: {problem}" for module in PROGRAM for problem in _empty_docstrings(module)]
    assert not problems, "\n".join(["", *problems])


def test_names_have_no_private_words() -> None:
    problems = [
        f"{name}: not {word!r}, but what is meant: {PRIVATE[word]}"
        for module in PROGRAM
        for name, word in _private_words(module)
        if name not in EXCEPTIONS
    ]
    assert not problems, "\n".join(["", *problems])


def test_no_exception_outlives_its_reason() -> None:
    found = {name for module in PROGRAM for name, _ in _private_words(module)}
    assert found >= EXCEPTIONS.keys(), f"not needed any more: {EXCEPTIONS.keys() - found}"


@pytest.mark.parametrize("text", ["All of them.", "One node's.", "It does.", "The connection stands."])
def test_what_says_nothing_is_found(text: str) -> None:
    assert list(_empty_docstrings(Module("migemu.x", f'def f():\n    """{text}"""')))


@pytest.mark.parametrize("text", ["UFFDIO_WAKE.", "See ports.Tracer.", "RFC 5681.", "`mix` applied.", "[scenario]"])
def test_a_docstring_that_names_something_may_be_short(text: str) -> None:
    assert not list(_empty_docstrings(Module("migemu.x", f'def f():\n    """{text}"""')))


@pytest.mark.parametrize(
    "text", ["class KeptMemory: ...", "def f(told): ...", "def is_left(): ...", "x._standing = 1", "left_ns: int = 0"]
)
def test_a_private_word_is_found(text: str) -> None:
    assert list(_private_words(Module("migemu.x", text)))
