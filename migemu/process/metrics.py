"""Metrics of nodes for Prometheus, over HTTP: at each scrape what the status socket shows (`NodeStatus`).

    migemu-dest --metrics 127.0.0.1:9464        and then  curl http://127.0.0.1:9464/metrics

Rules
    1. They are served on the loopback device alone: HTTP authenticates nobody. Who scrapes from another host puts an
       agent or a proxy beside the node.
    2. A scrape asks for the status anew; nothing is gathered in between.
    3. Who connects has `_REQUEST_S` for the request and for reading the answer, `_HEAD_BYTES_MAX` bytes of request,
       and one answer; above `CLIENTS_MAX` connections the oldest is closed. A scraper can neither block nor end a node.
    4. A quantity that can fall (memory that was sent and lost with a connection) is a gauge; `*_total` only grow.
    5. Names are those of `METRICS`; the dashboard (grafana.json, beside this file) uses no others.

Needs the extra `metrics`: prometheus-client, the official client, writes the formats; h11 reads requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from migemu.address import TcpAddress, parse_address
from migemu.errors import BrokenError, InputError
from migemu.node.outcome import Whereabouts
from migemu.process.status_socket import SUFFIX, NodeStatus, ask
from migemu.wire.states import Stage

if TYPE_CHECKING:
    import h11
    from prometheus_client.core import Metric

CLIENTS_MAX: Final = 16
_HEAD_BYTES_MAX: Final = 16 << 10
_REQUEST_S: Final = 5.0
#: Those a node can be in; the others are of a role alone.
_STAGES: Final = tuple(stage.value for stage in Stage if stage not in (Stage.NONE, Stage.FAILED))
_PLACES: Final = tuple(place.value for place in Whereabouts)

#: Metrics with one number for each migration: name without `_total` -> (type, meaning, field of NodeStatus, nodes).
_BOTH: Final = ("source", "destination")
_NUMBERS: Final = {
    "migemu_memory_bytes": ("gauge", "Memory of the guest.", "memory_bytes", _BOTH),
    "migemu_sent_bytes": ("gauge", "Memory that the source has sent.", "sent_bytes", _BOTH[:1]),
    "migemu_received_bytes": ("gauge", "Memory that has arrived.", "received_bytes", _BOTH[1:]),
    "migemu_mapped_bytes": ("gauge", "Memory that the page table maps.", "mapped_bytes", _BOTH[1:]),
    "migemu_faults_waiting": ("gauge", "Base pages (4K) that vCPUs wait for.", "faults_waiting", _BOTH[1:]),
    "migemu_vcpus_waiting": ("gauge", "vCPUs that sleep on a fault.", "vcpus_waiting", _BOTH[1:]),
    "migemu_recoveries": ("counter", "Lost connections after which the migration went on.", "recoveries", _BOTH),
}
_CHECKPOINT: Final = {
    "migemu_checkpoint_generation": ("Number of the last complete generation of the checkpoint.", "generation", 1.0),
    "migemu_checkpoint_age_seconds": ("Age of what the checkpoint holds.", "age_ns", 1e-9),
    "migemu_checkpoint_writes": ("Writes of the guest that are in the checkpoint.", "writes", 1.0),
    "migemu_checkpoint_bytes": ("Size of its logs and generations.", "bytes", 1.0),
}
_TURNED_AWAY: Final = "migemu_turned_away"
_STAGE: Final = "migemu_stage"
_WHEREABOUTS: Final = "migemu_whereabouts"
_CHECKPOINT_LOST: Final = "migemu_checkpoint_lost"
#: Every name that is exposed, as a scrape shows it.
METRICS: Final = (
    *(f"{name}_total" if kind == "counter" else name for name, (kind, *_) in _NUMBERS.items()),
    f"{_TURNED_AWAY}_total", _STAGE, _WHEREABOUTS, *_CHECKPOINT, _CHECKPOINT_LOST,
)  # fmt: skip

#: The nodes to tell of, as they are now.
AskStatus = Callable[[], Awaitable[Sequence[NodeStatus]]]


class _StatusCollector:
    """prometheus_client's Collector over statuses that were just asked for."""

    def __init__(self, statuses: Sequence[NodeStatus]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, StateSetMetricFamily

        labels = ("role", "pid", "migration")
        for name, (kind, meaning, field, roles) in _NUMBERS.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)
            for node in self._statuses:
                if node.role in roles:
                    family.add_metric(_labels(node), getattr(node, field))
            yield family
        away = CounterMetricFamily(
            _TURNED_AWAY, "Peers that were no source of the node, or were refused.", labels=labels[:2]
        )
        for values, count in {_labels(n)[:2]: n.turned_away for n in self._statuses if n.role == "destination"}.items():
            away.add_metric(values, count)
        yield away
        for name, meaning, states, field in (
            (_STAGE, "Stage of the migration.", _STAGES, "stage"),
            (_WHEREABOUTS, "Where the guest is, as this node knows it.", _PLACES, "whereabouts"),
        ):
            sets = StateSetMetricFamily(name, meaning, labels=labels)
            for node in self._statuses:
                if now := getattr(node, field):
                    sets.add_metric(_labels(node), {state: state == now for state in dict.fromkeys((*states, now))})
            yield sets
        yield from self._checkpoints(labels)

    def _checkpoints(self, labels: Sequence[str]) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        kept = [(node, node.checkpoint) for node in self._statuses if node.checkpoint is not None]
        for name, (meaning, field, factor) in _CHECKPOINT.items():
            family = GaugeMetricFamily(name, meaning, labels=labels)
            for node, checkpoint in kept:
                family.add_metric(_labels(node), getattr(checkpoint, field) * factor)
            yield family
        lost = GaugeMetricFamily(_CHECKPOINT_LOST, "1: the checkpoint protects the guest no more.", labels=labels)
        for node, checkpoint in kept:
            lost.add_metric(_labels(node), float(bool(checkpoint.lost)))
        yield lost


