"""Where a migration stands, and how it ended, seen from the destination: what displays and results are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from migemu.errors import sentences
from migemu.guest.blocktime import NO_BLOCKTIME, BlocktimeStatistics
from migemu.guest.stall import NO_STALLS, StallStatistics
from migemu.mm.pages import Geometry, Level
from migemu.wire.states import Stage


class Whereabouts(Enum):
    """Where the guest is, as one side knows it at some moment; both texts and decisions are made of it.

    The destination has the guest from the moment in which it has heard Run (durable in its checkpoint before it
    answers). Until the source has heard that (Running, or anything else that only a guest which runs brings about) it
    is in doubt: it keeps everything and may not run the guest. So is a destination that has said Ready and has not
    heard Run: the guest has not run there, and never will unless the same source says it.
    """

    #: Run was not said, or is known not to have been heard: the guest is the source's.
    SOURCE = "source"
    IN_DOUBT = "in doubt"
    #: The guest has run there, and is there, or in what is kept there.
    DESTINATION = "destination"
    #: Everything was sent, and the source has not heard the verdict.
    UNHEARD = "verdict in doubt"
    VERIFIED = "verified"
    #: The memory differs.
    DAMAGED = "damaged"
    #: The guest ran at a destination that ended, and kept nothing.
    LOST = "lost"

    @classmethod
    def of_source(cls, *, said: bool, heard: bool, all_sent: bool, verified: bool | None) -> Whereabouts:
        """What a source knows that has `said` Run, and `heard` that it was heard; `verified`: None without verdict."""
        if verified is not None:
            return cls.VERIFIED if verified else cls.DAMAGED
        if not said:
            return cls.SOURCE
        if not heard:
            return cls.IN_DOUBT
        return cls.UNHEARD if all_sent else cls.DESTINATION

    @classmethod
    def of_destination(
        cls, *, ready: bool, told: bool, ran: bool, lost: bool, verified: bool | None
    ) -> Whereabouts:  # fmt: skip
        """What a destination knows that has said `ready`.

        `told`: a source that had not said Run has given up; `ran`: Run was heard; `lost`: it has ended, and nothing
        is kept.
        """
        if verified is not None:
            return cls.VERIFIED if verified else cls.DAMAGED
        if not ran:
            return cls.IN_DOUBT if ready and not told else cls.SOURCE
        return cls.LOST if lost else cls.DESTINATION


#: How every text about a doubt begins, on both sides.
DOUBT: Final = "in doubt: "


def with_whereabouts(told: str, where: str) -> str:
    """A line that tells of an end, and then where the guest is."""
    if not where.startswith(DOUBT):
        return sentences(told, where)
    return f"{told} {where}" if told.endswith("?") else f"{told}; {where}"


class Times(NamedTuple):
    """When stages began, in ns of this node's clock; 0 where a stage was never reached."""

    advise: int = 0
    ready: int = 0
    run: int = 0
    first_piece: int = 0
    last_piece: int = 0
    finish: int = 0


#: Of a migration of which no stage has been reached.
_NO_TIMES: Final = Times()


class ReceiverStatistics(NamedTuple):
    """Counts so far. pieces_4k + 512 * pieces_2m + pages_zero == pages_received on x86_64; all fresh, none twice."""

    pieces_4k: int = 0
    pieces_2m: int = 0
    pages_zero: int = 0
    pages_duplicate: int = 0
    pages_received: int = 0
    pages_mapped: int = 0
    faults: int = 0
    faults_open: int = 0
    requests: int = 0
    collapse_calls: int = 0
    collapse_to_2m: int = 0
    collapse_to_1g: int = 0
    collapse_refused: int = 0
    collapse_failed: int = 0


#: Of a migration whose memory is not there yet.
_NOTHING_RECEIVED: Final = ReceiverStatistics()


class MappingFigures(NamedTuple):
    """How memory came to be mapped by large entries (`migemu.analysis.mapping_figures`).

    `to_*` in ns from the guest's start, `access_*` in ns an access; None where that never came, or was not looked at.
    """

    to_2m_ns: int | None = None
    to_1g_ns: int | None = None
    access_mean_ns: float | None = None
    access_end_ns: float | None = None


#: Of a migration whose mapping nobody looked at.
_NOT_LOOKED_AT: Final = MappingFigures()


class RecoveryStatistics(NamedTuple):
    """What recoveries took: how many, the ns in `paused`, and connections that ended in a broken protocol.

    `bitmap_bytes` crossed the return path; `pages_lost` base pages were sent and had to be sent again;
    `preempt_lost` counts the losses of the preempt channel alone.
    """

    count: int = 0  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    paused_ns: int = 0
    errors: int = 0
    bitmap_bytes: int = 0
    pages_lost: int = 0
    preempt_lost: int = 0


class Certificate(NamedTuple):
    """What both sides say of the memory at the end: base pages, digests, guest writes.

    `countersigned`: the source has heard the verdict, and its own count and digest are the same.
    """

    pages: int
    digest: str
    source_digest: str
    guest_writes: int
    countersigned: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the migration is at `now_ns`, for progress displays and results. `held`: an operator has paused it.

    What defaults to nothing is known once the memory is there: entries by level, bytes of page tables, the overview.
    `last_error` is empty as long as there was none.
    """

    now_ns: int
    stage: Stage
    geometry: Geometry
    memory_bytes: int
    payload_bytes: int
    wire_bytes: int
    receiver: ReceiverStatistics = _NOTHING_RECEIVED
    leaves: dict[Level, int] = field(default_factory=dict)
    table_bytes: int = 0
    table_bytes_max: int = 0
    times: Times = _NO_TIMES
    cells: str = ""
    recoveries: int = 0
    last_error: str = ""
    pages_waited_for: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything known at the end, whichever end it was. `collapse_*` are the cost model's, in every world."""

    snapshot: Snapshot
    verified: bool
    digest: str
    downtime_ns: int
    source_scenario: str
    image_bytes: int
    blocktime: BlocktimeStatistics = NO_BLOCKTIME
    histogram: dict[int, int] = field(default_factory=dict)
    reads: int = 0
    writes: int = 0
    unchecked: int = 0
    collapse_ns: int = 0
    collapse_stall_ns_max: int = 0
    stalls: StallStatistics = NO_STALLS
    trace_digest: str = ""
    mapping: MappingFigures = _NOT_LOOKED_AT
    recovery: RecoveryStatistics = field(default_factory=RecoveryStatistics)
    corrupt: int = 0
    certificate: Certificate | None = None
    whereabouts: Whereabouts = Whereabouts.SOURCE
