"""The server of the picture, over real sockets on loopback: who gets an answer, and who none."""

from __future__ import annotations

import json
import socket
import threading
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest

from migemu.errors import BrokenError
from migemu.view.event_columns import EVENT_FIELDS, from_columns
from migemu.view.index_builder import build_index
from migemu.view.run_picture import RunPicture
from migemu.view.view_server import CONNECTIONS_MAX, ViewServer
from tests.unit.trace.traces import whole, write_lines

TIMEOUT_S = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    trace = write_lines(tmp_path_factory.mktemp("run") / "trace.jsonl", whole())
    with build_index(trace, records_max=20) as index:
        served = ViewServer([RunPicture("<b>a run</b>", index, trace)])
        thread = threading.Thread(target=served.run)
        thread.start()
        yield served
        served.stop()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "it ends when it is told to"
        served.close()


def ask(server: ViewServer, path: str = "", method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    """`path` below the token; a leading "/" is the server's own root."""
    where = urlsplit(server.url)
    connection = HTTPConnection(where.netloc, timeout=TIMEOUT_S)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path if path.startswith("/") else where.path + path, headers=sent)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_and_all_it_needs_are_served(server: ViewServer) -> None:
    answer, page = ask(server)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("view.css", "view.js", "run.js", "memory.js", "lanes.js", "timeline.js", "details.js"):
        answer, text = ask(server, name)
        assert (answer.status, bool(text)) == (200, True), name
    assert b"http://" not in page
    assert b"https://" not in page


def test_a_run_is_told_with_its_chunks(server: ViewServer) -> None:
    answer, body = ask(server, "runs")
    said = json.loads(body)
    assert answer.headers["content-type"] == "application/json"
    assert said["runs"][0]["name"] == "<b>a run</b>"
    assert said["runs"][0]["events"] == len(whole())
    answer, body = ask(server, "run/0/events/1")
    assert answer.headers["content-encoding"] == "deflate"
    assert len(from_columns(zlib.decompress(body), EVENT_FIELDS)["t"]) == 20
    assert len(zlib.decompress(ask(server, "run/0/state/1")[1])) == 32
    assert json.loads(ask(server, "run/0/page/9")[1])["count"] > 5
    assert json.loads(ask(server, "run/0/fault/0")[1])["vcpu"] == 1
    assert json.loads(ask(server, "run/0/now?after=2")[1])["chunks"][0]["event"] == 40
    for name in ("collapses", "stalls", "faults/0"):
        assert ask(server, f"run/0/{name}")[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "run/1/now", "run/0/events/99", "run/0/state/99", "run/0/page/32", "run/0/fault/1", "run/-1/now", "run/x/now",
        "run/0/now?after=-1", "run/0/now?after=1e9", "run/0/now?after=" + "9" * 400, "run/0/page/" + "9" * 300,
        "view.py", "../view.html", "..%2f..%2fview_server.py", "%2e%2e/trace.jsonl", "page/view.html", "%00", "runs/",
    ],
)  # fmt: skip
def test_whatever_is_not_there_is_404(server: ViewServer, path: str) -> None:
    answer, body = ask(server, path)
    assert (answer.status, body[:9]) == (404, b"not found"), body


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/runs", "/view.js", "/x/runs", "//runs", "/%E2%98%83/runs"])
def test_without_the_token_nothing_is_there(server: ViewServer, path: str) -> None:
    assert ask(server, path)[0].status == 404
    token = urlsplit(server.url).path
    assert ask(server, token[:-3] + "/runs")[0].status == 404
    assert ask(server, token.swapcase() + "runs")[0].status == 404


def test_another_host_is_refused(server: ViewServer) -> None:
    """A page of another site whose name was made to point to this machine (DNS rebinding)."""
    port = urlsplit(server.url).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1:{port}.evil", ""):
        assert ask(server, "runs", Host=host)[0].status == 421, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(server, "runs", Host=host)[0].status == 200, host


def test_another_site_is_refused(server: ViewServer) -> None:
    port = urlsplit(server.url).port
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        assert ask(server, "runs", Origin=origin)[0].status == 403, origin
    answer, _ = ask(server, "runs", Origin=f"http://127.0.0.1:{port}")
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_nothing_can_be_changed(server: ViewServer, method: str) -> None:
    assert ask(server, "runs", method)[0].status == 405


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 4096,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=["tls", "version", "zeros", "long-path", "two-hosts", "many-headers", "length", "upgrade"],
)  # fmt: skip
def test_nonsense_gets_an_error_and_harms_nobody(server: ViewServer, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), TIMEOUT_S) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    assert not answer or answer.split(b" ", 2)[1][:1] == b"4", answer[:200]
    assert ask(server, "runs")[0].status == 200


def test_connections_that_say_nothing_are_no_more_than_so_many(server: ViewServer) -> None:
    port = urlsplit(server.url).port or 0
    silent = [socket.create_connection(("127.0.0.1", port), TIMEOUT_S) for _ in range(CONNECTIONS_MAX + 2)]
    try:
        assert ask(server, "runs")[0].status == 503
    finally:
        for each in silent:
            each.close()
    for _ in range(500):  # it notices in its own time that they are gone
        if ask(server, "runs")[0].status == 200:
            return
    pytest.fail("it has not come back")


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokenError, match=f"127.0.0.1:{port} cannot be listened on: .*in use; give another --port"):
            ViewServer([], port)


def test_it_listens_on_loopback_alone_and_no_address_is_like_another() -> None:
    one, other = ViewServer([]), ViewServer([])
    try:
        assert one.url.startswith("http://127.0.0.1:")
        assert urlsplit(one.url).path != urlsplit(other.url).path
        assert len(urlsplit(one.url).path) >= 43
    finally:
        one.close()
        other.close()
