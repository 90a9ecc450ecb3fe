"""Replay: the accesses of a file.

What this models
    A recorded guest: from another tool, or the faults of an earlier migration, so that several policies can be judged
    by one and the same row of accesses. The format is that of `migemu.guest.recording`.

Rules
    1. A page outside the memory and a vCPU that the guest does not have are refused: left out, they would make the
       replay another workload than the one recorded.
    2. A vCPU without lines ends at once.
    3. The file is read before there is a migration (`path_of` names it), and never again.

Simplified
    Times are not replayed: the guest's rate decides. A trace's faults are first touches only; what the guest did
    between them has left no line.
"""

from __future__ import annotations

from migemu import values
from migemu.guest.workload import Access, WorkloadContext, workloads


@workloads.register("replay", path=values.text("path of a file"))
class Replay:
    """Each vCPU repeats its accesses from a file of lines `vcpu page r|w`, or a migemu trace's faults; then it ends.

    Setting `path`: the file; one with a comma in quotes, as in `replay:path="a,b"`.
    """

    __slots__ = ("_accesses", "_next", "_path")

    def __init__(self, context: WorkloadContext, *, path: str = "") -> None:
        if not path:
            raise ValueError('replay needs a file: give "replay:path=..."')
        self._path = path
        self._next = 0
        recorded = context.files.recording(path)
        recorded.check(context.vcpus, context.total_pages)
        self._accesses = recorded.of(context.vcpu)

    def next_access(self) -> Access | None:
        """The next access of the file."""
        index = self._next
        if index == len(self._accesses):
            return None
        self._next = index + 1
        code = self._accesses[index]
        return Access(code >> 1, bool(code & 1))

    def __repr__(self) -> str:
        return f"<Replay of {self._path}: {self._next}/{len(self._accesses)}>"


def path_of(spec: str) -> str:
    """The file that the workload `spec` replays; "" when it is another one. ValueError when it is none."""
    entry, settings = workloads.parse(spec)
    return str(settings.get("path", "")) if entry.factory is Replay else ""
