"""What an operator orders of the services, in virtual time: pause, resume, another address, cancel; what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from migemu.address import TcpAddress
from migemu.errors import BrokenError, GaveUpError, InputError, StoppedError
from migemu.wire.states import Stage
from source_node.service import Source
from source_node.source_outcome import SourceOutcome
from tests.addresses import PLACE
from tests.unit.dest_node.town import Reach, Town, named, settings

ELSEWHERE = TcpAddress("elsewhere", 5555)
#: Nothing is pushed for a while: a moment in which both nodes are in the middle of it.
HELD = ("push.hold=500ms", "guest.rate=50", "pull.preempt=off")


class Scene:
    """One migration, and an operator at both nodes."""

    def __init__(self, *more: str) -> None:
        self.town = Town(settings(*HELD, *more), 1)
        self.reach = Reach(self.town.network)
        self.source: Source = self.town.source(1, self.reach)

    @property
    def incoming(self) -> Any:
        return self.town.destination.chosen("")

    async def after(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)

    def play(self, *orders: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """What became of the source, of each of `orders`, and of the destination."""
        return self.town.play(self.source.run(PLACE), *(order() for order in orders))

    def is_whole(self, sent: Any) -> None:
        assert isinstance(sent, SourceOutcome), sent
        outcome = self.town.outcomes[named(1)]
        assert outcome.verified
        assert outcome.snapshot.receiver.pages_duplicate == 0


@pytest.mark.parametrize("settings", [(), ("pull.preempt=on",), ("integrity.digests=on",)], ids=str)
@pytest.mark.parametrize("ms", [5, 100, 505])
def test_a_pause_of_both_takes_as_long_as_it_takes_and_then_all_goes_on(ms: int, settings: tuple[str, ...]) -> None:
    """A hundred times as long as either would wait for the other; in the quiet, and while pages fly."""
    scene = Scene("recovery.timeout=2s", *settings)

    async def operator() -> None:
        await scene.after(ms)
        assert "base pages were sent" in scene.source.pause()
        assert "vCPUs run on where their pages are here" in scene.incoming.pause()
        await asyncio.sleep(200)
        assert scene.source.status().held
        assert scene.source.status().stage is Stage.PAUSED
        assert scene.source.status().last_error == "an operator has paused it"
        assert scene.incoming.snapshot().held
        assert scene.incoming.snapshot().stage is Stage.PAUSED
        assert scene.incoming.snapshot().last_error == "an operator has paused it"
        scene.incoming.resume()
        assert "is tried" in scene.source.resume()

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)
    assert sent.recoveries == 1


def test_a_destination_that_is_paused_lets_no_source_in_which_does_not_count_as_an_error() -> None:
    """The source tries for as long as it would without an answer; more often than it may be refused."""
    scene = Scene("recovery.timeout=60s", "recovery.errors_max=2", "recovery.backoff_max=1s")

    async def operator() -> None:
        await scene.after(50)
        scene.incoming.pause()
        await asyncio.sleep(30)
        assert len(scene.reach.made) > 10
        assert scene.incoming.snapshot().stage is Stage.PAUSED
        scene.incoming.resume()

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)
    assert scene.town.outcomes[named(1)].recovery.errors == 0
    assert scene.town.destination.connections == 0


def test_a_source_that_is_paused_alone_is_waited_for_no_longer_than_without_an_operator() -> None:
    scene = Scene("recovery.timeout=2s")

    async def operator() -> None:
        await scene.after(50)
        assert "unless it is paused too" in scene.source.pause()
        await asyncio.sleep(10)
        scene.source.resume()

    sent, _, served = scene.play(operator)
    assert "recovery.timeout" in str(served)
    assert isinstance(sent, BrokenError)


def test_after_a_pause_each_waits_a_whole_recovery_timeout_again() -> None:
    scene = Scene("recovery.timeout=2s")

    async def operator() -> None:
        await scene.after(50)
        scene.source.pause()
        await asyncio.sleep(1.9)
        scene.incoming.pause()
        await asyncio.sleep(60)
        scene.incoming.resume()
        await asyncio.sleep(1.9)
        scene.source.resume()

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)


def test_a_source_is_sent_to_another_address_where_the_destination_was_told_to_listen() -> None:
    scene = Scene("recovery.timeout=60s", "recovery.backoff_min=1s", "recovery.backoff_max=20s")

    async def operator() -> None:
        await scene.after(50)
        with pytest.raises(InputError, match=r"it is not paused .stage run.: it is connected to destination:4444"):
            scene.source.recover_at(ELSEWHERE)
        scene.town.destination._network.doors.clear()  # type: ignore[attr-defined]  # the old one is gone
        scene.reach.cut()
        await asyncio.sleep(20)
        assert scene.source.status().stage is Stage.PAUSED
        told = await scene.town.destination.listen_at(ELSEWHERE)
        assert told == "listens on elsewhere:5555 too, until the destination ends"
        assert scene.source.recover_at(ELSEWHERE) == "elsewhere:5555 is tried from now on"
        await scene.after(20)
        assert scene.source.status().stage is Stage.RUNNING, "at once, not when it would have tried anyway"

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)


def test_another_address_ends_the_sources_pause() -> None:
    scene = Scene()

    async def operator() -> None:
        await scene.after(50)
        scene.source.pause()
        await asyncio.sleep(1)
        await scene.town.destination.listen_at(ELSEWHERE)
        scene.source.recover_at(ELSEWHERE)

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)


def test_before_the_switch_nothing_is_paused_and_cancelling_costs_nothing() -> None:
    """The destination is as before, and waits for another source."""
    scene = Scene("device.state=1M", "link.rate=8Mbit", "net.listen_timeout=10s")

    async def operator() -> None:
        await scene.after(200)
        for order in (scene.source.pause, lambda: scene.source.recover_at(ELSEWHERE)):
            with pytest.raises(InputError, match=r"the guest is here .stage listen.; migemu cancel ends the attempt"):
                order()
        with pytest.raises(InputError, match=r"the guest is at the source .stage listen.; migemu cancel"):
            scene.incoming.pause()
        assert scene.source.cancel(sure=False).startswith("cancelled: the guest runs on here")

    sent, told, served = scene.play(operator)
    assert told is None, told
    assert isinstance(sent, StoppedError)
    assert str(sent) == "cancelled by its operator. The guest runs on at the source, whose image is unchanged"
    assert isinstance(served, BrokenError)
    assert "source came within 10s (net.listen_timeout)" in str(served)
    assert any("the source gave up: cancelled by its operator" in line for line in scene.town.notices)


def test_a_destination_can_be_cancelled_before_the_switch_too() -> None:
    scene = Scene("device.state=1M", "link.rate=8Mbit")

    async def operator() -> None:
        await scene.after(200)
        assert "the guest has not run here, and cannot any more: it is at the source" in scene.incoming.cancel(
            sure=False
        )

    sent, told, served = scene.play(operator)
    assert told is None, told
    assert isinstance(served, StoppedError)
    assert "the destination gave up: cancelled by its operator. The guest runs on at the source" in str(sent)


@pytest.mark.parametrize("node", ["source", "destination"])
def test_after_the_switch_cancelling_says_what_is_lost_and_does_it_only_for_who_is_sure(node: str) -> None:
    scene = Scene()

    async def operator() -> str:
        await scene.after(100)
        victim = scene.source if node == "source" else scene.incoming
        with pytest.raises(InputError, match="To do it nevertheless, add --yes; migemu pause costs nothing") as refused:
            victim.cancel(sure=False)
        lost = str(refused.value).partition(". To do it")[0]
        assert victim.cancel(sure=True) == f"cancelled: {lost}"
        return lost

    sent, lost, served = scene.play(operator)
    here, there = (sent, served) if node == "source" else (served, sent)
    assert isinstance(here, StoppedError)
    assert isinstance(there, GaveUpError)
    if node == "source":
        assert "comes from nowhere else: " in lost
        assert "the guest is lost if it keeps no checkpoint" in lost
    else:
        assert "the guest has run here, and written " in lost
        assert "all of it is lost, and the guest with it" in lost


def test_what_makes_no_sense_is_told_in_one_line() -> None:
    scene = Scene()

    async def operator() -> None:
        with pytest.raises(InputError, match="no migration is going on here"):
            scene.town.destination.chosen("")
        await scene.after(50)
        for order in (scene.source.resume, scene.incoming.resume):
            with pytest.raises(InputError, match=r"it is not paused by an operator .stage run."):
                order()
        for order in (scene.source.pause, scene.incoming.pause):
            order()
            with pytest.raises(InputError, match="it is paused already; migemu resume ends that"):
                order()
        scene.incoming.resume()
        scene.source.resume()

    sent, said, _ = scene.play(operator)
    assert said is None, said
    scene.is_whole(sent)
    for order in (scene.source.pause, scene.source.resume, lambda: scene.source.cancel(sure=True)):
        with pytest.raises(InputError, match=r"over already|nothing to resume"):
            order()
    with pytest.raises(InputError, match="no migration is going on here"):
        scene.town.destination.chosen("")


def test_without_recovery_a_pause_would_be_the_end_and_is_refused() -> None:
    scene = Scene("recovery.timeout=0")

    async def operator() -> None:
        await scene.after(50)
        for order in (scene.source.pause, scene.incoming.pause):
            with pytest.raises(InputError, match=r"recovery.timeout=0"):
                order()

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)


def test_of_several_migrations_one_is_chosen_by_how_its_name_begins() -> None:
    town = Town(settings(*HELD), 2)
    sources = {seed: town.source(seed) for seed in (1, 2)}

    async def operator() -> None:
        await asyncio.sleep(0.1)
        for prefix in ("", "0000"):
            with pytest.raises(InputError, match=r"2 migrations.*: say --migration and one of 00000000, 00000000"):
                town.destination.chosen(prefix)
        with pytest.raises(InputError, match="no migration's name begins with 'ff': say --migration and one of"):
            town.destination.chosen("ff")
        town.destination.chosen(named(2)).pause()
        await asyncio.sleep(5)
        assert town.destination.chosen("").migration == named(2), "the other one has ended"
        town.destination.chosen("").resume()

    first, second, told, served = town.play(*(source.run(PLACE) for source in sources.values()), operator())
    assert told is None, told
    assert served is None
    assert first.verified
    assert second.verified
    assert (first.recoveries, second.recoveries) == (0, 1)


def test_a_destination_has_so_many_doors_and_no_more() -> None:
    scene = Scene()

    async def operator() -> None:
        await scene.after(50)
        for port in range(1, 8):
            await scene.town.destination.listen_at(TcpAddress("more", port))
        with pytest.raises(InputError, match="it listens on 8 addresses already"):
            await scene.town.destination.listen_at(TcpAddress("more", 9))

    sent, told, _ = scene.play(operator)
    assert told is None, told
    scene.is_whole(sent)
    assert not scene.town.destination._network.doors, "they are closed with the first"  # type: ignore[attr-defined]
