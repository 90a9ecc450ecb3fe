"""What a user saw of one migration, and whether all of it can be true. Pure.

Each process is judged by its exit code and by the line that it ended with; a line is one **claim** about where the
guest is. It stands until a process of the same node is started; what is final stands for good. Claims of the two sides
that stand at the same time have to fit each other, and the files that are left, and the bytes.

How a migration may end

    verified          both sides have said so, and every byte is the image's
    recovered         the same, after an end in doubt: with the network whole again the documented commands led there
    unheard           the destination has verified it; the source was gone by then, or could not be told
    at the source     the guest never left, and whoever was asked says so
    lost              the destination's process went, without a checkpoint, with the guest in it; and somebody says so
    damage found      bits were turned over on the way, with `integrity.digests` off: found when all bytes are compared

Everything else is a failure: CONTRADICTORY, HUNG, TRACEBACK, CRASHED, STUCK (in doubt, and the documented commands did
not lead out of it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, Final

from tests.chaos.harm import CHANGES, Harm


class Claim(Enum):
    """What a process has said in the end."""

    VERIFIED = "it is verified"
    DIFFERS = "the memory differs"
    AT_SOURCE = "the guest is at the source"
    IN_DOUBT = "the guest may be there, or not; recover"
    KEPT = "the guest is in the checkpoint"
    GAVE_UP = "the destination gave up; the guest was there"
    LOST = "the guest is lost"
    UNKNOWN_THERE = "a new destination knows nothing of it"
    COMPLETED = "that migration was completed"
    NOBODY = "nobody came"
    NOTHING = "nothing about the guest"


#: Of a line, the first that fits; by role.
_CLAIMS: Final[dict[str, tuple[tuple[str, Claim], ...]]] = {
    "source": (
        (r"runs on at the source|runs here; start a new migration|is the source's again", Claim.AT_SOURCE),
        (r"migration was completed", Claim.COMPLETED),
        (r"knows nothing of migration", Claim.UNKNOWN_THERE),
        (r"--recover|without --out it kept nothing", Claim.IN_DOUBT),
        (r"The guest was at the destination", Claim.GAVE_UP),
    ),
    "destination": (
        (r"in doubt: ", Claim.IN_DOUBT),
        (r"has not run here", Claim.AT_SOURCE),
        (r"guest is in its checkpoint|the guest is in it", Claim.KEPT),
        (r"guest is lost", Claim.LOST),
        (r"no (other )?source came", Claim.NOBODY),
    ),
}  # fmt: skip
#: What is said once and for all.
_FINAL: Final = {
    "source": (Claim.VERIFIED, Claim.DIFFERS, Claim.AT_SOURCE, Claim.COMPLETED),
    "destination": (Claim.VERIFIED, Claim.DIFFERS, Claim.LOST),
}  # fmt: skip
#: Exit codes that the documentation knows; a signal that ends a process is judged by who sent it.
_CODES: Final = (0, 2, 3, 4, 5, 130)
_DIED_OF: Final = {"kill": -9, "term early": -15, "hup early": -1, "int early": -2}
#: What a process that does not hold its peer to blame exits with.
_PEER_BROKE: Final = 4


@dataclass(frozen=True, slots=True)
class Said:
    """One process, at its end. `signals` are those that it was sent; its claim stands from `ended_s` to `until_s`."""

    name: str
    code: int
    text: str
    signals: tuple[str, ...] = ()
    ended_s: float = 0.0
    until_s: float = inf

    @property
    def role(self) -> str:
        """Which node it was."""
        return self.name.partition(" ")[0]

    @property
    def killed(self) -> bool:
        """Whether a signal from us has ended it without a word."""
        return self.code < 0 and any(_DIED_OF.get(name) == self.code for name in self.signals)

    @property
    def lines(self) -> list[str]:
        """What it said, newest first."""
        return [line for line in reversed(self.text.splitlines()) if line.startswith("migemu")]

    @property
    def claim(self) -> Claim:
        """Of its last words: the error, and the notice before it where that says nothing."""
        if self.code == 0:
            return Claim.AT_SOURCE if self.takes_back else Claim.VERIFIED
        if self.code == 5:
            return Claim.DIFFERS
        for line in self.lines[: 2 if self.code == 130 else 1]:
            for pattern, claim in _CLAIMS[self.role]:
                if re.search(pattern, line):
                    return claim
        return Claim.NOTHING

    @property
    def says_lost(self) -> str:
        """The line that says that the guest is lost: the last, or a notice before it that is not about strangers."""
        said = (line for line in self.lines[:2] if re.search(r"guest is lost|guest, is lost", line))
        return next((line for line in said if "turned away" not in line), "")

    @property
    def takes_back(self) -> bool:
        """Whether its last words are that the guest is the source's again; or, of a destination, that it may be."""
        return bool(self.lines) and bool(re.search(r"is the source's again|--take-back", self.lines[0]))

    @property
    def stands(self) -> tuple[float, float]:
        """From when to when."""
        return self.ended_s, inf if self.claim in _FINAL[self.role] else self.until_s

    def meets(self, other: Said) -> bool:
        """Whether both claims stand at some time."""
        return max(self.stands[0], other.stands[0]) < min(self.stands[1], other.stands[1])

    def __str__(self) -> str:
        how = f"killed ({', '.join(self.signals)})" if self.killed else f"exit {self.code}"
        return f"{self.name}: {how}: {self.lines[0] if self.lines else 'said nothing'}"


