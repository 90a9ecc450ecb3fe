"""Files that the program writes for its user: complete, or what was there before.

    output = Output(path)        DIR/NAME.partial is made beside DIR/NAME; whether it can be is known at once
    output.write(...)            into that
    output.commit()              fsync, rename over DIR/NAME, fsync of DIR
    output.discard()             NAME.partial is gone, NAME is what it was

Rules
    1. What is there already is replaced only by what is complete. A process that is killed leaves NAME.partial, which
       the next one that writes NAME takes away.
    2. An output that is one of the inputs (the same device and inode, whatever its name) is refused; so is one that
       another process holds (flock: the image of a source that runs, a file that is being written), and what is no
       regular file: a pipe or a device would take what cannot be taken back.
    3. Memory of a guest is its user's alone (0600). Other files get what the umask leaves, or the mode of the file that
       they replace.
    4. No symbolic link is followed in a directory that others can write: whoever made it would choose what is replaced.
       NAME.partial is always a new file (O_EXCL, O_NOFOLLOW).
    5. Where something may be written is asked when the run begins (`Output` is made then), so that it is not the end
       of a migration that finds out. `reserve_bytes` are set aside with it, for what must be told on a full disk too.

Group-writable directories count as the user's own where the group is: its primary group, without other members (the
"user private groups" of most distributions).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import io
import os
import pwd
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self, TextIO

import numpy as np

from migemu import named
from migemu.errors import BrokenError, InputError
from migemu.values import items

PARTIAL: Final = ".partial"
#: Modes of new files: a guest's memory and keys; everything else.
PRIVATE: Final = 0o600
PUBLIC: Final = 0o666
_BLOCK_BYTES: Final = 4096
#: As many as the kernel follows (path_resolution(7)).
_LINKS_MAX: Final = 40
_KINDS: Final = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


class Output:
    """One file that is being written. `path` is as the user gave it; `written_bytes` is its length so far."""

    def __init__(
        self, path: Path, *, mode: int = PUBLIC, inputs: Iterable[Path] = (), reserve_bytes: int = 0
    ) -> None:  # fmt: skip
        """Create NAME.partial and its directory. InputError by rules 2 and 4, BrokenError when that is impossible."""
        self.path = path
        self.written_bytes = 0
        self._mode = mode
        self._descriptor = self._directory = -1
        with broken_if_refused(path):
            _check_kind(path, path)
            real = _resolved(path)
            real.parent.mkdir(parents=True, exist_ok=True)
            self._name = real.name
            self._directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._check(inputs)
                self._descriptor = self._created()
                if reserve_bytes:
                    os.posix_fallocate(self._descriptor, 0, reserve_bytes)
            except BaseException:
                self.discard()
                raise

    def _created(self) -> int:
        """Create NAME.partial and lock it; its descriptor."""
        name = self._name + PARTIAL
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, self._mode, dir_fd=self._directory)
            except FileExistsError:
                _clear(name, self._directory, self.path)
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, name, self._directory):
                return descriptor
            os.close(descriptor)  # another process took it for one that was left

    def _check(self, inputs: Iterable[Path]) -> None:
        """InputError when the file that is there now may not be replaced (rules 2 and 4)."""
        try:
            found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        _check_mode(found.st_mode, self.path)
        for each in inputs:
            with contextlib.suppress(OSError, ValueError):  # what cannot be found is not this one
                if os.path.samestat(found, each.stat()):
                    raise InputError(f"{self.path}: is what is read ({each}); give another file to write to")
        if is_held(self._name, self._directory):
            raise InputError(f"{self.path}: is being read or written at this moment, by a source perhaps; give another")

    def check(self) -> None:
        """Check again, as other processes may have come since. InputError when NAME may not be replaced any more."""
        with broken_if_refused(self.path):
            self._check(())

    def room_bytes(self) -> int:
        """Bytes that the file system still has for this user."""
        with broken_if_refused(self.path):
            found = os.fstatvfs(self._descriptor)
            return found.f_bavail * found.f_frsize

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. OSError when the disk does not take it."""
        self._put(data, self.written_bytes)
        self.written_bytes += len(data)

    def write_sparse(self, data: bytes) -> None:
        """As `write`, but 4K blocks of zeros become holes; `data` is a multiple of 4K, except the last."""
        whole = len(data) // _BLOCK_BYTES
        words = np.frombuffer(data, dtype="<u8", count=whole * _BLOCK_BYTES // 8).reshape(whole, _BLOCK_BYTES // 8)
        holds = np.concatenate(([False], words.any(axis=1), [False]))
        edges = np.flatnonzero(np.diff(holds)).tolist()
        view = memoryview(data)
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            self._put(view[first * _BLOCK_BYTES : last * _BLOCK_BYTES], self.written_bytes + first * _BLOCK_BYTES)
        if any(rest := view[whole * _BLOCK_BYTES :]):
            self._put(rest, self.written_bytes + whole * _BLOCK_BYTES)
        self.written_bytes += len(data)

    def _put(self, data: bytes | memoryview, at: int) -> None:
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], at + done)

    @contextlib.contextmanager
    def text(self) -> Iterator[TextIO]:
        """A text stream (UTF-8) into this file; use nothing else to write until it is closed."""
        with io.TextIOWrapper(io.BufferedWriter(_Stream(self)), encoding="utf-8", newline="") as stream:
            yield stream

    def stream(self) -> io.RawIOBase:
        """A binary stream into this file; closing it leaves the output open."""
        return _Stream(self)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the file takes on the disk; less than its size where it has holes."""
        return os.fstat(self._descriptor).st_blocks * 512

    def commit(self) -> None:
        """Sync the file and rename it over NAME.

        InputError, BrokenError when that cannot be; NAME.partial is removed then.
        """
        try:
            with broken_if_refused(self.path):
                os.ftruncate(self._descriptor, self.written_bytes)
                os.fsync(self._descriptor)
                self._check(())
                self._keep_mode()
                os.rename(
                    self._name + PARTIAL, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory
                )  # fmt: skip
                _sync_directory(self._directory)
        except BaseException:
            self.discard()
            raise
        self._close()

    def _keep_mode(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            before = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if self._mode != PRIVATE:
                os.fchmod(self._descriptor, stat.S_IMODE(before.st_mode) & PUBLIC)

    def discard(self) -> None:
        """Remove NAME.partial; NAME stays as it was. Safe to call again, and after `commit`."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # on a file system that fails there is no more to do
                os.unlink(self._name + PARTIAL, dir_fd=self._directory)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # what could not be written has been told by fsync
                    os.close(descriptor)
        self._descriptor = self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        """Commit it if all went well."""
        if error is None:
            self.commit()
        else:
            self.discard()

    def __repr__(self) -> str:
        return f"<Output {self.path}, {self.written_bytes} bytes>"


