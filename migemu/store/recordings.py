"""Recordings of accesses, read from the disk: once a process, and before anybody waits for a migration."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

from migemu import named
from migemu.errors import InputError
from migemu.guest.recording import Recording, recording
from migemu.guest.replay import path_of
from migemu.scenario.scenario import Scenario
from migemu.units import MIB

_AT_ONCE: Final = 1 * MIB
#: A sweep goes from one to the next; a process that has had several keeps the last ones.
_RECORDINGS_MAX: Final = 2


def recorded(path: str) -> Recording:
    """The recording at `path`; the same object while the file is unchanged. ValueError says what is wrong."""
    try:
        about = named.expanded(path).stat()
        return _read(path, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


@lru_cache(_RECORDINGS_MAX)
def _read(path: str, _identity: tuple[int, ...]) -> Recording:
    with named.opened(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return recording(path, iter(lambda: file.read(_AT_ONCE), b""))


class NamedFiles:
    """guest.workload.WorkloadFiles: files of the disk, named as users name them."""

    def __init__(self, ahead: Recording | None = None) -> None:
        """`ahead`, if given, is the one recording that any workload names, read already."""
        self._ahead = ahead

    def read_text(self, path: str) -> str:
        """The text of a file. ValueError when it cannot be read, or is no text."""
        try:
            return named.read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def recording(self, path: str) -> Recording:
        """The recording in a file; the same object again as long as the file is the same. ValueError."""
        return recorded(path) if self._ahead is None else self._ahead


def read_ahead(scenario: Scenario) -> NamedFiles:
    """Read the recording that the guest of `scenario` replays, if it replays one. InputError when it cannot be read."""
    spec = scenario.guest.workload
    try:
        path = path_of(spec)
        if not path:
            return NamedFiles()
        ahead = recorded(path)
        ahead.check(scenario.guest.vcpus)
    except ValueError as error:
        raise InputError(f"guest.workload={spec}: {error}") from None
    return NamedFiles(ahead)
