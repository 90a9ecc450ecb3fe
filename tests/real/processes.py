"""Real node processes for tests: started as a user would start them, spoken to over real sockets.

`--supervised` makes a node tell its port and its errors as JSON lines, which is how `migemu run` listens to it too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migemu.address import Address, TcpAddress, parse_address
from migemu.errors import BrokenError
from migemu.process.status_socket import NodeStatus, ask

TINY = ("--set", "memory.geometry=tiny", "--set", "memory.size=1M", "--set", "scenario.name=test")
TIMEOUT_S = 30


class NodeProcess:
    """A node as a child process; everything it says is read by a thread, so that it never blocks."""

    def __init__(self, module: str, *arguments: str, supervised: bool = True) -> None:
        extra = ("--supervised",) if supervised else ()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *extra],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.said: list[dict[str, Any]] = []
        self.stderr = ""
        self._news = threading.Condition()
        self._ended = False
        self._readers = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def wait_until(self, told: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first thing it says that `told` is true of."""

        def found() -> dict[str, Any] | None:
            return next((said for said in self.said if told(said)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, TIMEOUT_S)
            said = found()
        assert said is not None, f"it never came to that: {self.error or self.said[-3:]}"
        return said

    def wait_for_stage(self, stage: str) -> None:
        """Until it shows that it is in `stage`."""
        self.wait_until(lambda said: said.get("status", {}).get("stage") == stage)

    @property
    def address(self) -> Address:
        """Where it listens, as soon as it does."""
        return parse_address(self.wait_until(lambda said: "listening" in said)["listening"])

    @property
    def port(self) -> int:
        """The port it listens on, as soon as it does."""
        address = self.address
        assert isinstance(address, TcpAddress)
        return address.port

    def wait_for_notice(self) -> str:
        """The first notice that it gives."""
        return str(self.wait_until(lambda said: "notice" in said)["notice"])

    @property
    def error(self) -> str:
        """The error it ended with, or ""."""
        return next((str(said["error"]) for said in self.said if "error" in said), "")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code; everything it said has been read then."""
        code = self.process.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        return code


@contextmanager
def node(module: str, *arguments: str) -> Iterator[NodeProcess]:
    """A node process that is gone afterwards, whatever happened."""
    process = NodeProcess(module, *arguments)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.wait()
        for pipe in (process.process.stdin, process.process.stdout, process.process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def destination(*arguments: str) -> Iterator[NodeProcess]:
    """A destination on a free port of loopback."""
    with node("dest_node", "--listen", "127.0.0.1:0", *TINY, *arguments) as process:
        yield process


@contextmanager
def source(port: int, *arguments: str) -> Iterator[NodeProcess]:
    """A source that connects to `port` of loopback."""
    with node("source_node", "--connect", f"127.0.0.1:{port}", *TINY, *arguments) as process:
        yield process


def asked(path: Path, told: Callable[[NodeStatus], bool]) -> NodeStatus:
    """The status of the node at `path`, once it is there and `told` is true of it."""
    end_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_s:
        try:
            (status,) = ask(path)
        except BrokenError:
            continue  # it is not there yet
        if told(status):
            return status
    raise AssertionError(f"{path} never told that")


def migemu(*arguments: str, cwd: Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """The command line, as a user types it."""
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "migemu", *arguments], cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
