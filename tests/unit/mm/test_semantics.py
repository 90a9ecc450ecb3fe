"""SEMANTICS.md and those who cite it: a citation can be opened, a rule has a source, users see no section numbers."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import io
import itertools
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from migemu.trace.checkers.rule import checkers
from migemu.trace.wrong import SCENARIOS

ROOT: Final = Path(__file__).resolve().parents[3]
SEMANTICS: Final = ROOT / "migemu" / "mm" / "SEMANTICS.md"
TEXT: Final = SEMANTICS.read_text(encoding="utf-8")
PROGRAM: Final = sorted(path for name in ("migemu", "source_node", "dest_node") for path in (ROOT / name).rglob("*.py"))
TESTS: Final = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS: Final = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not (top := path.relative_to(ROOT).parts[0]).startswith(".") and top not in ("runs", "build", "dist")
)

_NUMBER: Final = r"(?:\d+\.\d+|I\d+)"
_LIST: Final = rf"{_NUMBER}(?: step \d)?(?:(?:, and |, | and ){_NUMBER}(?: step \d)?)*"
CITATION: Final = re.compile(rf"SEMANTICS(?!\.md)(?: ({_LIST}))?")
#: A number of a section, in brackets or at the head of a text, that does not say of what.
BARE: Final = re.compile(rf"(?<!\w)\({_LIST}\)|\bsections? \d+\.\d")
BARE_HEAD: Final = re.compile(rf"{_NUMBER}(?: step \d)?[:.](?: |$)")
#: What a file looks like that cites anything. To parse all the others takes half a minute.
_CITES: Final = re.compile(rf"SEMANTICS|(?<!\w)\({_NUMBER}|\bsections? \d|(?:\"\"\"|# ){_NUMBER}")


class Prose(NamedTuple):
    """A comment or a string of a module, in one line. `said` is a string that is no docstring: users may see it."""

    where: str
    text: str
    said: bool


def prose(path: Path, source: str) -> Iterator[Prose]:
    """The comments, docstrings and other strings of a module; what stands in neighbouring comments is one text."""
    docstrings = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            yield Prose(where, " ".join(node.value.split()), id(node) not in docstrings)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("#: ")) for token in tokens if token.type == tokenize.COMMENT]
    for _, rows in itertools.groupby(enumerate(comments), key=lambda entry: entry[1][0] - entry[0]):
        lines = [comment for _, comment in rows]
        yield Prose(f"{path.relative_to(ROOT)}:{lines[0][0]}", " ".join(text for _, text in lines), False)


def cited(text: str) -> list[str]:
    """The numbers that `text` cites; "" for a citation without one."""
    return [
        number
        for match in CITATION.finditer(" ".join(text.split()))
        for number in (re.findall(_NUMBER, match[1]) if match[1] else [""])
    ]


def rules() -> dict[str, list[str]]:
    """Every number, and the statements under it: items of lists, and rows of tables that have a source column."""
    found: dict[str, list[str]] = {}
    heading, sourced = "", False
    for block in re.split(r"\n(?=- |\||#|\n)", TEXT.split("\n## 9. ")[0] + "\n## 10. " + TEXT.split("\n## 10. ")[1]):
        line = " ".join(block.split())
        if named := re.match(r"### (\d+\.\d+) ", line):
            heading = named[1]
            found[heading] = []
        elif line.startswith("- "):
            number = re.match(r"- \*\*(I\d+)\*\*", line)
            found.setdefault(number[1] if number else heading, []).append(line)
            if number:
                found[heading].append(line)
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if sourced and not set(line) <= set("|- "):
                found[heading].append(f"{cells[0]} [{cells[-1]}]")
            sourced = sourced or cells[-1] == "source"
        else:
            sourced = False
    return found


RULES: Final = rules()
#: Of section 9: how a source may begin.
KEYS: Final = re.findall(
    r"^\| ([A-Za-z][\w-]*) \|(?! what \|)", TEXT.split("\n## 9. ")[1].split("\n## 10. ")[0], re.MULTILINE
)


def without_source(statement: str) -> str:
    """What is wrong with the sources of a statement."""
    named = re.search(r"\[([^\[\]]+)\]$", statement)
    if named is None:
        return f"no source: {statement}"
    for source in re.split(r"[;,] ", named[1]):
        key = source.split()[0]
        if source not in ("derived", "ours") and key not in KEYS:
            return f"{source!r} is not in section 9: {statement}"
        if key in ("V1", "V2", "RFC1", "RFC2", "QEMU", "POISON", "KVM-UF") and not re.fullmatch(r"[\w-]+ \d+", source):
            return f"{source!r} names no patch: {statement}"
        if key == "Linux" and not re.fullmatch(r"Linux \d\.\d+ [\w/.-]+\.[ch] \w+", source):
            return f"{source!r} names no file and function: {statement}"
    return ""


def test_there_are_rules_and_sources() -> None:
    assert {"0.2", "1.3", "2.1", "3.7", "6.1", "8.1", "10.1", "I1", "I11"} <= set(RULES)
    assert {"V2", "COST", "QEMU", "man", "Linux"} <= set(KEYS)


def test_a_number_stands_once() -> None:
    headings = re.findall(r"^### (\S+)", TEXT, re.MULTILINE)
    assert sorted(set(headings)) == sorted(headings)


@pytest.mark.parametrize("number", RULES)
def test_every_rule_names_its_source(number: str) -> None:
    assert RULES[number]
    assert [wrong for statement in RULES[number] if (wrong := without_source(statement))] == []


def test_every_source_is_used() -> None:
    statements = " ".join(itertools.chain.from_iterable(RULES.values()))
    assert [key for key in KEYS if not re.search(rf"[\[;] ?{key}\b", statements)] == []


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("- It is so.", "no source"), ("- It is so. [X 3]", "not in section 9"), ("- So. [V2]", "names no patch"),
        ("- So. [V2 3; Linux 6.6 mm/x.c]", "names no file and function"), ("- So. [V2 34, derived; ours]", ""),
    ],
)  # fmt: skip
def test_what_is_no_source(statement: str, wrong: str) -> None:
    assert wrong in without_source(statement)
    assert bool(wrong) == bool(without_source(statement))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("so (SEMANTICS 2.1)", ["2.1"]), ("(SEMANTICS 2.1 step 3, 1.3, I5)", ["2.1", "1.3", "I5"]),
        ("of SEMANTICS 2.3 and 2.4.", ["2.3", "2.4"]), ("SEMANTICS\n   2.1", ["2.1"]), ("SEMANTICS of it", [""]),
        ("see SEMANTICS.md", []),
    ],
)  # fmt: skip
def test_what_a_citation_is(text: str, numbers: list[str]) -> None:
    assert cited(text) == numbers


def citing() -> list[Path]:
    """The modules that cite, but for this one, whose strings are about citations."""
    modules = [path for path in (*PROGRAM, *TESTS) if path != Path(__file__)]
    return [path for path in modules if _CITES.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", citing(), ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_can_be_opened(path: Path) -> None:
    """Each number exists, and none stands alone. Invariants name themselves at the head of a ValidationError."""
    for one in prose(path, path.read_text(encoding="utf-8")):
        assert [number for number in cited(one.text) if number not in RULES] == [], one
        if path in PROGRAM and one.said:
            assert not cited(one.text), f"users see no section numbers: {one}"
        if path in PROGRAM or not one.said:
            assert not BARE.search(one.text), f"say of what: {one}"
        if not one.said:
            assert not BARE_HEAD.match(one.text), f"say of what: {one}"


def test_some_cite() -> None:
    assert len(citing()) > 60


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_of_documents_can_be_opened(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    numbers = cited(text) if path != SEMANTICS else re.findall(r"\((\d+\.\d+)\)", text)
    assert [number for number in numbers if number not in RULES] == []


def test_the_bare_are_found() -> None:
    source = '"""1.3: so."""\n# It is (2.1, 2.2).\n# As section 3.1 says, H(1.5) is 0.5 (0.1-0.7).\n'
    docstring, comments = prose(ROOT / "x.py", source)
    assert BARE_HEAD.match(docstring.text)
    assert BARE.findall(docstring.text) == []
    assert BARE.findall(comments.text) == ["(2.1, 2.2)", "section 3.1"]
    assert _CITES.search(source)


@pytest.mark.parametrize("rule", [entry.name for entry in checkers])
def test_no_number_in_the_reasons_of_rules(rule: str) -> None:
    """`migemu check` shows them."""
    entry = next(entry for entry in checkers if entry.name == rule)
    assert "SEMANTICS" not in (inspect.getdoc(entry.factory) or "")


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_number_in_what_went_wrong(name: str) -> None:
    scenario = SCENARIOS[name]
    for text in (scenario.happened, scenario.story):
        assert not cited(text)
        assert not BARE.search(text)


def test_it_ships_with_the_package() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = setup["tool"]["setuptools"]["package-data"]["migemu"]
    assert any(fnmatch.fnmatch("mm/SEMANTICS.md", pattern) for pattern in patterns)
