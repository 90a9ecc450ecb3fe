"""Choices of third parties: real distributions on the path, whole and broken in every way that was thought of."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migemu import registry
from migemu.registry import Registry
from tests.distributions import install

GROUP = "migemu.tests.fruit"
PEAR = '''
from migemu.registry import Registry

class Pear:
    """A pear."""
'''


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; what is imported from there is forgotten afterwards, and so is what was told."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_warned_of", set())
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        del sys.modules[name]


def fruits() -> Registry[Any]:
    made: Registry[Any] = Registry("fruit", GROUP)

    @made.register("apple")
    class _Apple:
        """An apple."""

    return made


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.name == "migemu" and record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_what_an_entry_point_names_is_there_like_what_is_shipped(shelf: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(shelf, "orchard", PEAR, f"[{GROUP}]\npear = orchard:Pear\n")
    found = fruits()
    assert [entry.name for entry in found] == ["apple", "pear"]
    assert type(found.create("pear")).__name__ == "Pear"
    assert told(caplog) == []


BROKEN = {
    "not there": ("", "orchard:Pear", "AttributeError: "),
    "no module": ("", "nowhere:Pear", "ModuleNotFoundError: No module named 'nowhere'"),
    "needs what is not there": ("import nowhere", "orchard:Pear", "ModuleNotFoundError: No module named 'nowhere'"),
    "syntax": ("class Pear(:", "orchard:Pear", "SyntaxError: "),
    "leaves": ("import sys; sys.exit('bye')", "orchard:Pear", "SystemExit: bye"),
    "raises anything": ("raise BaseExceptionGroup('two\\nlines', [ValueError()])", "orchard:Pear", "two lines"),
    "undocumented": ("class Pear: pass", "orchard:Pear", "TypeError: fruit 'pear' has no docstring"),
    "no factory": ("Pear = 3", "orchard:Pear", "TypeError: "),
    "not a name": (PEAR, "orchard Pear (", ""),
    "a setting of no kind": (
        'class Pear:\n    """A pear."""\n    def __init__(self, *, size: list = ()): ...', "orchard:Pear",
        "setting 'size' needs a default and one of int, float, bool, str",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_one_that_is_broken_is_warned_of_once_and_takes_nothing_else_away(
    how: str, shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, value, reason = BROKEN[how]
    install(shelf, "orchard", module, f"[{GROUP}]\npear = {value}\nplum = {value}\n", version="2.7")
    install(shelf, "whole", PEAR, f"[{GROUP}]\nquince = whole:Pear\n")
    found, other = fruits(), fruits()
    for each in (found, other, found):
        assert [entry.name for entry in each] == ["apple", "quince"]
    (line,) = told(caplog)
    assert line.startswith(f"a plugin is left out: the entry point pear = {value} ({GROUP}) of orchard 2.7 cannot be")
    assert reason in line
    assert "\n" not in line
    with pytest.raises(ValueError, match="fruit 'pear' cannot be used: the entry point pear = ") as refused:
        found.create("pear:size=3")
    assert reason in str(refused.value)
    assert "orchard 2.7" in str(refused.value)
    assert len(told(caplog)) == 1


def test_a_name_that_is_taken_stays_what_it_was(shelf: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(shelf, "orchard", PEAR, f"[{GROUP}]\napple = orchard:Pear\n")
    found = fruits()
    assert type(found.create("apple")).__name__ == "_Apple"
    (line,) = told(caplog)
    assert "of orchard 1.0 cannot be loaded" in line
    assert "_Apple already, it cannot be orchard.Pear too" in line


def test_of_two_distributions_with_one_name_it_is_always_the_same_that_has_it(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("zoo", "orchard"):
        install(shelf, name, PEAR, f"[{GROUP}]\npear = {name}:Pear\n")
    assert type(fruits().create("pear")).__module__ == "orchard"
    (line,) = told(caplog)
    assert "of zoo 1.0" in line
    assert "orchard.Pear already, it cannot be zoo.Pear too" in line


def test_a_list_of_entry_points_that_cannot_be_read_is_one_distribution_less(
    shelf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(shelf, "junk", "", f"[{GROUP}]\nno value\n")
    install(shelf, "orchard", PEAR, f"[{GROUP}]\npear = orchard:Pear\n")
    assert [entry.name for entry in fruits()] == ["apple", "pear"]
    (line,) = told(caplog)
    assert "the entry points of junk 1.0 cannot be loaded" in line
