"""SourceMemory: every piece once, zeros as zeros and nothing else as zeros, padding included.

What `read` and `digests` should answer is worked out from the bytes, without any of the shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import InputError
from migemu.mm.pages import ARM64_4K, TINY, X86_64, Geometry, Level, PieceRun
from migemu.ports import SourceMemory
from migemu.store.image import ImageMemory, open_image, pattern
from migemu.store.image_file import Held
from migemu.units import MIB
from tests.cores import Part, core

PAGE = TINY.page_bytes
HUGEPAGE = TINY.size(Level.PUD)
#: Makes a memory of an image's bytes; another store is one more of them.
Make = Callable[[bytes, Path], SourceMemory]


def from_file(image: bytes, folder: Path) -> SourceMemory:
    path = folder / "image"
    path.write_bytes(image)
    return open_image(path, TINY)


def from_bytes(image: bytes, _: Path) -> SourceMemory:
    return ImageMemory(TINY, Held(image), len(image))


def from_longer_buffer(image: bytes, _: Path) -> SourceMemory:
    """What lies behind the image is not part of it."""
    return ImageMemory(TINY, Held(bytearray(image + b"\xff" * HUGEPAGE)), len(image))


def from_private_copy(image: bytes, folder: Path) -> SourceMemory:
    """Whatever becomes of the file."""
    path = folder / "image"
    path.write_bytes(image)
    memory = open_image(path, TINY, copy=True)
    path.write_bytes(b"something else")
    return memory


def from_core(image: bytes, folder: Path) -> SourceMemory:
    """In three segments, with what is zero at the end of one left out, as the memory of a core is."""
    cut, end = len(image) // 3, len(image.rstrip(b"\0"))
    parts = [(0, image[:cut], cut), (cut, image[cut:end], len(image) - cut)] if cut else [(0, image, len(image))]
    path = folder / "core"
    path.write_bytes(core([Part(*part) for part in parts]))
    return open_image(path, TINY, "core")


every_store = pytest.mark.parametrize(
    "make", [from_file, from_bytes, from_longer_buffer, from_private_copy, from_core]
)  # fmt: skip


def runs(geometry: Geometry, pages: int, counts: Iterable[int] = (1, 2, 3, 5, 16)) -> list[PieceRun]:
    return [
        PieceRun(first, count, level)
        for level in (Level.PTE, Level.PMD)
        for count in counts
        for first in range(0, pages, geometry.pages(level))
        if first + count * geometry.pages(level) <= pages
    ]


def check_read(memory: SourceMemory, padded: bytes, run: PieceRun) -> None:
    """`read(run)` against the bytes themselves."""
    each = memory.geometry.pages(run.level)
    page_bytes = memory.geometry.page_bytes
    at = run.first
    for part, payload in memory.read(run):
        assert (part.first, part.level) == (at, run.level)
        assert part.count > 0
        pieces = [
            padded[(part.first + number * each) * page_bytes :][: each * page_bytes] for number in range(part.count)
        ]
        if payload is None:
            assert not any(map(any, pieces)), f"{part} was taken for zeros"
        else:
            assert all(map(any, pieces)), f"a piece of {part} is zero and was sent with its bytes"
            assert len(payload) == part.count * each * page_bytes
            assert b"".join(pieces) == bytes(payload)
            assert memory.digests_of(payload) == naive_digests(b"".join(pieces), page_bytes)
        at += part.count * each
    assert at == run.first + run.count * each, "every piece of the run, once"


def check(memory: SourceMemory, image: bytes) -> None:
    geometry = memory.geometry
    padded = image.ljust(-(-len(image) // geometry.size(Level.PUD)) * geometry.size(Level.PUD), b"\0")
    pages = len(padded) // geometry.page_bytes
    assert (memory.image_bytes, memory.memory_bytes) == (len(image), len(padded))
    for run in runs(geometry, pages):
        check_read(memory, padded, run)
    for first, count in ((0, pages), (0, 1), (pages - 1, 1), (3, 5)):
        assert (
            memory.digests(first, count) == naive_digests(padded, geometry.page_bytes)[first * 8 : (first + count) * 8]
        )


def naive_digests(padded: bytes, page_bytes: int) -> bytes:
    return b"".join(
        xxhash.xxh3_64_intdigest(padded[at : at + page_bytes]).to_bytes(8, "little")
        for at in range(0, len(padded), page_bytes)
    )


def noise(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


# --- images ---

IMAGES = {
    "one byte": b"x",
    "one zero": b"\0",
    "less than a word": b"abcde",
    "a page": noise(PAGE),
    "a page and a byte": noise(PAGE) + b"y",
    "a zero page and a zero byte": bytes(PAGE + 1),
    "a zero page and one byte that is not": bytes(PAGE) + b"z",
    "whole hugetlb pages": noise(2 * HUGEPAGE),
    "odd": noise(HUGEPAGE + 5 * PAGE + 1234),
    "all zeros": bytes(HUGEPAGE + 777),
    "every second page zero": b"".join((noise(PAGE, n), bytes(PAGE))[n % 2] for n in range(20)),
    "every second 2M zero": b"".join((noise(PAGE, n), bytes(PAGE))[n // 4 % 2] for n in range(20)),
    "one page of a 2M": bytes(6 * PAGE) + noise(PAGE) + bytes(9 * PAGE),
    "first words zero": b"".join(bytes(8) + noise(PAGE - 8, n) for n in range(18)),
    "last bytes alone": (bytes(PAGE - 1) + b"\1") * 18,
    "last byte of a tail": noise(3 * PAGE) + bytes(99) + b"\1",
    "zero tail": noise(3 * PAGE) + bytes(100),
}


@every_store
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_what_is_read_is_the_image_padded_with_zeros(make: Make, image: bytes, tmp_path: Path) -> None:
    """Its zero pieces, and only those, as zeros; a piece that only begins with zeros is none."""
    check(make(image, tmp_path), image)


@every_store
def test_what_nobody_writes_to_has_not_changed(make: Make, tmp_path: Path) -> None:
    memory = make(noise(HUGEPAGE), tmp_path)
    memory.read(PieceRun(0, 4, Level.PTE))
    assert not memory.changed()


KINDS: dict[str, Callable[[int], bytes]] = {
    "zero": lambda _: bytes(PAGE),
    "noise": lambda number: noise(PAGE, number),
    "first word zero": lambda number: bytes(8) + noise(PAGE - 8, number),
    "last byte": lambda _: bytes(PAGE - 1) + b"\1",
    "first byte": lambda _: b"\1" + bytes(PAGE - 1),
}


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=36),
    tail=st.sampled_from([b"", b"\0", b"\1", bytes(4000), bytes(7) + b"\1", noise(4095)]),
)
def test_any_mixture_of_pages_is_read_as_its_bytes_say(kinds: list[str], tail: bytes) -> None:
    image = b"".join(KINDS[kind](number) for number, kind in enumerate(kinds)) + tail
    if image:
        check(ImageMemory(TINY, Held(image), len(image)), image)


@every_store
def test_the_same_run_is_read_the_same_again(make: Make, tmp_path: Path) -> None:
    image = noise(HUGEPAGE)
    memory = make(image, tmp_path)
    once, again = (memory.read(PieceRun(4, 2, Level.PMD))[0][1] for _ in range(2))
    assert bytes(memoryview(once)) == bytes(memoryview(again)) == image[4 * PAGE : 12 * PAGE]  # type: ignore[arg-type]


@pytest.mark.parametrize("geometry", [X86_64, ARM64_4K], ids=lambda geometry: geometry.name)
def test_real_2m_pieces_that_lie_in_the_image_across_its_end_and_behind_it(geometry: Geometry, tmp_path: Path) -> None:
    image = noise(2 * MIB) + bytes(2 * MIB) + bytes(3 * MIB // 2) + noise(4097)
    path = tmp_path / "image"
    path.write_bytes(image)
    memory = open_image(path, geometry)
    assert memory.memory_bytes == 1 << 30
    padded = image.ljust(10 * MIB, b"\0")
    for first, count, level in [
        (0, 1, Level.PMD), (0, 5, Level.PMD), (512, 2, Level.PMD), (1024, 1, Level.PMD), (1536, 2, Level.PMD),
        (0, 2560, Level.PTE), (500, 20, Level.PTE), (1400, 20, Level.PTE), (1408, 1, Level.PTE), (1409, 64, Level.PTE),
    ]:  # fmt: skip
        check_read(memory, padded, PieceRun(first, count, level))
    last = memory.memory_bytes // geometry.page_bytes - 512
    assert list(memory.read(PieceRun(last, 1, Level.PMD))) == [(PieceRun(last, 1, Level.PMD), None)]
    assert memory.digests(1400, 20) == naive_digests(padded, PAGE)[1400 * 8 : 1420 * 8]
    assert memory.digests(last, 512) == naive_digests(bytes(PAGE), PAGE) * 512


# --- files ---


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path, problem in (
        (empty, "the image is empty"),
        (tmp_path, "cannot be read: Is a directory"),
        (Path("/dev/null"), "cannot be read: it is a device"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (empty / "below", "cannot be read: Not a directory"),
    ):
        with pytest.raises(InputError) as error:
            open_image(path, TINY)
        assert str(error.value).startswith(f"{path}: {problem}")


# --- the pattern ---


def pages_of(memory: SourceMemory) -> list[bytes]:
    """Every page, put together from what `read` answers."""
    pages: list[bytes] = []
    for part, payload in memory.read(PieceRun(0, memory.memory_bytes // PAGE, Level.PTE)):
        data = bytes(part.count * PAGE) if payload is None else bytes(memoryview(payload))  # type: ignore[arg-type]
        pages += [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    return pages


def test_a_pattern_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    size = 4 * HUGEPAGE
    one, again, other = (pattern(TINY, size, seed, 0.25) for seed in (1, 1, 2))
    assert one.digests(0, size // PAGE) == again.digests(0, size // PAGE)
    for ours, theirs in zip(pages_of(one), pages_of(other), strict=True):
        assert ours != theirs or not any(ours)


@pytest.mark.parametrize("size", [HUGEPAGE, 3 * HUGEPAGE, 2 * MIB, 6 * MIB + HUGEPAGE])
def test_no_two_pages_of_a_pattern_are_alike_but_zero_pages(size: int) -> None:
    """Otherwise a piece in the wrong place would not show. Beyond 2 MiB the random bytes repeat, under other keys."""
    memory = pattern(TINY, size, 7, 0.25)
    assert memory.image_bytes == memory.memory_bytes == size
    pages = [page for page in pages_of(memory) if any(page)]
    assert len(set(pages)) == len(pages)
    assert len({page[:8] for page in pages}) == len(pages), "told apart by the first word already"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_pattern_has_about_the_share_of_zero_pages_that_was_asked_for(share: float) -> None:
    pages = pages_of(pattern(TINY, 4 * MIB, 3, share))
    zero = sum(not any(page) for page in pages) / len(pages)
    assert abs(zero - share) < 0.08
    assert share not in (0.0, 1.0) or zero == share


def test_zero_pages_of_a_pattern_come_in_rows() -> None:
    """Of a 2M piece of TINY: so whole 2M pieces are zero too."""
    zero = [not any(page) for page in pages_of(pattern(TINY, 4 * MIB, 3, 0.25))]
    assert all(len(set(zero[at : at + 4])) == 1 for at in range(0, len(zero), 4))


def test_a_pattern_is_read_like_any_image() -> None:
    memory = pattern(TINY, 3 * HUGEPAGE, 5, 0.4)
    check(memory, b"".join(pages_of(memory)))
