"""Every seam of the house, as Protocols. Nothing here runs.

Above each seam stands code that must not know which world it is in: the pure cores, the two services, the guest.
Below it stand a real implementation (sockets, bytes, the machine's clock: "measured") and, where virtual time needs
one, a modelled one. Both pass the same suite in `tests/conformance`.

    Clock          what time it is, and waiting until a time
    Network        making connections;  Channel: one connection, carrying messages
    ChannelHandler what a channel tells its owner
    SourceMemory   the bytes at the source
    GuestMemory    the guest's memory at the destination, which is five seams:
      GuestBytes     where what arrives lands
      MappingCalls   what gives the guest access to it: install, wake, collapse
      GuestFaults    who waits for what
      GuestAccess    what a vCPU does to memory
      GuestContents  what verification reads
    Vcpus          the guest's vCPUs at the destination;  Accelerator: what creates them
    Tracer         where events go
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from migemu.address import Address
from migemu.errors import MigemuError
from migemu.guest.blocktime import BlocktimeStatistics
from migemu.guest.stall import StallStatistics
from migemu.mm.gather import GatherStep
from migemu.mm.pages import Geometry, Level, PageIndex, PieceRun, Span
from migemu.trace.events import Event
from migemu.wire.codec import Sized
from migemu.wire.limits import Limits
from migemu.wire.messages import Message, Page


class Clock(Protocol):
    """Time as integer nanoseconds from an arbitrary zero; never goes backwards."""

    def now_ns(self) -> int:
        """The present time in ns, from an arbitrary start; never goes back."""

    async def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns` or, as far as the world allows, shortly after; at once if that has passed."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """What a channel has carried so far, frames and preambles included, in bytes."""

    sent_bytes: int
    received_bytes: int
    queued_bytes: int
    last_received_ns: int


class Channel(Protocol):
    """One connection, carrying messages both ways, in order, whole or not at all."""

    peer: str

    def send(self, message: Message, payload: Sized | None = None) -> None:
        """Queue a frame. Never waits: whoever sends much asks `drain` in between. ClosedError after `close`."""

    async def drain(self) -> None:
        """Return once the queue is short enough to send more; BrokenError when the connection is lost."""

    @property
    def closing(self) -> bool:
        """Whether this side has closed it, or the connection is gone."""

    @property
    def writable(self) -> bool:
        """Whether `drain` would return at once."""

    async def close(self) -> None:
        """Send what is queued, then close. Safe to call twice."""

    def abort(self) -> None:
        """Close now; what is queued is lost. Safe to call twice."""

    def statistics(self) -> ChannelStatistics:
        """Counters of this channel, as a frozen copy."""


class ChannelHandler(Protocol):
    """What a channel tells its owner. Called from the loop, one at a time; none of them may block."""

    limits: Limits

    def announced(self, channel: Channel, message: Message, payload_bytes: int) -> None:
        """A frame begins. Whatever is raised as PeerError here refuses it before its payload lands."""

    def landing(self, page: Page, offset: int) -> memoryview | Landing:
        """Where the payload of `page` belongs from byte `offset` on. Must not close the channel."""

    def received(self, channel: Channel, message: Message, payload: bytes) -> None:
        """A message is complete. The payload of a Page has landed already."""

    def lost(self, channel: Channel, error: MigemuError | None) -> None:
        """The connection is over; once. None: the peer closed it between two messages.

        Whoever calls `close` or `abort` itself is not told.
        """


class Listener(Protocol):
    """An open door; `address` is where, with the port that was free."""

    address: Address

    async def close(self) -> None:
        """Stop listening; connections that were made stay."""


class Network(Protocol):
    """Connects and listens: makes the channels of a node."""

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> Channel:
        """A channel to a listener. BrokenError when nobody answers in the set time; `once`: or at the first refusal."""

    async def listen(self, address: Address, accept: Callable[[Channel], ChannelHandler]) -> Listener:
        """Accept channels; `accept` names the handler of each. Port 0 takes a free one. BrokenError if it is taken."""


class SourceMemory(Protocol):
    """The guest's memory at the source. UnreadableError when its bytes cannot be had."""

    geometry: Geometry
    image_bytes: int
    memory_bytes: int

    def read(self, run: PieceRun) -> Sequence[tuple[PieceRun, Sized | None]]:
        """The pieces of `run` as sub-runs in order, each with its bytes, or None where they are all zeros."""

    def digests(self, first: PageIndex, count: int) -> bytes:
        """xxh3_64 of each of `count` base pages from `first` on as they are now, 8 bytes each, little endian."""

    def digests_of(self, payload: Sized) -> bytes:
        """The same of bytes that `read` gave."""

    def changed(self) -> str | None:
        """How it has changed since the beginning, though it must not, in a line; None if it has not."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What became of the pieces of a run: newly mapped, or mapped already (EEXIST)."""

    mapped: int
    existing: int


