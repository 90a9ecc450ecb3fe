"""A guest memory under test, with vCPUs that touch it and the faults that were reported."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import pytest

from migemu.mm.pages import Level, PageIndex, PieceRun
from migemu.ports import Continued, GuestMemory
from tests.conformance.stores import STORES, Store

every_store = pytest.mark.parametrize("store", STORES, ids=[store.name for store in STORES])


class Guest:
    """A memory, the vCPUs that touch it, and the faults that were reported."""

    def __init__(self, store: Store) -> None:
        self.memory: GuestMemory = store()
        self.page = store.geometry.page_bytes
        self.pmd, self.pud = store.geometry.pages(Level.PMD), store.geometry.pages(Level.PUD)
        self.pages = store.hugepages * self.pud
        self.faults: list[tuple[int, PageIndex, bool]] = []
        self.memory.on_fault(lambda *_: None, lambda *fault: self.faults.append(fault))

    def land(self, first: PageIndex, data: bytes) -> None:
        view = self.memory.landing(first, -(-len(data) // self.page))
        view[: len(data)] = data

    def map(self, first: PageIndex, count: int = 1, level: Level = Level.PTE) -> Continued:
        return self.memory.uffdio_continue(PieceRun(first, count, level))

    def read(self, vcpu: int, page: PageIndex, offset: int = 0) -> int:
        """The word at `offset` of a page that is mapped."""
        word = self.memory.touch(vcpu, page, offset, None)
        assert isinstance(word, int), f"page {page} is not mapped"
        return word

    def write(self, vcpu: int, page: PageIndex, stamp: int, offset: int = 0) -> int:
        word = self.memory.touch(vcpu, page, offset, stamp)
        assert isinstance(word, int), f"page {page} is not mapped"
        return word

    def fault(self, vcpu: int, page: PageIndex, stamp: int | None = None) -> asyncio.Future[None]:
        """A touch that must fault; what it waits for."""
        waiting = self.memory.touch(vcpu, page, 0, stamp)
        assert not isinstance(waiting, int), f"page {page} is mapped"
        return asyncio.ensure_future(awaited(waiting))

    @property
    def leaves(self) -> tuple[int, int, int]:
        """Entries that map memory: PTEs, PMDs, PUDs."""
        leaves = self.memory.leaves()
        assert set(leaves) == {Level.PTE, Level.PMD, Level.PUD}
        return leaves[Level.PTE], leaves[Level.PMD], leaves[Level.PUD]


async def awaited(waiting: Awaitable[None]) -> None:
    assert await waiting is None


async def turns() -> None:
    """Enough turns of the loop for whoever has been woken to notice."""
    for _ in range(5):
        await asyncio.sleep(0)


@contextmanager
def refused(number: int) -> Iterator[None]:
    """An OSError with the kernel's errno, and no other."""
    with pytest.raises(OSError) as error:  # noqa: PT011 - the errno is what counts
        yield
    assert errno.errorcode[error.value.errno or 0] == errno.errorcode[number]
