"""The pytest plugin, as those use it who have installed migemu."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from migemu.cli.main import main as command
from migemu.docs.topics import FOLDER
from migemu.ordering import golden, run

#: Loaded here, they stay loaded from one inner run to the next.
LOADED = (golden, run)

PAGE = FOLDER / "reference" / "plugins.md"

SMALL = """
from migemu.mm.pages import Level, Span
from migemu.policy.collapse_policy import Eager

class Mine(Eager):
    pass

class Hasty(Eager):
    def mapped(self, first, count, view):
        pmd = Span(first - first % 4, Level.PMD)
        return [pmd] if view.mapped.count(pmd.first, 4) >= 3 and not view.is_leaf(pmd) else []
"""


def inner(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest as a user runs it who has migemu, and not pytest-asyncio."""
    return pytester.runpytest_inprocess("-p", "no:asyncio", *arguments)


def test_the_example_of_the_page_passes_as_it_stands(pytester: pytest.Pytester) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    examples = [block for block in blocks if "migemu_scenario" in block]
    assert len(examples) == 1, "the page shows one policy under test"
    assert sum(bool(line.strip()) for line in examples[0].splitlines()) <= 5
    pytester.makepyfile(examples[0])
    result = inner(pytester)
    result.assert_outcomes(passed=examples[0].count("def test_"))
    result.stdout.re_match_lines([r"migemu: 1 explored: [\d]{5,} states, [\d]+ transitions; 20 runs of scenarios"])


def test_nothing_is_loaded_before_it_is_used() -> None:
    """Whoever has migemu installed and tests something else pays nothing for it."""
    code = "import sys, pytest, migemu.ordering.plugin; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("migemu")} == {
        "migemu", "migemu.ordering", "migemu.ordering.plugin",
    }  # fmt: skip
    assert not loaded & {"numpy", "uvloop", "attrs", "attr", "rich", "msgpack", "asyncio"}


def test_who_does_not_use_it_sees_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass")
    result = inner(pytester)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*migemu:*")


def test_the_fixtures_and_options_are_listed(pytester: pytest.Pytester) -> None:
    result = inner(pytester, "--fixtures")
    result.stdout.fnmatch_lines(["migemu_explore*", "migemu_scenario*", "migemu_golden*"])
    result = inner(pytester, "--help")
    result.stdout.fnmatch_lines(["*--migemu-update-golden*", "*--migemu-seed=N*", "*--migemu-states-max=N*"])


def test_a_wrong_policy_fails_with_the_steps_to_it_and_little_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SMALL + "def test_hasty(migemu_explore):\n    migemu_explore(Hasty)\n")
    result = inner(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E*proposals_sound: the policy proposed to collapse the 2M at base page 0; refused: not received (base page 1)",
        "E*in 5 steps, the fewest there are; * states seen:",
        "E*5. the receiver refuses to collapse the 2M at base page 0: not received",
        "E*replay: migemu.ordering.explore(*.Hasty)",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*in explore*")
    assert len(result.outlines) < 45, "the kit's own frames are not shown"


def test_a_policy_that_raises_is_shown_where_it_does(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        SMALL
        + """
class Raising(Eager):
    def ended(self, view):
        return [1 / 0]

def test_raising(migemu_scenario):
    migemu_scenario(policy=Raising)
"""
    )
    result = inner(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*return [[]1 / 0]*", "E*no_exception: ZeroDivisionError: division by zero"])


def test_the_bound_of_states_can_be_set_from_outside(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SMALL + "def test_mine(migemu_explore):\n    migemu_explore(Mine)\n")
    result = inner(pytester, "--migemu-states-max=100")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*TooManyStatesError: more than 100 states*"])


def test_one_seed_of_many_can_be_run_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        SMALL
        + """
def test_seeds(migemu_scenario):
    results = migemu_scenario({"push.order": "random"}, policy=Mine, seeds=5)
    print("seeds", [result.seed for result in results], results[0].policy)
    assert migemu_scenario(seed=9).seed in (9, 3)
"""
    )
    result = inner(pytester, "-s")
    result.stdout.fnmatch_lines(["*seeds [[]1, 2, 3, 4, 5[]] *.Mine*", "migemu: 6 runs of scenarios"])
    result = inner(pytester, "-s", "--migemu-seed=3")
    result.stdout.fnmatch_lines(["*seeds [[]3[]] *", "migemu: 2 runs of scenarios"])


# --- golden traces ---

GOLDEN = """
def test_golden(migemu_scenario, migemu_golden):
    migemu_golden("small", migemu_scenario({"memory.size": "64K", "guest.vcpus": 1}, seed=SEED))
"""


def golden_test(pytester: pytest.Pytester, seed: int) -> Path:
    pytester.makepyfile(test_it=GOLDEN.replace("SEED", str(seed)))
    return pytester.path / "golden" / "small.jsonl"


def test_a_golden_trace_is_made_compared_and_made_anew(pytester: pytest.Pytester) -> None:
    path = golden_test(pytester, 1)
    result = inner(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*golden/small.jsonl is missing; make it with: pytest --migemu-update-golden*"])
    assert not path.exists()

    inner(pytester, "--migemu-update-golden").assert_outcomes(passed=1)
    first = path.read_text(encoding="utf-8")
    assert json.loads(first.splitlines()[0])["schema"] == "migemu-trace"
    inner(pytester).assert_outcomes(passed=1)

    golden_test(pytester, 22)
    result = inner(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([
        r"the trace is not that of .*small\.jsonl: line \d+ is the first that differs \(\d+ lines in the golden file, "
        r"\d+ now\):",
        r"    \{.*",
        r"  - \{.*",
        r"  \+ \{.*",
        r"if that is meant: pytest --migemu-update-golden, and look at what has changed",
    ])  # fmt: skip
    assert path.read_text(encoding="utf-8") == first

    inner(pytester, "--migemu-update-golden").assert_outcomes(passed=1)
    assert path.read_text(encoding="utf-8") != first
    inner(pytester).assert_outcomes(passed=1)


def test_a_trace_that_ends_early_or_late_differs_where_it_ends(pytester: pytest.Pytester) -> None:
    path = golden_test(pytester, 1)
    inner(pytester, "--migemu-update-golden")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    inner(pytester).stdout.fnmatch_lines(["*(the golden trace ends here)*"])
    path.write_text("".join([*lines, lines[-1]]), encoding="utf-8")
    inner(pytester).stdout.fnmatch_lines(["*(the trace ends here)*"])


def test_events_can_be_given_instead_of_a_result(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
def test_golden(migemu_scenario, migemu_golden):
    result = migemu_scenario(seed=1)
    migemu_golden("whole", result)
    migemu_golden("whole", list(result.trace))
    migemu_golden("faults", [event for event in result.trace if event.vcpu is not None])
""")
    inner(pytester, "--migemu-update-golden").assert_outcomes(passed=1)
    inner(pytester).assert_outcomes(passed=1)
    assert {path.name for path in (pytester.path / "golden").iterdir()} == {"whole.jsonl", "faults.jsonl"}


def test_a_golden_trace_is_a_trace_that_can_be_checked(pytester: pytest.Pytester) -> None:
    path = golden_test(pytester, 1)
    inner(pytester, "--migemu-update-golden")
    with pytest.raises(SystemExit) as done:
        command(["check", str(path)])
    assert done.value.code == 0
