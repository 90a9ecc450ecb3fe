"""Eight migrations at once in one destination: each has its own memory, its own end, and its own errors."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from dest_node.verdict import Verdict
from migemu.errors import BrokenError, GaveUpError, VerificationError
from migemu.mm.pages import PageIndex
from migemu.store.image import ImageMemory
from migemu.wire.messages import Advise, ChannelRole, Failed, Hello
from source_node.source_outcome import SourceOutcome
from tests.addresses import PLACE
from tests.conformance.ear import Ear
from tests.unit.dest_node.town import Reach, Town, named, settings

EIGHT = range(1, 9)


def check_verified(town: Town, *seeds: int, signed: bool = True) -> None:
    """Each holds what its own source had, which nobody else's source had."""
    digests = {town.outcomes[named(seed)].digest for seed in seeds}
    assert len(digests) == len(seeds)
    for seed in seeds:
        assert town.ends[named(seed)] is None
        outcome = town.outcomes[named(seed)]
        assert outcome.verified
        assert outcome.certificate is not None
        if signed:
            assert outcome.certificate.countersigned
            assert outcome.certificate.source_digest == outcome.digest


def test_eight_at_once_each_end_with_their_own_memory() -> None:
    town = Town(settings(), 8)
    *sent, served = town.play(*(town.source(seed).run(PLACE) for seed in EIGHT))
    assert served is None
    check_verified(town, *EIGHT)
    assert [each.digest for each in sent] == [town.outcomes[named(seed)].digest for seed in EIGHT]
    assert len(town.memories) == 8
    for memory in town.memories:
        memory.validate()
    assert not town.notices


def test_each_may_have_a_memory_of_another_size() -> None:
    """What a peer may name is judged by its own memory, on all of its connections, those that recover included."""
    town = Town(settings(), 8)
    reaches = [Reach(town.network) for _ in EIGHT]
    sources = [town.source(seed, reaches[seed - 1], pages=16 * seed) for seed in EIGHT]

    async def cut() -> None:
        await asyncio.sleep(0.02)
        for reach in reaches:
            reach.cut()

    *_, served = town.play(*(source.run(PLACE) for source in sources), cut())
    assert served is None
    check_verified(town, *EIGHT, signed=False)
    sizes = [town.outcomes[named(seed)].snapshot.memory_bytes for seed in EIGHT]
    assert sizes == [seed * 16 * 4096 for seed in EIGHT]
    assert sum(outcome.recovery.count for outcome in town.outcomes.values()) > 4


def test_the_same_runs_play_the_same_way() -> None:
    towns = [Town(settings(), 8) for _ in range(2)]
    for town in towns:
        town.play(*(town.source(seed).run(PLACE) for seed in EIGHT))
    first, second = towns
    assert first.loop.statistics() == second.loop.statistics()
    assert first.outcomes == second.outcomes


@pytest.mark.parametrize("more", [(), ("pull.preempt=off",), ("integrity.digests=on",)], ids=str)
def test_every_source_that_comes_again_finds_its_own_migration(more: tuple[str, ...]) -> None:
    """All connections of a random one are cut, again and again, until each has been cut."""
    town, rng = Town(settings(*more), 8), Random(3)
    reaches = {seed: Reach(town.network) for seed in EIGHT}

    async def cut() -> None:
        for seed in rng.sample([*EIGHT, *EIGHT], 16):
            await asyncio.sleep(rng.uniform(0.002, 0.008))
            reaches[seed].cut()

    *sent, _, served = town.play(*(town.source(seed, reaches[seed]).run(PLACE) for seed in EIGHT), cut())
    assert served is None
    check_verified(town, *EIGHT, signed=False)  # a cut may take a last word with it
    assert all(isinstance(each, SourceOutcome) for each in sent)
    assert sum(outcome.recovery.count for outcome in town.outcomes.values()) >= 8


class Lying:
    """ports.SourceMemory that says of its seventh page that it is another one."""

    def __init__(self, memory: ImageMemory) -> None:
        self.geometry, self.image_bytes, self.memory_bytes = memory.geometry, memory.image_bytes, memory.memory_bytes
        self.read = memory.read
        self._digests, self.digests_of, self.changed = memory.digests, memory.digests_of, memory.changed

    def digests(self, first: PageIndex, count: int) -> bytes:
        told = bytearray(self._digests(first, count))
        if first <= 6 < first + count:
            told[(6 - first) * 8] ^= 1
        return bytes(told)


