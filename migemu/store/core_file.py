"""The memory in an ELF core: what its PT_LOAD segments say lies at which physical address.

The cores of kdump (/proc/vmcore, makedumpfile -E), of QEMU's dump-guest-memory and of `virsh dump --memory-only` have a
segment for each range of physical memory (elf(5); `p_paddr`). The layout is that of the addresses, from the hugetlb
page that holds the lowest one; what no segment holds is zeros, as are the last `p_memsz - p_filesz` bytes of one.

Rules
    1. Where segments overlap the first header counts: a kdump's has one more for the kernel's text, of the same bytes.
    2. A core of a process has no physical addresses (all 0), and is refused.
    3. Whatever the headers say is checked against the file before it is used: InputError in one line.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Final, NamedTuple

from migemu.errors import InputError
from migemu.store.image_file import FileBytes
from migemu.units import format_size

#: The most segments: those of a machine have a few hundred, one a range of memory (assumed).
SEGMENTS_MAX: Final = 1 << 16
_IDENT_BYTES: Final = 16
_CORE: Final = 4
_LOAD: Final = 1
#: e_phnum says that the number stands in the first section's sh_info (elf(5), PN_XNUM).
_MANY: Final = 0xFFFF
#: The physical addresses of any machine (x86-64: 52 bits, arm64: 52).
_ADDRESS_MAX: Final = 1 << 52


class _Class(NamedTuple):
    """The headers of an ELF class (32 or 64 bits): struct formats without byte order, and numbers of fields."""

    header: str
    segment: str
    section: str
    offset: int
    paddr: int
    filesz: int
    memsz: int


_CLASSES: Final = {
    1: _Class("HHIIIIIHHHHHH", "IIIIIIII", "IIIIIIIIII", 1, 3, 4, 5),
    2: _Class("HHIQQQIHHHHHH", "IIQQQQQQ", "IIQQQQIIQQ", 2, 4, 5, 6),
}
_PHOFF, _SHOFF, _PHENTSIZE, _PHNUM, _INFO = 4, 5, 8, 9, 7


class Segment(NamedTuple):
    """A PT_LOAD: `memory_bytes` at physical `address`; the first `file_bytes` of them are in the file at `offset`."""

    address: int
    memory_bytes: int
    offset: int
    file_bytes: int


class CoreBytes:
    """image_file.Bytes: the memory in a core. `size` in bytes, from its first hugetlb page to its last byte."""

    def __init__(self, file: FileBytes, segments: list[Segment], hugepage_bytes: int) -> None:
        self._file = file
        self.base = min(segment.address for segment in segments) // hugepage_bytes * hugepage_bytes
        self.size = max(segment.address + segment.memory_bytes for segment in segments) - self.base
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._offsets: list[int] = []
        for segment in segments:
            if segment.file_bytes:
                self._lay(segment.address - self.base, segment.file_bytes, segment.offset)

    def _lay(self, start: int, count: int, offset: int) -> None:
        """Map `count` bytes of the file to memory from `start` on, where no earlier segment is (rule 1)."""
        end = start + count
        at = max(0, bisect_right(self._starts, start) - 1)
        if at < len(self._starts) and self._ends[at] <= start:
            at += 1
        while start < end:
            free_until = self._starts[at] if at < len(self._starts) else end
            if start < free_until:
                stop = min(end, free_until)
                self._starts.insert(at, start)
                self._ends.insert(at, stop)
                self._offsets.insert(at, offset)
                offset, start, at = offset + stop - start, stop, at + 1
            elif start < self._ends[at]:
                offset, start, at = offset + self._ends[at] - start, self._ends[at], at + 1
            else:
                at += 1

    def read(self, at: int, count: int) -> memoryview | bytes:
        """`count` bytes of memory from byte `at` on, counted from `base`; holes are zeros. UnreadableError."""
        number = max(0, bisect_right(self._starts, at) - 1)
        end = at + count
        if number < len(self._starts) and self._starts[number] <= at and end <= self._ends[number]:
            return self._file.read(self._offsets[number] + at - self._starts[number], count)
        data = bytearray(count)
        while number < len(self._starts) and self._starts[number] < end:
            first, last = max(at, self._starts[number]), min(end, self._ends[number])
            if first < last:
                data[first - at : last - at] = self._file.read(
                    self._offsets[number] + first - self._starts[number], last - first
                )
            number += 1
        return memoryview(data)

    def changed(self) -> str | None:
        """How the core file has changed since it was opened; None if it has not (see `Bytes.changed`)."""
        return self._file.changed()

    def __repr__(self) -> str:
        return (
            f"<CoreBytes of {self._file.name}, {format_size(self.size)} from {self.base:#x}, {len(self._starts)} parts>"
        )


def core_bytes(file: FileBytes, hugepage_bytes: int) -> CoreBytes:
    """The memory in a core. InputError when the file is no core, is damaged, or is the core of a process."""
    try:
        segments = _segments(file)
    except ValueError as problem:
        raise InputError(f"{file.name}: {problem}") from None
    return CoreBytes(file, segments, hugepage_bytes)


def _segments(file: FileBytes) -> list[Segment]:
    """The PT_LOAD segments that hold memory. ValueError says what is wrong with the headers."""
    ident = _part(file, 0, _IDENT_BYTES, "its ELF header")
    if ident[:4] != b"\x7fELF" or ident[4] not in _CLASSES or ident[5] not in (1, 2):
        raise ValueError("is no ELF file; leave memory.image_format at raw to take its bytes as they are")
    kind, order = _CLASSES[ident[4]], "<>"[ident[5] - 1]
    layout = struct.Struct(order + kind.header)
    header = layout.unpack(_part(file, _IDENT_BYTES, layout.size, "its ELF header"))
    if header[0] != _CORE:
        raise ValueError(f"is an ELF file, but no core (e_type is {header[0]}, not {_CORE})")
    segment = struct.Struct(order + kind.segment)
    count, step = header[_PHNUM], header[_PHENTSIZE]
    if count == _MANY:
        section = struct.Struct(order + kind.section)
        count = section.unpack(_part(file, header[_SHOFF], section.size, "its first section header"))[_INFO]
    if not 0 < count <= SEGMENTS_MAX or step < segment.size:
        raise ValueError(
            f"is damaged: {count} program headers of {step} bytes; 1 to {SEGMENTS_MAX} of {segment.size} are"
        )
    table = _part(file, header[_PHOFF], count * step, "its program headers")
    found = [
        Segment(values[kind.paddr], values[kind.memsz], values[kind.offset], values[kind.filesz])
        for values in (segment.unpack_from(table, number * step) for number in range(count))
        if values[0] == _LOAD and values[kind.memsz]
    ]
    _check(found, file.size)
    return found


def _part(file: FileBytes, at: int, count: int, what: str) -> bytes:
    if at + count > file.size:
        raise ValueError(f"is damaged: {what} would end at byte {at + count} of {file.size}")
    return file.read(at, count)


def _check(segments: list[Segment], file_bytes: int) -> None:
    """ValueError when the segments do not fit the file, or are those of a process."""
    if not segments:
        raise ValueError("is a core without memory: it has no PT_LOAD segment")
    for each in segments:
        if each.file_bytes > each.memory_bytes or each.address + each.memory_bytes > _ADDRESS_MAX:
            raise ValueError(
                f"is damaged: {each.memory_bytes} bytes at {each.address:#x} have {each.file_bytes} in the file"
            )
        if each.offset + each.file_bytes > file_bytes:
            raise ValueError(
                f"is cut off: the memory at {each.address:#x} would end at byte {each.offset + each.file_bytes} of "
                f"{file_bytes}"
            )
    if len(segments) > 1 and not any(each.address for each in segments):
        raise ValueError(
            "is the core of a process: its segments have no physical addresses; give one of a machine (kdump, QEMU's "
            "dump-guest-memory), or leave memory.image_format at raw"
        )
