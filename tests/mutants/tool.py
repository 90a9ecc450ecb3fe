"""Runs mutmut in the working directory, which is a copy made by `tests.mutants.working_copy`; writes `mutants.json`.

What is added to mutmut: mutants that leave a statement out (a call, a change of state, a `raise`), and a sample.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import libcst as cst
import libcst.matchers as m
import pytest
from mutmut import __main__ as mutmut
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.mutators import mutation_operators
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.workers import isolation

_STATE = m.Attribute() | m.Subscript()
_LEFT_OUT = (
    m.Expr(value=m.Call())
    | m.Assign(targets=[m.AssignTarget(target=_STATE)])
    | m.AnnAssign(target=_STATE)
    | m.AugAssign()
    | m.Del()
    | m.Raise()
)


def leave_out(line: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """Without the statement."""
    if len(line.body) == 1 and m.matches(line.body[0], _LEFT_OUT):
        yield line.with_changes(body=[cst.Pass()])


class QuickTestsFirst(PytestRunner):
    """Most mutants are found by a test that takes no time."""

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """The exit code of pytest."""
        in_order = sorted(tests, key=lambda test: (state().duration_by_test.get(test, 0.0), test))
        return super().run_tests(mutant_name=mutant_name, tests=in_order)


def drawn(sample: int, seed: int, workers: int) -> list[str]:
    """Names of mutants: `sample` of all that there are."""
    mutmut.makedirs(Path("mutants"), exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.copy_also_copy_files()
    mutmut.create_mutants(workers)
    found, _ = mutmut.collect_source_file_mutation_data(mutant_names=[])
    names = sorted(name for _, name, _ in found)
    return Random(seed).sample(names, min(sample, len(names)))


def main(sample: int, seed: int, workers: int) -> None:
    """All mutants, or a sample."""
    mutation_operators.append((cst.SimpleStatementLine, leave_out))
    isolation.PytestRunner = QuickTestsFirst
    pytest.Item._nodeid = property(lambda item: item.nodeid)  # mutmut 3.8 wants it; pytest 9.2 has it no more
    mutmut._run(drawn(sample, seed, workers) if sample else [], workers)
    found, _ = mutmut.collect_source_file_mutation_data(mutant_names=[])
    rows = []
    for data, name, _ in found:
        status = status_by_exit_code[data.exit_code_by_key[name]]
        shown = get_diff_for_mutant(name, path=data.path) if status in ("survived", "no tests", "suspicious") else ""
        rows.append({"file": str(data.path), "name": name, "status": status, "diff": shown})
    Path("mutants.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
