"""`migemu status`: real sockets, asked by real askers, patient and not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from migemu.checkpoint.writer import Protection
from migemu.cli.main import main
from migemu.errors import BrokenError, InputError
from migemu.process.status_socket import (
    ASKERS_MAX,
    ORDER_BYTES_MAX,
    Answer,
    NodeStatus,
    Order,
    StatusSocket,
    ask,
    give,
    runtime_directory,
)
from migemu.transport.local import Credential
from migemu.units import GIB, SECOND

DESTINATION = NodeStatus(
    "destination", 4711, "0" * 32, "paused", GIB, 2, "the source has been silent for 10s", received_bytes=GIB // 2,
    mapped_bytes=GIB // 4, faults_waiting=7, vcpus_waiting=4, checkpoint=Protection(9, 3 * SECOND, 5, 100, 200, ""),
)  # fmt: skip
SOURCE = NodeStatus("source", 4712, "0" * 32, "run", GIB, 0, "", sent_bytes=GIB // 3)


async def obey(order: Order) -> str:
    """Tells what it was told to do; refuses to cancel, and fails to listen."""
    if order.order == "cancel":
        raise InputError(f"it would cost the guest:\n{order.migration}")
    if order.order == "listen":
        raise BrokenError("no such address here")
    return f"{order.order} {order.migration or 'all'} {order.sure}"


@asynccontextmanager
async def opened(path: Path, *statuses: NodeStatus) -> AsyncIterator[StatusSocket]:
    door = StatusSocket(path, lambda: statuses, obey)
    await door.open()
    try:
        yield door
    finally:
        await door.close()


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["status", *arguments], env={"COLUMNS": "140"})


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the path of a socket has at most 107 characters (unix(7))."""
    with TemporaryDirectory(prefix="m-") as directory:
        yield Path(directory)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir()
    return tmp_path


async def test_whoever_asks_is_told_in_one_line_and_shown_out(tmp_path: Path) -> None:
    path = tmp_path / "destination.sock"
    async with opened(path, DESTINATION):
        reader, writer = await asyncio.open_unix_connection(path)
        text = await reader.read()
        assert text.endswith(b"\n")
        assert text.count(b"\n") == 1
        assert json.loads(text)["checkpoint"]["age_ns"] == 3 * SECOND
        assert NodeStatus.parse(text) == DESTINATION
        writer.close()
        assert await asyncio.to_thread(ask, path) == [DESTINATION]
    assert not path.exists()


async def test_only_the_user_may_ask(tmp_path: Path) -> None:
    async with opened(tmp_path / "destination.sock", DESTINATION) as door:
        assert stat.S_IMODE(door.path.stat().st_mode) == 0o600


async def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    async with opened(tmp_path / ("d" * 100) / ("e" * 100) / "destination.sock", DESTINATION) as door:
        assert await asyncio.to_thread(ask, door.path) == [DESTINATION]


async def test_a_socket_that_a_killed_node_has_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "source.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(BrokenError, match="the node is gone; it was killed"):
        ask(path)
    async with opened(path, SOURCE):
        assert await asyncio.to_thread(ask, path) == [SOURCE]
        with pytest.raises(BrokenError, match="Address already in use"):
            await StatusSocket(path, lambda: [DESTINATION], obey).open()
        assert await asyncio.to_thread(ask, path) == [SOURCE]


async def test_what_is_no_socket_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "source.sock"
    path.write_text("precious")
    with pytest.raises(BrokenError, match="the status socket cannot be made there: Address already in use"):
        await StatusSocket(path, lambda: [DESTINATION], obey).open()
    assert path.read_text() == "precious"


async def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokenError, match="the status socket cannot be made there"):
        await StatusSocket(tmp_path / "file" / "source.sock", lambda: [DESTINATION], obey).open()


async def test_many_who_ask_and_do_not_read_keep_nobody_from_asking(tmp_path: Path) -> None:
    async with opened(tmp_path / "destination.sock", DESTINATION) as door:
        idle = [await asyncio.open_unix_connection(door.path) for _ in range(3 * ASKERS_MAX)]
        assert await asyncio.to_thread(ask, door.path) == [DESTINATION]
        for _, writer in idle:
            writer.close()


