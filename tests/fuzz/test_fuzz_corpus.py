"""The corpus of `make fuzz` is replayed, and a little of the campaign is run: what was found once stays found."""

from __future__ import annotations

import os
import sys
from itertools import count, islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fuzz import campaign, seeds
from tests.fuzz.__main__ import main
from tests.fuzz.mutation import parts_of
from tests.fuzz.tally import JUDGES, Tally
from tests.fuzz.targets import TARGETS

CORPUS_BYTES_MAX = 64 * 1024


@pytest.mark.parametrize("name", seeds.corpus())
def test_an_input_of_the_corpus_shows_nothing(name: str) -> None:
    tally = Tally()
    campaign.replay(seeds.corpus()[name], tally)
    assert sum(tally.inputs.values()) == 1


def test_the_corpus_is_small_and_has_inputs_for_every_target() -> None:
    corpus = seeds.corpus()
    assert sum(map(len, corpus.values())) <= CORPUS_BYTES_MAX
    assert {data[0] for data in [*corpus.values(), *seeds.honest_inputs().values()]} == set(TARGETS)


def test_nothing_is_wrong_with_an_honest_input() -> None:
    for name, data in seeds.honest_inputs().items():
        tally = Tally()
        campaign.replay(data, tally)
        assert not [outcome for outcome in tally.outcomes if "refused" in outcome and "talk" not in outcome], name


def test_frames_are_taken_apart_and_put_together() -> None:
    stream = b"".join(part.bytes() for part in seeds.FRAMES)
    assert parts_of(stream) == seeds.FRAMES


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, again, other = (list(islice(campaign.inputs(seed), 200)) for seed in ("1", "1", "2"))
    assert first == again != other


def test_a_short_campaign_finds_nothing_and_comes_before_every_judge() -> None:
    tally = Tally()
    campaign.run("corpus", frames=20_000, seconds=0, tally=tally)
    judges = {judge for _, judge in tally.by_kind}
    assert judges == set(JUDGES)
    assert set(tally.inputs) == {name for name, _ in TARGETS.values()}
    assert len({kind for kind, judge in tally.by_kind if judge == "heard"}) == 20


def test_the_command_tells_what_it_has_tried() -> None:
    told = CliRunner().invoke(main, ["--frames", "500", "--seconds", "0", "--seed", "told"])
    assert told.exit_code == 0, told.output
    assert "seed told: " in told.output
    assert "nothing found" in told.output


def test_what_is_found_is_kept_with_the_line_that_replays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that fails for one input: the line names a file, and the file fails again."""
    bad = b"Xbad"

    def fails(data: bytes, _: Tally) -> None:
        assert data != bad[1:], "it is bad"

    monkeypatch.setitem(TARGETS, ord("X"), ("bad", fails))
    monkeypatch.setattr(seeds, "CRASHES", tmp_path / "crashes")
    monkeypatch.setattr(campaign, "inputs", lambda _: iter([b"Xgood", bad]))
    with pytest.raises(campaign.FoundError, match="it is bad; replay: ") as found:
        campaign.run("1", 0, 60, Tally())
    path = str(found.value).rpartition(" ")[2]
    assert Path(path).read_bytes() == bad
    again = CliRunner().invoke(main, ["--guided", "off"])
    assert again.exit_code == 1
    assert f"replay: {Path(sys.executable).name} -m tests.fuzz {path}" in again.output
    assert isinstance(CliRunner().invoke(main, [path]).exception, AssertionError)


def test_an_input_that_never_ends_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object) -> None:
        while True:
            os.getpid()

    monkeypatch.setitem(TARGETS, ord("X"), ("hang", hangs))
    monkeypatch.setattr(campaign, "HANG_S", 0.05)
    with pytest.raises(campaign.HangError):
        campaign.replay(b"X", Tally())


def test_a_process_that_grows_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = count(campaign.GROWTH_KIB_MAX, campaign.GROWTH_KIB_MAX)
    monkeypatch.setattr(campaign, "memory_kib", lambda: next(grown))
    with pytest.raises(campaign.FoundError, match="the process has grown from"):
        campaign.run("grown", frames=20_000, seconds=0, tally=Tally())
