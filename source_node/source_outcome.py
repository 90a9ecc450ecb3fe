"""How a migration stands and ends, seen from its source: what it knows, and, where it failed, where the guest is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from migemu.errors import GaveUpError, MigemuError, UnreadableError, VerificationError
from migemu.node.outcome import DOUBT, Whereabouts, with_whereabouts
from migemu.wire.states import Stage
from source_node.core.sender import SenderStatistics


@dataclass(frozen=True, slots=True)
class Advice:
    """What the operator is to do when this source has ended, as commands that can be typed where it ran."""

    #: How another source goes on with the migration.
    go_on: str = "go on with migemu-source --recover DIR"
    #: How it has the guest again that never ran at the destination.
    take_back: str = "take it back with migemu-source --recover DIR --take-back"

    @classmethod
    def of(cls, directory: Path | None, paired: bool) -> Advice:
        """`directory`: its --out, if it had one. `paired`: `migemu run` has started it, and both nodes end together."""
        if paired:
            return cls("run it again", "run it again")
        if directory is None:
            return cls("without --out it kept nothing to go on with", "start it here")
        recover = f"migemu-source --recover {shlex.quote(str(directory))}"
        return cls(f"go on with {recover}", f"take it back with {recover} --take-back")


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


class SourceStatus(NamedTuple):
    """How far a source is while it runs, for displays and `migemu status`.

    `last_error` is why it is paused, or was last; empty if it never was. `held`: its operator has paused it.
    """

    stage: Stage
    pages_sent: int
    recoveries: int
    last_error: str
    whereabouts: Whereabouts
    held: bool = False


def explained(
    error: BaseException, where: Whereabouts, missing: int, pages: int, advice: Advice
) -> BaseException:  # fmt: skip
    """An error of the same kind that says besides where the guest is; what is no MigemuError stays as it is.

    `missing` of `pages` base pages are not known to have arrived.
    """
    if not isinstance(error, MigemuError):
        return error
    return error.with_text(with_whereabouts(str(error), _sentence(error, where, missing, pages, advice)))


def _sentence(error: MigemuError, where: Whereabouts, missing: int, pages: int, advice: Advice) -> str:
    if where is Whereabouts.DESTINATION and isinstance(error, GaveUpError):
        return "The guest was at the destination; the source's image is unchanged"
    if isinstance(error, UnreadableError) and where is Whereabouts.IN_DOUBT:
        return f"{DOUBT}the guest has left; put the image right, as it was, then {advice.go_on}"
    if isinstance(error, UnreadableError) and where in (Whereabouts.DESTINATION, Whereabouts.UNHEARD):
        return (
            f"The guest is at the destination, where {missing} of {pages} base pages are not known to have arrived; "
            f"put the image right, as it was, then {advice.go_on}"
        )
    return guest_is(where, missing, pages, advice)


def guest_is(where: Whereabouts, missing: int, pages: int, advice: Advice) -> str:
    """Where the guest is, in a sentence, and what to do; `missing` of `pages` base pages may not have arrived."""
    if where is Whereabouts.SOURCE:
        return "The guest runs on at the source, whose image is unchanged"
    if where is Whereabouts.IN_DOUBT:
        return (
            f"{DOUBT}the guest has left, and it was not heard whether it runs at the destination; it is whole here, "
            f"and so is the image: {advice.go_on}. If the destination says that the guest has not run there, and "
            f"cannot any more: {advice.take_back}"
        )
    if where is Whereabouts.UNHEARD:
        return (
            f"{DOUBT}everything was sent, and the verdict was not heard ({missing} of {pages} base pages are not known "
            f"to have arrived): {advice.go_on}, which hears it, or sends what is missing; the destination's "
            'result.json says "verified" if it is'
        )
    if where is Whereabouts.DAMAGED:
        return "The guest is at the destination, damaged; the source's image is unchanged"
    return (
        f"The guest is at the destination, where {missing} of {pages} base pages are not known to have arrived; the "
        f"source's image is unchanged: {advice.go_on}"
    )


def image_changed(changed: str, reason: str) -> VerificationError:
    """The error where the image has changed while it was sent: `changed` says how, `reason` what was found there.

    `reason` is empty where the destination found nothing. Not its fault, nor the network's: what was read is no memory
    that ever was.
    """
    found = f" ({reason})" if reason else ""
    return VerificationError(
        f"{changed}. The source's image is wrong, not the destination{found}: what was sent is of before and after. "
        "The guest is at the destination, damaged; stop whoever writes to the image, or set memory.image_copy=on"
    )