def _labels(node: NodeStatus) -> tuple[str, str, str]:
    return node.role, str(node.pid), node.migration[:8]


def exposition(
    statuses: Sequence[NodeStatus], method: str = "GET", target: str = "/metrics", accept: str = ""
) -> tuple[int, list[tuple[str, str]], bytes]:
    """(HTTP status, headers, body) of a scrape: text format, or OpenMetrics where `accept` asks for it."""
    from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

    path, _, query = target.partition("?")
    if path not in ("/metrics", "/"):
        return 404, [("Content-Type", "text/plain")], b"the metrics are at /metrics\n"
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(statuses))
    ProcessCollector(registry=registry)
    response: list[Any] = []
    body: Iterable[bytes] = make_wsgi_app(registry, disable_compression=True)(
        {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "HTTP_ACCEPT": accept},
        lambda status, headers: response.extend((status, headers)),
    )
    return int(response[0].split()[0]), response[1], b"".join(body)


class MetricsServer:
    """The HTTP server of one process. `status` is asked anew for each scrape."""

    def __init__(self, address: TcpAddress, status: AskStatus) -> None:
        self.address = address
        self._status = status
        self._clients: dict[asyncio.Task[Any], None] = {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. BrokenError when the port is in use, or may not be used."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self.address.host, self.address.port, limit=_HEAD_BYTES_MAX
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise BrokenError(
                f"--metrics {self.address}: cannot listen there: {why}; give another port, or 0"
            ) from None
        self.address = TcpAddress(self.address.host, self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = None
        if len(self._clients) > CLIENTS_MAX:
            next(iter(self._clients)).cancel()
        try:
            async with asyncio.timeout(_REQUEST_S):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # it has left, or says nothing, or does not read, or had to make room
        finally:
            del self._clients[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """The response to the one request of a connection; empty when there was none."""
        import h11

        headers: list[tuple[str, str]] = []
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)
        try:
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await reader.read(_HEAD_BYTES_MAX))
        except h11.RemoteProtocolError as error:
            if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return b""
            code, body = error.error_status_hint, b"it is no HTTP request\n"
        else:
            if not isinstance(event, h11.Request):
                return b""  # the connection ended before it asked for anything
            accept = next((value.decode("latin-1") for name, value in event.headers if name == b"accept"), "")
            method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
            code, headers, body = exposition(await self._status(), method, target, accept)
        return _response(http, code, headers, body)

    async def close(self) -> None:
        """Stop listening; who is connected is dropped."""
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()


def _response(http: h11.Connection, code: int, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    import h11

    fields = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
    parts = (h11.Response(status_code=code, headers=fields), h11.Data(data=body), h11.EndOfMessage())
    return b"".join(http.send(part) or b"" for part in parts)


def metrics_address(text: str) -> TcpAddress:
    """The address that --metrics was given. InputError: it is none, or not loopback (rule 1), or no extra is there."""
    try:
        import h11
        import prometheus_client
    except ImportError:
        raise InputError("--metrics needs prometheus-client and h11: pip install -e '.[metrics]'") from None
    del h11, prometheus_client
    address = parse_address(text)
    if not isinstance(address, TcpAddress) or not _is_loopback(address):
        raise InputError(
            f"--metrics {text}: metrics are served to whoever asks, so on this machine alone: give 127.0.0.1:PORT or "
            "[::1]:PORT, and put an agent or a proxy beside it for others"
        )
    return address


def _is_loopback(address: TcpAddress) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def coroutine(status: Callable[[], Sequence[NodeStatus]]) -> AskStatus:
    """`status`, which answers at once, as a function that can be awaited."""

    async def asked() -> Sequence[NodeStatus]:
        return status()

    return asked


def of_directory(directory: Path) -> AskStatus:
    """The nodes whose --out is `directory`, asked over their status sockets; those that do not answer are left out."""

    def ask_all() -> list[NodeStatus]:
        found: list[NodeStatus] = []
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            with contextlib.suppress(BrokenError):
                found += ask(path)
        return found

    return partial(asyncio.to_thread, ask_all)


@contextlib.asynccontextmanager
async def serving(address: TcpAddress | None, status: AskStatus, notice: Callable[[str], None]) -> AsyncIterator[None]:
    """Metrics at `address` meanwhile (None: none). BrokenError when it cannot be listened at."""
    if address is None:
        yield
        return
    server = MetricsServer(address, status)
    await server.open()
    notice(f"metrics: http://{server.address}/metrics")
    try:
        yield
    finally:
        await server.close()
