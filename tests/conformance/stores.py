"""The guest memories that the suite runs over; another store is one more in `STORES`.

What lands in a memory is a page of its `Image`, which also tells what a vCPU has to find there. Stores without bytes
have one too; what only bytes can show is tested over `BYTE_STORES`.
"""

from __future__ import annotations

import asyncio
import mmap
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from migemu.checkpoint.format import Identity
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import begin
from migemu.costs.collapse_cost import CostModel
from migemu.costs.fault_cost import FaultCosts
from migemu.mm.pages import TINY, X86_64, Geometry, Level, PageIndex
from migemu.ports import GuestStore
from migemu.sim.contents import Contents, ModelledMemory, ModelledSource, PageContent
from migemu.sim.loop import VirtualLoop
from migemu.sim.processor import Processor
from migemu.sim.timed_memory import MemoryCosts, TimedMemory
from migemu.store.allocate import allocate
from migemu.store.mapped import MappedMemory
from tests.conformance.bounced import BouncedMemory
from tests.unit.checkpoint.crashes import UnsyncedDisk


class Image(Protocol):
    """What the source holds."""

    def word(self, page: PageIndex, offset: int) -> int:
        """The 8-byte word at byte `offset` of a base page; no two pages have one alike."""

    def land(self, memory: GuestStore, first: PageIndex, count: int) -> None:
        """So many pages arrive."""


class Noise:
    """Random bytes, drawn anew for each page."""

    def __init__(self, geometry: Geometry, size: int) -> None:
        self._page_bytes = geometry.page_bytes

    def _page(self, page: PageIndex) -> bytes:
        return Random(page).randbytes(self._page_bytes)

    def word(self, page: PageIndex, offset: int) -> int:
        return int.from_bytes(self._page(page)[offset : offset + 8], "little")

    def land(self, memory: GuestStore, first: PageIndex, count: int) -> None:
        target = memory.landing(first, count)
        assert isinstance(target, memoryview)
        target[:] = b"".join(self._page(page) for page in range(first, first + count))


class Placeholders:
    """The pages of a modelled source."""

    def __init__(self, geometry: Geometry, size: int) -> None:
        self._page_bytes = geometry.page_bytes
        self._content = content_of(geometry, size)

    def word(self, page: PageIndex, offset: int) -> int:
        return self._content.word(page, offset)

    def land(self, memory: GuestStore, first: PageIndex, count: int) -> None:
        target: Any = memory.landing(first, count)
        target.take(Contents(first, count, self._page_bytes), 0)


def content_of(geometry: Geometry, size: int) -> PageContent:
    """The same for a memory and for its image."""
    return ModelledSource(geometry, size, 7, zero_share=0.0).content


@dataclass(frozen=True, slots=True)
class Store:
    """How a memory of so many hugetlb pages is made, and its image. It must be made in a running loop of its kind."""

    name: str
    geometry: Geometry
    hugepages: int
    make: Callable[[Geometry, int], GuestStore]
    make_image: Callable[[Geometry, int], Image] = Noise
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    #: Whether what lands is in the memory at once; else when it is installed.
    in_place: bool = True

    def __call__(self) -> GuestStore:
        return self.make(self.geometry, self.size)

    @property
    def size(self) -> int:
        return self.hugepages * self.geometry.size(Level.PUD)

    def image(self) -> Image:
        return self.make_image(self.geometry, self.size)


def backed_by(backing: str) -> Callable[[Geometry, int], GuestStore]:
    return lambda geometry, size: MappedMemory(geometry, size, allocate(size, backing))


def over_nothing_yet(geometry: Geometry, size: int) -> GuestStore:
    """Address space alone: what a test does not touch costs no memory, so that a real 1G page can be had."""
    return MappedMemory(geometry, size, mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def bounced(geometry: Geometry, size: int) -> GuestStore:
    return BouncedMemory(geometry, size, bytearray(size))


def kept(geometry: Geometry, size: int) -> GuestStore:
    """In files, which have lost their names at once: nobody comes back to them."""
    identity = Identity("0" * 32, geometry.name, size, size, 0, False, "{}", "{}")
    with tempfile.TemporaryDirectory() as directory:
        memory = CheckpointedMemory(begin(UnsyncedDisk(), Path(directory), identity, 1 << 20))
    weakref.finalize(memory, memory.checkpoint.close)
    return memory


def modelled(geometry: Geometry, size: int) -> GuestStore:
    return ModelledMemory(geometry, size, content_of(geometry, size))


def timed(geometry: Geometry, size: int) -> GuestStore:
    """In virtual time, where everything is for nothing: the suite asks what happens, not when."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    prices = ("entry", "line", "own_line", "free", "flush", "interrupt", "notifier", "spte", "lock", "syscall")
    free: dict[str, Any] = {f"{name}_ns": 0 for name in prices}
    faults = FaultCosts("same_core", event_ns=0, copy_ns=0, continue_ns=0, wake_ns=0)
    costs = MemoryCosts(faults, CostModel(geometry=geometry, **free), receive_ns_per_kib=0)
    return TimedMemory(geometry, size, content_of(geometry, size), loop, Processor("destination"), costs)


BYTE_STORES = (
    Store("anonymous", TINY, 2, backed_by("anonymous")),
    Store("memfd", TINY, 2, backed_by("memfd")),
    Store("kept", TINY, 2, kept),
    Store("real 1G page", X86_64, 1, over_nothing_yet),
    Store("bounced", TINY, 2, bounced, in_place=False),
)
STORES = (
    *BYTE_STORES,
    Store("modelled", TINY, 2, modelled, Placeholders),
    Store("modelled 1G page", X86_64, 1, modelled, Placeholders),
    Store("timed", TINY, 2, timed, Placeholders, VirtualLoop),
)
