"""Cores as images: memory by physical address, whatever the headers look like; what they lie about is one line."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migemu.errors import InputError
from migemu.mm.pages import TINY, Level, PieceRun
from migemu.store.image import ImageMemory, image_advice, open_image
from tests.cores import Part, core

HUGEPAGE = TINY.size(Level.PUD)
PAGE = TINY.page_bytes


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("core") / "core"


def opened(path: Path, data: bytes) -> ImageMemory:
    path.write_bytes(data)
    return open_image(path, TINY, "core")


def memory_of(memory: ImageMemory) -> bytes:
    pages = memory.memory_bytes // PAGE
    return b"".join(
        bytes(part.count * PAGE) if payload is None else bytes(payload)
        for part, payload in memory.read(PieceRun(0, pages, Level.PTE))
    )


def naive(parts: list[Part]) -> bytes:
    """Byte by byte, the first part last, so that it counts."""
    base = min(part.address for part in parts) // HUGEPAGE * HUGEPAGE
    ends = [part.address + (len(part.content) if part.memory_bytes is None else part.memory_bytes) for part in parts]
    memory = bytearray(-(-(max(ends) - base) // HUGEPAGE) * HUGEPAGE)
    for part in reversed(parts):
        memory[part.address - base : part.address - base + len(part.content)] = part.content
    return bytes(memory)


PARTS = st.lists(
    st.builds(
        lambda address, size, more, seed: Part(address, Random(seed).randbytes(size), size + more),
        st.integers(1, 5 * HUGEPAGE), st.integers(0, 3 * PAGE), st.integers(0, 2 * PAGE), st.integers(0, 99),
    ).filter(lambda part: part.memory_bytes),
    min_size=1, max_size=6,
)  # fmt: skip


@given(parts=PARTS, bits=st.sampled_from([32, 64]), order=st.sampled_from("<>"), many=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_memory_lies_where_its_segments_say(
    path: Path, parts: list[Part], bits: int, order: str, many: bool
) -> None:  # fmt: skip
    """Odd addresses, holes, overlaps, in any order; either class, either order of bytes."""
    memory = opened(path, core(parts, bits=bits, order=order, many=many))
    assert memory_of(memory) == naive(parts)
    first = Random(len(parts)).randrange(memory.memory_bytes // PAGE)
    ((_, payload),) = memory.read(PieceRun(first, 1, Level.PTE))
    there = naive(parts)[first * PAGE : (first + 1) * PAGE]
    assert (bytes(PAGE) if payload is None else bytes(payload)) == there


def test_a_kdump_whose_kernel_text_is_there_twice_is_one_memory(path: Path) -> None:
    text = Random(1).randbytes(PAGE)
    ram = Random(2).randbytes(2 * PAGE) + text + Random(3).randbytes(PAGE)
    assert memory_of(opened(path, core([Part(HUGEPAGE + 2 * PAGE, text), Part(HUGEPAGE, ram)])))[: 4 * PAGE] == ram


def test_memory_begins_at_the_hugetlb_page_of_its_lowest_address(path: Path) -> None:
    """On arm64 RAM begins at 1G or far above; nobody wants the zeros before it."""
    memory = opened(path, core([Part((1 << 40) + PAGE, b"x" * PAGE)]))
    assert memory.image_bytes == 2 * PAGE
    assert memory_of(memory)[: 3 * PAGE] == bytes(PAGE) + b"x" * PAGE + bytes(PAGE)


WHOLE = core([Part(PAGE, b"a" * 100, PAGE), Part(4 * PAGE, b"b" * 100, 200)])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no ELF" * 100, "is no ELF file; leave memory.image_format at raw"),
        (b"x", "is damaged: its ELF header would end at byte 16 of 1"),
        (WHOLE[:30], "is damaged: its ELF header would end at byte 64 of 30"),
        (WHOLE[:100], "is damaged: its program headers would end at byte 232 of 100"),
        (WHOLE[:-1], "is cut off: the memory at 0x4000 would end at byte"),
        (core([Part(1, b"x")], kind=2), "is an ELF file, but no core"),
        (core([]), "is a core without memory"),
        (core([Part(0, b"x"), Part(0, b"y")]), "is the core of a process"),
        (core([Part(1, b"xyz", 2)]), "is damaged: 2 bytes at 0x1 have 3 in the file"),
        (core([Part((1 << 64) - 1, b"", 9)]), "is damaged: 9 bytes at 0xffffffffffffffff"),
    ],
)
def test_what_is_no_memory_is_told(path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{path}: {says}")):
        opened(path, data)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("many", [False, True])
def test_any_truncation_and_any_flipped_bit_is_a_memory_or_one_line(path: Path, bits: int, many: bool) -> None:
    whole = core([Part(PAGE, b"a" * 9, PAGE), Part(4 * PAGE, b"b" * 9, 200)], bits=bits, many=many)
    told: list[str] = []
    for number in range(len(whole) * 9):
        at, bit = divmod(number, 9)
        data = whole[:at] if bit == 8 else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        try:
            memory = opened(path, data)
        except InputError as error:
            told.append(str(error))
        else:
            memory.read(PieceRun(0, 1, Level.PTE))
            memory.read(PieceRun(memory.memory_bytes // PAGE - 1, 1, Level.PTE))
    assert len(told) > 300
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in told)


# --- what is taken raw, and is something else ---


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (WHOLE, "is an ELF core: its bytes are taken as they are; --set memory.image_format=core"),
        (core([Part(1, b"x")], order=">"), "is an ELF core"),
        (b"QFI\xfb\0\0\0\3", "is a qcow2 image: its bytes are taken as they are"),
        (b"KDMV", "qemu-img convert -O raw"),
        (b"vhdxfile", "is a VHDX image"),
        (b"<<< Oracle VM VirtualBox Disk Image >>>".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "is a VDI image"),
        (b"KDUMP   ", "is a compressed kdump"),
        (core([Part(1, b"x")], kind=2), ""),
        (b"any bytes", ""),
        (b"\x7fELF", ""),
    ],
)
def test_a_memory_in_another_form_is_told_when_its_bytes_are_taken(path: Path, head: bytes, says: str) -> None:
    path.write_bytes(head)
    told = image_advice(path)
    assert (told is not None and says in told) if says else told is None