#: Which thread of a node runs: "" its service, else the name of a vCPU. Where processors are modelled, each has one.
THREAD: ContextVar[str] = ContextVar("thread", default="")


class MinorFault(NamedTuple):
    """A vCPU sleeps on a base page that is not mapped; whether it wants to write."""

    vcpu: int
    page: PageIndex
    write: bool


class FaultHandler(Protocol):
    """Who handles the faults of a userfaultfd. Called in the service's loop; neither method may block."""

    def fault_raised(self, fault: MinorFault) -> None:
        """A vCPU has fallen asleep. A kernel tells nobody of that: there it comes together with `fault_read`."""

    def fault_read(self, fault: MinorFault) -> None:
        """The event of a fault has been read: at once, later, or never, if the vCPU has been woken meanwhile."""


class Landing(Protocol):
    """A place for bytes that are not there, as a memoryview is one for bytes that are; slices are places too."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> Landing: ...

    def take(self, payload: Sized, offset: int) -> None:
        """The bytes of `payload` from `offset` on land here, as many as there is room for."""


class Stalled(NamedTuple):
    """A vCPU that does not fault, and cannot go on all the same, before `until_ns`: a collapse holds it."""

    until_ns: int


class Collapsed(NamedTuple):
    """What a MADV_COLLAPSE of several spans did: the first `done`; `errno` if not even the first (SEMANTICS 6.1).

    `steps` are what it did to entries and tables, in order; their bytes count from the beginning of the memory.
    """

    done: int
    errno: int = 0
    steps: tuple[GatherStep, ...] = ()


class Word(NamedTuple):
    """An 8-byte word that the guest touched, at byte `offset` of a base page.

    `original` is what arrived there, `current` what must be there now.
    """

    page: PageIndex
    offset: int
    original: int
    current: int


class GuestBytes(Protocol):
    """The bytes of the guest's memory, as the service reaches them: before the guest can, and beside it."""

    geometry: Geometry

    def landing(self, first: PageIndex, count: int) -> memoryview | Landing:
        """Where the bytes of `count` base pages from `first` on are received: in their place, or in a bounce buffer.

        Which of them is the memory's business, as is how `MappingCalls.install` maps what came.
        """

    def clear(self, first: PageIndex, count: int) -> None:
        """The bytes of `count` base pages from `first` on, which nothing maps, are zeros again."""

    def release(self) -> None:
        """The guest is gone: its bytes go back to the system, whoever still refers to them. The last call there is."""


class MappingCalls(Protocol):
    """The system calls by which a VMM gives its guest access to what has landed, and what they have mapped so far."""

    geometry: Geometry

    def install(self, run: PieceRun) -> Installed:
        """Map pieces whose bytes have landed, or are zeros; who waits for one that gets mapped is woken.

        How is the memory's business: by UFFDIO_CONTINUE of bytes that landed in their place, or by copying them from
        where they landed (UFFDIO_COPY). OSError as the kernel's.
        """

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE: whoever sleeps on these base pages looks again."""

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """MADV_COLLAPSE of each span, in order, up to the first that fails: by one process_madvise (SEMANTICS 6.1).

        OSError for an errno that says that the call itself is wrong (EINVAL and the like).
        """

    def leaves(self) -> dict[Level, int]:
        """How many entries of each level map memory now."""

    def table_bytes(self) -> int:
        """Bytes of page tables below the hugetlb page's own level."""


class GuestFaults(Protocol):
    """The userfaultfd of the guest's memory: which vCPU waits for what."""

    def register(self, handler: FaultHandler) -> None:
        """Hand every fault from now on to `handler`, in place of the one before; those of before are not repeated."""


