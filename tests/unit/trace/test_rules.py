"""Each rule on the smallest traces that it lets pass and that it does not."""

from __future__ import annotations

from typing import Final

import pytest

from migemu.mm.pages import TINY
from migemu.trace.checkers import check, checkers
from migemu.trace.events import Event
from tests.unit.trace.traces import PAGES, PMD, PTE, PUD, collapsed, memory, source, whole
from tests.unit.trace.traces import destination as at

STEPS: Final = at("policy", detail="eager collapses steps")
NO_STEPS: Final = at("policy", detail="direct collapses")
COMPLETED: Final = at("state", detail="completed")
LOST: Final = at("lost", detail="main: reset")
ALL: Final = at("received", 0, PAGES)
TURN: Final = at("received", 20, 1)
#: All that has to come for a migration to be complete.
DONE: Final = (ALL, at("continued", 0, PAGES), at("ended", count=PAGES), COMPLETED)


def arrived(first: int, count: int) -> list[Event]:
    return [at("received", first, count), at("continued", first, count)]


PASSES: Final[list[tuple[str, str, list[Event]]]] = [
    ("counts_conserved", "both nodes mean the same memory", [memory("source"), memory()]),
    ("counts_conserved", "all came once", list(DONE)),
    ("counts_conserved", "more was sent than came", [source("sent", 0, PAGES), source("sent", 3, 1), *DONE]),
    ("counts_conserved", "one came twice", [source("sent", 0, PAGES), at("dropped", 0, 1), *DONE]),
    ("received_within_sent", "sent first", [source("sent", 4, 4), at("received", 5, 2)]),
    ("received_within_sent", "in two parts", [source("sent", 4, 2), source("sent", 6, 2), at("received", 4, 4)]),
    ("received_within_sent", "the source was killed", [source("sent", 0, 1), at("received", 1, 1), LOST]),
    ("received_within_sent", "of the source nothing is told", [memory(), *DONE]),
    ("completion_is_told", "told and mapped", list(DONE)),
    ("completion_is_told", "the source's stages are its own", [source("state", detail="completed")]),
    ("mapped_within_received", "received first", [*arrived(3, 2), at("read", 4, vcpu=0)]),
    ("no_hole_collapsed", "all of it is there", [ALL, at("collapsed", 16, level=PUD)]),
    ("smaller_before_larger", "in steps", [STEPS, *(at("collapsed", n, level=PMD) for n in (0, 4, 8, 12)),
                                           at("collapsed", 0, level=PUD)]),
    ("smaller_before_larger", "pieces of 2M are steps", [STEPS, at("continued", 0, 16, PMD),
                                                         at("collapsed", 0, level=PUD)]),
    ("smaller_before_larger", "no promise", [NO_STEPS, at("collapsed", 0, level=PUD)]),
    ("smaller_before_larger", "a step that the kernel refused", [
        STEPS, *(at("collapsed", n, level=PMD) for n in (0, 4, 8)),
        at("failed", 12, level=PMD, detail="EBUSY"), at("collapsed", 0, level=PUD)]),
    ("smaller_before_larger", "EEXIST for another reason", [at("failed", 12, level=PMD, detail="EEXIST")]),
    ("smaller_before_larger", "the same again", [at("collapsed", 0, level=PUD)] * 2),
    ("smaller_before_larger", "after a zap", [
        at("collapsed", 0, level=PUD), at("zapped", 0, 16), at("collapsed", 0, level=PMD)]),
    ("flushed_before_freed", "in order", collapsed(0, PMD, 4)),
    ("flushed_before_freed", "one flush for several clears", [
        at("cleared", 0, 4), at("cleared", 8, 4), at("flushed", 0, 16),
        at("freed", 0, 2)]),
    ("flushed_before_freed", "a flush for each, and nothing cleared between them", [
        at("cleared", 0, 4), at("cleared", 8, 4), at("flushed", 8, 4),
        at("flushed", 0, 4), at("freed", 0, 2)]),
    ("flushed_before_freed", "another hugetlb page", [at("cleared", 16, 4), at("freed", 0, 1)]),
    ("huge_at_the_end", "one entry each", [NO_STEPS, at("collapsed", 0, level=PUD),
                                           at("collapsed", 16, level=PUD), COMPLETED]),
    ("huge_at_the_end", "came as one", [NO_STEPS, at("continued", 0, PAGES, PUD), COMPLETED]),
    ("huge_at_the_end", "not promised", [at("policy", detail="never"), COMPLETED]),
    ("huge_at_the_end", "not completed yet", [NO_STEPS, at("state", detail="end")]),
    ("huge_at_the_end", "refused, and then in part", [
        NO_STEPS, at("failed", 0, level=PUD, detail="EBUSY"), at("collapsed", 0, level=PMD),
        at("collapsed", 16, level=PUD), COMPLETED]),
    ("huge_at_the_end", "not completed", [NO_STEPS, LOST]),
    ("huge_at_the_end", "refused by the kernel, and poisoned", [
        NO_STEPS, at("failed", 0, level=PUD, detail="EBUSY"), at("poisoned", 20, 1), COMPLETED]),
    ("mapped_before_woken", "mapped first", [
        at("faulted", 3, vcpu=0), *arrived(3, 1), at("wake", 3, 1), at("woken", 3, vcpu=0)]),
    ("mapped_before_woken", "dropped before it could run", [
        at("faulted", 3, vcpu=0), *arrived(3, 1), at("zapped", 0, 16), at("woken", 3, vcpu=0)]),
    ("mapped_before_woken", "woken to be killed", [
        at("faulted", 3, vcpu=0), at("poisoned", 3, 1), at("woken", 3, vcpu=0)]),
    ("sleepers_woken", "by the kernel", [at("faulted", 3, vcpu=0), *arrived(3, 1), COMPLETED]),
    ("sleepers_woken", "by the handler", [
        at("faulted", 3, vcpu=0), at("collapsed", 0, level=PMD), at("wake", 0, 4), COMPLETED]),
    ("sleepers_woken", "after an EEXIST", [
        at("continued", 3, 1), at("faulted", 3, vcpu=0), at("wake", 3, 1), COMPLETED]),
    ("sleepers_woken", "a second one on the same page", [
        at("faulted", 3, vcpu=0), at("faulted", 3, vcpu=1), at("collapsed", 0, level=PMD),
        at("woken", 3, vcpu=1), at("woken", 3, vcpu=0), COMPLETED]),
    ("sleepers_woken", "not mapped yet at the cut", [at("faulted", 3, vcpu=0), LOST]),
    ("sleepers_woken", "the wake was cut off", [
        at("faulted", 3, vcpu=0), TURN, at("collapsed", 0, level=PMD)]),
    ("sleepers_woken", "the wake was cut off, and the source goes on", [
        at("faulted", 3, vcpu=0), at("collapsed", 0, level=PMD), source("state", detail="end"),
        source("lost", detail="main: reset")]),
    ("sleepers_woken", "on the page behind", [at("faulted", 4, vcpu=0), at("collapsed", 0, level=PMD), COMPLETED]),
    ("sleepers_woken", "ran, and sleeps on another page", [
        at("faulted", 3, vcpu=0), at("collapsed", 0, level=PMD), at("woken", 3, vcpu=0), at("faulted", 9, vcpu=0),
        COMPLETED]),
    ("sleepers_woken", "told not to, and done by hand", [
        at("faulted", 3, vcpu=0), at("continued", 3, 1, PTE, detail="dontwake"),
        at("wake", 3, 1), COMPLETED]),
    ("sleepers_woken", "mapped anew after a zap", [
        at("faulted", 3, vcpu=0), at("collapsed", 0, level=PMD), at("zapped", 0, 16),
        at("continued", 3, 1), COMPLETED]),
    ("faults_resolved", "again and again", [
        at("faulted", 3, vcpu=0), at("woken", 3, vcpu=0), at("faulted", 3, vcpu=0),
        at("woken", 3, vcpu=0)]),
    ("faults_resolved", "by a signal", [
        at("faulted", 3, vcpu=0), at("killed", 3, vcpu=0, detail="SIGBUS"), COMPLETED]),
    ("faults_resolved", "open at the cut", [at("faulted", 3, vcpu=0), LOST]),
    ("faults_resolved", "woken, but stopped before it ran", [
        at("faulted", 3, vcpu=0), at("continued", 3, 1), COMPLETED]),
    ("writes_kept", "the second copy was dropped", [
        *arrived(3, 1), at("written", 3, vcpu=0), at("dropped", 0, 4), at("received", 4, 4)]),
    ("writes_kept", "dropped by the guest", [
        at("written", 3, vcpu=0), at("zapped", 0, 16), at("received", 3, 1, detail="zero")]),
    ("poison_unreadable", "its neighbours are well", [
        at("poisoned", 5, 1), *arrived(4, 1), at("read", 6, vcpu=0)]),
    ("poison_unreadable", "a marker goes with a zap", [
        at("poisoned", 5, 1, detail="marker"), at("zapped", 0, 16), *arrived(5, 1)]),
    ("protection_kept", "taken off before", [
        at("protected", 0, 4), at("unprotected", 0, 4), at("collapsed", 0, level=PMD),
        at("written", 0, vcpu=0)]),
    ("protection_kept", "elsewhere", [at("protected", 4, 1), at("collapsed", 0, level=PMD)]),
    ("dropped_stays_dropped", "served with zeros", [
        at("zapped", 3, 1), at("received", 3, 1, detail="zero"), at("continued", 3, 1)]),
    ("dropped_stays_dropped", "stored while nobody knew, and thrown away", [
        at("zapped", 3, 1), at("received", 3, 1), at("removed", 3, 1),
        at("dropped", 3, 1, detail="removed"), at("continued", 3, 1)]),
    ("dropped_stays_dropped", "what it had before", [*arrived(3, 1), at("zapped", 0, 16),
                                                     at("continued", 3, 1)]),
]  # fmt: skip

