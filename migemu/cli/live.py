"""`--live`: a run is watched by a process of its own, which serves the picture; the run itself knows nothing of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from migemu.errors import InputError
from migemu.process import start
from migemu.process.runner import Voice

if TYPE_CHECKING:
    from migemu.view.run_picture import RunPicture

#: What the one who runs says to the one who watches: the run is over; then, whether to stay as long as somebody looks.
_OVER: Final = "over"
_OVER_UNATTENDED: Final = "over, unattended"
#: Without a terminal nobody can end it: it ends when nothing has been asked for so long.
_UNATTENDED_S: Final = 5.0
_PATIENCE_S: Final = 10.0
MISSING_LIBRARY: Final = (
    "the picture in the browser needs two libraries more (starlette, uvicorn): pip install -e '.[live]'"
)


@contextmanager
def watched(voice: Voice, directory: Path, quiet: bool = False) -> Iterator[None]:
    """Meanwhile the run in `directory` can be watched; the address is printed. Afterwards it stays until Ctrl-C.

    Leaves with the exit code of the watcher when it cannot begin, which says why by itself.
    """
    command = [*start.child("migemu"), "view", "--follow", str(directory)]
    watcher = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    try:
        url = watcher.stdout.readline().strip()
        if not url:
            sys.exit(watcher.wait())
        voice.notice(f"live: {url}")
        ended: SystemExit | None = None
        try:
            yield
        except SystemExit as how:  # as every command ends
            ended = how
        attended = voice.console.is_terminal and not quiet
        with suppress(OSError):  # it has ended before
            watcher.stdin.write((_OVER if attended else _OVER_UNATTENDED) + "\n")
            watcher.stdin.flush()
        if attended:
            voice.notice(f"the run is over; the picture stays until Ctrl-C: {url}")
        with suppress(KeyboardInterrupt):
            watcher.wait()
        if ended is not None:
            raise ended
    finally:
        with suppress(OSError):
            watcher.stdin.close()  # which ends it
        try:
            watcher.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            watcher.kill()
            watcher.wait()
        watcher.stdout.close()


def serve_live(directory: Path, port: int) -> None:
    """Be the watcher: serve the run in `directory` until standard input ends. InputError, BrokenError."""
    try:
        from migemu.view.follower import give_way
        from migemu.view.live_run import LiveRun
        from migemu.view.view_server import ViewServer
    except ModuleNotFoundError as error:
        raise InputError(f"{MISSING_LIBRARY} ({error.name} is not there)") from None
    runs: list[RunPicture] = []
    server = ViewServer(runs, port)
    print(server.url, flush=True)
    give_way()
    live = LiveRun(directory, runs)
    worker = threading.Thread(target=live.work, daemon=True)
    worker.start()
    unattended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            live.over.set()
            if line.strip() == _OVER_UNATTENDED:
                unattended.set()
        live.stop.set()
        server.stop()

    def wait_until_nobody_looks() -> None:
        unattended.wait()
        while not live.stop.wait(_UNATTENDED_S / 10):
            if not worker.is_alive() and server.quiet_s > _UNATTENDED_S:
                live.stop.set()
                server.stop()

    for target in (listen, wait_until_nobody_looks):
        threading.Thread(target=target, daemon=True).start()
    server.run()
    live.stop.set()
    worker.join(_PATIENCE_S)
