"""A disk that remembers: after every file operation of a checkpoint, and after every store of the guest, what would be
found if the process, or the machine, died there.

What the machine's death may leave is more than one thing. Since a file was last synced, every page of it may be as it
was then, as it is now, or as it was at any time between; a log that is appended to may also be cut anywhere, or be
zeros in part. Names made, renamed and removed since the directory was last synced may be there or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from migemu.checkpoint.disk import Disk

PAGE = 4096
World = dict[str, bytes]


class UnsyncedDisk(Disk):
    """The real one, but for waiting: what is left of a crash is read back from here at once."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


@dataclass(slots=True)
class Inode:
    """A file: a descriptor to look at it, what of it is durable, and what it has been since."""

    look: int
    durable: bytes = b""
    since: list[bytes] = field(default_factory=list)

    def now(self) -> bytes:
        return os.pread(self.look, os.fstat(self.look).st_size, 0)


@dataclass(frozen=True, slots=True)
class Moment:
    """One point at which everything may end: names, as they are and as they are durable; files likewise."""

    what: str
    names: dict[str, int]
    durable_names: dict[str, int]
    files: dict[int, bytes]
    durable_files: dict[int, bytes]
    versions: dict[int, tuple[bytes, ...]]

    def killed(self) -> World:
        """The process dies: the kernel has everything."""
        return {name: self.files[inode] for name, inode in self.names.items()}

    def powerless(self) -> Iterator[tuple[str, World]]:
        """The machine dies: the plain ways of it."""
        everywhere = (("names kept", self.names), ("names dropped", self.durable_names))
        for which, names in everywhere:
            yield f"{which}, data dropped", {name: self.durable_files[inode] for name, inode in names.items()}
            yield f"{which}, data kept", {name: self.files[inode] for name, inode in names.items()}
            for odd, inode in names.items():
                if self.files[inode] == self.durable_files[inode]:
                    continue
                base = {name: self.durable_files[each] for name, each in names.items()}
                yield f"{which}, data of {odd} alone kept", base | {odd: self.files[inode]}
                base = {name: self.files[each] for name, each in names.items()}
                yield f"{which}, data of {odd} alone dropped", base | {odd: self.durable_files[inode]}
                for torn in torn_ends(self.durable_files[inode], self.files[inode]):
                    yield f"{which}, {odd} torn", base | {odd: torn}

    def drawn(self, random: Random) -> World:
        """The machine dies: any mixture. A rename is one step: both of its names are old, or both new."""
        names = dict(self.durable_names)
        together = ("checkpoint", "checkpoint.new")
        units = [together, *((name,) for name in {**self.names, **self.durable_names} if name not in together)]
        for unit in units:
            if random.random() < 0.5:
                for name in unit:
                    names.pop(name, None)
                names |= {name: self.names[name] for name in unit if name in self.names}
        return {name: self._mixed(inode, random) for name, inode in names.items()}

    def _mixed(self, inode: int, random: Random) -> bytes:
        """Each page of a file as it was at any time since it was synced; its end anywhere."""
        versions = (self.durable_files[inode], *self.versions[inode], self.files[inode])
        size = random.choice([len(version) for version in versions])
        if size > len(versions[0]) and random.random() < 0.3:
            size = random.randrange(len(versions[0]), size)
        pages = [random.choice(versions)[start : start + PAGE] for start in range(0, size, PAGE)]
        return b"".join(page.ljust(PAGE, b"\0") for page in pages)[:size]


def torn_ends(durable: bytes, now: bytes) -> Iterator[bytes]:
    """A file that was appended to: cut within a record, or long enough and empty at its end, or in the middle."""
    if len(now) > len(durable) and now.startswith(durable):
        grown = len(now) - len(durable)
        yield now[: len(durable) + grown // 2 + 1]
        yield durable + bytes(grown)
        if grown >= 64:
            yield durable + bytes(32) + now[len(durable) + 32 :]


class CrashingDisk(UnsyncedDisk):
    """Every step is a `Moment`. `between` is called before each: other things happen while a checkpoint is made."""

    def __init__(self, directory: Path) -> None:
        self.moments: list[Moment] = []
        self.steps = 0
        self.between: Callable[[int], None] = lambda _: None
        self.noted: Callable[[Moment], None] = lambda _: None
        self._directory = directory
        self._inodes: list[Inode] = []
        self._by_descriptor: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._durable_names: dict[str, int] = {}

    def adopt(self) -> None:
        """The directory as it is now is durable."""
        for path in sorted(self._directory.iterdir()):
            self._names[path.name] = self._inode(path, path.read_bytes())
        self._durable_names = dict(self._names)

    def _inode(self, path: Path, durable: bytes = b"") -> int:
        self._inodes.append(Inode(os.open(path, os.O_RDONLY), durable))
        return len(self._inodes) - 1

    def forget(self) -> None:
        """Close what was opened to look at."""
        for inode in self._inodes:
            os.close(inode.look)
        self._inodes.clear()

    def note(self, what: str) -> None:
        """A moment: something was done, here or to mapped memory."""
        files = {number: inode.now() for number, inode in enumerate(self._inodes)}
        for number, inode in enumerate(self._inodes):
            if files[number] != inode.durable and (not inode.since or inode.since[-1] != files[number]):
                inode.since.append(files[number])
        moment = Moment(
            what, dict(self._names), dict(self._durable_names), files,
            {number: inode.durable for number, inode in enumerate(self._inodes)},
            {number: tuple(inode.since) for number, inode in enumerate(self._inodes)},
        )  # fmt: skip
        self.moments.append(moment)
        self.noted(moment)

    def _step(self) -> None:
        self.between(self.steps)
        self.steps += 1
        self.note("nothing")  # of this step; what was stored to mapped memory before it shows

    def create(self, path: Path) -> int:
        self._step()
        descriptor = super().create(path)
        if path.name not in self._names:
            self._names[path.name] = self._inode(path)
        self._by_descriptor[descriptor] = self._names[path.name]
        self.note(f"create {path.name}")
        return descriptor

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        self._by_descriptor[descriptor] = self._names[path.name]
        return descriptor

    def allocate(self, descriptor: int, size: int, start: int = 0) -> None:
        self._step()
        super().allocate(descriptor, size, start)
        self.note("allocate")

    def write(self, descriptor: int, data: bytes) -> None:
        self._step()
        super().write(descriptor, data)
        self.note(f"write {len(data)} bytes")

    def sync(self, descriptor: int) -> None:
        self._step()
        inode = self._inodes[self._by_descriptor[descriptor]]
        inode.durable, inode.since = inode.now(), []
        self.note("sync")

    def replace(self, old: Path, new: Path) -> None:
        self._step()
        super().replace(old, new)
        self._names[new.name] = self._names.pop(old.name)
        self.note(f"replace {old.name}")

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)
        self._names.pop(path.name, None)
        self.note(f"unlink {path.name}")

    def sync_directory(self, path: Path) -> None:
        self._step()
        self._durable_names = dict(self._names)
        self.note("sync directory")


def put(world: World, directory: Path) -> Path:
    """A world as files."""
    directory.mkdir(parents=True)
    for name, data in world.items():
        (directory / name).write_bytes(data)
    return directory
