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
    Recover      a connection was lost: which base pages are there?               (QEMU: MIG_CMD_POSTCOPY_RECV_BITMAP)
    Resume       that is known now; the migration goes on                             (QEMU: MIG_CMD_POSTCOPY_RESUME)
    Agreed       the verdict was heard; the source's own count and digest: the last word

Return path, destination to source
    Ready        memory is there, faults can be caught                                   (answer to Advise)
    Running      the guest runs                                                          (answer to Run; ends downtime)
    Request      a fault wants these pieces now                                          (QEMU: MIG_RP_MSG_REQ_PAGES)
    Complete     all has arrived, been mapped and compared; whether it is the same       (QEMU: MIG_RP_MSG_SHUT)
    ReceivedBitmap  which base pages are here, a part of the memory each                 (QEMU: MIG_RP_MSG_RECV_BITMAP)
    Resumed      faults that wait are asked for again                                    (QEMU: MIG_RP_MSG_RESUME_ACK)

Both ways
    Alive        nothing to say, still here
    Failed       this side gives up the connection, or the migration, and why            (wanted: MIG_RP_MSG_ERROR)

`first` counts base pages from the start of the memory. `level` is the piece size (`Level.PTE` or `Level.PMD`).
Payload bytes are not part of a message: they follow its header untouched (see codec).

A version names all that both sides must know. Fields may be added to a message without a new version: they follow the
others in one map (see codec), and a peer that does not know them passes over them, or refuses those that it must know.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from migemu.mm.pages import Level, PageIndex

#: Raised whenever the bytes of any message change. Golden captures in tests/golden hold each version's bytes.
PROTOCOL_VERSION: Final = 2


class ChannelRole(Enum):
    """Which of a migration's connections: MAIN carries everything; PREEMPT carries urgent pieces only."""

    MAIN = "main"
    PREEMPT = "preempt"


@dataclass(frozen=True, slots=True)
class ChannelId:
    """Which connection of a migration: its role, and its number among those of that role. Today each role has one.

    In texts and traces the first of a role goes by the role's name alone.
    """

    role: ChannelRole
    index: int = 0

    def __str__(self) -> str:
        return f"{self.role.value} {self.index}" if self.index else self.role.value


#: The connection that carries everything, and the one for urgent pieces.
MAIN_CHANNEL: Final = ChannelId(ChannelRole.MAIN)
PREEMPT_CHANNEL: Final = ChannelId(ChannelRole.PREEMPT)


class Hello(NamedTuple):
    """First message on each connection. `migration` names the migration: 32 hexadecimal digits.

    `again`: its guest may run at the destination already; this connection is to recover it.
    """

    channel: ChannelRole
    migration: str
    again: bool = False


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
    """The destination has the memory and can catch faults. `migration`: the name that it has heard, for comparison.

    A name that was not heard right is found before the guest leaves; nobody could recover it afterwards.
    """

    migration: str


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
    """A fault wants `count` pieces of the size of `level` from `first` on. `again`: they came, and were corrupt."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level
    again: bool = False


class Page(NamedTuple):
    """Payload: the bytes of `count` pieces of the size of `level` from `first` on.

    `digests` is empty, or the xxh3_64 of each base page and of the header (`migemu.wire.seal`).
    """

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level
    urgent: bool
    digests: bytes = b""


class Zero(NamedTuple):
    """`count` pieces of the size of `level` from `first` on are all zeros. `digests`: empty, or that of the header."""

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    level: Level
    urgent: bool
    digests: bytes = b""


class End(NamedTuple):
    """Every base page has been sent at least once. What the source knows and the destination's result needs."""

    pages: int
    wire_bytes: int
    downtime_ns: int


class Digests(NamedTuple):
    """Payload: xxh3_64 of each base page of the hugetlb page that begins at `first`, 8 bytes each, little endian.

    `seal` is empty, or that of the payload (`migemu.wire.seal`).
    """

    first: PageIndex
    seal: bytes = b""


class Complete(NamedTuple):
    """The destination's verdict: whether every byte is the source's, the digest over all, and what was wrong."""

    verified: bool
    digest: str
    reason: str


class Alive(NamedTuple):
    """Keeps a silent connection from being taken for a dead one."""


class Failed(NamedTuple):
    """This side gives up; `reason` is one line for the other side's user.

    `over`: the migration; else this connection alone, and the migration may be recovered over another one.
    """

    reason: str
    over: bool = False


class Recover(NamedTuple):
    """The source wants to know which base pages have arrived: all that was said before this, on this channel, has."""


class ReceivedBitmap(NamedTuple):
    """Which of `count` base pages from `first` on have arrived; whole hugetlb pages, in order, none left out.

    Without a payload it is all of them (`full`) or none. Payload: zlib (RFC 1950) of one bit a page, the first page in
    the lowest bit of the first byte.
    """

    first: PageIndex
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants of a run
    full: bool


class Resume(NamedTuple):
    """The source knows what is missing, and goes on."""


class Resumed(NamedTuple):
    """The destination goes on; requests for what it waits for follow."""


class Agreed(NamedTuple):
    """The source has heard the verdict, and countersigns: base pages and digest of its own memory.

    `pages_lost` were sent, did not arrive because a connection was lost, and were sent again.
    """

    pages: int
    digest: str
    pages_lost: int


Message = (
    Hello | Advise | Ready | Listen | DeviceState | Run | Running | Request | Page | Zero | End | Digests | Complete
    | Alive | Failed | Recover | ReceivedBitmap | Resume | Resumed | Agreed
)  # fmt: skip

#: The number that stands first in a header. Never reused, never renumbered.
TAGS: Final[dict[type[Message], int]] = {
    Hello: 1, Advise: 2, Ready: 3, Listen: 4, DeviceState: 5, Run: 6, Running: 7, Request: 8, Page: 9, Zero: 10,
    End: 11, Digests: 12, Complete: 13, Alive: 14, Failed: 15,
    Recover: 16, ReceivedBitmap: 17, Resume: 18, Resumed: 19, Agreed: 20,
}  # fmt: skip