async def test_the_nodes_of_a_directory_are_shown_as_a_table(short: Path) -> None:
    out = short / "out"
    async with opened(out / "destination.sock", DESTINATION), opened(out / "source.sock", SOURCE) as sender:
        shown = await run(str(out))
        assert shown.exit_code == 0
        for text in (
            "destination 4711",
            "source 4712",
            "paused",
            "512M of 1G",
            "4 vCPUs wait for 7 pages",
            "checkpoint: generation 9, 3s old",
            "been silent",
        ):
            assert text in shown.output
        lines = (await run(str(out), "--json")).output.splitlines()
        assert [NodeStatus.parse(line) for line in lines] == [DESTINATION, SOURCE]
        one = await run(str(sender.path), "--json")
        assert [NodeStatus.parse(line) for line in one.output.splitlines()] == [SOURCE]


async def test_several_places_are_asked_each_node_once(short: Path) -> None:
    async with opened(short / "a" / "destination.sock", DESTINATION), opened(short / "b" / "source.sock", SOURCE) as b:
        both = await run(str(short / "a"), str(short / "b"), str(b.path), "--json")
    assert both.exit_code == 0
    assert [NodeStatus.parse(line) for line in both.output.splitlines()] == [DESTINATION, SOURCE]


async def test_of_several_places_whoever_answers_is_shown_and_the_rest_is_told_place_by_place(short: Path) -> None:
    (short / "empty").mkdir()
    async with opened(short / "a" / "destination.sock", DESTINATION):
        some = await run(str(short / "nowhere"), str(short / "a"), str(short / "empty"))
        assert some.exit_code == 2
        assert "destination 4711" in some.output
        assert f"{short}/nowhere: cannot be asked: No such file" in some.output
        assert f"{short}/empty: no node runs with this --out" in some.output
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(short / "empty" / "source.sock"))
        gone = await run(str(short / "nowhere"), str(short / "a"), str(short / "empty"))
        assert gone.exit_code == 3, "the highest of what went wrong"
        assert "destination 4711" in gone.output
        assert "the node is gone" in gone.output
    nobody = await run(str(short / "nowhere"), str(short / "a"))
    assert nobody.exit_code == 2
    assert f"{short}/nowhere: cannot be asked" in nobody.output
    assert f"{short}/a: no node runs with this --out" in nobody.output


async def test_of_a_node_with_several_migrations_each_is_shown_by_its_name(short: Path) -> None:
    both = [replace(DESTINATION, migration=digit * 32, stage=stage) for digit, stage in (("a", "run"), ("b", "end"))]
    async with opened(short / "destination.sock", *both):
        shown = (await run(str(short))).output
        assert "aaaaaaaa" in shown
        assert "bbbbbbbb, last error: the source has been silent" in shown
        lines = (await run(str(short), "--json")).output.splitlines()
        assert [NodeStatus.parse(line) for line in lines] == both


async def test_without_a_directory_the_nodes_of_the_runtime_directory_are_asked(short: Path) -> None:
    nobody = await run()
    assert nobody.exit_code == 2
    assert "no node of yours runs without --out" in nobody.output
    async with opened(runtime_directory() / f"source-{os.getpid()}.sock", SOURCE):
        assert "source 4712" in (await run()).output


async def test_the_table_fits_into_eighty_columns(short: Path) -> None:
    async with opened(short / "destination.sock", replace(DESTINATION, pid=4_194_304, stage="completed")):
        shown = await asyncio.to_thread(CliRunner().invoke, main, ["status", str(short)], env={"COLUMNS": "80"})
    head = shown.output.splitlines()[:2]
    for text in ("destination 4194304", "completed", "512M of 1G", "256M", "7 waiting", "recoveries"):
        assert text in "\n".join(head)


async def test_what_looks_like_markup_is_shown_as_it_is(short: Path) -> None:
    async with opened(short / "destination.sock", replace(DESTINATION, stage="[/red]", last_error="[bold] [/x]")):
        shown = await run(str(short))
    assert shown.exit_code == 0
    assert "[/red]" in shown.output
    assert "[bold] [/x]" in shown.output


