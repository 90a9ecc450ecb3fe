"""Every number once, for any size; and different keys and seeds are different orders."""

from __future__ import annotations

from random import Random

import pytest

from migemu.permutation import CyclicWalk, Scatter


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 1000, 4096, 4097])
def test_every_number_once(size: int) -> None:
    for seed in range(5):
        walk, scatter = CyclicWalk(size, Random(seed)), Scatter(size, seed)
        assert sorted(walk.step() for _ in range(size)) == list(range(size))
        assert sorted(scatter.place(number) for number in range(size)) == list(range(size))


def test_keys_and_seeds_make_a_difference() -> None:
    walks, scatters = set(), set()
    for key in range(20):
        walk, scatter = CyclicWalk(4096, Random(key)), Scatter(4096, key)
        walks.add(tuple(walk.step() for _ in range(64)))
        scatters.add(tuple(scatter.place(number) for number in range(64)))
    assert len(walks) == len(scatters) == 20


def test_the_numbers_are_these_on_every_machine() -> None:
    """Golden: a change here changes every recorded run."""
    walk, scatter = CyclicWalk(100, Random(1)), Scatter(100, 0)
    assert [walk.step() for _ in range(8)] == [13, 40, 61, 92, 14, 3, 48, 52]
    assert [scatter.place(number) for number in range(8)] == [4, 32, 18, 53, 80, 89, 22, 49]


def test_an_empty_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        CyclicWalk(0, Random(1))
    with pytest.raises(ValueError, match="give 1 or more"):
        Scatter(0, 1)


def test_shows_itself() -> None:
    assert repr(CyclicWalk(16, Random(1))) == "<CyclicWalk of 16>"
    assert repr(Scatter(16, 1)) == "<Scatter of 16>"