async def killed(town: Town, seed: int, after_s: float) -> None:
    """A source whose process is killed: its connections break, and nobody comes again."""
    reach = Reach(town.network)
    task = asyncio.ensure_future(town.source(seed, reach).run(PLACE))
    await asyncio.sleep(after_s)
    for channel in reach.made:
        channel.abort()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def says(town: Town, *messages: Any) -> Ear:
    """Somebody who says these messages, and nothing more."""
    ear = Ear()
    channel = await town.network.connect(PLACE, ear)
    for message in messages:
        channel.send(message)
    return ear


def test_one_that_is_killed_stalls_or_lies_is_nothing_to_the_others() -> None:
    """Three go wrong, each in its own way; five are verified, and the worst error is told."""
    town = Town(settings("recovery.timeout=2s"), 8)
    good = (4, 5, 6, 7, 8)
    advise = Advise("tiny", 1 << 20, 1 << 20, 0, False, "{}")
    results = town.play(
        killed(town, 1, 0.02),
        says(town, Hello(ChannelRole.MAIN, named(2)), advise),
        town.source(3, memory=Lying(town.memory(3))).run(PLACE),
        *(town.source(seed).run(PLACE) for seed in good),
    )
    check_verified(town, *good)
    assert isinstance(results[2], VerificationError)
    assert isinstance(town.ends[named(1)], BrokenError)
    assert "recovery.timeout" in str(town.ends[named(1)])
    assert "has been silent" in str(town.ends[named(2)])
    assert isinstance(town.ends[named(3)], VerificationError)
    assert results[-1] is town.ends[named(3)], "the worst of all errors is the destination's"


def test_the_worst_error_is_told_whichever_came_first() -> None:
    """Memory that is refused (2) is none of its migrations; memory that differs (5); a source that is killed (3)."""
    town = Town(settings("limits.memory_max=512K", "recovery.timeout=1s"), 2)

    async def one_after_the_other() -> None:
        with pytest.raises(GaveUpError):
            await town.source(1, memory=town.memory(1, pages=256)).run(PLACE)
        with pytest.raises(VerificationError):
            await town.source(2, memory=Lying(town.memory(2))).run(PLACE)
        await town.until(lambda: len(town.ends) == 1)
        await killed(town, 3, 0.004)

    *_, served = town.play(one_after_the_other())
    assert [type(end) for end in town.ends.values()] == [VerificationError, BrokenError]
    assert isinstance(served, VerificationError)
    assert any("limits.memory_max of this destination is 512K" in notice for notice in town.notices)


def test_what_is_written_down_at_an_end_may_fail_and_is_that_ones_error() -> None:
    """A disk that is full, for one of two; what is no error of ours too."""
    town = Town(settings(), 2)
    ended = town.ended

    async def full(incoming: Any, error: BaseException | None) -> None:
        await ended(incoming, error)
        if incoming.migration == named(1):
            raise OSError("No space left on device")

    town.ended = full  # type: ignore[method-assign]
    *sent, served = town.play(*(town.source(seed).run(PLACE) for seed in (1, 2)))
    assert all(each.verified for each in sent)
    assert isinstance(served, OSError)
    check_verified(town, 1, 2)


def test_the_memory_of_one_that_has_ended_goes_back_at_once() -> None:
    town = Town(settings(), 3)
    *_, served = town.play(*(town.source(seed).run(PLACE) for seed in (1, 2, 3)))
    assert served is None
    assert sorted(map(id, town.released)) == sorted(map(id, town.memories))
    alone = Town(settings(), 1)
    *_, served = alone.play(alone.source(1).run(PLACE))
    assert served is None
    assert not alone.released, "it is yet to be looked at"


def test_a_bug_in_one_of_them_leaves_the_others_alone() -> None:
    town = Town(settings(), 2)
    allocate = town.allocate

    async def broken(*arguments: Any) -> Any:
        if not town.memories:
            await allocate(*arguments)
            raise ZeroDivisionError("a bug")
        return await allocate(*arguments)

    town.allocate = broken  # type: ignore[method-assign]
    *_, served = town.play(*(town.source(seed).run(PLACE) for seed in (1, 2)))
    assert sorted(end is None for end in town.ends.values()) == [False, True]
    assert isinstance(served, ZeroDivisionError)


async def refused(town: Town, seed: int) -> str:
    """What a source is told that comes when as many are there as can be."""
    await town.until(lambda: len(town.memories) == min(8, town.scenario.limits.migrations_max))
    with pytest.raises(GaveUpError) as told:
        await town.source(seed).run(PLACE)
    return str(told.value)


