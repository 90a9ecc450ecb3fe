"""A run while it runs, as a picture: made from what its recorders write, and exact once it is over."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from migemu.costs.collapse_cost import CostModel
from migemu.errors import InputError, MigemuError
from migemu.report.directory import RunDirectory
from migemu.view.follower import Follower, written_trace
from migemu.view.index_builder import IndexBuilder
from migemu.view.opened_run import open_run, run_costs, shown_name
from migemu.view.run_picture import RunPicture
from migemu.view.trace_index import SUFFIX, BlobFile

#: How often the browser is given what is new.
_SHOW_EVERY_S: Final = 0.1


class LiveRun:
    """Fills `runs` with the picture of the run in `directory` as soon as there is one, and keeps it up to date.

    Threads: `work` runs in one of its own; `over` is set by whoever knows that the run has ended.
    """

    def __init__(self, directory: Path, runs: list[RunPicture]) -> None:
        self._directory = directory
        self._runs = runs
        #: The run has ended, and all its files are written.
        self.over = threading.Event()
        #: Nobody wants the picture any more.
        self.stop = threading.Event()

    def work(self) -> None:
        """Follow the run to its end, then wait until its files are whole, and show the exact picture."""
        follower = Follower(self._directory, self.stop)
        memory = follower.wait(self.over)
        if memory is not None:
            self._follow(follower, IndexBuilder(*memory, BlobFile.temporary(self._directory), self._costs(memory[2])))
        while not (self.over.is_set() or self.stop.is_set()):
            self.over.wait(_SHOW_EVERY_S)
        if not self.stop.is_set():
            self._settle(follower)

    def _costs(self, kind: str) -> CostModel | None:
        return None if kind != "modelled" else run_costs(RunDirectory.open(self._directory))

    def _follow(self, follower: Follower, builder: IndexBuilder) -> None:
        name = shown_name(RunDirectory.open(self._directory))
        self._runs.append(RunPicture(name, builder.index, written_trace(self._directory)))
        shown_s, is_new = 0.0, False
        try:
            for block, offset in follower.blocks():
                if block:
                    builder.take(block, offset)
                is_new = is_new or bool(block)
                if is_new and (now_s := time.monotonic()) - shown_s > _SHOW_EVERY_S:
                    builder.show_open()
                    shown_s, is_new = now_s, False
        except (ValueError, MigemuError) as error:
            builder.index.problem = str(error)
        builder.close()
        builder.index.digest = follower.digest
        builder.index.problem = builder.index.problem or follower.problem

    def _settle(self, follower: Follower) -> None:
        """The index beside the trace: the one that is here if it was made from that trace, or a new one."""
        trace = written_trace(self._directory)
        picture = self._runs[0] if self._runs else None
        try:
            if picture is not None and follower.digest and not picture.index.problem:
                picture.index.save(trace.with_name(trace.name + SUFFIX), trace)
                return
            exact = open_run(self._directory)
        except (InputError, MigemuError, OSError) as error:
            if picture is not None and not picture.index.problem:
                picture.index.problem = str(error)
            return
        if picture is None:
            self._runs.append(exact)
        else:
            picture.replace(exact.index, exact.trace)
