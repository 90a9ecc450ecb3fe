"""A destination's memory played step by step over a disk that remembers, and what must come back of it.

What must hold of everything that is read back, whatever it was that died and whenever:

1. A complete generation is never lost, and a half-made one never taken for a whole one.
2. The guest's writes are those of its history up to some point. If the process died, that is every write that was
   acknowledged; if the machine died, at least those before the last complete generation was planned.
3. A page that is kept holds the source's bytes with these writes; one that is not kept is all zeros.
4. What a complete generation names is kept: nothing of it is asked for again. (Machine: unless the guest has written
   to it since, and that write reached the disk without its record.)
5. When what is missing has come again, the memory is the source's with these writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from migemu.checkpoint.format import CHECKPOINT, DirectoryState, Identity, decode
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import RestoredCheckpoint, begin, resume
from migemu.checkpoint.write_log import HEADER_BYTES, RECORD_BYTES
from migemu.mm.pages import Level, PieceRun
from tests.unit.checkpoint.crashes import PAGE, CrashingDisk, Moment, UnsyncedDisk, World, put

PAGES = 16
IDENTITY = Identity("0123456789abcdef" * 2, "tiny", PAGES * PAGE, PAGES * PAGE, 0, True, "{}", "{}")
#: A log of more than this is followed by another: two records fit.
LOG_BYTES_MAX = HEADER_BYTES + 2 * RECORD_BYTES - 1
ZERO_PAGES = (1, 6)


def image() -> list[bytes]:
    """The source's pages, no two alike, some of them zero."""
    return [bytes(PAGE) if page in ZERO_PAGES else Random(page).randbytes(PAGE) for page in range(PAGES)]


class Write(NamedTuple):
    word: int
    before: int
    stamp: int


class Planned(NamedTuple):
    """What a generation was to hold: how many writes had been acknowledged, and which pages were there."""

    writes: int
    received: frozenset[int]


@dataclass(frozen=True, slots=True)
class Mark:
    """What had been promised by a moment: writes acknowledged and begun, generations complete."""

    acknowledged: int
    begun: int
    generation: int