async def test_nodes_without_out_that_were_killed_are_told_of_once(short: Path) -> None:
    killed, alive = runtime_directory() / "source-999999999.sock", runtime_directory() / f"source-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(killed))
    async with opened(alive, SOURCE):
        first, second = await run(), await run()
    assert first.exit_code == 3
    assert "source-999999999.sock: the node is gone" in first.output
    assert second.exit_code == 0
    assert "source 4712" in second.output
    assert not killed.exists()


@pytest.mark.parametrize(("name", "told"), [("source", "migemu-source --recover"), ("destination", "--checkpoint DIR")])
def test_of_a_killed_node_it_is_told_how_to_bring_it_back(name: str, told: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / f"{name}.sock"))
    with pytest.raises(BrokenError, match=told):
        ask(tmp_path / f"{name}.sock")


async def test_lost_protection_is_shown(short: Path) -> None:
    lost = NodeStatus(
        "destination", 1, "0" * 32, "run", GIB, 0, "", checkpoint=Protection(1, 1, 1, 1, 1, "No space left on device")
    )
    async with opened(short / "destination.sock", lost):
        assert "LOST: No space left on device" in (await run(str(short))).output


async def answering(path: Path, text: bytes) -> asyncio.Server:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    return await asyncio.start_unix_server(answer, path)


def line(**changes: object) -> bytes:
    """A status, but for some of it."""
    return json.dumps(json.loads(DESTINATION.line()) | changes).encode() + b"\n"


PROTECTION = {"generation": 1, "age_ns": 1, "longest_ns": 1, "writes": 1, "bytes": 1, "lost": ""}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}\n", b"[]\n", b"null\n", b"\xff\xff\n", b"x" * 200_000, b'{"checkpoint": 3}\n', line()[:-20],
        b"[" * 200_000, line(memory_bytes="x"), line(pid=1.5), line(pid=True), line(recoveries=-1),
        line(received_bytes=10**300), line(stage=["run"]), line(last_error="\x1b[2J"), line(more=1),
        line(checkpoint=PROTECTION | {"age_ns": None}), line(checkpoint=PROTECTION | {"lost": "a\nb"}),
        line(checkpoint=[]), line() + b"{}\n",
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
async def test_an_answer_that_is_no_status_is_told_in_one_line(text: bytes, short: Path) -> None:
    server = await answering(short / "source.sock", text)
    shown = await run(str(short))
    assert shown.exit_code == 3
    assert "is no node of this version of migemu" in shown.output
    assert "Traceback" not in shown.output
    server.close()
    await server.wait_closed()


def test_bad_input_is_told_in_one_line(short: Path) -> None:
    (short / "file").write_text("")
    for argument, told in (
        ("nowhere", "No such file"),
        ("file", "neither a directory nor"),
        (".", "no node runs with"),
    ):
        shown = CliRunner().invoke(main, ["status", str(short / argument)])
        assert shown.exit_code == 2
        assert told in shown.output.replace("\n", " ")


def test_a_runtime_directory_of_somebody_else_is_refused(short: Path) -> None:
    runtime_directory().chmod(0o755)
    with pytest.raises(InputError, match="not a directory of yours alone"):
        runtime_directory()
    runtime_directory_path = short / "runtime" / "migemu"
    runtime_directory_path.rmdir()
    runtime_directory_path.symlink_to("/")
    with pytest.raises(InputError, match="not a directory of yours alone"):
        runtime_directory()


