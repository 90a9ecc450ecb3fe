"""The README is short, and pages promise nothing that is not so; samples are in real/test_readme_samples.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from migemu.docs.topics import FOLDER
from migemu.mm.pages import X86_64
from migemu.node.outcome import Outcome, Snapshot
from migemu.result import build
from migemu.scenario.scenario import Scenario
from migemu.wire.states import Stage
from tests.readmes import READMES

ROOT = Path(__file__).parents[2]
RESULTS = (FOLDER / "reference" / "results.md").read_text(encoding="utf-8")
#: The most words of the first page, its samples included.
WORDS_MAX = 1_200


def empty_result() -> dict[str, object]:
    snapshot = Snapshot(0, Stage.SETUP, X86_64, 0, 0, 0)
    outcome = Outcome(snapshot, False, "", 0, "{}", 0)
    return build(outcome, Scenario(), "measured", "failed", "an error")


def documented_keys() -> set[str]:
    """The keys of the table; `.x` continues the section of the key in front of it."""
    keys: set[str] = set()
    for line in RESULTS.splitlines():
        if not line.startswith("| `"):
            continue
        section = ""
        for key in re.findall(r"`([^`]+)`", line.split("|")[1]):
            if key.startswith("."):
                keys.add(section + key)
            else:
                section = key.split(".")[0]
                keys.add(key)
    return keys


def test_every_key_of_the_result_is_documented_and_every_documented_key_is_there() -> None:
    keys: set[str] = set()
    for name, value in empty_result().items():
        nested = isinstance(value, dict) and name != "scenario"
        keys |= {f"{name}.{inner}" for inner in value} if nested and isinstance(value, dict) else {name}
    assert documented_keys() == keys


def test_the_tour_of_the_memory_model_says_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER / "reference" / "memory-model.md").read_text(encoding="utf-8")
    exec(compile(text.split("```python\n")[1].split("```")[0], "memory-model.md", "exec"), {})
    printed = capsys.readouterr().out
    for said in ("FaultOutcome.WAITING", "5008", "4096", "Level.PTE", "EntryKind.LEAF", "2048 kB", "a larger leaf"):
        assert said in printed


def test_the_first_page_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= WORDS_MAX
    for path in READMES:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path}: {target}"
