"""Rules about entries of the page table: what they may map, in which steps, and when tables may be freed."""

from __future__ import annotations

from collections.abc import Mapping

from migemu.mm.pages import Level, PageIndex
from migemu.trace.checkers.account import Account
from migemu.trace.checkers.rule import Look, Objection, Rule, checkers
from migemu.trace.events import Event, Happening
from migemu.wire.states import Stage


# SEMANTICS 3.2, I4
@checkers.register("mapped_within_received")
class MappedWithinReceived(Rule):
    """Nothing is mapped, read or written before its bytes have arrived.

    UFFDIO_CONTINUE needs the hugetlb page in the page cache, which holds all of it as soon as one byte of it came: the
    kernel does not know which 4K have arrived, the destination must.
    """

    needs = ((Happening.CONTINUED, Happening.READ, Happening.WRITTEN),)

    def looks(self) -> Mapping[Happening, Look]:
        """Events that map pages, and accesses of vCPUs."""
        return {Happening.CONTINUED: self.continued, Happening.READ: self.accessed, Happening.WRITTEN: self.accessed}

    def continued(self, _event: Event, first: PageIndex, count: int) -> Objection | None:
        """Object to a CONTINUE of pages that have not arrived."""
        hole = self.account.received.find(0, first, first + count)
        return None if hole < 0 else Objection(f"page {hole} is mapped, but its bytes have not arrived", hole)

    def accessed(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """Object to an access to a page that has not arrived."""
        if self.account.received[first]:
            return None
        said = "reads" if event.event is Happening.READ else "writes to"
        return Objection(f"vCPU {event.vcpu} {said} page {first}, whose bytes have not arrived", first)


# SEMANTICS 0.2, I5
@checkers.register("no_hole_collapsed")
class NoHoleCollapsed(Rule):
    """No entry larger than a piece covers anything that has not arrived.

    MADV_COLLAPSE fills every hole under a table without asking whether its bytes are there: the guest reads what was
    never received, and no fault tells of it. The kernel gives no protection.
    """

    needs = ((Happening.COLLAPSED,),)

    def looks(self) -> Mapping[Happening, Look]:
        """Events of collapses that were made."""
        return {Happening.COLLAPSED: self.collapsed}

    def collapsed(self, event: Event, first: PageIndex, count: int) -> Objection | None:
        """One entry over all of it."""
        hole = self.account.received.find(0, first, first + count)
        if hole < 0:
            return None
        level = event.level.name if event.level is not None else ""
        missing = self.account.received.count(0, first, first + count)
        return Objection(
            f"one {level} entry maps pages {first} to {first + count - 1}, of which {missing} have not arrived, "
            f"page {hole} first", hole,
        )  # fmt: skip


# SEMANTICS 2.1, I11, 2.4
@checkers.register("smaller_before_larger")
class SmallerBeforeLarger(Rule):
    """No collapse under a larger entry; and, where the policy promises steps, no 1G before all its 2M.

    A collapse to 2M inside a 1G entry is refused with EEXIST and ends the call, so that what stood behind it is not
    done. A policy that promises `steps` does so because one call from 4K to 1G holds the vCPUs for as long as 262,144
    entries take to clear. A 2M whose own collapse failed may be skipped.
    """

    needs = ((Happening.COLLAPSED, Happening.FAILED),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.tried: set[int] = set()  # 2M whose collapse failed

    def looks(self) -> Mapping[Happening, Look]:
        """Events of collapses, made or failed."""
        return {Happening.COLLAPSED: self.collapsed, Happening.FAILED: self.failed}

    def collapsed(self, event: Event, first: PageIndex, count: int) -> Objection | None:
        """In its place in the order."""
        account = self.account
        per_pmd = account.geometry.pages(Level.PMD)
        start, end = first // per_pmd, -(-(first + count) // per_pmd)
        leaves = account.leaf[start:end]
        level = event.level or Level.PTE
        if (larger := max(leaves)) > level:
            return Objection(f"a collapse to {level.name} under an entry of {Level(larger).name}", first, count)
        if level <= Level.PMD or not account.promises("steps") or 0 not in leaves:
            return None
        for pmd in range(start, end):
            if not account.leaf[pmd] and pmd not in self.tried:
                page = pmd * per_pmd
                reason = f"collapsed to {level.name} before the 2M at page {page}, though the policy promises steps"
                return Objection(reason, page, per_pmd)
        return None

    def failed(self, event: Event, first: PageIndex, count: int) -> Objection | None:
        """The kernel refuses a smaller step over a larger entry."""
        per_pmd = self.account.geometry.pages(Level.PMD)
        leaf = self.account.leaf[first // per_pmd]
        level = event.level or Level.PTE
        if event.detail == "EEXIST" and leaf > level:
            return Objection(f"a collapse to {level.name} under an entry of {Level(leaf).name}: EEXIST", first, count)
        self.tried.update(range(first // per_pmd, -(-(first + count) // per_pmd)))
        return None


# SEMANTICS 2.3, I6
@checkers.register("flushed_before_freed")
class FlushedBeforeFreed(Rule):
    """Page tables are freed only after a flush that follows the clears.

    Until the TLB is flushed a processor may still walk the table. Freed before, it becomes somebody else's page, and is
    read as entries: the guest reaches memory that is not its own.
    """

    needs = ((Happening.FREED,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.unflushed: list[tuple[PageIndex, PageIndex]] = []

    def looks(self) -> Mapping[Happening, Look]:
        """The steps of a collapse or a zap."""
        return {Happening.CLEARED: self.cleared, Happening.FLUSHED: self.flushed, Happening.FREED: self.freed}

    def cleared(self, _event: Event, first: PageIndex, count: int) -> None:
        """Note entries that were cleared, and that the TLB may still hold."""
        end = first + count
        if self.unflushed and self.unflushed[-1][1] == first:
            self.unflushed[-1] = (self.unflushed[-1][0], end)
        else:
            self.unflushed.append((first, end))

    def flushed(self, _event: Event, first: PageIndex, count: int) -> None:
        """What lies outside the flush stays."""
        end = first + count
        parts = [part for a, b in self.unflushed for part in ((a, min(b, first)), (max(a, end), b))]
        self.unflushed = [(a, b) for a, b in parts if a < b]

    def freed(self, event: Event, first: PageIndex, _count: int) -> Objection | None:
        """Nothing of the same hugetlb page may be unflushed."""
        if not self.unflushed:
            return None
        per_page = self.account.geometry.largest_pages
        start = first - first % per_page
        for a, b in self.unflushed:
            if a < start + per_page and start < b:
                reason = f"{event.count} tables freed while entries of pages {a} to {b - 1} may stand in a TLB"
                return Objection(reason, a, b - a)
        return None


# SEMANTICS 3.6
@checkers.register("huge_at_the_end")
class HugeAtTheEnd(Rule):
    """At the end one entry maps each hugetlb page, under any policy that promises to collapse.

    What was mapped by 4K for the migration's sake costs the guest page walks and 2 MiB of tables per GiB for the rest
    of its life. Pages with poison are excused, and those whose collapse the kernel refused.
    """

    needs = ((Happening.POLICY,),)

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.excused: set[int] = set()

    def looks(self) -> Mapping[Happening, Look]:
        """The last stage, and what excuses."""
        return {
            Happening.STATE: self.enters,
            Happening.FAILED: self.excuse,
            Happening.POISONED: self.excuse,
            Happening.COLLAPSED: self.collapsed,
        }

    def excuse(self, _event: Event, first: PageIndex, count: int) -> None:
        """These hugetlb pages cannot be one entry."""
        per_page = self.account.geometry.largest_pages
        self.excused.update(range(first // per_page, -(-(first + count) // per_page)))

    def collapsed(self, event: Event, first: PageIndex, count: int) -> None:
        """What failed before has been made good."""
        if event.level == self.account.geometry.largest:
            self.excused.discard(first // count)

    def enters(self, event: Event, _first: PageIndex, _count: int) -> Objection | None:
        """When the destination is complete, object to hugetlb pages that one entry does not map."""
        account = self.account
        if event.node != "destination" or event.detail != Stage.COMPLETED.value or not account.promises("collapses"):
            return None
        per_page = account.geometry.largest_pages
        pmds = per_page // account.geometry.pages(Level.PMD)
        whole = bytes([account.geometry.largest]) * pmds
        for hugepage in range(account.pages // per_page):
            if account.leaf[hugepage * pmds : (hugepage + 1) * pmds] != whole and hugepage not in self.excused:
                reason = f"complete, but hugetlb page {hugepage} is not one entry; the policy is {account.policy!r}"
                return Objection(reason, hugepage * per_page, per_page)
        return None

    def unjudged(self, happened: Mapping[Happening, int]) -> str:
        """Why this is not judged: no policy promises collapses, or the trace does not reach the end."""
        if missing := super().unjudged(happened):
            return missing
        if not self.account.promises("collapses"):
            return f"the policy {self.account.policy!r} promises no collapse"
        return "" if self.account.completed else "the migration did not complete"
