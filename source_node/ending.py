"""How a migration stands and ends, seen from its source: what it knows, and, where it failed, where the guest is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from migemu.errors import GaveUpError, MigemuError
from source_node.sender import SenderStatistics

#: How a source that was started again goes on; DIR is for whoever knows it.
GO_ON: Final = "go on with migemu-source --recover DIR"


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What the source knows at the end. Times in ns."""

    verified: bool
    digest: str
    downtime_ns: int
    wire_bytes: int
    sender: SenderStatistics
    recoveries: int = 0


class SourceStanding(NamedTuple):
    """How a source stands while it runs. `last_error` is why it is paused, or was last, or is empty."""

    stage: str
    pages_sent: int
    recoveries: int
    last_error: str


def explained(error: BaseException, run_said: bool, missing: int, pages: int) -> BaseException:
    """The error, if it is one that is told, with where the guest is.

    `missing` of `pages` base pages are not known to have arrived.
    """
    if isinstance(error, MigemuError):
        error.args = (f"{error}. {_whereabouts(error, run_said, missing, pages)}",)
    return error


def _whereabouts(error: MigemuError, run_said: bool, missing: int, pages: int) -> str:
    if not run_said:
        return "The guest runs on at the source, whose image is unchanged"
    if isinstance(error, GaveUpError):
        return "The guest was at the destination; the source's image is unchanged"
    return (
        f"The guest is at the destination, where {missing} of {pages} base pages are not known to have arrived; the "
        f"source's image is unchanged: {GO_ON}"
    )
