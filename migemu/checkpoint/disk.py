"""The file operations of a checkpoint, one by one: the seam at which a test can stop the world between any two.

Rules
    1. Everything that a checkpoint does to its directory goes through here, but for what is stored to mapped memory.
    2. Each method is one step: done, or OSError. A `write` that the disk takes in part is an error (ENOSPC).
    3. What is written is durable after `sync`; what is created, renamed or removed after `sync_directory` (fsync(2):
       syncing a file does not sync the entry of the directory that names it).

A file that is mapped is synced as any other: fdatasync writes back what was stored through a shared mapping too.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from migemu.units import MIB

_ZEROS: Final = bytes(MIB)


class Disk:
    """The file operations of a checkpoint on a real file system."""

    def create(self, path: Path) -> int:
        """Create an empty file (mode 0600) and open it; its descriptor. No symbolic link is followed."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open an existing file to read and write; its descriptor."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def allocate(self, descriptor: int, size: int, start: int = 0) -> None:
        """Give a file zeros from `start` to `size`, with room on the disk for all: a mapping cannot be told ENOSPC.

        They are written too. Room that was never written is in pieces once some of it is: each `sync` has to note which
        (ext4's unwritten extents), and removing the file has to walk through all of them.
        """
        os.posix_fallocate(descriptor, start, size - start)
        for at in range(start, size, len(_ZEROS)):
            part = _ZEROS[: size - at]
            if os.pwrite(descriptor, part, at) != len(part):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lock(self, directory: Path) -> int | None:
        """Lock a directory as long as the descriptor is open; None when another process has locked it."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """Append `data`, all of it."""
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, descriptor: int) -> None:
        """fdatasync: what was written to the file is durable."""
        os.fdatasync(descriptor)

    def replace(self, old: Path, new: Path) -> None:
        """Rename `old` to `new`, over what was there: atomic, as rename(2) is."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """fsync of a directory: the names in it are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor of `create`, `open` or `lock`."""
        os.close(descriptor)
