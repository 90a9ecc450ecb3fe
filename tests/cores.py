"""ELF cores made by hand, for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """A PT_LOAD: bytes at a physical address, which take `memory_bytes` there (None: as many as they are)."""

    address: int
    content: bytes
    memory_bytes: int | None = None


def core(
    parts: Sequence[Part], *, bits: int = 64, order: str = "<", kind: int = 4, many: bool = False
) -> bytes:  # fmt: skip
    """The bytes of a core: header, program headers (a PT_NOTE first, as kdump has it), contents.

    `many`: the number of headers stands in a section header, as where there are more than 65534.
    """
    header = struct.Struct(order + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH"))
    segment = struct.Struct(order + ("IIQQQQQQ" if bits == 64 else "IIIIIIII"))
    section = struct.Struct(order + ("IIQQQQIIQQ" if bits == 64 else "IIIIIIIIII"))
    count, table_at = len(parts) + 1, 16 + header.size
    sections_at = table_at + count * segment.size
    at = sections_at + (section.size if many else 0)
    rows, contents = [], b""
    for type_, address, content, size in [
        (4, 0, b"note", 0), *((1, part.address, part.content, part.memory_bytes) for part in parts)
    ]:  # fmt: skip
        memory = len(content) if size is None else size
        virtual = address | 0x8000_0000
        rows.append(
            segment.pack(type_, 7, at, virtual, address, len(content), memory, 0)
            if bits == 64
            else segment.pack(type_, at, virtual, address, len(content), memory, 7, 0)
        )
        contents += content
        at += len(content)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    head = header.pack(
        kind, 62, 1, 0, table_at, sections_at if many else 0, 0, 16 + header.size, segment.size,
        0xFFFF if many else count, section.size, 1 if many else 0, 0,
    )  # fmt: skip
    first = section.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0) if many else b""
    return ident + head + b"".join(rows) + first + contents