FAILS: Final[list[tuple[str, str, list[Event]]]] = [
    ("counts_conserved", "a memory of 16 pages of tiny, not 32", [memory(pages=16)]),
    ("counts_conserved", "a memory of 32 pages of vax", [at("memory", count=PAGES, detail="vax")]),
    ("counts_conserved", "33 base pages were new, in a memory of 32", [ALL, at("received", 0, 1)]),
    ("counts_conserved", "the source says it sent 31 base pages of 32", [at("ended", count=31)]),
    ("counts_conserved", "the source says it sent -11 base pages of 32", [at("ended", count=-11)]),
    ("counts_conserved", "31 base pages of 32 were received", [at("received", 0, 31), *DONE[2:]]),
    ("counts_conserved", "31 base pages were sent, but 32 were received", [source("sent", 0, 31), *DONE]),
    ("received_within_sent", "page 5 was received, but not sent", [
        source("sent", 4, 1), at("received", 4, 4), source("sent", 5, 3)]),
    ("received_within_sent", "page 4 was received, but not sent", [
        source("sent", 0, 4), source("state", detail="end"), at("received", 0, 8)]),
    ("received_within_sent", "page 0 was received, but not sent", [source("sent", 1, 31), ALL, COMPLETED]),
    ("completion_is_told", "never said that it had sent everything (main: reset)", [ALL, LOST, COMPLETED]),
    ("completion_is_told", "nothing maps page 31", [
        ALL, at("continued", 0, 31), at("ended", count=PAGES), COMPLETED]),
    ("completion_is_told", "nothing maps page 0", [ALL, at("continued", 1, 31), at("ended", count=PAGES), COMPLETED]),
    ("mapped_within_received", "page 4 is mapped, but its bytes", [*arrived(0, 4), at("continued", 3, 2)]),
    ("mapped_within_received", "page 0 is mapped, but its bytes", [at("continued", 0, 1)]),
    ("mapped_within_received", "vCPU 2 reads page 0", [at("read", 0, vcpu=2)]),
    ("mapped_within_received", "vCPU 2 writes to page 0", [at("written", 0, vcpu=2)]),
    ("no_hole_collapsed", "of which 2 have not arrived, page 17 first", [
        at("received", 16, 1), at("received", 18, 13), at("collapsed", 16, level=PUD)]),
    ("smaller_before_larger", "a collapse to PMD under an entry of PUD", [
        at("collapsed", 0, level=PUD), at("collapsed", 12, level=PMD)]),
    ("smaller_before_larger", "a collapse to PMD under an entry of PUD: EEXIST", [
        at("continued", 0, 16, PUD), at("failed", 4, level=PMD, detail="EEXIST")]),
    ("smaller_before_larger", "before the 2M at page 24, though the policy promises steps", [
        STEPS, at("collapsed", 16, level=PMD), at("collapsed", 20, level=PMD),
        at("collapsed", 16, level=PUD)]),
    ("flushed_before_freed", "1 tables freed while entries of pages 0 to 3", [
        at("cleared", 0, 4), at("freed", 0, 1)]),
    ("flushed_before_freed", "entries of pages 0 to 3", [
        at("flushed", 0, 16), at("cleared", 0, 4), at("freed", 0, 1)]),
    ("flushed_before_freed", "entries of pages 4 to 15", [
        at("cleared", 0, 4, PMD), at("flushed", 0, 4), at("freed", 0, 4)]),
    ("huge_at_the_end", "hugetlb page 1 is not one entry", [
        NO_STEPS, at("collapsed", 0, level=PUD), at("collapsed", 16, level=PMD), COMPLETED]),
    ("huge_at_the_end", "hugetlb page 0 is not one entry", [
        NO_STEPS, at("collapsed", 0, level=PUD), at("collapsed", 16, level=PUD),
        at("zapped", 0, 16), COMPLETED]),
    ("huge_at_the_end", "hugetlb page 0 is not one entry", [
        NO_STEPS, at("failed", 0, level=PUD, detail="EBUSY"), at("collapsed", 0, level=PUD), at("zapped", 0, 16),
        at("collapsed", 16, level=PUD), COMPLETED]),
    ("mapped_before_woken", "a wake for page 0, which nothing maps yet", [at("wake", 0, 1)]),
    ("mapped_before_woken", "a wake for page 4, which nothing maps yet", [*arrived(0, 4), at("wake", 3, 2)]),
    ("mapped_before_woken", "vCPU 7 was woken before page 3 was mapped", [
        at("faulted", 3, vcpu=7), at("woken", 3, vcpu=7)]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("collapsed", 0, level=PMD), COMPLETED]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("collapsed", 0, level=PMD), LOST]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("collapsed", 0, level=PMD), TURN]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("collapsed", 0, level=PMD), at("continued", 3, 1), TURN]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("continued", 3, 1, PTE, detail="dontwake"), TURN]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("continued", 3, 1), at("faulted", 3, vcpu=5), TURN]),
    ("sleepers_woken", "vCPU 5 sleeps on page 3, which is mapped", [
        at("faulted", 3, vcpu=5), at("collapsed", 0, level=PMD), at("wake", 0, 3), COMPLETED]),
    ("sleepers_woken", "vCPU 5 sleeps on page 0, which is mapped", [
        at("faulted", 0, vcpu=5), at("collapsed", 0, level=PMD), at("state", detail="end")]),
    ("faults_resolved", "vCPU 1 faults on page 9 while it sleeps on page 3", [
        at("faulted", 3, vcpu=1), at("faulted", 9, vcpu=1)]),
    ("faults_resolved", "vCPU 1 was woken, but did not sleep", [at("woken", 3, vcpu=1)]),
    ("faults_resolved", "vCPU 1 was woken on page 4, but slept on page 3", [
        at("faulted", 3, vcpu=1), at("woken", 4, vcpu=1)]),
    ("faults_resolved", "the fault of vCPU 1 on page 3 was never resolved", [
        at("faulted", 3, vcpu=1), at("ended", count=PAGES), COMPLETED]),
    ("writes_kept", "stored over page 3, which the guest had written", [
        *arrived(3, 1), at("written", 3, vcpu=0), at("received", 0, 4)]),
    ("writes_kept", "stored over page 0, which the guest had written", [
        at("written", 0, vcpu=0), at("received", 0, 4)]),
    ("poison_unreadable", "continued over page 5", [at("poisoned", 5, 1), *arrived(4, 4)]),
    ("poison_unreadable", "collapsed over page 5", [
        at("poisoned", 5, 1, detail="marker"), at("collapsed", 4, level=PMD)]),
    ("poison_unreadable", "read over page 5", [at("poisoned", 4, 4), at("read", 5, vcpu=0)]),
    ("poison_unreadable", "continued over page 5", [
        at("poisoned", 5, 1), at("zapped", 0, 16), *arrived(5, 1)]),
    ("protection_kept", "a collapse took the write-protection off page 2", [
        at("protected", 0, 4), at("unprotected", 0, 2), at("collapsed", 0, level=PMD)]),
    ("protection_kept", "a collapse took the write-protection off page 0", [
        at("protected", 0, 1), at("collapsed", 0, level=PMD)]),
    ("protection_kept", "vCPU 6 wrote to page 2, which is write-protected", [
        at("protected", 2, 1), at("written", 2, vcpu=6)]),
    ("dropped_stays_dropped", "page 3 is mapped with bytes of before", [
        at("zapped", 3, 1), *arrived(3, 1), at("removed", 3, 1)]),
    ("dropped_stays_dropped", "page 0 is mapped with bytes of before", [
        at("removed", 0, 4), at("received", 0, 4), at("collapsed", 0, level=PMD)]),
]  # fmt: skip


