"""Everything the two nodes can say to each other: one frozen type per message, no logic.

Forward, source to destination
    Hello        first on each connection: which channel this is, of which migration
    Advise       how much memory is coming; the destination allocates it                 (QEMU: postcopy advise)
    Listen       start catching faults                                                   (QEMU: postcopy listen)
    DeviceState  a part of the device state blob; the guest stands still meanwhile       (QEMU: packaged)
    Run          the guest runs at the destination from here on                          (QEMU: postcopy run)
    Page         a run of pieces with their bytes behind the header
    Zero         a run of pieces that are all zeros: no bytes                            (QEMU: RAM_SAVE_FLAG_ZERO)
    End          every piece has been sent; how many
    Digests      xxh3_64 of every base page of one hugetlb page, eight bytes each, little endian

Return path, destination to source
    Ready        memory is there, faults can be caught                                   (answer to Advise)
    Running      the guest runs                                                          (answer to Run; ends downtime)
    Request      a fault wants these pieces now                                          (QEMU: MIG_RP_MSG_REQ_PAGES)
    Complete     all has arrived, been mapped and compared; whether it is the same       (QEMU: MIG_RP_MSG_SHUT)

Both ways
    Alive        nothing to say, still here
    Failed       this side gives up, and why                                             (wanted: MIG_RP_MSG_ERROR)

`first` counts base pages from the start of the memory. `level` is the piece size (`Level.PTE` or `Level.PMD`).
Payload bytes are not part of a message: they follow its header untouched (see codec).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from migemu.mm.pages import Level, PageIndex

#: Raised whenever the bytes of any message change. Golden captures in tests/golden hold each version's bytes.
PROTOCOL_VERSION: Final = 1


class ChannelRole(Enum):
    """Which of a migration's connections: MAIN carries everything; PREEMPT carries urgent pieces only."""

    MAIN = "main"
    PREEMPT = "preempt"


class Hello(NamedTuple):
    """First message on each connection. `migration` names the migration: 32 hexadecimal digits."""

    channel: ChannelRole
    migration: str


class Advise(NamedTuple):
    """`memory_bytes` in whole hugetlb pages; `image_bytes` of them come from the image, the rest is padding.

    `scenario` is the source's resolved scenario as JSON text, for the record only.
    """

    geometry: str
    memory_bytes: int
    image_bytes: int
    device_state_bytes: int
    preempt: bool
    scenario: str


class Ready(NamedTuple):
    """The destination has the memory and can catch faults."""


class Listen(NamedTuple):
    """The destination registers its memory with userfaultfd."""


class DeviceState(NamedTuple):
    """Payload: the bytes of the blob from `offset` on."""

    offset: int


class Run(NamedTuple):
    """All device state has been sent: the guest may run."""


class Running(NamedTuple):
    """The guest runs at the destination."""


class Request(NamedTuple):
    """A fault wants `count` pieces of the size of `level` from `first` on."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level


class Page(NamedTuple):
    """Payload: the bytes of `count` pieces of the size of `level` from `first` on."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level
    urgent: bool


class Zero(NamedTuple):
    """`count` pieces of the size of `level` from `first` on are all zeros."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level
    urgent: bool


class End(NamedTuple):
    """Every base page has been sent at least once. What the source knows and the destination's result needs."""

    pages: int
    wire_bytes: int
    downtime_ns: int


class Digests(NamedTuple):
    """Payload: xxh3_64 of each base page of the hugetlb page that begins at `first`, 8 bytes each, little endian."""

    first: PageIndex


class Complete(NamedTuple):
    """The destination's verdict: whether every byte is the source's, the digest over all, and what was wrong."""

    verified: bool
    digest: str
    reason: str


class Alive(NamedTuple):
    """Keeps a silent connection from being taken for a dead one."""


class Failed(NamedTuple):
    """This side gives up; `reason` is one line for the other side's user."""

    reason: str


Message = (
    Hello | Advise | Ready | Listen | DeviceState | Run | Running | Request | Page | Zero | End | Digests | Complete
    | Alive | Failed
)  # fmt: skip

#: The number that stands first in a header. Never reused, never renumbered.
TAGS: Final[dict[type[Message], int]] = {
    Hello: 1, Advise: 2, Ready: 3, Listen: 4, DeviceState: 5, Run: 6, Running: 7, Request: 8, Page: 9, Zero: 10,
    End: 11, Digests: 12, Complete: 13, Alive: 14, Failed: 15,
}  # fmt: skip
