"""What must hold of both cores between two steps and at the end; and how to get there.

The checkers judge what is told in the trace. Here both cores and the memory are compared with each other, and with
what the guest has written: what an event does not say.
"""

from __future__ import annotations

from migemu.mm.pages import Level
from migemu.ordering.broken import BrokenRuleError
from migemu.ordering.cores import SMALL_PAGES, Cores
from migemu.ordering.source_side import MAIN, PREEMPT

#: Rounds of `drain` per base page: far more than the longest way to an end that was ever seen. Assumed.
_ROUNDS_PER_PAGE = 20


def check(cores: Cores) -> None:
    """Compare both cores and the memory between two steps, when no effect is pending. BrokenRuleError.

    Of a memory that is not small, all pages are compared only at the end.
    """
    if cores.total <= SMALL_PAGES:
        _compare(cores)
    if not cores.unread:
        for violation in cores.checks.ended():
            raise BrokenRuleError(violation.rule, violation.reason)
    for vcpu, page, _ in cores.asleep.values():
        if vcpu not in cores.unread and cores.receiver.mapped.pages[page]:
            raise BrokenRuleError(
                "sleepers_woken", f"vCPU {vcpu} sleeps on page {page}, which is mapped", first=page, vcpu=vcpu
            )
    counts = cores.receiver.statistics()
    per_pmd = cores.geometry.pages(Level.PMD)
    _equal(
        "counts_conserved", "pages received in pieces, and pages received",
        counts.pieces_4k + per_pmd * counts.pieces_2m + counts.pages_zero, counts.pages_received,
    )  # fmt: skip
    _equal(
        "counts_conserved", "pages mapped and received, no effect pending", counts.pages_mapped, counts.pages_received
    )


def _compare(cores: Cores) -> None:
    received, mapped = cores.receiver.received.pages, cores.receiver.mapped.pages
    sent = cores.source.sender.sent.pages
    for page, (m, r, s) in enumerate(zip(mapped, received, sent, strict=True)):
        if not m <= r <= s:
            rule = "mapped_within_received" if m > r else "received_within_sent"
            raise BrokenRuleError(rule, f"page {page}: mapped is {m}, received is {r}, sent is {s}", first=page)
    cores.check_page_table()
    cores.memory.validate()


def check_end(cores: Cores) -> None:
    """Compare both cores and the memory after everything has arrived. BrokenRuleError."""
    _compare(cores)
    for violation in cores.checks.ended():
        raise BrokenRuleError(violation.rule, violation.reason)
    _equal("completion_is_told", "times that the receiver has finished", cores.finishes, 1)
    if not cores.source.sender.finished or not cores.receiver.received.complete:
        raise BrokenRuleError("completion_is_told", f"finished, with {cores.source.sender!r} and {cores.receiver!r}")
    if cores.asleep:
        raise BrokenRuleError("faults_resolved", f"vCPUs {sorted(cores.asleep)} sleep for ever")
    _equal("contents_right", "the memory at both ends", cores.bytes == cores.expected, True)
    leaves = cores.memory.leaves()
    if "collapses" in cores.promised:
        largest = leaves[cores.geometry.largest]
        _equal("huge_at_the_end", "largest entries and hugetlb pages", largest, cores.plan.hugepages)
        _equal("huge_at_the_end", "bytes of page tables left, and none", cores.memory.table_bytes(), 0)
    mapped = sum(count * cores.geometry.pages(level) for level, count in leaves.items())
    _equal("counts_conserved", "pages that entries map, and pages", mapped, cores.total)
    sender, receiver = cores.source.sender.statistics(), cores.receiver.statistics()
    again = sender.pages_resent + cores.source.copies
    _equal("counts_conserved", "duplicates received and sent", receiver.pages_duplicate, again)
    _equal("counts_conserved", "faults open at the end, and none", receiver.faults_open, 0)
    _equal("counts_conserved", "requests received and made", sender.requests, receiver.requests)


def _equal(rule: str, what: str, one: int, other: int) -> None:
    if one != other:
        raise BrokenRuleError(rule, f"{what}: {one}, not {other}")


def drain(cores: Cores, *, preempt_last: bool = False) -> None:
    """Deliver everything that is under way, and check after each round. BrokenRuleError when it does not end.

    With `preempt_last`, urgent pieces arrive after everything else, also after the announcement of the end.
    """
    source = cores.source
    for _ in range(_ROUNDS_PER_PAGE * cores.total):
        cores.request()
        cores.urgent()
        cores.push()
        cores.read()
        cores.deliver(MAIN, cores.total)
        if not preempt_last or source.end_sent:
            cores.deliver(PREEMPT, cores.total)
        cores.pass_deadline()
        check(cores)
        waiting = (*source.channels.values(), cores.return_path, cores.asleep, cores.unread)
        done = source.end_sent and source.sender.finished and not any(waiting)
        if done and cores.receiver.deadline() is None:
            return
    raise BrokenRuleError("completion_is_told", f"the migration does not end: {cores!r}, asleep: {cores.asleep}")