@dataclass(slots=True)
class Story:
    """One migration as a user saw it: its processes in the order in which they ended, and what they left behind.

    `result` is the last result.json; `recorded`: there is a migration.json, and `switched` is what it says; `kept`: the
    checkpoint holds something;
    `ran`: the guest was seen to have run at the destination; `dump_differs`: a verified dump has other bytes.
    """

    checkpoint: bool
    digests: bool
    sources: list[Said] = field(default_factory=list)
    destinations: list[Said] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    recorded: bool = False
    switched: bool = False
    kept: bool = False
    ran: bool = False
    digest: str = ""
    dump_differs: bool = False
    image_changed: bool = False
    healed: bool = False
    struck: Sequence[Harm] = ()

    @property
    def corrupting(self) -> bool:
        """Whether bytes were changed on their way."""
        return any(harm.act in CHANGES for harm in self.struck)


def wrong_ends(said: Iterable[Said]) -> list[str]:
    """TRACEBACK and CRASHED, of any process."""
    found = []
    for each in said:
        if "Traceback (most recent call last)" in each.text:
            found.append(f"TRACEBACK: {each.name}: {each.text.strip().splitlines()[-1]}")
        elif each.code not in _CODES and not each.killed:
            found.append(f"CRASHED: {each}")
    return found


def contradictions(story: Story) -> list[str]:
    """What cannot be true together."""
    found = list(_between(story)) + list(_with_what_is_left(story))
    return [f"CONTRADICTORY: {each}" for each in found]


#: What a source says, and what no destination may say at the same time.
_NEVER: Final = {
    Claim.AT_SOURCE: (Claim.VERIFIED, Claim.KEPT, Claim.LOST, Claim.DIFFERS),
    Claim.GAVE_UP: (Claim.VERIFIED, Claim.AT_SOURCE),
    Claim.IN_DOUBT: (Claim.AT_SOURCE,),
    Claim.DIFFERS: (Claim.VERIFIED, Claim.AT_SOURCE),
    Claim.VERIFIED: (Claim.AT_SOURCE, Claim.LOST, Claim.DIFFERS),
}  # fmt: skip


