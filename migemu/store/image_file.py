"""The bytes of an image: a file that is read while somebody may write to it, shorten it, or pull out its disk.

A file that is mapped cannot say no: whoever touches a page that a truncated file, a bad disk or an NFS server does not
have gets SIGBUS, and the guest is lost. So a file is read, by pread(2), a run of pieces at a time, into bytes that live
until they are sent. Measured (two cores, page cache, into a socket): 1 MiB at a time 3.8 GB/s, mapped 2.5; 4 KiB at a
time 0.6 and 1.5, some 1 us a piece; a buffer that is used again saves nothing, and could be overwritten before it is
sent.

Rules
    1. What cannot be read is an `UnreadableError`: the source's fault, which its owner may mend before he goes on.
    2. At the end the file is looked at again (`changed`): size and time of writing, and the time of change where
       nothing else explains it (a link, an owner, a mode), for whoever sets the time of writing back. Then what arrived
       is no memory that ever was, and the source says so, whatever the comparison says.
    3. The digests at the end are of the bytes as they are then, not as they were sent: so a change of what was sent is
       found even where the times do not show it.
    4. A private copy (`memory.image_copy`) is out of everybody's reach: a reflink where the file system can make one,
       else in memory. Leases (fcntl(2), F_SETLEASE) are for owners alone and hold a writer up for 45 s only; locks
       (flock) hold up nobody who does not ask.

Simplified
    Times do not show a store through somebody's mapping before the kernel writes it back, on tmpfs never, and of a
    block device nothing at all. What of it was sent before, rule 3 finds; what was not, nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import weakref
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from migemu.errors import BrokenError, InputError, UnreadableError
from migemu.store.allocate import check_available
from migemu.units import MIB, format_size

#: <linux/fs.h>: share the blocks of another file until one of the two is written to.
_FICLONE: Final = 0x40049409
_COPIED_AT_ONCE: Final = 64 * MIB
#: Magic bytes -> what a file is whose bytes are not a memory as they stand, and what makes one of it. From QEMU's
#: docs/interop (qcow2, vmdk, vhdx), its block/vdi.c, makedumpfile's diskdump_mod.h.
_CONVERT: Final = "qemu-img convert -O raw IMAGE raw.img"
_FORMATS: Final = (
    (0, b"QFI\xfb", "a qcow2 image", _CONVERT), (0, b"KDMV", "a VMDK image", _CONVERT),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image", _CONVERT),
    (0, b"vhdxfile", "a VHDX image", _CONVERT), (0, b"conectix", "a VHD image", _CONVERT),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", _CONVERT),
    (0, b"KDUMP   ", "a compressed kdump", "crash, or makedumpfile"),
    (0, b"DISKDUMP", "a compressed dump", "crash, or makedumpfile"),
    (0, b"\x1f\x8b", "compressed by gzip", "gunzip"), (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unzstd"),
    (0, b"\xfd7zXZ\0", "compressed by xz", "unxz"),
)  # fmt: skip
_CORE: Final = 4  # ET_CORE, elf(5)


class Bytes(Protocol):
    """The seam between an image and what holds its bytes: a file, this process's memory, or an ELF core."""

    def read(self, at: int, count: int) -> memoryview | bytes:
        """`count` bytes from byte `at` on; all of them were there once. UnreadableError when they cannot be read."""

    def changed(self) -> str | None:
        """How these bytes have changed since they were opened, in a clause; None if they have not."""


class Held:
    """image_file.Bytes in memory of this process. Nobody else can change them."""

    def __init__(self, buffer: object) -> None:
        self._view = memoryview(buffer)  # type: ignore[arg-type]  # whatever has one

    def read(self, at: int, count: int) -> memoryview:
        """`count` bytes from byte `at` on, without a copy. Never fails."""
        return self._view[at : at + count]

    def changed(self) -> None:
        """None: no other process can change them."""
        return