class GuestAccess(Protocol):
    """What a vCPU does to memory: one load or store at a time, which may fault."""

    geometry: Geometry
    memory_bytes: int

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """A vCPU reads the 8-byte word at byte `offset` of a base page, or writes `stamp` to it.

        Answers the word as it was before, or, after a fault, what to await before trying again; or until when a
        collapse keeps the vCPU from trying. Every fault is an event of `GuestFaults` as well.
        """


class GuestContents(Protocol):
    """What verification reads: the memory's bytes as they are, mapped or not, and their digests."""

    geometry: Geometry
    memory_bytes: int

    def digests(self, first: PageIndex, count: int, words: Sequence[Word]) -> tuple[bytes, list[int]]:
        """xxh3_64 of each of `count` base pages from `first` on, as if `words`, all of them here, were original.

        8 bytes each, little endian; and what each of the words really holds.
        """

    def contents(self, first: PageIndex, count: int) -> memoryview:
        """The bytes of `count` base pages from `first` on, to read. ValueError where memory is modelled without."""


class GuestStore(GuestBytes, MappingCalls, GuestFaults, GuestAccess, GuestContents, Protocol):
    """One object that is all of a guest's memory: how the stores are built, and nobody above them knows."""


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """The guest's memory at the destination, by who needs what of it."""

    bytes: GuestBytes
    mapping: MappingCalls
    faults: GuestFaults
    access: GuestAccess
    contents: GuestContents

    @classmethod
    def of(cls, store: GuestStore) -> GuestMemory:
        """A memory that is one object."""
        return cls(store, store, store, store, store)


@dataclass(frozen=True, slots=True)
class GuestStatistics:
    """What the vCPUs of a guest have done at this destination, and what it cost them; final after `Vcpus.stop`."""

    #: Waiting for faults, in all and per vCPU; None of a guest without vCPUs.
    blocktime: BlocktimeStatistics
    #: Faults by latency: how many in each bucket, keyed by its lower bound in microseconds (`FaultLatency.histogram`).
    latency_histogram: dict[int, int]
    #: Waiting for collapses; None of a guest without vCPUs.
    stalls: StallStatistics
    #: Words read and written.
    reads: int
    writes: int
    #: Reads that `limits.written_words_max` left no room to check.
    unchecked: int
    #: Accesses that found another word than the last one written there, and the first of them in words ("": none).
    mistakes: int
    first_mistake: str


class Vcpus(Protocol):
    """The vCPUs of one guest, at the destination: they access its memory, and sleep where a page is not mapped.

    Nobody above this seam knows what a vCPU is: a task of the service's loop, a thread, or a process that sleeps in the
    kernel. Their faults reach the destination through the memory's userfaultfd. All methods are called in the
    service's loop, and none of them blocks it.
    """

    def restore(self, words: Iterable[Word], generation: int) -> None:
        """Go on with a guest that wrote `words` at an earlier destination; before `start`, if at all.

        `generation` is another number at each start, and marks what is written from now on.
        """

    def start(self) -> None:
        """Run every vCPU from now on (QEMU's vm_start). Once."""

    async def stop(self) -> None:
        """Stop every vCPU between two accesses, or where it sleeps in a fault (QEMU's vm_stop).

        On return none accesses the memory any more. Safe to call twice, and without a `start`.
        """

    async def join(self) -> None:
        """Return once every vCPU has ended: after `stop`, or at the end of its workload. Raises what one has raised."""

    def statistics(self) -> GuestStatistics:
        """Counters of the guest's vCPUs, as a frozen copy."""

    def words(self) -> Iterator[Word]:
        """Every word that a vCPU has accessed, at earlier destinations too, in order of address. After `stop`."""


class Accelerator(Protocol):
    """Creates the vCPUs of guests, in one way (QEMU's -accel)."""

    def create_vcpus(self, memory: GuestMemory, tracer: Tracer | None) -> Vcpus:
        """vCPUs over `memory`, stopped; what they do is told to `tracer`. InputError when they cannot run over it."""


class Tracer(Protocol):
    """Takes every event of a node or of a world, in order."""

    def emit(self, event: Event) -> None:
        """Take one event; must not block."""
