"""What a migration or a connection takes of a destination goes back, whatever its end.

Before: a destination that served for ever locked itself after as many refusals as it has places for connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from migemu.errors import BrokenError, GaveUpError, MigemuError
from migemu.wire.messages import Advise, Alive, ChannelRole, Hello, Run
from source_node.source_outcome import SourceOutcome
from tests.addresses import PLACE
from tests.unit.dest_node.test_several_migrations import Lying, killed, says
from tests.unit.dest_node.town import Reach, Town, named, settings

MAIN, PREEMPT = ChannelRole.MAIN, ChannelRole.PREEMPT
LARGE = 4096


def advise(memory_bytes: int = 512 << 10) -> Advise:
    return Advise("tiny", memory_bytes, memory_bytes, 0, False, "{}")


async def left(town: Town, *messages: Any) -> None:
    """Somebody who says these messages, and leaves."""
    ear = await says(town, *messages)
    await asyncio.sleep(0.01)
    del ear
    for channel in list(town.network.channels):
        channel.abort()


async def verified(town: Town) -> None:
    assert (await town.source(1).run(PLACE)).verified


async def cut(town: Town) -> None:
    reach = Reach(town.network)
    task = asyncio.ensure_future(town.source(1, reach).run(PLACE))
    await asyncio.sleep(0.006)
    reach.cut()
    await task


async def lies(town: Town) -> None:
    with pytest.raises(MigemuError):
        await town.source(1, memory=Lying(town.memory(1))).run(PLACE)


async def too_large(town: Town) -> None:
    with pytest.raises(GaveUpError, match="memory_max"):
        await town.source(1, pages=LARGE).run(PLACE)


async def interrupted(town: Town) -> None:
    task = asyncio.ensure_future(town.source(1).run(PLACE))
    await asyncio.sleep(0.006)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def no_memory(town: Town) -> None:
    allocate = town.allocate

    async def broken(*_: Any) -> Any:
        raise BrokenError("no memory")

    town.allocate = broken  # type: ignore[method-assign]
    with pytest.raises(GaveUpError, match="no memory"):
        await town.source(1).run(PLACE)
    town.allocate = allocate  # type: ignore[method-assign]


ENDS: dict[str, Callable[[Town], Coroutine[Any, Any, Any]]] = {
    "verified": verified,
    "lost and found again": cut,
    "other memory": lies,
    "too large": too_large,
    "no memory to be had": no_memory,
    "interrupted": interrupted,
    "killed after the switch": lambda town: killed(town, 1, 0.006),
    "killed before it": lambda town: killed(town, 1, 0.0005),
    "left after Hello": lambda town: left(town, Hello(MAIN, named(1))),
    "left after Advise": lambda town: left(town, Hello(MAIN, named(1)), advise()),
    "left without a word": lambda town: left(town),
    "silent": lambda town: says(town),
    "silent after Hello": lambda town: says(town, Hello(MAIN, named(1))),
    "silent after Advise": lambda town: says(town, Hello(MAIN, named(1)), advise()),
    "a stranger": lambda town: says(town, Alive()),
    "nonsense announced": lambda town: says(town, Hello(MAIN, named(1)), advise(4097)),
    "a message too early": lambda town: says(town, Hello(MAIN, named(1)), advise(), Run()),
    "a preempt channel of nobody": lambda town: says(town, Hello(PREEMPT, named(1))),
    "one that nobody knows": lambda town: says(town, Hello(MAIN, named(1), True)),
}


@pytest.mark.parametrize("end", ENDS)
def test_all_places_are_free_again_after(end: str) -> None:
    """Ten times each, at a destination with four places for connections; then an honest source is served."""
    limits = ("limits.connections_max=4", "limits.memory_max=1M", "net.idle_timeout=1s", "net.hello_timeout=500ms")
    town = Town(settings(*limits, "recovery.timeout=2s"), 0)
    destination = town.destination

    async def all_of_it() -> SourceOutcome:
        await destination.listen(PLACE)
        serving = asyncio.ensure_future(destination.serve_all())
        for _ in range(10):
            await ENDS[end](town)
            await asyncio.sleep(10)
            assert (destination.connections, destination.memory_bytes) == (0, 0)
            assert (len(destination.serving), len(town.network.channels)) == (0, 0)
            destination._endings.clear()  # the next one has the same name
            destination._unheard.clear()
        assert len(town.released) == len(town.memories)
        outcome = await town.source(2).run(PLACE)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return outcome

    assert town.loop.run(all_of_it()).verified


def test_strangers_are_all_counted_and_few_are_told_of() -> None:
    town = Town(settings("limits.connections_max=64"), 1)

    async def all_of_it() -> None:
        for number in range(1000):
            await (await says(town, Alive())).end()
            assert town.destination.turned_away_count == number + 1
        await town.source(1).run(PLACE)

    *_, served = town.play(all_of_it())
    assert served is None
    single = [notice for notice in town.notices if " more, " not in notice]
    summed = [notice for notice in town.notices if " more, " in notice]
    assert len(single) + sum(int(notice.split()[2]) for notice in summed) == 1000
    assert len(town.notices) < 20
