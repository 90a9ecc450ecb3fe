"""Network: listening and connecting; in every world."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from migemu.errors import BrokenError
from migemu.wire.messages import Alive
from tests.addresses import ANY_PORT
from tests.conformance.ear import Ear
from tests.conformance.worlds import PORT_WORLDS, WORLDS, Nodes, in_worlds


@in_worlds(PORT_WORLDS)
async def test_a_listener_tells_its_address_and_takes_a_free_port_when_asked_for_none(nodes: Nodes) -> None:
    listeners = [await nodes.destination.listen(ANY_PORT, lambda _: Ear()) for _ in range(2)]
    nodes.listeners += listeners
    assert [listener.address.host for listener in listeners] == ["127.0.0.1"] * 2
    assert 0 < listeners[0].address.port != listeners[1].address.port > 0


@in_worlds(WORLDS)
async def test_a_peer_has_a_name(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    assert here.channel.peer == str(nodes.listeners[0].address)
    of_a_file = f"process {os.getpid()} of user {os.getuid()}"
    assert there.channel.peer == of_a_file if nodes.files else there.channel.peer.startswith("127.0.0.1:")
    assert here.channel.peer != there.channel.peer


@in_worlds(WORLDS)
async def test_an_address_that_is_taken_is_the_worlds_fault_and_the_first_listener_stays(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    taken = nodes.listeners[0].address
    with pytest.raises(BrokenError, match=f"cannot listen on {taken}: .*another process (uses it|listens there)"):
        await nodes.destination.listen(taken, lambda _: Ear())
    here.channel.send(Alive())
    await there.ear.hears(1)


@in_worlds(WORLDS)
async def test_connections_stay_when_their_listener_closes(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    await nodes.listeners[0].close()
    for end in (here, there):
        end.channel.send(Alive())
    await here.ear.hears(1)
    await there.ear.hears(1)
    assert here.ear.ends == there.ear.ends == []


@in_worlds(WORLDS, connect_timeout="5ms")
async def test_connecting_where_nobody_listens_fails_in_the_set_time(nodes: Nodes) -> None:
    listener = await nodes.destination.listen(nodes.free(), lambda _: Ear())
    await listener.close()
    ear = Ear()
    with pytest.raises(BrokenError, match=f"nobody answers at {listener.address} .*tried for 5ms"):
        await nodes.source.connect(listener.address, ear)
    assert ear.ends == [], "there never was a connection to lose"


@in_worlds(WORLDS)
async def test_connecting_waits_for_a_listener_that_comes_later(nodes: Nodes) -> None:
    listener = await nodes.destination.listen(nodes.free(), lambda _: Ear())
    await listener.close()
    connecting = asyncio.ensure_future(nodes.source.connect(listener.address, Ear()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connecting.done()
    nodes.listeners.append(await nodes.destination.listen(listener.address, lambda _: Ear()))
    await (await connecting).close()


@in_worlds(WORLDS)
async def test_an_attempt_to_connect_can_be_given_up(nodes: Nodes) -> None:
    """The world that this runs in sees whether it leaves anything open."""
    listener = await nodes.destination.listen(nodes.free(), lambda _: Ear())
    await listener.close()
    connecting = asyncio.ensure_future(nodes.source.connect(listener.address, Ear()))
    await asyncio.sleep(0)
    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await connecting
    assert connecting.cancelled()
