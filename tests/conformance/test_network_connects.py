"""Network: listening and connecting; in every world."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from migemu.errors import BrokenError
from migemu.wire.messages import Alive
from tests.conformance.ear import Ear
from tests.conformance.worlds import WORLDS, Nodes, in_worlds


@in_worlds(WORLDS)
async def test_a_listener_tells_its_address_and_takes_a_free_port_when_asked_for_none(nodes: Nodes) -> None:
    listeners = [await nodes.destination.listen("127.0.0.1", 0, lambda _: Ear()) for _ in range(2)]
    nodes.listeners += listeners
    assert [listener.address for listener in listeners] == ["127.0.0.1"] * 2
    assert 0 < listeners[0].port != listeners[1].port > 0


@in_worlds(WORLDS)
async def test_a_peer_has_a_name(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    assert here.channel.peer == f"127.0.0.1:{nodes.listeners[0].port}"
    assert there.channel.peer.startswith("127.0.0.1:")
    assert here.channel.peer != there.channel.peer


@in_worlds(WORLDS)
async def test_a_port_that_is_taken_is_the_worlds_fault_and_the_first_listener_stays(nodes: Nodes) -> None:
    here, there = await nodes.pair()
    port = nodes.listeners[0].port
    with pytest.raises(BrokenError, match=f"cannot listen on 127.0.0.1:{port}: .*another process uses it"):
        await nodes.destination.listen("127.0.0.1", port, lambda _: Ear())
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
    listener = await nodes.destination.listen("127.0.0.1", 0, lambda _: Ear())
    await listener.close()
    ear = Ear()
    with pytest.raises(BrokenError, match=f"nobody answers at 127.0.0.1:{listener.port} .*tried for 5ms"):
        await nodes.source.connect("127.0.0.1", listener.port, ear)
    assert ear.ends == [], "there never was a connection to lose"


@in_worlds(WORLDS)
async def test_connecting_waits_for_a_listener_that_comes_later(nodes: Nodes) -> None:
    listener = await nodes.destination.listen("127.0.0.1", 0, lambda _: Ear())
    await listener.close()
    connecting = asyncio.ensure_future(nodes.source.connect("127.0.0.1", listener.port, Ear()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connecting.done()
    nodes.listeners.append(await nodes.destination.listen("127.0.0.1", listener.port, lambda _: Ear()))
    await (await connecting).close()


@in_worlds(WORLDS)
async def test_an_attempt_to_connect_can_be_given_up(nodes: Nodes) -> None:
    """The world that this runs in sees whether it leaves anything open."""
    listener = await nodes.destination.listen("127.0.0.1", 0, lambda _: Ear())
    await listener.close()
    connecting = asyncio.ensure_future(nodes.source.connect("127.0.0.1", listener.port, Ear()))
    await asyncio.sleep(0)
    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await connecting
    assert connecting.cancelled()
