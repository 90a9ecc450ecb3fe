"""Strangers at the door of a listener that is guarded, over real sockets, while an honest connection is inside.

What each stranger is told in words stands in the tests of the gate; here it is that the door stays open, that it says
one line about each, and that nobody inside notices.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from migemu.address import LOOPBACK, TcpAddress
from migemu.errors import BrokenError, MigemuError, PeerError
from migemu.ports import Channel
from migemu.scenario.net import LimitsSettings, NetSettings
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.security.psk import NAME, PskEnd
from migemu.transport.tcp import TcpListener, TcpNetwork
from migemu.wire.codec import encode, preamble
from migemu.wire.messages import Alive, DeviceState
from tests import certificates
from tests.addresses import ANY_PORT
from tests.certificates import KEY, PSK, TLS, credentials, security
from tests.conformance.ear import Ear

HANG_S = 10
SECURE = [TLS, PSK]
IDS = ["tls", "psk"]


@dataclass
class House:
    """A guarded listener, what it was told about each that came, and one honest connection inside."""

    listener: TcpListener
    source: TcpNetwork
    ears: list[Ear] = field(default_factory=list)
    inside: Channel | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def stranger(self, number: int) -> Ear:
        """The ear of the `number`th that came after the honest one."""
        while len(self.ears) <= number:
            self.came.clear()
            await self.came.wait()
        return self.ears[number]

    async def nobody_noticed(self) -> None:
        """The honest connection carries on."""
        heard = len(self.ears[0].heard)
        assert self.inside is not None
        self.inside.send(Alive())
        await self.ears[0].hears(heard + 1)
        assert self.ears[0].ends == []


@asynccontextmanager
async def house(of: Credentials, places: int = 16, **net: str) -> AsyncIterator[House]:
    clock, settings, bounds = MonotonicClock(), NetSettings(**net), LimitsSettings(connections_max=places)
    made: House

    def accept(_: Channel) -> Ear:
        made.ears.append(Ear())
        made.came.set()
        return made.ears[-1]

    async with asyncio.timeout(HANG_S):
        listener = await TcpNetwork(settings, clock, None, of, bounds).listen(ANY_PORT, accept)
        made = House(listener, TcpNetwork(settings, clock, None, of))
        made.inside = await made.source.connect(listener.address, Ear())
        made.inside.send(Alive())
        await (await made.stranger(0)).hears(1)
        try:
            yield made
        finally:
            await listener.close()
            made.inside.abort()
            await made.inside.close()


class Raw:
    """A stranger that is nothing but a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    async def say(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def hear(self, bytes_max: int = 1 << 16) -> bytes:
        return await self._loop.sock_recv(self._socket, bytes_max)

    def leave(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield Raw(sock)


@pytest.mark.parametrize(
    ("of", "caller", "at_caller", "at_door"),
    [
        (TLS, Credentials(), "it speaks TLS: set security.certificate", "does not speak TLS"),
        (PSK, Credentials(), "it wants a pre-shared key: set security.psk_file", "showed no pre-shared key"),
        (TLS, PSK, "showed no pre-shared key", "does not speak TLS"),
        (PSK, TLS, "does not speak TLS", "showed no pre-shared key"),
        (TLS, credentials(**security(of="theirs")), "does not trust this side's certificate", "is refused: unable"),
        (TLS, credentials(**security(expired=True)), "certificate has expired", "certificate has expired"),
        (
            credentials(**security(), peer_name="source.example"),
            TLS,
            "",
            "not for source.example",
        ),
        (PSK, credentials(KEY[::-1]), "did not accept the pre-shared key", "has another pre-shared key"),
    ],
    ids=["plain at tls", "plain at psk", "psk at tls", "tls at psk", "authority", "expired", "name", "key"],
)
async def test_a_caller_that_may_not_come_in_is_told_why_in_a_line_and_so_is_the_door(
    of: Credentials, caller: Credentials, at_caller: str, at_door: str
) -> None:
    if not at_caller:  # the honest one has the right name; the caller the name of the host
        honest = credentials(**security("source.example"), peer_name=certificates.NODE)
        served = credentials(**security(), peer_name="source.example")
        clock, ear = MonotonicClock(), Ear()
        listener = await TcpNetwork(NetSettings(), clock, None, served).listen(ANY_PORT, lambda _: ear)
        channel = await TcpNetwork(NetSettings(), clock, None, honest).connect(listener.address, Ear())
        await channel.close()
        assert await ear.end() is None
        ear = Ear()
        with pytest.raises(MigemuError, match="did not accept this side's certificate"):
            await TcpNetwork(NetSettings(), clock, None, caller).connect(listener.address, Ear())
        assert at_door in str(await ear.end())
        await listener.close()
        return
    async with house(of) as made:
        network = TcpNetwork(NetSettings(), MonotonicClock(), None, caller)
        heard = Ear()
        try:
            channel = await network.connect(made.listener.address, heard)
        except MigemuError as error:
            told: MigemuError | None = error
            assert heard.ends == []
        else:  # without a gate of its own it finds out by what it hears
            told = await heard.end()
            await channel.close()
        assert at_caller in str(told)
        error = await (await made.stranger(1)).end()
        assert isinstance(error, PeerError)
        assert at_door in str(error)
        await made.nobody_noticed()


@pytest.mark.parametrize(("of", "word"), [(TLS, "does not speak TLS"), (PSK, "showed no pre-shared key")], ids=IDS)
async def test_a_caller_with_credentials_at_a_door_without_is_told(of: Credentials, word: str) -> None:
    async with house(Credentials()) as made:
        with pytest.raises(PeerError, match=f"the destination {word}"):
            await TcpNetwork(NetSettings(), MonotonicClock(), None, of).connect(made.listener.address, Ear())
        assert "does not speak migemu" in str(await (await made.stranger(1)).end())
        await made.nobody_noticed()


@pytest.mark.parametrize("of", SECURE, ids=IDS)
async def test_a_handshake_that_is_broken_off_is_a_line_and_no_more(of: Credentials) -> None:
    async with house(of) as made:
        async with raw(made.listener.address.port) as stranger:
            stranger.leave()
            error = await (await made.stranger(1)).end()
        assert "ended before it was accepted: the source left during the handshake" in str(error)
        await made.nobody_noticed()


async def test_a_proof_that_was_recorded_lets_nobody_in() -> None:
    """Between an honest pair stands somebody who keeps what the source says, and says it again later."""
    recorded: list[bytes] = []

    async with house(PSK) as made:

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, onward = await asyncio.open_connection("127.0.0.1", made.listener.address.port)
            for _ in range(2):
                said = await reader.read(1000)
                recorded.append(said)
                onward.write(said)
                writer.write(await there.readexactly(40 if len(said) == 40 else 32))
            onward.close()
            writer.close()

        middle = await asyncio.start_server(pass_on, "127.0.0.1", 0)
        channel = await made.source.connect(TcpAddress(LOOPBACK, middle.sockets[0].getsockname()[1]), Ear())
        await channel.close()
        middle.close()
        assert [len(said) for said in recorded] == [40, 32]
        await (await made.stranger(1)).end()
        async with raw(made.listener.address.port) as stranger:
            await stranger.say(recorded[0])
            assert len(await stranger.hear()) == len(recorded[0])
            await stranger.say(recorded[1])
            assert await stranger.hear() == b""
        assert "another pre-shared key" in str(await (await made.stranger(2)).end())
        await made.nobody_noticed()


@pytest.mark.parametrize("of", SECURE, ids=IDS)
async def test_half_open_handshakes_do_not_keep_an_honest_caller_out(of: Credentials) -> None:
    """Ten times as many as there are places, none of which ever goes on; each is told to have given way, or stands."""
    async with house(of, places=4) as made:
        writers = []
        for _ in range(40):
            _, writer = await asyncio.open_connection("127.0.0.1", made.listener.address.port)
            writer.write(NAME[:4] if of is PSK else b"\x16\x03\x01")
            writers.append(writer)
        await made.stranger(40)
        gone = [ear for ear in made.ears[1:41] if ear.ends]
        assert len(gone) == 40 - 3
        assert all("its place was needed for a newer one" in str(ear.ends[0]) for ear in gone)
        honest = await made.source.connect(made.listener.address, Ear())
        honest.send(Alive())
        await (await made.stranger(41)).hears(1)
        await made.nobody_noticed()
        await honest.close()
        for writer in writers:
            writer.transport.abort()


async def test_when_all_places_are_taken_by_honest_ones_a_newcomer_is_refused() -> None:
    async with house(Credentials(), places=2) as made:
        second = await made.source.connect(made.listener.address, Ear())
        second.send(Alive())
        await (await made.stranger(1)).hears(1)
        third = Ear()
        await made.source.connect(made.listener.address, third)
        assert isinstance(await third.end(), BrokenError)
        assert "too many connections (2, limits.connections_max)" in str(await (await made.stranger(2)).end())
        await made.nobody_noticed()
        await second.close()


@pytest.mark.parametrize("of", [Credentials(), *SECURE], ids=["plain", *IDS])
async def test_a_peer_that_drips_within_a_message_is_cut_off(of: Credentials) -> None:
    """A byte of a message now and then, for as long as it is let; the honest one beside it is slow between messages."""
    frame = b"".join(encode(DeviceState(0), bytes(100_000)))
    async with house(of, idle_timeout="40ms", rate_min="1Mbit") as made:
        ear = Ear()
        dripping = await made.source.connect(made.listener.address, ear)
        dripping.send(Alive())
        theirs = await made.stranger(1)
        await theirs.hears(1)
        at = 0
        while not theirs.ends:
            dripping._outgoing.write([frame[at : at + 1]])
            at += 1
            await asyncio.sleep(0)
            assert at < len(frame)
        assert "less than 1Mbit" in str(theirs.ends[0])
        assert "(net.rate_min)" in str(theirs.ends[0])
        await ear.end()
        await made.nobody_noticed()
        await dripping.close()


async def test_a_peer_that_takes_nothing_in_does_not_fill_this_sides_memory() -> None:
    clock, ear = MonotonicClock(), Ear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        network = TcpNetwork(
            NetSettings(high_water="4K"), clock, None, Credentials(), LimitsSettings(queue_frames_max=1000)
        )
        channel = await network.connect(TcpAddress(LOOPBACK, server.getsockname()[1]), ear)
        sent = 0
        while not channel.closing and sent < 10_000:
            channel.send(DeviceState(0), bytes(1 << 20))
            sent += 1
            await asyncio.sleep(0)
        assert "reads nothing" in str(await ear.end())
        assert sent < 1100


@pytest.mark.parametrize("of", SECURE, ids=IDS)
async def test_a_destination_that_never_finishes_the_handshake_is_given_up(of: Credentials) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        network = TcpNetwork(NetSettings(hello_timeout="20ms"), MonotonicClock(), None, of)
        with pytest.raises(BrokenError, match=r"did not finish the handshake within 20ms \(net.hello_timeout\)"):
            await network.connect(TcpAddress(LOOPBACK, server.getsockname()[1]), Ear())


async def test_an_end_that_was_not_said_inside_of_tls_is_no_end() -> None:
    """Anybody on the way can end a connection; it must not look as if the peer had."""
    async with house(TLS) as made, raw(made.listener.address.port) as stranger:
        gate = TLS.gate(PskEnd.SOURCE, certificates.NODE)
        assert gate is not None
        gate.start()
        while not gate.open:
            await stranger.say(gate.output())
            heard = await stranger.hear(len(gate.get_buffer()))
            gate.get_buffer()[: len(heard)] = heard
            gate.updated(len(heard))
        gate.write(memoryview(preamble() + b"".join(encode(Alive()))))
        await stranger.say(gate.output())
        theirs = await made.stranger(1)
        await theirs.hears(1)
        stranger.leave()
        error = await theirs.end()
        assert isinstance(error, BrokenError)
        assert "TLS did not announce the end" in str(error)
        await made.nobody_noticed()


async def test_a_wrong_name_is_told_as_such_where_there_is_a_key_too() -> None:
    """TLS and a key, both right, but for the name that the destination wants of a source: it is not the key's fault."""
    served = credentials(KEY, **security(), peer_name="source.example")
    caller = credentials(KEY, **security())
    ear = Ear()
    listener = await TcpNetwork(NetSettings(), MonotonicClock(), None, served).listen(
        ANY_PORT, lambda _: ear
    )  # fmt: skip
    with pytest.raises(MigemuError) as told:
        await TcpNetwork(NetSettings(), MonotonicClock(), None, caller).connect(listener.address, Ear())
    assert "did not accept this side's certificate; look at its security.peer_name" in str(told.value)
    assert "pre-shared key" not in str(told.value)
    assert "not for source.example" in str(await ear.end())
    await listener.close()


async def test_a_wrong_key_within_tls_is_told_as_such() -> None:
    ear = Ear()
    listener = await TcpNetwork(NetSettings(), MonotonicClock(), None, credentials(KEY, **security())).listen(
        ANY_PORT, lambda _: ear
    )  # fmt: skip
    with pytest.raises(MigemuError, match="did not accept the pre-shared key"):
        await TcpNetwork(NetSettings(), MonotonicClock(), None, credentials(KEY[::-1], **security())).connect(
            listener.address, Ear()
        )  # fmt: skip
    assert "has another pre-shared key" in str(await ear.end())
    await listener.close()
