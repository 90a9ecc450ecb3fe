"""Workloads: which page each vCPU touches next, and whether it writes.

What this models
    A guest as the migration sees it: per vCPU a row of accesses, each to one base page. The vCPU cannot go on before
    its access is done, so it has at most one fault open; KVM's asynchronous page faults are not modelled.

Rules
    1. One workload object is one vCPU. It never looks at a clock: the guest that drives it decides when.
    2. Randomness comes from the context's generator, through `random()` alone, the only method whose numbers Python
       promises to keep (random, "Notes on Reproducibility"). Same seed, same accesses, whatever else runs.
    3. Each access is a write with probability `write_share`, independent of the page.
    4. `next_access` is None when the workload has ended; it stays None. Only `replay` ends.

Words
    share    the pages of one vCPU when the memory is divided among all of them
    round    one visit to each page of a range

Simplified
    No think time, no sizes: an access is one page. No locality within a page: a page that is mapped costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, Protocol

from migemu import values
from migemu.guest.recording import Recording
from migemu.mm.pages import PageIndex
from migemu.registry import Registry


class Access(NamedTuple):
    """One touch of one base page."""

    page: PageIndex
    write: bool


class Workload(Protocol):
    """The accesses of one vCPU. Factories take (context)."""

    def next_access(self) -> Access | None:
        """What the vCPU touches next; None when the workload has ended."""


class WorkloadFiles(Protocol):
    """Opens the files that workloads name. OSError when one cannot be read, ValueError when its content is wrong."""

    def read_text(self, path: str) -> str:
        """The text of the file at `path`, decoded as UTF-8."""

    def recording(self, path: str) -> Recording:
        """The recorded accesses in a file; the same object for all vCPUs."""


class NoFiles:
    """WorkloadFiles where no file exists, for workloads that need none."""

    def read_text(self, path: str) -> str:
        """Always raises FileNotFoundError: this guest has no files."""
        raise FileNotFoundError(path)

    def recording(self, path: str) -> Recording:
        """Always raises FileNotFoundError: this guest has no files."""
        raise FileNotFoundError(path)


NO_FILES: Final = NoFiles()


@dataclass(frozen=True, slots=True)
class WorkloadContext:
    """What a workload is given. `rng` belongs to this vCPU alone; `files` opens what its settings name."""

    total_pages: int
    vcpu: int
    vcpus: int
    rng: Random
    write_share: float
    files: WorkloadFiles = NO_FILES

    def __post_init__(self) -> None:
        """ValueError when a value is out of its range."""
        if self.total_pages < 1:
            raise ValueError(f"a memory of {self.total_pages} pages cannot be touched: give 1 or more")
        if not 0 <= self.vcpu < self.vcpus:
            raise ValueError(f"vCPU {self.vcpu} is not one of {self.vcpus}: give 0 to {self.vcpus - 1}")
        if not 0.0 <= self.write_share <= 1.0:
            raise ValueError(f"a write share of {self.write_share} is not a probability: give 0 to 1")

    @property
    def share(self) -> range:
        """The pages of this vCPU when all vCPUs divide the memory; shares differ by one page at most."""
        return range(self.total_pages * self.vcpu // self.vcpus, self.total_pages * (self.vcpu + 1) // self.vcpus)


workloads: Registry[Workload] = Registry("workload", "migemu.workload")


@workloads.register("sequential", stride=values.whole(1, unit="base pages"))
class SequentialWorkload:
    """Each vCPU walks through its own share of the memory, from the first page to the last, round after round.

    Setting `stride`: pages from one access to the next. A round is then `stride` passes, each beginning one page after
    the pass before, so that it still visits each page of the share once.
    """

    __slots__ = ("_end", "_page", "_pass_start", "_random", "_start", "_stride", "_write_share")

    def __init__(self, context: WorkloadContext, *, stride: int = 1) -> None:
        share = context.share
        if not share:
            raise ValueError(
                f"{context.total_pages} pages cannot be shared out to {context.vcpus} vCPUs: "
                "give fewer vCPUs or another workload"
            )
        self._start, self._end = share.start, share.stop
        self._page = self._pass_start = share.start
        self._stride = stride
        self._random = context.rng.random
        self._write_share = context.write_share

    def next_access(self) -> Access:
        """The next page of the walk."""
        page = self._page
        following = page + self._stride
        if following >= self._end:
            following = self._pass_start + 1
            if following >= self._end or following >= self._start + self._stride:
                following = self._start
            self._pass_start = following
        self._page = following
        return Access(page, self._random() < self._write_share)

    def __repr__(self) -> str:
        return f"<Sequential {self._start}..{self._end - 1} by {self._stride}, next {self._page}>"


@workloads.register("uniform")
class UniformWorkload:
    """Every vCPU touches any page of the whole memory with the same probability."""

    __slots__ = ("_random", "_total_pages", "_write_share")

    def __init__(self, context: WorkloadContext) -> None:
        self._random = context.rng.random
        self._total_pages = context.total_pages
        self._write_share = context.write_share

    def next_access(self) -> Access:
        """An access to a page drawn uniformly; never None."""
        random = self._random
        return Access(int(random() * self._total_pages), random() < self._write_share)

    def __repr__(self) -> str:
        return f"<Uniform over {self._total_pages} pages>"
