"""Memory without bytes against memory with bytes: the same words at every access, the same verdict at the end."""

from __future__ import annotations

import itertools
import struct
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dest_node.guest.ledger import SLOT_BYTES
from dest_node.verification.verify import Verification
from migemu.mm.pages import TINY, X86_64, Level, PageIndex, PieceRun
from migemu.permutation import mix, mix_all
from migemu.sim.contents import Contents, ModelledMemory, ModelledSource
from migemu.store.mapped import MappedMemory
from migemu.wire.digest import page_digests
from tests.vcpus import stopped_vcpus

PAGE = TINY.page_bytes
PAGES = 2 * TINY.pages(Level.PUD)
SOURCE = ModelledSource(TINY, PAGES * PAGE, seed=5, zero_share=0.4)


def bytes_of_the_source() -> bytes:
    """The modelled source, written out."""
    words = (SOURCE.content.word(page, offset) for page in range(PAGES) for offset in range(0, PAGE, 8))
    return b"".join(struct.pack("<Q", word) for word in words)


REAL = bytes_of_the_source()


class Both:
    """A memory of bytes and one without, treated alike."""

    def __init__(self) -> None:
        self.real = MappedMemory(TINY, PAGES * PAGE, bytearray(PAGES * PAGE))
        self.modelled = ModelledMemory(TINY, PAGES * PAGE, SOURCE.content)
        self.vcpus = (stopped_vcpus(self.real), stopped_vcpus(self.modelled))

    def land(self, first: PageIndex, count: int, came_from: PageIndex) -> None:
        """Pages of the source, zero pages too, land where they belong or elsewhere."""
        count = min(count, PAGES - first, PAGES - came_from)
        self.real.landing(first, count)[:] = REAL[came_from * PAGE : (came_from + count) * PAGE]
        whole = self.modelled.landing(first, count)
        contents = Contents(came_from, count, PAGE)
        half = count // 2 * PAGE
        whole[:half].take(contents, 0)
        whole[half:].take(contents, half)

    def map(self, first: PageIndex, count: int) -> None:
        run = PieceRun(first, min(count, PAGES - first), Level.PTE)
        assert self.real.install(run) == self.modelled.install(run)

    def access(self, vcpu: int, page: PageIndex, stamp: int | None) -> None:
        if not self.mapped(page):
            return
        found = [memory.touch(vcpu, page, vcpu * SLOT_BYTES, stamp) for memory in (self.real, self.modelled)]
        assert found[0] == found[1]
        for vcpus in self.vcpus:
            assert isinstance(found[0], int)
            vcpus.ledger.accessed(vcpu, page, found[0], stamp)

    def clear(self, first: PageIndex, count: int) -> None:
        """Of pages that nothing maps, or a guest would see it."""
        for page in range(first, min(first + count, PAGES)):
            if not self.mapped(page):
                self.real.clear(page, 1)
                self.modelled.clear(page, 1)

    def mapped(self, page: PageIndex) -> bool:
        return self.real._mapping.is_mapped(page)

    async def verdicts(self) -> list[str]:
        real = Verification(self.real, self.vcpus[0])
        await real.compare(0, page_digests(memoryview(REAL), PAGE))
        modelled = Verification(self.modelled, self.vcpus[1])
        await modelled.compare(0, SOURCE.digests(0, PAGES))
        return [str(verification.problem).partition("its digest")[0] for verification in (real, modelled)]


async def test_what_lands_in_its_place_is_the_source() -> None:
    both = Both()
    both.land(0, PAGES, 0)
    both.map(0, PAGES)
    for page in range(PAGES):
        both.access(page % 64, page, page if page % 3 else None)
    assert await both.verdicts() == ["None", "None"]


async def test_a_late_piece_over_a_guest_write_is_a_lost_write() -> None:
    both = Both()
    both.land(0, PAGES, 0)
    both.map(0, PAGES)
    both.access(1, 9, 77)
    both.land(8, 4, 8)
    first, second = await both.verdicts()
    assert first == second
    assert first.startswith("a guest write was lost: base page 9")