class _Stream(io.RawIOBase):
    """An `Output` as a raw binary stream (io.RawIOBase); closing it leaves the output open."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._output.written_bytes

    def write(self, data: Any) -> int:
        with memoryview(data) as view:
            self._output.write(view.cast("B"))
            return view.nbytes


@contextlib.contextmanager
def writing(path: Path, *, inputs: Iterable[Path] = (), mode: int = PUBLIC) -> Iterator[Output]:
    """A context manager: an `Output` that is committed if the block raises nothing. Raises what `Output` raises."""
    with Output(path, mode=mode, inputs=inputs) as output, broken_if_refused(path):
        yield output


def write_text(path: Path, text: str, *, inputs: Iterable[Path] = (), mode: int = PUBLIC) -> None:
    """Write the whole file at once (UTF-8). Raises what `Output` raises."""
    with writing(path, inputs=inputs, mode=mode) as output:
        output.write(text.encode())


def named_files(settings: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """The files that settings name, directly (`security.psk_file`) or in a choice (`replay:path=FILE`)."""
    found: list[Path] = []
    for text in (value for section in settings.values() for value in section.values() if isinstance(value, str)):
        with contextlib.suppress(ValueError):  # no choice; or no path
            chosen = [value for _, value in items(text.partition(":")[2]) if value]
            found += [path for each in (text, *chosen) if each and (path := named.expanded(each)).is_file()]
    return found


def is_held(name: str | Path, directory: int | None = None) -> bool:
    """Whether another process has locked that file (flock); False where that cannot be asked."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(descriptor)
    return False


def hold(descriptor: int) -> None:
    """Lock the open file, so that no `Output` of any process replaces it while `descriptor` is open."""
    with contextlib.suppress(OSError):  # it is being written, or has no locks: it can be read all the same
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def others_can_write(directory: os.stat_result) -> bool:
    """Whether a user other than this one and root can create names in that directory."""
    if directory.st_uid not in (0, os.geteuid()) or directory.st_mode & stat.S_IWOTH:
        return True
    return bool(directory.st_mode & stat.S_IWGRP) and not _is_private(directory.st_gid)


def risk(directory: Path) -> str | None:
    """Why other users may replace what is in `directory`, in words; None if they may not."""
    try:
        found = directory.stat()
    except OSError:
        return None  # it is not there yet, or whoever opens it says why
    if found.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    if others_can_write(found) and not found.st_mode & stat.S_ISVTX:
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _is_private(group: int) -> bool:
    """Whether `group` is this user's primary group and has no other member."""
    try:
        user = pwd.getpwuid(os.geteuid())
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return group == user.pw_gid and members <= {user.pw_name}


def _resolved(path: Path) -> Path:
    """`path` without symbolic links. InputError for a link in a directory that others can write (rule 4)."""
    at, rest, links = Path("/"), list(reversed(Path.cwd().joinpath(path).parts[1:])), 0
    while rest:
        part = rest.pop()
        if part == "..":
            at = at.parent
            continue
        here = at / part
        if not here.is_symlink():
            at = here
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if at.is_relative_to("/proc"):
            raise InputError(f"{path}: is not a regular file; give the name of the file that it stands for")
        if others_can_write(at.stat()):
            raise InputError(f"{path}: {here} is a symbolic link in a directory that others can write; name the file")
        target = here.readlink()
        if target.is_absolute():
            at = Path("/")
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return at


def _check_kind(path: Path, named: Path) -> None:
    """InputError, which calls the file `named`, when `path` leads to anything else than a regular file."""
    with contextlib.suppress(FileNotFoundError):
        _check_mode(path.stat().st_mode, named)


def _check_mode(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a symbolic link")
        raise InputError(f"{path}: cannot be written: it is {kind}; give the name of a file")


def _clear(name: str, directory: int, path: Path) -> None:
    """Remove the NAME.partial of a killed process. InputError when it is no regular file, or is in use."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: cannot be written: {name} beside it is in the way; remove that")
    if is_held(name, directory):
        raise InputError(f"{path}: is being written by another run at this moment; give another file, or wait for it")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _is_at(descriptor: int, name: str, directory: int) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _sync_directory(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems whose directories cannot be synced (fsync(2))
            raise


@contextlib.contextmanager
def broken_if_refused(path: Path) -> Iterator[None]:
    """A context manager: an OSError becomes a BrokenError of one line, "PATH cannot be written: ..."."""
    try:
        yield
    except OSError as error:
        raise BrokenError(f"{path} cannot be written: {error.strerror or error}") from None