class FileBytes:
    """image_file.Bytes of an open file. `size` in bytes, as it was when it was opened."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """`file` may be closed afterwards; messages call it `name`. OSError when it cannot be examined (fstat)."""
        self.name = name
        self.size = file.seek(0, os.SEEK_END)
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._then = os.fstat(self._descriptor)

    def read(self, at: int, count: int) -> bytes:
        """`count` bytes from byte `at` on. UnreadableError when the file has become shorter or the disk fails."""
        try:
            data = os.pread(self._descriptor, count, at)
            while len(data) < count:  # it is cut off, or a signal has come
                more = os.pread(self._descriptor, count - len(data), at + len(data))
                if not more:
                    raise UnreadableError(
                        f"{self.name} was shortened while it was read: it ends at byte {at + len(data)}, and had "
                        f"{self.size}; the source's image is wrong"
                    )
                data += more
        except OSError as error:
            raise UnreadableError(
                f"{self.name} cannot be read at byte {at}: {error.strerror}; the source's disk is wrong"
            ) from None
        return data

    def changed(self) -> str | None:
        """What fstat says of a change since the file was opened, in a clause; None if nothing (rule 2)."""
        then = self._then
        try:
            now = os.fstat(self._descriptor)
        except OSError as error:
            return f"it cannot be looked at any more: {error.strerror}"
        if not stat.S_ISREG(now.st_mode):
            return None
        if now.st_size != then.st_size:
            return f"it had {then.st_size} bytes, and has {now.st_size}"
        if now.st_mtime_ns != then.st_mtime_ns:
            return "its time of writing (mtime) is another one"
        unchanged = ("st_nlink", "st_mode", "st_uid", "st_gid")
        if now.st_ctime_ns != then.st_ctime_ns and all(getattr(now, name) == getattr(then, name) for name in unchanged):
            return "its time of change (ctime) is another one, as if its time of writing had been set back"
        return None

    def private(self) -> FileBytes:
        """A copy that nobody else can write to. InputError when the file changes meanwhile, or BrokenError."""
        with self._reflink() or self._in_memory() as file:
            copy = FileBytes(file, self.name)
        if (changed := self.changed()) is not None:
            raise InputError(f"{self.name} changed while it was copied: {changed}; stop whoever writes to it")
        return copy

    def _reflink(self) -> BinaryIO | None:
        """A copy that shares its blocks (FICLONE), without a name; None where the file system cannot make one."""
        try:
            folder = Path(self.name).absolute().parent
            descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.ioctl(descriptor, _FICLONE, self._descriptor)
        except OSError:
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb")

    def _in_memory(self) -> BinaryIO:
        check_available(self.size)
        descriptor = os.memfd_create("migemu image", os.MFD_CLOEXEC)
        try:
            for at in range(0, self.size, _COPIED_AT_ONCE):
                data = self.read(at, min(_COPIED_AT_ONCE, self.size - at))
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        except OSError as error:
            os.close(descriptor)
            raise BrokenError(
                f"{self.name}: no {format_size(self.size)} of memory for a copy ({error.strerror}); free some, or "
                "leave memory.image_copy off"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")

    def __repr__(self) -> str:
        return f"<FileBytes of {self.name}, {format_size(self.size)}>"


def advice(data: FileBytes) -> str | None:
    """What format such a file has, and how to make a memory image of it; None if it has none that is known."""
    head = data.read(0, min(data.size, 128))
    if head[:4] == b"\x7fELF" and len(head) > 18:
        kind = int.from_bytes(head[16:18], "big" if head[5] == 2 else "little")
        if kind == _CORE:
            return "is an ELF core: its bytes are taken as they are; --set memory.image_format=core takes its memory"
    for at, magic, what, how in _FORMATS:
        if head[at : at + len(magic)] == magic:
            return f"is {what}: its bytes are taken as they are, not what it holds; to have that, first: {how}"
    return None
