"""Wrong on purpose: bugs that happened, or will, each as a short play that the checker about it must catch.

Each scenario is a function `(stage, wrong)`: with `wrong` it plays the bug, without it the same story as it should have
gone, which every rule lets pass. Most are played on the real model, so that what they show is what the kernel would let
happen; where the kernel itself would have to be wrong, or the stage does not reach, events are told by hand.

`migemu check --wrong NAME` shows one of them. Words in square brackets name the project and the report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from migemu.mm.pages import TINY, Level
from migemu.trace.events import Event
from migemu.trace.stage import PAGES, Script

Play = Callable[[Script, bool], None]


class WrongOrder(NamedTuple):
    """A bug: the rule that must catch it, others that also object, and where it was seen."""

    name: str
    rule: str
    also: tuple[str, ...]
    happened: str
    story: str
    policy: str
    play: Play

    def events(self, wrong: bool = True) -> list[Event]:
        """The trace of it, over one hugetlb page of TINY; with `wrong` off, of how it should have gone."""
        stage = Script(self.policy)
        self.play(stage, wrong)
        return stage.events


SCENARIOS: Final[dict[str, WrongOrder]] = {}


def _scenario(rule: str, happened: str, *, also: tuple[str, ...] = (), policy: str = "") -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        name = play.__name__.rstrip("_")
        story = " ".join((play.__doc__ or "").split())
        SCENARIOS[name] = WrongOrder(name, rule, also, happened, story, policy, play)
        return play

    return add


@_scenario(
    "no_hole_collapsed", "HGM: what the kernel does not check",
    also=("mapped_within_received",),
)  # fmt: skip
def collapse_before_received(stage: Script, wrong: bool) -> None:
    """A 2M is collapsed while one of its pages is still on its way: the guest reads what never came."""
    stage.bring(0, 3)
    if wrong:
        stage.collapse(0, Level.PMD)
        stage.access(0, 3)
    stage.send(3)
    stage.store(3)
    if not wrong:
        stage.continue_(3)
        stage.collapse(0, Level.PMD)
        stage.access(0, 3)


@_scenario("mapped_within_received", "HGM: the page cache has the hugetlb page, not the 4K")
def continue_before_copy(stage: Script, wrong: bool) -> None:
    """The handler continues a page as soon as it is asked for: the kernel has a hugetlb page for it, and obeys."""
    stage.access(0, 5, write=False)
    stage.tell("requested", 5, 1, Level.PTE)
    if not wrong:
        stage.send(5, urgent=True)
        stage.store(5, urgent=True)
    stage.continue_(5)


@_scenario("mapped_before_woken", "Cloud Hypervisor 8663: guests died of a triple fault")
def wake_before_continue(stage: Script, wrong: bool) -> None:
    """The bytes are there, so the vCPU is woken; that they are not mapped yet comes to mind later."""
    stage.access(0, 5)
    stage.send(5, urgent=True)
    stage.store(5, urgent=True)
    if wrong:
        stage.wake(5)
    stage.continue_(5)


@_scenario("sleepers_woken", "HGM: MADV_COLLAPSE wakes nobody; no test of the series covers it")
def no_wake_after_collapse(stage: Script, wrong: bool) -> None:
    """A vCPU sleeps on a page that has come, but is not mapped; a collapse maps it, and nobody tells the vCPU."""
    stage.bring(0, 3)
    stage.access(0, 3)
    stage.send(3)
    stage.store(3)
    stage.collapse(0, Level.PMD)
    if not wrong:
        stage.wake(3)
    stage.bring(4, 12)


@_scenario("sleepers_woken", "HGM: a CONTINUE that finds a larger entry")
def no_wake_after_eexist(stage: Script, wrong: bool) -> None:
    """The collapse came first: the CONTINUE of the page gets EEXIST, which is taken for a success, and wakes nobody."""
    stage.bring(0, 3)
    stage.access(0, 3)
    stage.send(3)
    stage.store(3)
    stage.collapse(0, Level.PMD)
    if stage.continue_(3) and not wrong:
        stage.wake(3)
    stage.bring(4, 12)


@_scenario(
    "faults_resolved", "BuildBuddy 12673: a fault put aside, and a poll without a timeout", also=("completion_is_told",)
)
def fault_forgotten(stage: Script, wrong: bool) -> None:
    """A fault that cannot be answered at once is put aside until the next event is read. There is no next one."""
    stage.bring(0, 9)
    stage.bring(10, 6)
    stage.access(1, 9)
    stage.send(9, urgent=True)
    stage.store(9, urgent=True)
    if not wrong:
        stage.continue_(9)
    stage.end()
    stage.complete()


@_scenario("flushed_before_freed", "Linux: why mmu_gather exists")
def freed_before_flush(stage: Script, wrong: bool) -> None:
    """The table under a collapsed 2M is given back before the TLB is flushed: a processor may still walk it."""
    stage.bring(0, 4)
    stage.tell("cleared", 0, 4, Level.PTE)
    stage.tell("collapsed", 0, level=Level.PMD)
    for name, count in (("freed", 1), ("flushed", 4)) if wrong else (("flushed", 4), ("freed", 1)):
        stage.tell(name, 0, count)


@_scenario("smaller_before_larger", "HGM: EEXIST under a larger entry")
def smaller_after_larger(stage: Script, wrong: bool) -> None:
    """A 2M step that was still queued is carried out after the 1G one: the kernel refuses it and ends the call."""
    stage.bring(0, 16)
    if wrong:
        stage.collapse(0, TINY.largest)
        stage.collapse(4, Level.PMD)
    else:
        stage.collapse(4, Level.PMD)
        stage.collapse(0, TINY.largest)


@_scenario(
    "smaller_before_larger", "QEMU's HGM prototype: one step from 4K to 1G holds the vCPUs for a second",
    policy="eager collapses steps",
)  # fmt: skip
def step_skipped(stage: Script, wrong: bool) -> None:
    """A policy that promises small steps goes from 4K to 1G in one."""
    stage.bring(0, 16)
    for first in range(0, 12 if wrong else 16, 4):
        stage.collapse(first, Level.PMD)
    stage.collapse(0, TINY.largest)


@_scenario(
    "huge_at_the_end", "QEMU: a collapse that fails is logged and forgotten, and nobody tries again",
    policy="at_end collapses",
)  # fmt: skip
def left_in_small_pages(stage: Script, wrong: bool) -> None:
    """The migration ends, and nobody collapses: the guest keeps its page tables of 4K entries for good."""
    stage.bring(0, 16)
    stage.end()
    if not wrong:
        stage.collapse(0, TINY.largest)
    stage.complete()


@_scenario("writes_kept", "any post-copy that pushes and pulls: the pushed copy of a page that was asked for")
def late_piece_over_write(stage: Script, wrong: bool) -> None:
    """A page comes urgently, the guest writes to it, and then the copy arrives that had been pushed before."""
    stage.send(5)
    stage.access(0, 5, write=True)
    stage.send(5, urgent=True)
    stage.store(5, urgent=True)
    stage.continue_(5)
    if wrong:
        stage.store(5)
    else:
        stage.tell("dropped", 5, 1, detail="duplicate")


@_scenario("counts_conserved", "fcvm 961: a count of minus 11 bytes became a huge number, and progress")
def errno_counted_as_bytes(stage: Script, wrong: bool) -> None:
    """An ioctl answers minus its errno where bytes are expected; as an unsigned number that is a lot of them."""
    stage.bring(5)
    answer = stage.continue_errno(5)
    if wrong:
        stage.tell("continued", 5, answer % (1 << 64) >> 12, Level.PTE)
    elif answer > 0:
        stage.tell("continued", 5, answer >> 12, Level.PTE)


@_scenario(
    "completion_is_told", "Cloud Hypervisor: end of file on the fault connection counts as drained",
    also=("counts_conserved",),
)  # fmt: skip
def eof_taken_for_completion(stage: Script, wrong: bool) -> None:
    """The source dies, its connection ends, and the destination takes the end of the stream for the end of it all."""
    stage.bring(0, 11)
    if not wrong:
        stage.bring(11, 5)
        stage.end()
    else:
        stage.tell("lost", detail="main: closed by the peer")
    stage.complete()


@_scenario("received_within_sent", "likely: a connection of an earlier migration that is still open")
def bytes_of_another_migration(stage: Script, wrong: bool) -> None:
    """A piece arrives that this source never sent; it fits, so it is stored."""
    stage.bring(0, 4)
    if not wrong:
        stage.send(7)
    stage.store(7)
    stage.send(4)


@_scenario("dropped_stays_dropped", "Firecracker: its example handler warns of faults read before the remove")
def remove_read_after_fault(stage: Script, wrong: bool) -> None:
    """A balloon drops a page, a vCPU touches it; the fault is read first and answered with the source's old bytes."""
    stage.bring(0, 4)
    stage.tell("zapped", 5, 1)
    stage.access(0, 5)
    stage.send(5, urgent=True)
    if wrong:
        stage.store(5, urgent=True)
        stage.continue_(5)
        stage.tell("removed", 5, 1)
    else:
        stage.tell("removed", 5, 1)
        stage.tell("dropped", 5, 1, detail="removed")
        stage.store(5, zero=True)
        stage.continue_(5)


@_scenario("protection_kept", "HGM: MADV_COLLAPSE drops uffd-wp markers and protection")
def protection_lost_by_collapse(stage: Script, wrong: bool) -> None:
    """Writes are tracked by write-protection while the memory is collapsed: from then on none is seen."""
    stage.bring(0, 4)
    stage.tell("protected", 0, 4)
    if not wrong:
        stage.tell("unprotected", 0, 4)
    stage.collapse(0, Level.PMD)
    stage.access(0, 2, write=True)


@_scenario("poison_unreadable", "likely: EEXIST on a poison entry taken for a page that had come before")
def poison_overlooked(stage: Script, wrong: bool) -> None:
    """A page of the source is poisoned and marked so; the push brings it all the same, and it is mapped over that."""
    stage.bring(0, 5)
    stage.tell("poisoned", 5, 1, detail="marker")
    stage.send(5)
    if wrong:
        stage.store(5)
        stage.continue_(5)
    else:
        stage.tell("dropped", 5, 1, detail="poisoned")
    stage.bring(6, PAGES - 6)