def test_an_answer_that_never_ends_does_not_hold_whoever_asks(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migemu.process.status_socket._PATIENCE_S", 0.2)
    with socket.socket(socket.AF_UNIX) as endless:
        endless.bind(str(short / "source.sock"))
        endless.listen()
        over = threading.Event()

        def drip() -> None:
            connection, _ = endless.accept()
            with connection, contextlib.suppress(OSError):
                while not over.wait(0.01):
                    connection.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(BrokenError, match="does not answer"):
            ask(short / "source.sock")
        over.set()
        dripping.join()


def test_a_node_that_is_stopped_does_not_hold_whoever_asks(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migemu.process.status_socket._PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(short / "source.sock"))
        stopped.listen()
        with pytest.raises(BrokenError, match="does not answer; is it stopped"):
            ask(short / "source.sock")


# --- orders ---


@pytest.mark.parametrize(
    ("order", "answer"),
    [
        (Order("pause"), Answer(0, "pause all False")),
        (Order("resume", "0" * 32, sure=True), Answer(0, f"resume {'0' * 32} True")),
        (Order("cancel", "ab"), Answer(2, "it would cost the guest: ab")),
        (Order("listen", address="there:1"), Answer(3, "no such address here")),
    ],
)
async def test_an_order_is_carried_out_and_answered_in_one_line(order: Order, answer: Answer, tmp_path: Path) -> None:
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        assert await asyncio.to_thread(give, door.path, order) == answer
        assert await asyncio.to_thread(ask, door.path) == [SOURCE], "and it can still be asked"


async def said(path: Path, data: bytes, end: bool = True) -> bytes:
    """What the node answers to these bytes."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        return await reader.read()
    except OSError:  # it has closed with bytes unread
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("data", [b"", b"\n", b"status", b"status\n", b"  status \r\n"])
async def test_whoever_only_wants_to_know_may_say_so_or_nothing(data: bytes, tmp_path: Path) -> None:
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        assert NodeStatus.parse(await said(door.path, data)) == SOURCE


@pytest.mark.parametrize("data", [b"", b'{"order":"cancel"'], ids=["silent", "half an order"])
async def test_whoever_says_nothing_whole_in_time_is_told_how_it_stands(data: bytes, tmp_path: Path) -> None:
    """As the program did when nobody could order anything; and half an order is none."""
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        assert NodeStatus.parse(await said(door.path, data, end=False)) == SOURCE


@pytest.mark.parametrize(
    "data",
    [
        b"{}", b"[]", b"null", b"7", b"{", b'"pause"', b"\xff\xfe", b"pause", b'{"order":7}', b'{"order":"reboot"}',
        b'{"order":"pause","more":1}', b'{"order":"pause","migration":7}', b'{"order":"pause","migration":null}',
        b'{"order":"cancel","sure":1}', b'{"order":"cancel","sure":"yes"}',
        b'{"order":"listen","address":"\\u001b[2J"}',
        b'{"order":"listen","address":"\\ud800"}', b'{"order":"pause"', b'{"order":"pause"} {"order":"pause"}',
        b"[" * 10_000, b'{"order":"' + b"x" * 10_000 + b'"}', b"1" * 10_000,
    ],
    ids=lambda data: repr(data[:30]),
)  # fmt: skip
@pytest.mark.parametrize("line", [b"", b"\n"], ids=["end", "line"])
async def test_what_is_no_order_is_refused_in_one_line_and_nothing_is_done(
    data: bytes, line: bytes, tmp_path: Path
) -> None:
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        answer = await said(door.path, data + line)
        assert answer.count(b"\n") == 1
        assert Answer.parse(answer).exit == 2
        assert len(answer) < 500
        assert await asyncio.to_thread(ask, door.path) == [SOURCE]


async def test_an_order_has_a_length(tmp_path: Path) -> None:
    """Whoever says more is refused, and hears it if they listen before they have said all of it."""
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        answer = await said(door.path, b"x" * (ORDER_BYTES_MAX + 1), end=False)
        assert Answer.parse(answer) == Answer(2, f"an order has at most {ORDER_BYTES_MAX} bytes")
        await said(door.path, b"x" * 3_000_000)
        assert await asyncio.to_thread(ask, door.path) == [SOURCE]


async def test_an_answer_to_an_order_that_is_none_is_told_in_one_line(short: Path) -> None:
    for text in (
        b"",
        b"{}",
        b'{"exit":"0","told":""}',
        b'{"exit":300,"told":""}',
        b'{"exit":0,"told":"\\u001b"}',
        line(),
    ):
        server = await answering(short / "source.sock", text)
        with pytest.raises(BrokenError, match=r"no node of this version of migemu|the node cannot be asked"):
            await asyncio.to_thread(give, short / "source.sock", Order("pause"))
        server.close()
        await server.wait_closed()
        (short / "source.sock").unlink(missing_ok=True)


async def test_nobody_but_the_user_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode of the file keeps others out already; the kernel's word for who they are is asked all the same."""
    async with opened(tmp_path / "source.sock", SOURCE) as door:
        monkeypatch.setattr("migemu.transport.local.Credential.of", lambda _sock: Credential(1, os.getuid() + 1))
        assert await said(door.path, b'{"order":"pause"}') == b""