class Played:
    """A destination's memory and its lives. Actions are `land`, `write`, `checkpoint`, each with a page."""

    def __init__(self, directory: Path, make_disk: Callable[[Path], CrashingDisk] = CrashingDisk) -> None:
        self.image = image()
        self._make_disk = make_disk
        self.history: list[Write] = []
        self.planned: dict[int, Planned] = {1: Planned(0, frozenset())}
        self._moments: list[tuple[Moment, Mark]] = []
        self._acknowledged = self._generation = self.steps_when_planned = 0
        directory.mkdir()
        self.disk = self._watched(directory)
        self.memory = CheckpointedMemory(begin(self.disk, directory, IDENTITY, LOG_BYTES_MAX))
        self._generation = 1
        self.disk.note("made")

    def revive(self, directory: Path) -> None:
        """Another life, in what a killed one has left."""
        self.end()
        self.disk = self._watched(directory)
        self.disk.adopt()
        restored = resume(self.disk, directory, LOG_BYTES_MAX)
        assert restored is not None
        self.memory = CheckpointedMemory(restored)
        for first, count in self.memory.restored_rows():
            self.memory.install(PieceRun(first, count, Level.PTE))
        self._generation = restored.checkpoint.statistics.generation
        self.planned[self._generation] = Planned(self._acknowledged, self._here())
        self.disk.note("revived")

    def _watched(self, directory: Path) -> CrashingDisk:
        disk = self._make_disk(directory)
        disk.noted = lambda moment: self._moments.append(
            (moment, Mark(self._acknowledged, len(self.history), self._generation))
        )
        return disk

    def _here(self) -> frozenset[int]:
        return frozenset(page for page in range(PAGES) if self.memory.received[page])

    def land(self, page: int, count: int = 1) -> None:
        """Pages come, and become accessible; a zero page brings no bytes."""
        for each in range(page, page + count):
            if each not in ZERO_PAGES:
                view = self.memory.landing(each, 1)
                view[: PAGE // 2] = self.image[each][: PAGE // 2]
                self.disk.note(f"half of page {each}")
                view[:] = self.image[each]
        self.memory.install(PieceRun(page, count, Level.PTE))
        self.disk.note(f"page {page} landed")

    def write(self, page: int, slot: int = 0) -> None:
        """The guest writes to a page that is there."""
        word = (page * PAGE + slot * 64) // 8
        view = self.memory.landing(page, 1)
        before = int.from_bytes(view[slot * 64 : slot * 64 + 8], "little")
        stamp = 0x5A5A_0000_0000_0000 + len(self.history)
        self.history.append(Write(word, before, stamp))
        self.memory.touch(0, page, slot * 64, stamp)
        self._acknowledged = len(self.history)
        self.disk.note(f"page {page} written")

    def checkpoint(self) -> None:
        checkpoint = self.memory.checkpoint
        plan = checkpoint.plan(self.memory.received)
        self.planned[checkpoint.statistics.generation + 1] = Planned(self._acknowledged, self._here())
        self.steps_when_planned = self.disk.steps
        checkpoint.complete(plan)
        self._generation = checkpoint.statistics.generation
        self.disk.note(f"generation {self._generation} complete")

    def play(self, actions: Sequence[tuple[str, int]]) -> None:
        for name, page in actions:
            if name == "checkpoint":
                self.checkpoint()
            elif name == "write" and self.memory.received[page]:
                self.write(page, slot=len(self.history) % 3)
            elif name == "land" and not self.memory.received[page]:
                self.land(page)

    def end(self) -> None:
        """Let go of all files."""
        self.memory.checkpoint.close()
        self.disk.forget()

    def moments(self) -> list[tuple[Moment, Mark]]:
        return list(self._moments)


def folded(history: Sequence[Write]) -> dict[int, tuple[int, int]]:
    words: dict[int, tuple[int, int]] = {}
    for word, before, stamp in history:
        words[word] = (words[word][0] if word in words else before, stamp)
    return words


class Judge:
    """Reads worlds back, each in a directory of its own, and says what does not hold."""

    def __init__(self, played: Played, directory: Path) -> None:
        self.worlds = 0
        self._played = played
        self._directory = directory
        self._seen: set[tuple[bool, Mark, int]] = set()

    def judge(self, world: World, mark: Mark, *, is_killed: bool) -> None:
        known = (is_killed, mark, hash(tuple(sorted(world.items()))))
        if known in self._seen:
            return
        self._seen.add(known)
        self.worlds += 1
        directory = put(world, self._directory / str(self.worlds))
        self._judge_directory(directory, world, mark, is_killed)
        shutil.rmtree(directory)

    def _judge_directory(self, directory: Path, world: World, mark: Mark, is_killed: bool) -> None:
        restored = resume(UnsyncedDisk(), directory, LOG_BYTES_MAX)
        if restored is None:
            assert not mark.generation, "a complete generation is gone"
            restored = begin(UnsyncedDisk(), directory, IDENTITY, LOG_BYTES_MAX)  # what has been left is no obstacle
        else:
            self._judge_kept(restored, decode(world[CHECKPOINT]), mark, is_killed)
        restored.checkpoint.close()

    def _judge_kept(self, restored: RestoredCheckpoint, state: DirectoryState, mark: Mark, is_killed: bool) -> None:
        played = self._played
        named = frozenset(page for page in range(PAGES) if state.received[page])
        planned = played.planned.get(state.generation)
        if planned is None:  # made by whoever came back before
            planned = Planned(played.planned[mark.generation].writes, named)
        memory = CheckpointedMemory(restored)
        words = {
            (word.page * PAGE + word.offset) // 8: (word.original, word.current) for word in memory.restored_words()
        }
        assert state.generation >= mark.generation, "a complete generation is gone"
        least = mark.acknowledged if is_killed else planned.writes
        ends = [end for end in range(least, mark.begun + 1) if folded(played.history[:end]) == words]
        assert ends, f"the guest's writes are not its first {least} or more: {words}"
        expected = [bytearray(page) for page in played.image]
        for word, (_, current) in words.items():
            expected[word * 8 // PAGE][word * 8 % PAGE : word * 8 % PAGE + 8] = current.to_bytes(8, "little")
        here = {page for page in range(PAGES) if restored.received[page]}
        for page in range(PAGES):
            what = expected[page] if page in here else bytes(PAGE)
            assert memory.landing(page, 1) == what, f"page {page} {'restored' if page in here else 'not restored'}"
        touched = {write.word * 8 // PAGE for write in played.history[planned.writes :]}
        assert named == planned.received, "the bitmap is not that of the moment at which it was planned"
        missing = named - here - (set() if is_killed else touched)
        assert not missing, f"pages {sorted(missing)} were durable, and come again"
        for page in set(range(PAGES)) - here:
            if page not in ZERO_PAGES:
                memory.landing(page, 1)[:] = played.image[page]
            memory.install(PieceRun(page, 1, Level.PTE))
        assert all(memory.landing(page, 1) == expected[page] for page in range(PAGES))
