"""A guest memory under test, with vCPUs that touch it and the faults that were reported."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from migemu.mm.pages import Level, PageIndex, PieceRun
from migemu.ports import GuestStore, Installed, MinorFault, Word
from tests.conformance.stores import BYTE_STORES, STORES, Store

_Test = Callable[..., Coroutine[Any, Any, None]]


def run_in(store: Store, test: Coroutine[Any, Any, None]) -> None:
    """Run `test` on a loop of the store's kind."""
    with asyncio.Runner(loop_factory=store.loop) as runner:
        runner.run(test)


def in_stores(stores: tuple[Store, ...]) -> Callable[[_Test], Callable[..., None]]:
    """Make of `async def test(store, ...)` a test that runs over each of `stores`."""

    def decorate(test: _Test) -> Callable[..., None]:
        @functools.wraps(test)
        def run(store: Store, **arguments: Any) -> None:
            run_in(store, test(store, **arguments))

        return pytest.mark.parametrize("store", stores, ids=[store.name for store in stores])(run)

    return decorate


every_store = in_stores(STORES)
every_byte_store = in_stores(BYTE_STORES)
#: Those that are as soon as bytes have landed what they will be.
every_store_in_place = in_stores(tuple(store for store in STORES if store.in_place))


class FaultReads:
    """ports.FaultHandler that resolves none; `faults` are those whose events were read."""

    def __init__(self) -> None:
        self.asleep: list[MinorFault] = []
        self.faults: list[MinorFault] = []

    def fault_raised(self, fault: MinorFault) -> None:
        self.asleep.append(fault)

    def fault_read(self, fault: MinorFault) -> None:
        assert fault in self.asleep, "told of a fault whose vCPU has not fallen asleep"
        self.faults.append(fault)


class Guest:
    """A memory, the vCPUs that touch it, and the faults that were reported."""

    def __init__(self, store: Store) -> None:
        self.memory: GuestStore = store()
        self.image = store.image()
        self.page = store.geometry.page_bytes
        self.pmd, self.pud = store.geometry.pages(Level.PMD), store.geometry.pages(Level.PUD)
        self.pages = store.hugepages * self.pud
        self.reads = FaultReads()
        self.faults = self.reads.faults
        self.memory.register(self.reads)

    def land(self, first: PageIndex, count: int = 1) -> None:
        """Pages of the image arrive."""
        self.image.land(self.memory, first, count)

    def holds(self, page: PageIndex, offset: int = 0) -> int:
        """The word that is there, mapped or not, as the comparison at the end would find it."""
        _, (found,) = self.memory.digests(page, 1, [Word(page, offset, 0, 0)])
        return found

    def bytes_of(self, page: PageIndex) -> bytes:
        """A page as it is seen through the alias; of a store that has bytes."""
        return bytes(self.memory.contents(page, 1))

    def map(self, first: PageIndex, count: int = 1, level: Level = Level.PTE) -> Installed:
        return self.memory.install(PieceRun(first, count, level))

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
