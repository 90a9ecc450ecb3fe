"""`--metrics`: real scrapes over HTTP, of real nodes too; hostile clients, and a port that is in use."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from migemu.address import TcpAddress
from migemu.errors import BrokenError
from migemu.process.metrics import CLIENTS_MAX, MetricsServer, coroutine
from migemu.process.status_socket import NodeStatus
from migemu.units import GIB
from tests.real.processes import NodeProcess, destination, free_port, migemu

STATUS = NodeStatus("source", 8, "cd" * 16, "run", GIB, 0, "", sent_bytes=GIB // 3)


@asynccontextmanager
async def served(*statuses: NodeStatus) -> AsyncIterator[TcpAddress]:
    server = MetricsServer(TcpAddress("127.0.0.1", 0), coroutine(lambda: statuses))
    await server.open()
    try:
        yield server.address
    finally:
        await server.close()


async def answer(address: TcpAddress, *said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for part in said:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_scrape_is_one_response() -> None:
    async with served(STATUS) as address:
        head, _, body = (await answer(address, GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b'migemu_sent_bytes{migration="cdcdcdcd",pid="8",role="source"} 3.57913941e+08' in body


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"], b"405"),
        ([b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"], b"404"),
        ([b"GET /../../x HTTP/1.1\r\nHost: x\r\n\r\n"], b"404"),
        ([b"\x00\xff" * 100 + b"\r\n\r\n"], b"400"),
        ([b"GET /metrics HTTP/1.1\r\n\r\n"], b"400"),
        ([b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"], b"431"),
        ([b"GET /metrics?name[]=" + b"%ff" * 900 + b" HTTP/1.1\r\nHost: x\r\n\r\n"], b"200"),
        ([GET[:9], GET[9:20], GET[20:]], b"200"),
    ],
)
async def test_whatever_is_said_has_one_answer_and_the_next_is_served(said: Sequence[bytes], code: bytes) -> None:
    async with served(STATUS) as address:
        assert (await answer(address, *said)).split(b" ")[1] == code
        assert b" 200 " in await answer(address, GET)


async def test_who_says_nothing_or_half_of_it_gets_nothing() -> None:
    async with served(STATUS) as address:
        assert await answer(address) == b""
        assert b" 400 " in await answer(address, GET[:20])
        assert b" 200 " in await answer(address, GET)


async def test_many_who_say_nothing_keep_nobody_from_scraping() -> None:
    async with served(STATUS) as address:
        idle = [await asyncio.open_connection(address.host, address.port) for _ in range(3 * CLIENTS_MAX)]
        assert b" 200 " in await answer(address, GET)
        for _, writer in idle:
            writer.close()


async def test_a_port_in_use_is_one_line() -> None:
    async with served(STATUS) as address:
        with pytest.raises(
            BrokenError, match=r"--metrics 127\.0\.0\.1:\d+: cannot listen there: .*; give another port"
        ):
            await MetricsServer(address, coroutine(lambda: [STATUS])).open()


def told_at(node: NodeProcess) -> str:
    """Where a node says that its metrics are."""
    line: str = node.wait_until(lambda said: "metrics: " in said.get("notice", ""))["notice"]
    return line.removeprefix("metrics: ")


def test_a_node_is_scraped_while_it_waits_for_its_source() -> None:
    with destination("--metrics", "127.0.0.1:0") as node:
        where = told_at(node)
        node.wait_until(lambda said: "listening" in said)
        with urllib.request.urlopen(where, timeout=20) as response:
            text = response.read().decode()
    assert 'migemu_stage="waiting",' in text
    assert "process_resident_memory_bytes" in text


def test_a_node_whose_port_is_in_use_ends_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with destination("--metrics", f"127.0.0.1:{port}") as node:
            assert node.wait() == 3
            assert node.error.startswith(f"--metrics 127.0.0.1:{port}: cannot listen there:")


def test_run_tells_of_both_nodes(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "migemu", "run", "--out", str(tmp_path), "--quiet", "--metrics", where]
    settings = ["memory.size=1G", "link.rate=500Mbit", "guest.vcpus=1"]
    with subprocess.Popen(
        [*command, *(part for each in settings for part in ("--set", each))], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert scraped_until(where, 'role="source"', 'role="destination"', process)
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 130


def scraped_until(where: str, one: str, other: str, process: subprocess.Popen[str]) -> bool:
    """Whether one scrape of a running process comes to tell of both."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{where}/metrics", timeout=20) as response:
                text = response.read().decode()
        except OSError:
            continue  # it does not listen yet
        if one in text and other in text:
            return True
    return False


def test_run_refuses_what_is_not_this_machine(tmp_path: Path) -> None:
    ended = migemu("run", "--metrics", "0.0.0.0:9464", "--out", "x", cwd=tmp_path)
    assert ended.returncode == 2
    assert "metrics are served to whoever asks, so on this machine alone" in ended.stderr
    assert not (tmp_path / "x").exists()
