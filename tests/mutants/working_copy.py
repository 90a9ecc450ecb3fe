"""A copy of the program and its tests, in which mutmut may do as it likes: the tree itself is never changed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Final

import libcst as cst
import libcst.matchers as m

from tests.mutants.folders import READ_THE_SOURCE, TESTS_OF

ROOT: Final = Path(__file__).resolve().parents[2]
_COPIED: Final = ("migemu", "source_node", "dest_node", "tests", "README.md", "pyproject.toml")
_PROTOCOL: Final = m.ClassDef(bases=[m.ZeroOrMore(), m.Arg(m.Name("Protocol")), m.ZeroOrMore()])
_PROPERTY: Final = m.FunctionDef(decorators=[m.Decorator(m.Name("property"))])


def without_properties(source: str) -> str:
    """The same program, whose properties call methods: mutmut leaves functions with a decorator alone."""
    module = cst.parse_module(source)
    return module.with_changes(body=[_with_methods(each) for each in module.body]).code


def _with_methods(statement: cst.CSTNode) -> cst.CSTNode:
    if not isinstance(statement, cst.ClassDef) or m.matches(statement, _PROTOCOL):
        return statement
    body: list[cst.CSTNode] = []
    for each in statement.body.body:
        if m.matches(each, _PROPERTY):
            name = f"_{cst.ensure_type(each, cst.FunctionDef).name.value}_property"
            body.append(each.with_changes(body=cst.IndentedBlock([cst.parse_statement(f"return self.{name}()")])))
            body.append(each.with_changes(name=cst.Name(name), decorators=[]))
        else:
            body.append(each)
    return statement.with_deep_changes(statement.body, body=body)


def configuration(folder: str) -> str:
    """What is added to pyproject.toml."""
    settings = {
        "source_paths": [folder],
        "also_copy": [name for name in _COPIED if name != "pyproject.toml"],
        "pytest_add_cli_args_test_selection": [*TESTS_OF[folder], *(f"--ignore={test}" for test in READ_THE_SOURCE)],
        "pytest_add_cli_args": ["--hypothesis-profile=mutants", "-p", "no:cacheprovider", "-p", "no:xdist"],
        "type_check_command": [sys.executable, "-m", "mypy", "--output=json", "--no-warn-unused-ignores", folder],
        # The times it knows are of a run in which it notes every call, several times as long as of one that does not.
        "timeout_multiplier": 1.0,
        "timeout_constant": 4.0,
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(["", "[tool.mutmut]", *lines, ""])


def make(folder: str, directory: Path) -> None:
    """A fresh copy in `directory`, ready for mutmut to mutate `folder`."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__", "corpus-crash"))
        else:
            shutil.copy2(source, directory / name)
    for path in sorted((directory / folder).rglob("*.py")):
        path.write_text(without_properties(path.read_text(encoding="utf-8")), encoding="utf-8")
    with (directory / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(configuration(folder))
