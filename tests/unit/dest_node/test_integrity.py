"""Pieces that came with other bytes than were sent: what is refused, and when it is given up."""

from __future__ import annotations

import pytest

from dest_node.verification.integrity import Integrity, check_seal
from migemu.errors import PeerError
from migemu.mm.pages import TINY, Level, PageBitmap, PieceRun
from migemu.store.allocate import allocate
from migemu.store.mapped import MappedMemory
from migemu.wire.digest import page_digests
from migemu.wire.messages import Page, Zero
from migemu.wire.seal import sealed

PAGES = 2 * TINY.pages(Level.PUD)
SIZE = TINY.page_bytes
RUN = PieceRun(4, 4, Level.PTE)


class Arriving:
    """A memory, and a run of pieces that lands in it."""

    def __init__(self, errors_max: int = 2) -> None:
        self.memory = MappedMemory(TINY, PAGES * SIZE, allocate(PAGES * SIZE, "anonymous"))
        self.received = PageBitmap(TINY, PAGES)
        self.integrity = Integrity(self.memory, self.received, errors_max)

    def land(self, *corrupt: int, run: PieceRun = RUN) -> tuple[list[PieceRun], list[PieceRun]]:
        count = run.count * TINY.pages(run.level)
        sent = bytearray(b"".join(bytes([page]) * SIZE for page in range(run.first, run.first + count)))
        digests = page_digests(memoryview(sent), SIZE)
        for page in corrupt:
            sent[(page - run.first) * SIZE + 5] ^= 1
        view = self.memory.landing(run.first, count)
        view[:] = sent  # type: ignore[index]
        return self.integrity.judge(run, sealed(run, False, digests))


def test_what_came_as_it_was_sent_is_let_in_as_one() -> None:
    arriving = Arriving()
    assert arriving.land() == ([RUN], [])
    assert arriving.land(run=PieceRun(8, 2, Level.PMD)) == ([PieceRun(8, 2, Level.PMD)], [])
    assert arriving.integrity.corrupt == 0


@pytest.mark.parametrize(
    ("corrupt", "good"),
    [((4,), [(5, 3)]), ((7,), [(4, 3)]), ((5,), [(4, 1), (6, 2)]), ((4, 6), [(5, 1), (7, 1)]), ((4, 5, 6, 7), [])],
)
def test_a_corrupt_page_is_refused_alone(corrupt: tuple[int, ...], good: list[tuple[int, int]]) -> None:
    arriving = Arriving()
    let_in, again = arriving.land(*corrupt)
    assert [(run.first, run.count) for run in let_in] == good
    assert [(run.first, run.count) for run in again] == [(page, 1) for page in corrupt]
    assert arriving.integrity.corrupt == len(corrupt)


def test_what_had_been_received_is_not_looked_at() -> None:
    """Its bytes went nowhere, and what is there the guest may have changed."""
    arriving = Arriving()
    arriving.received.add(5, 1)
    assert arriving.land(5) == ([RUN], [])


def test_a_page_that_comes_corrupt_again_and_again_gives_the_connection_up() -> None:
    arriving = Arriving(errors_max=2)
    arriving.land(5)
    arriving.land(5)
    with pytest.raises(PeerError, match="base page 5 came corrupt 3 times"):
        arriving.land(5)
    arriving.land(5)  # the next connection has as many
    arriving.land()
    arriving.land(5)
    arriving.land(5)


def test_a_seal_that_is_not_its_own_lets_nothing_land() -> None:
    seal = sealed(RUN, True)
    check_seal(Zero(*RUN, True, seal))
    check_seal(Zero(*RUN, True))
    for moved in (Zero(5, 4, Level.PTE, True, seal), Page(4, 4, Level.PTE, False, seal)):
        with pytest.raises(PeerError, match="it was misplaced"):
            check_seal(moved)