async def test_what_is_cleared_is_zero_whatever_has_landed_there() -> None:
    both = Both()
    both.land(0, PAGES, 3)
    both.land(0, PAGES, 0)
    both.land(6, 5, 7)
    both.real.clear(6, 5)
    both.modelled.clear(6, 5)
    zeros = page_digests(memoryview(bytes(5 * PAGE)), PAGE)
    assert both.real.digests(6, 5, ())[0] == zeros
    bare = ModelledMemory(TINY, PAGES * PAGE, SOURCE.content)
    assert both.modelled.digests(6, 5, ()) == bare.digests(6, 5, ())
    first, second = await both.verdicts()
    assert first == second != "None"


steps = st.one_of(
    st.tuples(st.just("land"), st.integers(0, PAGES - 1), st.integers(1, 9), st.sampled_from([0, 0, 0, 1, 5])),
    st.tuples(st.just("map"), st.integers(0, PAGES - 1), st.integers(1, 9)),
    st.tuples(st.just("clear"), st.integers(0, PAGES - 1), st.integers(1, 9)),
    st.tuples(st.just("access"), st.integers(0, 3), st.integers(0, PAGES - 1), st.none() | st.integers(0, 2**64 - 1)),
)


@settings(deadline=None, max_examples=200)
@given(history=st.lists(steps, max_size=30), whole=st.booleans())
async def test_any_history_is_judged_alike_with_and_without_bytes(history: list[tuple], whole: bool) -> None:
    """Misplaced pieces, late ones, pages exposed before anything landed: the same accesses, the same verdict."""
    both = Both()
    if whole:
        both.land(0, PAGES, 0)
        both.map(0, PAGES)
    for what, *arguments in history:
        if what == "land":
            first, count, shift = arguments
            both.land(first, count, (first + shift) % PAGES)
        elif what == "map":
            both.map(*arguments)
        elif what == "clear":
            both.clear(*arguments)
        else:
            both.access(*arguments)
    first, second = await both.verdicts()
    assert first == second


@pytest.mark.parametrize("level", [Level.PTE, Level.PMD])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_runs_are_divided_into_pieces_that_hold_something_and_pieces_that_do_not(level: Level, share: float) -> None:
    source = ModelledSource(X86_64, X86_64.size(Level.PUD), seed=3, zero_share=share)
    each = X86_64.pages(level)
    random = Random(1)
    for _ in range(50):
        count = random.randrange(1, 300 if level == Level.PTE else 40)
        first = random.randrange(0, X86_64.pages(Level.PUD) // each - count) * each
        parts = source.read(PieceRun(first, count, level))
        at = first
        for part, contents in parts:
            assert part.first == at
            for piece in range(part.first, part.first + part.count * each, each):
                zero = not any(source.content.word(page, 8) for page in range(piece, piece + each))
                assert zero == (contents is None)
            assert contents is None or (contents.first, len(contents)) == (at, part.count * each * 4096)
            at += part.count * each
        assert at == first + count * each
        kinds = [contents is None for _, contents in parts]
        assert all(a != b for a, b in itertools.pairwise(kinds)), "neighbours of one kind are one part"


def test_the_share_of_zero_pages_is_about_what_was_asked_for() -> None:
    source = ModelledSource(X86_64, 4 * X86_64.size(Level.PUD), seed=1, zero_share=0.25)
    zeros = sum(part.count for part, contents in source.read(PieceRun(0, 4 << 18, Level.PTE)) if contents is None)
    assert 0.23 < zeros / (4 << 18) < 0.27


def test_all_at_once_is_one_by_one() -> None:
    values = [0, 1, 2**63, 2**64 - 1, 12345]
    assert mix_all(np.array(values, np.uint64)).tolist() == [mix(value) for value in values]
    assert len({mix(value) for value in range(1000)}) == 1000
    first = SOURCE.digests(3, 4)
    assert first == SOURCE.digests(0, PAGES)[24:56]
