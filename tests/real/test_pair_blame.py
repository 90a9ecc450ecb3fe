"""Of two nodes that both failed, the pair blames the one that knows why, however late that one says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from migemu.report.terminal.progress import Progress
from migemu.scenario.scenario import load
from migemu.worlds.pair import Pair

#: In place of Python: a destination that listens and fails when the source has ended, unless it is terminated before;
#: a source that fails with what the other has told it.
_NODES = """#!{python}
import json, os, signal, sys
here = {here!r}
if "--listen" in sys.argv:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print(json.dumps({{"listening": "127.0.0.1:1"}}), flush=True)
    open(here, "rb").read()  # until the source has ended
    if signal.sigtimedwait([signal.SIGTERM], 0.3):
        sys.exit(3)
    print(json.dumps({{"error": "the memory is too large", "relayed": False}}), flush=True)
    sys.exit(2)
else:
    os.open(here, os.O_WRONLY)  # closed by the end of the process
    print(json.dumps({{"error": "the destination gave up: the memory is too large", "relayed": True}}), flush=True)
    sys.exit(3)
"""


async def test_the_one_that_knows_why_is_given_the_time_to_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    stub = tmp_path / "python"
    stub.write_text(_NODES.format(python=sys.executable, here=str(tmp_path / "fifo")))
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    scenario = load(None, ())
    with Progress(Console(quiet=True), "test", True) as progress:
        outcome = await Pair(scenario, tmp_path / "out", progress, False).run()
    assert (outcome.exit_code, outcome.error) == (2, "destination: the memory is too large")
