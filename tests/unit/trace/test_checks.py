"""The engine under the rules: which events they see, what they answer with, what it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from migemu.errors import InputError
from migemu.mm.pages import ARM64_4K, TINY, Level
from migemu.trace.checkers import Account, Checks, Objection, Rule, Violation, check, checkers
from migemu.trace.checkers.account import GONE, MAPPED, NOT, POISON
from migemu.trace.checkers.rule import Look
from migemu.trace.events import Event, Happening
from migemu.trace.findings import judge_file
from tests.unit.trace.traces import PAGES, PMD, destination, long_trace, memory, source, whole, write_lines


def rules(violations: list[Violation]) -> list[str]:
    return [violation.rule for violation in violations]


def judge(*events: Event, geometry: object = TINY) -> list[Violation]:
    return check(events, geometry=TINY, pages=PAGES)


@pytest.mark.parametrize("policy", ["eager collapses steps", "never"])
def test_a_migration_from_beginning_to_end_breaks_nothing(policy: str) -> None:
    assert judge(*whole(policy=policy)) == []


def test_any_beginning_of_a_good_trace_is_a_good_trace() -> None:
    """A node can be killed at any time; what it had done until then was right."""
    events = whole()
    for length in range(len(events)):
        assert check(events[:length], geometry=TINY, pages=PAGES, cut=True) == []


def test_a_long_trace_like_that_of_a_real_run_breaks_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace", long_trace(20_000))
    verdict = judge_file(path)
    assert verdict.violations == ()
    assert verdict.events == path.read_text(encoding="utf-8").count("\n") - 1 > 20_000
    assert set(verdict.unjudged) == {"dropped_stays_dropped", "poison_unreadable", "protection_kept"}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (destination("continued", 0, 0), "a count of 0"),
        (destination("continued", 0, -11), "a count of -11"),
        (destination("continued", 0, (1 << 64) - 11), "pages 0 to 18446744073709551604 of a memory of 32"),
        (destination("continued", 31, 2), "pages 31 to 32 of a memory of 32"),
        (destination("faulted", -1, vcpu=0), "pages -1 to -1 of a memory of 32"),
        (destination("collapsed", 1, level=PMD), "pages 1 to 4 are not whole pieces of 4 pages"),
        (destination("continued", 0, 6, PMD), "pages 0 to 5 are not whole pieces of 4 pages"),
        (destination("collapsed", 0, level=Level.CONT_PTE), "CONT_PTE is no level of tiny"),
        (destination("freed", 0, 0), "a count of 0"),
        (destination("freed", 0, -2), "a count of -2"),
        (destination("cleared", 0, 33), "pages 0 to 32 of a memory of 32"),
        (destination("flushed", 0, 33), "pages 0 to 32 of a memory of 32"),
        (destination("wake", 32, 1), "pages 32 to 32 of a memory of 32"),
    ],
)  # fmt: skip
def test_an_event_about_pages_that_cannot_be_breaks_the_counts_and_no_other_rule_hears_of_it(
    event: Event, reason: str
) -> None:
    found = judge(memory(), event)
    assert rules(found) == ["counts_conserved"]
    assert reason in found[0].reason
    assert rules(check([memory(), event], geometry=TINY, pages=PAGES, rules=["writes_kept"])) == ["counts_conserved"]


def test_lines_and_histories_say_what_led_to_it() -> None:
    """Events about its pages and its vCPU, those about the rest of its span if these are few, and the last stage."""
    events = [
        memory(), destination("state", detail="run"), destination("received", 4, 1), destination("received", 1, 1),
        destination("faulted", 3, vcpu=1), destination("received", 2, 1), destination("collapsed", 0, level=PMD),
        destination("continued", 20, 1),
    ]  # fmt: skip
    found = check(events, geometry=TINY, pages=PAGES, rules=["no_hole_collapsed"])
    assert [(violation.event, violation.line, violation.first) for violation in found] == [(events[6], 7, 0)]
    assert [witness.line for witness in found[0].history] == [2, 4, 5, 6]
    assert [witness.event for witness in found[0].history] == [events[number - 1] for number in (2, 4, 5, 6)]


def test_the_history_of_a_vcpu_is_its_own() -> None:
    events = [
        destination("faulted", 3, vcpu=1), destination("faulted", 8, vcpu=2), destination("received", 2, 1),
        destination("received", 4, 1), destination("woken", 9, vcpu=1),
    ]  # fmt: skip
    (found,) = check(events, geometry=TINY, pages=PAGES, rules=["faults_resolved"])
    assert [witness.line for witness in found.history] == [1]


def test_a_history_is_short_and_ends_before_what_it_led_to() -> None:
    events = [memory(), *(destination("wake", 3, 1) for _ in range(50))]
    found = check(events, geometry=TINY, pages=PAGES, rules=["mapped_before_woken"])
    assert [witness.line for witness in found[-1].history] == list(range(43, 51))


def test_a_rule_without_anything_to_judge_says_what_it_misses() -> None:
    checks = Checks(TINY, PAGES)
    for event in (memory(), destination("received", 0, 4), destination("continued", 0, 4)):
        checks.see(event)
    unjudged = checks.unjudged()
    assert unjudged["received_within_sent"] == "no `sent`"
    assert unjudged["completion_is_told"] == "the migration did not complete"
    assert unjudged["huge_at_the_end"] == "no `policy`"
    assert "mapped_within_received" not in unjudged
    checks.see(destination("policy", detail="never"))
    assert checks.unjudged()["huge_at_the_end"] == "the policy 'never' promises no collapse"


def test_rules_are_chosen_by_name_and_an_unknown_one_names_the_others(tmp_path: Path) -> None:
    assert set(Checks(TINY, PAGES, ["writes_kept"]).rules) == {"counts_conserved", "writes_kept"}
    with pytest.raises(ValueError, match="unknown checker 'nonsense'; known: completion_is_told, "):
        Checks(TINY, PAGES, ["nonsense"])
    with pytest.raises(InputError, match="unknown checker 'nonsense'"):
        judge_file(write_lines(tmp_path / "trace", whole()), ["nonsense"])


def test_a_copy_goes_its_own_way() -> None:
    """An explorer of orders forks its checks at every state."""
    checks = Checks(TINY, PAGES)
    for event in (memory(), destination("received", 0, 4), destination("faulted", 3, vcpu=0)):
        assert not checks.see(event)
    twin = checks.copy()
    assert not twin.see(destination("collapsed", 0, level=PMD))
    assert not twin.see(destination("received", 4, 4))
    assert rules(list(twin.ended())) == ["sleepers_woken"]
    assert not checks.ended()
    assert not checks.account.mapped[3]
    assert rules(list(checks.see(destination("continued", 4, 1)))) == ["mapped_within_received"]


def test_the_account_of_a_page() -> None:
    account = Account(TINY, PAGES)
    steps = [
        (destination("received", 4, 4), NOT, 0), (destination("continued", 5, 1), MAPPED, 0),
        (destination("collapsed", 4, level=PMD), MAPPED, Level.PMD), (destination("zapped", 0, 16), GONE, 0),
        (destination("continued", 4, 4, PMD), MAPPED, Level.PMD), (destination("poisoned", 5, 1), POISON, 0),
        (destination("zapped", 0, 16), POISON, 0),
    ]  # fmt: skip
    for event, mapped, leaf in steps:
        account.note(event, event.first or 0, event.count or 4)
        assert (account.mapped[5], account.leaf[1]) == (mapped, leaf), event
    assert account.received.count(1) == 4
    assert account.mapped[0] == NOT, "what had no entry was not zapped"


def test_memories_that_are_no_hugetlb_pages_are_refused() -> None:
    for pages in (0, 8, 33):
        with pytest.raises(ValueError, match="not whole hugetlb pages"):
            Checks(TINY, pages)


def test_levels_between_have_their_places() -> None:
    """arm64's groups of 16 entries: a collapse to 64K, then 2M, then 32M, then 1G."""
    pages = ARM64_4K.pages(Level.PUD)
    events = [memory(pages=pages, geometry=ARM64_4K), destination("policy", detail="eager collapses steps")]
    events += [destination("received", 0, pages), destination("continued", 0, pages)]
    events += [destination("collapsed", 0, level=Level.CONT_PTE)]
    events += [destination("collapsed", first, level=PMD) for first in range(0, 16 * 512, 512)]
    events += [destination("collapsed", 0, level=Level.CONT_PMD)]
    assert check(events, geometry=ARM64_4K, pages=pages) == []
    events += [destination("collapsed", 16, level=Level.CONT_PTE), destination("collapsed", 0, level=Level.PUD)]
    found = check(events, geometry=ARM64_4K, pages=pages)
    assert [violation.reason for violation in found] == [
        "a collapse to CONT_PTE under an entry of CONT_PMD",
        "collapsed to PUD before the 2M at page 8192, though the policy promises steps",
    ]


class NoUrgency(Rule):
    """Nothing is urgent."""

    needs = ((Happening.SENT,),)

    def looks(self) -> Mapping[Happening, Look]:
        return {Happening.SENT: self.sent}

    def sent(self, event: Event, first: int, _count: int) -> Objection | None:
        return Objection("there was no hurry", first) if event.urgent else None


def test_a_rule_of_ones_own_is_registered_and_judges() -> None:
    checkers.add("no_urgency", NoUrgency)
    try:
        found = judge(memory(), source("sent", 3, 1, urgent=True))
    finally:
        del checkers._entries["no_urgency"]
    assert [(violation.rule, violation.reason) for violation in found] == [("no_urgency", "there was no hurry")]