def _between(story: Story) -> Iterable[str]:
    for ours in story.sources:
        for theirs in story.destinations:
            if theirs.claim in _NEVER.get(ours.claim, ()) and ours.meets(theirs):
                yield f"{ours} -- but {theirs}"
    claims = [each.claim for each in story.destinations]
    if Claim.VERIFIED in claims and claims[-1] in (Claim.LOST, Claim.AT_SOURCE):
        yield f"{story.destinations[-1]} -- after it was verified"
    verified = [each for each in story.sources if each.claim is Claim.VERIFIED]
    heard = any(each.claim is Claim.VERIFIED or each.code < 0 or each.code == 130 for each in story.destinations)
    if verified and not heard:
        yield f"{verified[-1]} -- but no destination has verified it: {story.destinations[-1]}"


def _with_what_is_left(story: Story) -> Iterable[str]:
    last = story.sources[-1] if story.sources else None
    if last is not None and last.claim is Claim.AT_SOURCE and (story.ran or story.switched):
        yield f"{last} -- but it {'ran at the destination' if story.ran else 'is switched in migration.json'}"
    verified = [each for each in story.destinations if each.claim is Claim.VERIFIED]
    if verified and not (story.result.get("verified") and story.result.get("status") == "completed"):
        status = story.result.get("status", "is not there")
        yield f"{verified[-1]} -- but result.json: {status}"
    if story.result.get("verified") and story.result.get("digest") != story.digest:
        yield f"verified, but the digest is {story.result.get('digest')}, and that of the image {story.digest}"
    if story.dump_differs:
        yield "verified, but --dump has other bytes than the image"
    if story.image_changed:
        yield "the source's image has changed"
    for each in (*story.sources, *story.destinations):
        if each.code == _PEER_BROKE and not story.corrupting:
            yield f"nothing was changed on the way, but {each}"
        if each.claim is Claim.DIFFERS and (story.digests or not story.corrupting):
            yield f"no bit can have changed unnoticed, but {each}"
        if each.code == 2 and each.claim not in (Claim.AT_SOURCE, Claim.COMPLETED):
            yield f"there was no bad input, but {each}"


def may_be_taken_back(story: Story) -> bool:
    """Whether the source was told to, by a destination that is gone and never ran the guest."""
    last = story.destinations[-1] if story.destinations else None
    return last is not None and not story.kept and last.claim is Claim.IN_DOUBT and last.takes_back


def is_over(story: Story) -> bool:
    """Whether there is nothing left that a documented command could go on with."""
    claims = [each.claim for each in story.sources]
    theirs = [each.claim for each in story.destinations]
    if Claim.VERIFIED in theirs and (Claim.VERIFIED in claims or Claim.COMPLETED in claims):
        return True
    last = claims[-1] if claims else Claim.NOTHING
    if last is Claim.AT_SOURCE or (last is Claim.UNKNOWN_THERE and not story.kept):
        return True
    if Claim.DIFFERS in theirs:
        return True
    return not story.checkpoint and theirs[-1:] == [Claim.LOST] and last is not Claim.NOTHING


def ending(story: Story) -> tuple[str, str]:
    """How it has ended at last, and the sentence that said so; STUCK if it has not."""
    claims = [each.claim for each in story.sources]
    theirs = [each.claim for each in story.destinations]
    last = claims[-1] if claims else Claim.NOTHING
    if Claim.VERIFIED in theirs or Claim.VERIFIED in claims:
        if Claim.VERIFIED in claims or Claim.COMPLETED in claims:
            return ("recovered" if story.healed else "verified"), ""
        return "unheard", str(story.sources[-1])
    if Claim.DIFFERS in theirs or Claim.DIFFERS in claims:
        return "damage found", str(story.destinations[-1])
    if last is Claim.AT_SOURCE or not (story.recorded or story.ran):
        return "at the source", str(story.sources[-1])
    gone = [each for each in (*story.sources, *story.destinations) if each.says_lost]
    if gone and not story.checkpoint:
        return "lost", f"{gone[-1].name}: {gone[-1].says_lost}"
    says = "; ".join(map(str, (*story.sources[-1:], *story.destinations[-1:])))
    return "STUCK", f"STUCK: the documented commands did not lead out of it: {says}"
