"""A checkpoint read back after death at every point of its life, in every way that files can be left."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import mkdtemp

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migemu.checkpoint.restore import resume
from tests.unit.checkpoint.crashes import CrashingDisk, Moment, World, put
from tests.unit.checkpoint.played import LOG_BYTES_MAX, PAGES, Judge, Played

#: Pages with bytes and without, written before and after the generations that name them, words written again; enough
#: writes for logs that follow each other and are folded, twice.
STORY = (
    ("land", 0), ("write", 0), ("land", 1), ("checkpoint", 0), ("write", 0), ("write", 1), ("land", 2), ("write", 2),
    ("write", 2), ("checkpoint", 0), ("land", 3), ("write", 3), ("write", 0), ("write", 0), ("checkpoint", 0),
    ("write", 1), ("land", 4), ("checkpoint", 0), ("write", 4),
)  # fmt: skip


def test_every_moment_of_a_life_can_be_the_last(quick_path: Path) -> None:
    played = Played(quick_path / "live")
    played.play(STORY)
    judge = Judge(played, quick_path)
    for moment, mark in played.moments():
        judge.judge(moment.killed(), mark, is_killed=True)
        for way, world in moment.powerless():
            try:
                judge.judge(world, mark, is_killed=False)
            except AssertionError as error:
                raise AssertionError(f"after {moment.what}, {way}: {error}") from None
    played.end()
    assert judge.worlds > 400


def test_what_happens_while_a_checkpoint_is_made_is_in_it_or_after_it(quick_path: Path) -> None:
    """At each step of the last checkpoint's thread the guest writes, and a page comes and is written to."""
    story = STORY[:14]
    counted = Played(quick_path / "counted")
    counted.play((*story, ("checkpoint", 0)))
    counted.end()
    for at in range(counted.steps_when_planned, counted.disk.steps):
        played = Played(quick_path / f"live {at}")

        def meanwhile(step: int, at: int = at, played: Played = played) -> None:
            if step == at:
                played.disk.between = lambda _: None
                played.write(0)
                played.land(9)
                played.write(9)

        played.disk.between = meanwhile
        played.play((*story, ("checkpoint", 0)))
        begun = next(number for number, (moment, _) in enumerate(played.moments()) if moment.what == "half of page 9")
        judge = Judge(played, quick_path / f"worlds {at}")
        for moment, mark in played.moments()[begun - 2 :]:
            judge.judge(moment.killed(), mark, is_killed=True)
            for _, world in moment.powerless():
                judge.judge(world, mark, is_killed=False)
        played.end()


def test_coming_back_can_be_interrupted_at_every_step_and_begun_again(quick_path: Path) -> None:
    played = Played(quick_path / "live")
    played.play(STORY)
    moment, mark = played.moments()[-1]
    for number, (world, is_killed) in enumerate(((moment.killed(), True), *_the_worst(moment))):
        directory = put(world, quick_path / str(number))
        disk = CrashingDisk(directory)
        disk.adopt()
        kept = resume(disk, directory, LOG_BYTES_MAX)
        assert kept is not None
        kept.checkpoint.close()
        disk.note("resumed")
        judge = Judge(played, quick_path / f"worlds of {number}")
        for again in disk.moments:
            judge.judge(again.killed(), mark, is_killed=is_killed)
            for _, world in again.powerless():
                judge.judge(world, mark, is_killed=False)
        disk.forget()
    played.end()


def _the_worst(moment: Moment) -> list[tuple[World, bool]]:
    return [(world, False) for way, world in moment.powerless() if "alone dropped" in way or "torn" in way]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.integers(0, PAGES - 1)),
        st.tuples(st.just("write"), st.integers(0, PAGES - 1)),
        st.tuples(st.just("checkpoint"), st.just(0)),
    ),
    min_size=3, max_size=40,
)  # fmt: skip


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=actions, then=actions, seed=st.integers(0, 2**32))
def test_any_life_comes_back_from_any_mixture_of_old_and_new_and_lives_on(
    first: list[tuple[str, int]], then: list[tuple[str, int]], seed: int, quick_path: Path
) -> None:
    """Each page of a file of another age, logs cut anywhere; after a kill the guest goes on, and dies again."""
    random, base = Random(seed), Path(mkdtemp(dir=quick_path))
    played = Played(base / "live")
    played.play(first)
    judge = Judge(played, base / "first")
    moments = played.moments()
    for moment, mark in random.sample(moments, min(len(moments), 20)):
        judge.judge(moment.killed(), mark, is_killed=True)
        judge.judge(moment.drawn(random), mark, is_killed=False)
    played.revive(put(played.moments()[-1][0].killed(), base / "second life"))
    played.play(then)
    judge = Judge(played, base / "second")
    moments = played.moments()[len(moments) :]
    for moment, mark in random.sample(moments, min(len(moments), 20)):
        judge.judge(moment.killed(), mark, is_killed=True)
        judge.judge(moment.drawn(random), mark, is_killed=False)
    played.end()
