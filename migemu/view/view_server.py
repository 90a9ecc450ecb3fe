"""The server of the picture: on loopback, for whoever has its address, which holds a token.

    http://127.0.0.1:PORT/TOKEN/        the page;   .../run/0/events/3   the events of a chunk, and so on

Rules
    1. It listens on 127.0.0.1 alone. Everything stands under a token of 256 random bits; without it, whatever is asked
       for is 404. No file is found by a name from outside: the page's own files stand in a table.
    2. `Host` must be this address (a page of another site that has its own name point here is refused, 421), `Origin`,
       where there is one, too (403). Methods are GET and HEAD (405). Nothing can be changed through it.
    3. Answers may not be framed, sniffed, stored or read by other sites, and the page may load nothing but this.
    4. Limits: connections at once, bytes of a head, time that a connection may be idle.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from migemu.errors import BrokenError
from migemu.view.palette import palette
from migemu.view.run_picture import RunPicture, vocabulary

HOST: Final = "127.0.0.1"
CONNECTIONS_MAX: Final = 64
_HEAD_BYTES_MAX: Final = 16 << 10
_IDLE_S: Final = 30
_SCRIPTS: Final = ("view", "run", "memory", "lanes", "timeline", "details")
#: Names below the token, the files of the page that stand there, and their types.
_FILES: Final = {
    "": ("view.html", "text/html"),
    "view.css": ("view.css", "text/css"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}
_HEADERS: Final = {
    "cache-control": "no-store", "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer", "x-content-type-options": "nosniff", "x-frame-options": "DENY",
}  # fmt: skip

Scope = dict[str, Any]
Channel = Callable[..., Awaitable[Any]]


class ViewServer:
    """Serves some runs until it is stopped. `url` is its address."""

    def __init__(self, runs: Sequence[RunPicture], port: int = 0) -> None:
        """Listen; a `port` of 0 takes a free one. BrokenError when it is taken. `runs` may still grow."""
        self._runs = runs
        try:
            self._socket = socket.create_server((HOST, port))
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise BrokenError(f"{HOST}:{port} cannot be listened on: {reason}; give another --port, or 0") from None
        self._token = secrets.token_urlsafe(32)
        self._port = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self._port}/{self._token}/"
        self._asked_s = time.monotonic()
        self._app = Starlette(routes=self._routes(), exception_handlers={404: _nothing_there})
        self._app.router.redirect_slashes = False
        self._server = Server(
            Config(
                self._guarded, interface="asgi3", http="h11", ws="none", loop="asyncio", lifespan="off",
                log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
                limit_concurrency=CONNECTIONS_MAX, timeout_keep_alive=_IDLE_S, timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
            )
        )  # fmt: skip

    def run(self) -> None:
        """Serve, until `stop` or a signal; KeyboardInterrupt for the latter."""
        self._server.run(sockets=[self._socket])

    @property
    def quiet_s(self) -> float:
        """How long nothing has been asked for."""
        return time.monotonic() - self._asked_s

    def stop(self) -> None:
        """End `run`; from any thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Close the listening socket; call it after `run` has ended."""
        self._socket.close()

    def _routes(self) -> list[Route]:
        routes = [Route(f"/{name}", _file(name)) for name in _FILES]
        routes += [Route("/runs", self._about), Route("/run/{run:int}/now", self._now)]
        for name, of_number in (
            ("events", lambda run, number: run.index.stored_events(number)),
            ("state", lambda run, number: run.index.stored_state(number)),
            ("faults", lambda run, number: run.index.stored_faults(number)),
        ):  # fmt: skip
            routes.append(Route(f"/run/{{run:int}}/{name}/{{number:int}}", self._numbered(_deflated, of_number)))
        for name, method in (("page", RunPicture.history), ("fault", RunPicture.fault)):
            routes.append(Route(f"/run/{{run:int}}/{name}/{{number:int}}", self._numbered(JSONResponse, method)))
        for name, columns in (("collapses", "collapse_columns"), ("stalls", "stall_columns")):
            routes.append(Route(f"/run/{{run:int}}/{name}", self._columns(columns)))
        return routes

    def _about(self, _request: Request) -> Response:
        runs = [{**run.about(), **run.now()} for run in self._runs]
        return JSONResponse({"runs": runs, "palette": palette(), **vocabulary()})

    def _now(self, request: Request) -> Response:
        run, after = self._run(request), request.query_params.get("after", "0")
        if run is None or not after.isdecimal() or len(after) > 9:
            return _not_found()
        return JSONResponse(run.now(int(after)))

    def _numbered(self, answer: Callable[[Any], Response], method: Callable[[RunPicture, int], Any]) -> Any:
        def endpoint(request: Request) -> Response:
            run = self._run(request)
            if run is None:
                return _not_found()
            try:
                said = method(run, request.path_params["number"])
            except IndexError:
                return _not_found()
            return answer(said)

        return endpoint

    def _columns(self, name: str) -> Any:
        def endpoint(request: Request) -> Response:
            run = self._run(request)
            if run is None:
                return _not_found()
            with run.index.lock:
                return Response(getattr(run.index, name)(), media_type="application/octet-stream")

        return endpoint

    def _run(self, request: Request) -> RunPicture | None:
        number = request.path_params["run"]
        return self._runs[number] if number < len(self._runs) else None

    async def _guarded(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Rules 1 to 3, before anything else looks at a request."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if headers.setdefault(name, value) != value:
                headers[name] = b"(told twice)"
        _, token, path = [*scope["path"].split("/", 2), "", ""][:3]
        hosts = [f"{name}:{self._port}".encode() for name in (HOST, "localhost")]
        refusal = 0
        if headers.get(b"host", b"") not in hosts:
            refusal = 421
        elif headers.get(b"origin", b"http://" + hosts[0]) not in [b"http://" + host for host in hosts]:
            refusal = 403
        elif not secrets.compare_digest(token.encode(errors="replace"), self._token.encode()):
            refusal = 404
        elif scope["method"] not in ("GET", "HEAD"):
            refusal = 405

        async def answer(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                method = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *method]}
            await send(message)

        if refusal:
            await PlainTextResponse(_REFUSALS[refusal], refusal)(scope, receive, answer)
            return
        self._asked_s = time.monotonic()
        await self._app({**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}, receive, answer)

    def __repr__(self) -> str:
        return f"<ViewServer of {len(self._runs)} runs on port {self._port}>"


_REFUSALS: Final = {
    403: "another site asks", 404: "not found: open the whole address that migemu printed", 405: "GET alone",
    421: "this is another host",
}  # fmt: skip


def _nothing_there(_request: Request, _error: Exception) -> Response:
    return _not_found()


def _not_found() -> Response:
    return PlainTextResponse(_REFUSALS[404], 404)


def _deflated(stored: bytes) -> Response:
    return Response(stored, media_type="application/octet-stream", headers={"content-encoding": "deflate"})


def _file(name: str) -> Any:
    file, media_type = _FILES[name]
    text = resources.files("migemu.view").joinpath("page", file).read_text(encoding="utf-8")

    def endpoint(_request: Request) -> Response:
        return Response(text, media_type=media_type)

    return endpoint