def named(table: list[tuple[str, str, list[Event]]]) -> list[str]:
    return [f"{rule}: {what}" for rule, what, _ in table]


@pytest.mark.parametrize(("rule", "what", "events"), PASSES, ids=named(PASSES))
def test_it_passes(rule: str, what: str, events: list[Event]) -> None:
    found = check(events, geometry=TINY, pages=PAGES, rules=[rule], cut=True)
    assert [violation.reason for violation in found if violation.rule == rule] == []


@pytest.mark.parametrize(("rule", "reason", "events"), FAILS, ids=named(FAILS))
def test_it_does_not_pass(rule: str, reason: str, events: list[Event]) -> None:
    found = [v for v in check(events, geometry=TINY, pages=PAGES, rules=[rule], cut=True) if v.rule == rule]
    assert len(found) == 1
    assert reason in found[0].reason
    assert events[found[0].line - 1] == found[0].event


@pytest.mark.parametrize(
    ("rule", "what"), [("received_within_sent", "the source was killed"), ("sleepers_woken", "the wake was cut off")]
)
def test_what_may_have_been_cut_off_is_broken_if_nothing_was(rule: str, what: str) -> None:
    events = next(events for name, said, events in PASSES if (name, said) == (rule, what))
    assert [v.rule for v in check(events, geometry=TINY, pages=PAGES, rules=[rule])] == [rule]


def test_every_rule_is_seen_both_ways() -> None:
    names = {entry.name for entry in checkers}
    assert {rule for rule, _, _ in PASSES} == names
    assert {rule for rule, _, _ in FAILS} == names


@pytest.mark.parametrize("rule", [entry.name for entry in checkers])
def test_every_rule_gives_its_reason(rule: str) -> None:
    """The first line is what must hold; the rest is why."""
    entry = next(entry for entry in checkers if entry.name == rule)
    summary, _, reason = (entry.factory.__doc__ or "").partition("\n\n")
    assert summary.endswith(".")
    assert len(reason) > 80


NEEDED: Final = ("sent", "received", "faulted", "flushed", "ended")


@pytest.mark.parametrize("number", [n for n, event in enumerate(whole()) if event.event.value in NEEDED])
def test_what_a_whole_migration_cannot_do_without_is_missed(number: int) -> None:
    """Any one of them left out breaks a rule. Not so a `continued`: the collapse maps its page as well."""
    events = whole()
    del events[number]
    assert check(events, geometry=TINY, pages=PAGES)
