"""Which cell an objective chooses: what has to be there, which figure decides, and what is said."""

from __future__ import annotations

from typing import Final

import pytest

from migemu.errors import InputError
from migemu.experiment.objective import DEFAULT, OBJECTIVES, Choice, choose, find_objective

LOST, SILENCE, P99, AT_1G = "lost_ns.mean", "guest.longest_silence_ns", "fault.p99_ns", "mapping.to_1G_ns"

#: Of `hgm_question`, pieces of 4K, heads counted only (migemu/experiment/README.md), in ms; 1G in s.
QUESTION: Final = {
    f"{order}, {collapse}": {LOST: lost, SILENCE: silence, P99: p99, **({AT_1G: at_1g} if at_1g else {})}
    for order, rows in {
        "sequential": [("never", 0.57, 97, 2, 0), ("at_end", 0.57, 1589, 747, 2.11), ("16x2M", 24, 1520, 27, 2.10),
                       ("eager", 4, 916, 8, 2.08), ("budget", 4.1, 552, 8, 3.04)],
        "fault_follow": [("never", 0.58, 97, 2, 0), ("at_end", 0.58, 1589, 747, 2.11), ("16x2M", 24, 1299, 25, 2.11),
                         ("eager", 4.7, 829, 25, 2.07), ("budget", 3.8, 526, 7, 3.04)],
        "fill_pmd": [("never", 0.58, 98, 2, 0), ("at_end", 0.58, 1590, 747, 2.11), ("16x2M", 24, 1244, 59, 2.11),
                     ("eager", 3.3, 788, 40, 2.07), ("budget", 2.6, 530, 6, 3.04)],
    }.items()
    for collapse, p99, lost, silence, at_1g in rows
}  # fmt: skip


def chosen(name: str, means: dict[str, dict[str, float]]) -> Choice:
    found = choose(OBJECTIVES[name], means)
    assert found is not None
    return found


def test_the_default_chooses_what_the_readme_does() -> None:
    assert chosen(DEFAULT, QUESTION) == Choice("fill_pmd, budget", SILENCE, "")


@pytest.mark.parametrize(
    ("name", "cell", "decided_by"),
    [
        ("lost", "sequential, never", LOST),
        ("latency", "sequential, never", P99),
        ("silence", "sequential, never", SILENCE),
        ("to_1G", "fill_pmd, eager", LOST),
    ],
)
def test_other_objectives_choose_others(name: str, cell: str, decided_by: str) -> None:
    assert chosen(name, QUESTION)[:2] == (cell, decided_by)


def test_what_no_cell_has_is_not_asked_for_and_told() -> None:
    measured = {"a": {LOST: 3.0, SILENCE: 1.0}, "b": {LOST: 2.0, SILENCE: 1.0}}
    assert chosen(DEFAULT, measured) == Choice("b", LOST, f"no cell has {AT_1G}, which it asks for: all cells count")


def test_a_few_per_cent_decide_nothing_while_another_figure_can() -> None:
    near = {"a": {LOST: 100.0, SILENCE: 9.0, AT_1G: 1.0}, "b": {LOST: 104.0, SILENCE: 1.0, AT_1G: 1.0}}
    assert chosen(DEFAULT, near)[:2] == ("b", SILENCE)
    near["b"][LOST] = 106.0
    assert chosen(DEFAULT, near)[:2] == ("a", LOST)


def test_cells_that_are_all_alike_have_no_best() -> None:
    alike = {name: {LOST: 0.0, SILENCE: 1.0, AT_1G: 1.0} for name in "ab"}
    assert choose(OBJECTIVES[DEFAULT], alike) is None
    assert choose(OBJECTIVES[DEFAULT], {"a": {}, "b": {}}) is None


def test_an_unknown_objective_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="did you mean latency"):
        find_objective("latncy")
    with pytest.raises(InputError, match="there are guest, lost, latency"):
        find_objective("?")
