"""Bytes from the kernel: anonymous memory, a memfd, or hugetlbfs; all zeros, refused in one line where there are none.

Memory is populated before it is used (MADV_POPULATE_WRITE), as QEMU's doublemap series does with its mirror mapping:
a page that is first touched while it is received costs three times more, in the middle of the migration. That takes
up to seconds a GiB, and must not hold the other migrations of this process meanwhile: hence madvise(2) itself, as
`mmap.madvise` keeps the interpreter's lock, and in steps, as the kernel keeps the process's mmap_lock for each of them
(with another thread in mmap(2) behind it, nobody here could even take a page fault).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path
from typing import Final

from migemu.errors import BrokenError
from migemu.units import MIB, format_size

_MADV_POPULATE_WRITE: Final = 23  # <asm-generic/mman-common.h>; since Linux 5.14
_MFD_HUGE_2MB: Final = 21 << 26  # <linux/memfd.h>
_MFD_HUGE_1GB: Final = 30 << 26
_madvise: Final = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
#: One THP or hugetlb page of 2M: half a millisecond where memory is fast, several where the host has to find it first.
_STEP_BYTES: Final = 2 * MIB
_LESS: Final = "free some, or migrate less memory"


def allocate(memory_bytes: int, backing: str) -> mmap.mmap:
    """`memory_bytes` of zeros, populated. BrokenError when the system has not enough memory of that kind."""
    if backing == "anonymous":
        memory = anonymous(memory_bytes)
    else:
        hint = _LESS
        if backing == "hugetlbfs":
            hint = "reserve hugetlb pages first (/proc/sys/vm/nr_hugepages) or use memory.backing=anonymous"
        else:
            check_available(memory_bytes)
        try:
            memory = _shared(memory_bytes, backing)
        except (OSError, ValueError, OverflowError) as error:
            raise _refusal(memory_bytes, backing, error, hint) from None
    try:
        _populate(memory)
    except OSError as error:
        raise _refusal(memory_bytes, backing, error, _LESS) from None
    return memory


def _populate(memory: mmap.mmap) -> None:
    """Have the kernel provide every page now. OSError when it cannot."""
    first = ctypes.c_char.from_buffer(memory)
    for offset in range(0, len(memory), _STEP_BYTES):
        length = min(_STEP_BYTES, len(memory) - offset)
        if _madvise(ctypes.addressof(first) + offset, length, _MADV_POPULATE_WRITE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def anonymous(memory_bytes: int) -> mmap.mmap:
    """`memory_bytes` of zeros, in 2M pages where the kernel has them. BrokenError when memory is short."""
    check_available(memory_bytes)
    try:
        memory = mmap.mmap(-1, memory_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except (OSError, ValueError, OverflowError) as error:
        raise _refusal(memory_bytes, "anonymous", error, _LESS) from None
    return memory


def check_available(memory_bytes: int) -> None:
    """BrokenError when less is available: with overcommit the kernel would allow it, and kill a process later."""
    available = _available_bytes()
    if available is not None and memory_bytes > available:
        raise BrokenError(
            f"no {format_size(memory_bytes)} of memory available (only {format_size(available)} are); {_LESS}"
        )


def _refusal(memory_bytes: int, backing: str, error: Exception, hint: str) -> BrokenError:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None and number in errno.errorcode else str(error)
    return BrokenError(f"no {format_size(memory_bytes)} of {backing} memory available ({reason}); {hint}")


def _shared(memory_bytes: int, backing: str) -> mmap.mmap:
    if backing == "memfd":
        return _memfd(memory_bytes, 0)
    try:
        return _memfd(memory_bytes, os.MFD_HUGETLB | _MFD_HUGE_1GB)
    except OSError:
        return _memfd(memory_bytes, os.MFD_HUGETLB | _MFD_HUGE_2MB)


def _memfd(memory_bytes: int, flags: int) -> mmap.mmap:
    descriptor = os.memfd_create("migemu", os.MFD_CLOEXEC | flags)
    try:
        os.ftruncate(descriptor, memory_bytes)
        return mmap.mmap(descriptor, memory_bytes, mmap.MAP_SHARED)
    finally:
        os.close(descriptor)


def _available_bytes() -> int | None:
    """MemAvailable of /proc/meminfo in bytes; None where there is no such line."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