@pytest.mark.parametrize(
    ("more", "migrations", "told"),
    [
        ((), 8, "this destination serves 8 migrations (--migrations), and all have come"),
        (("limits.migrations_max=2",), 4, "is busy with 2 migrations, as many as it serves at once (limits.migrat"),
    ],
)
def test_one_too_many_is_turned_away_and_told_why(more: tuple[str, ...], migrations: int, told: str) -> None:
    town = Town(settings(*more), migrations)
    first = range(1, min(8, town.scenario.limits.migrations_max) + 1)

    async def later() -> Any:
        """Those for whom there is room when the first have ended."""
        await town.until(lambda: len(town.ends) == len(first))
        return [await town.source(seed).run(PLACE) for seed in range(len(first) + 1, migrations + 1)]

    said, *_, served = town.play(refused(town, 99), *(town.source(seed).run(PLACE) for seed in first), later())
    assert told in said
    assert any(told in notice for notice in town.notices)
    assert served is None
    check_verified(town, *range(1, migrations + 1))


def test_memory_is_counted_over_all_of_them_and_free_again_when_one_has_ended() -> None:
    """Room for two. The third is refused, and is none of those that are to be served; a later one has room again."""
    town = Town(settings("limits.memory_max=1M"), 3)

    async def third() -> str:
        await town.until(lambda: len(town.memories) == 2)
        with pytest.raises(GaveUpError) as told:
            await town.source(3).run(PLACE)
        return str(told.value)

    async def fourth() -> Any:
        await town.until(lambda: len(town.ends) == 2)
        return await town.source(4).run(PLACE)

    *_, told, _, served = town.play(*(town.source(seed).run(PLACE) for seed in (1, 2)), third(), fourth())
    assert "limits.memory_max of this destination is 1M, of which other migrations have 1M" in told
    assert served is None
    check_verified(town, 1, 2, 4)


def test_whoever_comes_again_after_its_end_is_told_of_the_end() -> None:
    town = Town(settings(), 2)

    async def second() -> Any:
        await town.until(lambda: bool(town.ends))
        ear = await says(town, Hello(ChannelRole.MAIN, named(1), True))
        await ear.end()
        return [message for message, _ in ear.heard], await town.source(2).run(PLACE)

    _, (heard, sent), served = town.play(town.source(1).run(PLACE), second())
    assert Failed("migration 00000000 has ended here: it was verified", True) in heard
    assert sent.verified
    assert served is None


def test_no_further_source_within_the_time_for_it_ends_the_wait() -> None:
    town = Town(settings("net.listen_timeout=1s"), 2)
    sent, served = town.play(town.source(1).run(PLACE))
    assert sent.verified
    assert isinstance(served, BrokenError)
    assert "no other source came within 1s (net.listen_timeout)" in str(served)
    check_verified(town, 1)


def test_interrupted_all_of_them_are_told() -> None:
    town = Town(settings("push.hold=1s", "guest.vcpus=0"), 8)

    async def interrupted() -> list[Any]:
        await town.destination.listen(PLACE)
        serving = asyncio.ensure_future(town.destination.serve_all())
        sources = [asyncio.ensure_future(town.source(seed).run(PLACE)) for seed in EIGHT]
        await asyncio.sleep(0.5)
        serving.cancel()
        return await asyncio.gather(*sources, serving, return_exceptions=True)

    *told, served = town.loop.run(interrupted())
    assert isinstance(served, asyncio.CancelledError)
    assert all("the destination was interrupted" in str(each) for each in told)
    assert len(town.ends) == 8
    assert all(isinstance(each, asyncio.CancelledError) for each in town.ends.values())


@pytest.mark.parametrize("more", [(), ("pull.preempt=off",)], ids=str)
def test_a_source_that_has_not_heard_the_verdict_hears_it_after_the_end(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory was given back long ago; the verdict stands, and it compares the digest with its own."""
    town, pronounced = Town(settings("recovery.timeout=1s", *more), 2), asyncio.Event()
    reach_verdict = Verdict.reach

    async def is_pronounced(self: Verdict, parts: Any) -> Any:
        complete = await reach_verdict(self, parts)
        pronounced.set()
        return complete

    monkeypatch.setattr(Verdict, "reach", is_pronounced)
    there = Reach(town.network)
    first = town.source(1, there)

    async def dies_and_comes_again() -> SourceOutcome:
        run = asyncio.get_running_loop().create_task(first.run(PLACE))
        await pronounced.wait()
        there.cut()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await town.until(lambda: named(1) in town.ends)
        assert len(town.released) == 1
        heard = await town.source(1).recover(PLACE, 1, ran=True, all_sent=True)
        await town.source(2).run(PLACE)
        return heard

    heard, served = town.play(dies_and_comes_again())
    assert served is None
    certificate = town.outcomes[named(1)].certificate
    assert certificate is not None
    assert not certificate.countersigned
    assert heard.verified
    assert heard.digest == town.outcomes[named(1)].digest
    assert "migration 00000000: its source has heard the verdict now" in town.notices
