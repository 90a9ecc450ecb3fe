"""How a migration stands and ends, seen from its source: what it knows, and, where it failed, where the guest is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from migemu.errors import GaveUpError, MigemuError, UnreadableError
from migemu.node.outcome import DOUBT, Whereabouts, with_whereabouts
from source_node.core.sender import SenderStatistics

#: How a source that was started again goes on; DIR is for whoever knows it.
GO_ON: Final = "go on with migemu-source --recover DIR"
#: How it has the guest again that never ran at the destination.
TAKE_BACK: Final = "take it back with migemu-source --recover DIR --take-back"


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What the source knows at the end. Times in ns."""

    verified: bool
    digest: str
    downtime_ns: int
    wire_bytes: int
    sender: SenderStatistics
    recoveries: int = 0
    whereabouts: str = Whereabouts.VERIFIED.value


class SourceStanding(NamedTuple):
    """How a source stands while it runs. `last_error` is why it is paused, or was last, or is empty.

    `held`: its operator has paused it.
    """

    stage: str
    pages_sent: int
    recoveries: int
    last_error: str
    whereabouts: Whereabouts
    held: bool = False


def explained(error: BaseException, where: Whereabouts, missing: int, pages: int) -> BaseException:
    """The error, if it is one that is told, with where the guest is.

    `missing` of `pages` base pages are not known to have arrived.
    """
    if isinstance(error, MigemuError):
        error.args = (with_whereabouts(str(error), _sentence(error, where, missing, pages)),)
    return error


def _sentence(error: MigemuError, where: Whereabouts, missing: int, pages: int) -> str:
    if where is Whereabouts.DESTINATION and isinstance(error, GaveUpError):
        return "The guest was at the destination; the source's image is unchanged"
    if isinstance(error, UnreadableError) and where is Whereabouts.IN_DOUBT:
        return f"{DOUBT}the guest has left; put the image right, as it was, then {GO_ON}"
    if isinstance(error, UnreadableError) and where in (Whereabouts.DESTINATION, Whereabouts.UNHEARD):
        return (
            f"The guest is at the destination, where {missing} of {pages} base pages are not known to have arrived; "
            f"put the image right, as it was, then {GO_ON}"
        )
    return told(where, missing, pages)


def told(where: Whereabouts, missing: int = 0, pages: int = 0) -> str:
    """Where the guest is, in a sentence, and what to do."""
    if where is Whereabouts.SOURCE:
        return "The guest runs on at the source, whose image is unchanged"
    if where is Whereabouts.IN_DOUBT:
        return (
            f"{DOUBT}the guest has left, and it was not heard whether it runs at the destination; it is whole here, "
            f"and so is the image: {GO_ON}. If the destination says that the guest has not run there, and cannot any "
            f"more: {TAKE_BACK}"
        )
    if where is Whereabouts.UNHEARD:
        return (
            f"{DOUBT}everything was sent, and the verdict was not heard ({missing} of {pages} base pages are not known "
            f"to have arrived): {GO_ON}, which hears it, or sends what is missing; the destination's result.json says "
            '"verified" if it is'
        )
    if where is Whereabouts.DAMAGED:
        return "The guest is at the destination, damaged; the source's image is unchanged"
    return (
        f"The guest is at the destination, where {missing} of {pages} base pages are not known to have arrived; the "
        f"source's image is unchanged: {GO_ON}"
    )


def told_changed(changed: str, reason: str) -> str:
    """What to say at the end where the image `changed`; `reason` is what the destination found, if it found anything.

    Not the destination's fault, nor the network's: what was read is no memory that ever was.
    """
    found = f" ({reason})" if reason else ""
    return (
        f"{changed}. The source's image is wrong, not the destination{found}: what was sent is of before and after. "
        "The guest is at the destination, damaged; stop whoever writes to the image, or set memory.image_copy=on"
    )
