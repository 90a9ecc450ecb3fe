"""What a user names, opened: the one way in for files, pipes and standard input.

What is named may be anything: a FIFO that nobody writes to, a device without end, a directory, a file of a terabyte.
None of them may hold the program where Ctrl-C does not reach it, or eat its memory.

Rules
    1. Opening never waits (O_NONBLOCK), and what was opened is looked at through its descriptor (fstat), so that
       nothing can be put in its place in between.
    2. `opened` takes regular files alone (and block devices where that is asked for): what is read more than once, by
       another process too, or a part at a time.
    3. `read` takes a file whole, within a limit. Where the reader says that it reads but once, it takes a pipe too,
       such as the shell's `<(command)`, and `-`, standard input. A pipe that says nothing for `SILENCE_S` is given up;
       of `-` Ctrl-C is the limit.
    4. What cannot be had is an OSError, whose `strerror` says why in words that fit behind "cannot be read: ".
    5. In a setting, where no shell has been, a leading `~` is the home of the user, and `~name` that of somebody else.

Every other module reads what a user names through here (`tests/test_house.py` holds them to it).
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from migemu.units import KIB, MIB, format_size

#: Standard input.
DASH: Final = "-"
#: The most bytes of a file of settings, a certificate, a key: those in use have some KiB (assumed).
SETTINGS_BYTES_MAX: Final = 1 * MIB
#: The most bytes of a result, of a table of samples: what a run of thousands of vCPUs leaves has a few (assumed).
TEXT_BYTES_MAX: Final = 64 * MIB
#: How long a pipe may say nothing (assumed: whoever feeds it is started by the same line of the shell).
SILENCE_S: Final = 10.0
_AT_ONCE: Final = 64 * KIB
_STANDARD_INPUT: Final = 0
_KINDS: Final = (
    (stat.S_ISDIR, os.strerror(errno.EISDIR)),
    (stat.S_ISFIFO, "it is a pipe, and may be read more than once; give a file"),
    (stat.S_ISCHR, "it is a device; give a file"), (stat.S_ISBLK, "it is a device; give a file"),
)  # fmt: skip


def expanded(path: str | Path) -> Path:
    """The path of a setting with its `~` resolved; one of the command line, a Path, has been through a shell."""
    return Path(os.path.expanduser(path)) if isinstance(path, str) else path  # noqa: PTH111 - a Path has lost its "./"


def opened(path: str | Path, *, devices: bool = False) -> BinaryIO:
    """A regular file, to be read in any order; `devices`: or a block device. OSError."""
    descriptor = _descriptor(path)
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or (devices and stat.S_ISBLK(kind))):
        os.close(descriptor)
        _refuse(path, kind)
    return os.fdopen(descriptor, "rb")


def checked(path: str | Path, bytes_max: int) -> str:
    """The path of a regular file of at most so many bytes, for a library that opens it by itself. OSError."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > bytes_max:
            _too_long(path, bytes_max)
    return str(expanded(path))


def read(path: str | Path, bytes_max: int, *, once: bool = False) -> bytes:
    """All bytes of a file; `once`: or of a pipe, or of standard input. OSError, of more than `bytes_max` bytes too."""
    if once and str(path) == DASH:
        return _drained(path, _STANDARD_INPUT, bytes_max, None)
    descriptor = _descriptor(path)
    try:
        kind = os.fstat(descriptor).st_mode
        if once and stat.S_ISFIFO(kind):
            return _drained(path, descriptor, bytes_max, SILENCE_S)
        if not stat.S_ISREG(kind):
            _refuse(path, kind)
        return _drained(path, descriptor, bytes_max, None)
    finally:
        os.close(descriptor)


def read_text(path: str | Path, bytes_max: int = TEXT_BYTES_MAX, *, once: bool = False) -> str:
    """As `read`, in UTF-8. OSError; UnicodeDecodeError, a ValueError, when it is no text."""
    return read(path, bytes_max, once=once).decode()


def _descriptor(path: str | Path) -> int:
    try:
        return os.open(expanded(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def _refuse(path: str | Path, kind: int) -> NoReturn:
    what = next((what for is_kind, what in _KINDS if is_kind(kind)), "it is no file")
    raise OSError(errno.EINVAL, what, str(path))


def _too_long(path: str | Path, bytes_max: int) -> NoReturn:
    raise OSError(errno.EFBIG, f"it is longer than {format_size(bytes_max)}, the most that is read", str(path))


def _drained(path: str | Path, descriptor: int, bytes_max: int, silence_s: float | None) -> bytes:
    """What comes until the end. It waits in poll alone, where a signal ends the waiting."""
    parts: list[bytes] = []
    size = 0
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if not poll.poll(None if silence_s is None else silence_s * 1000):
            raise OSError(errno.ETIMEDOUT, f"it is a pipe in which nothing came for {silence_s:.0f}s", str(path))
        try:
            part = os.read(descriptor, _AT_ONCE)
        except BlockingIOError:
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > bytes_max:
            _too_long(path, bytes_max)
