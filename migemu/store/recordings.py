"""Recordings of accesses, read from the disk: once a process, and before anybody waits for a migration."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

from migemu import named
from migemu.errors import InputError
from migemu.guest.recording import Recorded, Recording, recording
from migemu.guest.replay import path_of
from migemu.scenario.scenario import Scenario
from migemu.units import MIB

_AT_ONCE: Final = 1 * MIB
#: A sweep goes from one to the next; a process that has had several keeps the last ones.
_RECORDINGS_MAX: Final = 2


def recorded(path: str) -> Recording:
    """The recording in the file at `path`; the same object again as long as the file is the same. ValueError."""
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


def read_ahead(scenario: Scenario) -> Recorded:
    """Read what the guest of `scenario` replays, if it does. InputError when it cannot, whatever memory comes."""
    spec = scenario.guest.workload
    try:
        path = path_of(spec)
        if not path:
            return recorded
        ahead = recorded(path)
        ahead.check(scenario.guest.vcpus)
    except ValueError as error:
        raise InputError(f"guest.workload={spec}: {error}") from None
    return lambda _: ahead
