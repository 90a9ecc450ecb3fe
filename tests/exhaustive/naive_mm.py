"""A second model of HGM, slot by slot, from the rules alone (SEMANTICS.md): the exhaustive and property tests compare.

It is slow and has no cleverness; whatever it shares with the real model is shared by accident. This file is the mm:
its VMAs, its faults, and madvise. `naive_table` is the page table, `naive_file` the page cache, `naive_uffd` the
ioctls, and `naive_seen` what is compared.

What mainline does for hugetlb, and HGM left alone (SEMANTICS 1.7, 1.8, 3.2):
- madvise goes on after a hole between VMAs and says ENOMEM in the end; an error of one VMA ends it at once.
- MADV_DONTNEED wants its start hugepage-aligned and rounds its end down; it keeps tables, markers and what was
  write-protected (as markers), and drops poison entries. munmap drops everything.
- fork copies page tables only where the child's VMA is registered for write-protection, which needs EVENT_FORK.
- A write to a page that only holds a marker installs a protected leaf first, and then meets the protection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EBUSY, EFAULT, EINVAL, ENOMEM

from migemu.mm import Geometry, Level
from tests.exhaustive.naive_file import NaiveFile
from tests.exhaustive.naive_table import NaiveTable, Refused
from tests.exhaustive.naive_uffd import (
    EVENT_FORK,
    EVENT_REMOVE,
    EVENT_UNMAP,
    WP_ASYNC,
    Answer,
    Message,
    NaiveUffd,
    protect,
)

EHWPOISON = 133


@dataclass
class NaiveVma:
    """Pages `[first, end)` that have the same flags. `modes` are of "missing", "minor" and "wp"."""

    first: int
    end: int
    table: NaiveTable
    file: NaiveFile
    uffd: NaiveUffd | None = None
    modes: frozenset[str] = frozenset()

    @property
    def hgm(self) -> bool:
        return self.first in self.table.hgm

    @property
    def size(self) -> int:
        """Pages of a hugepage."""
        return self.file.size

    def hugepage_first(self, page: int) -> int:
        return page // self.size * self.size

    def hugepage(self, page: int) -> int:
        return self.file.hugepage(page - self.table.first)


@dataclass
class NaiveMm:
    geometry: Geometry
    hgm: str = "v2"
    scheme: str = "thp_like"
    hwpoison: str = "hugepage"
    tables_max: int | None = None
    vmas: list[NaiveVma] = field(default_factory=list)
    tables: list[NaiveTable] = field(default_factory=list)  # of every mapping that there ever was
    uffds: list[NaiveUffd] = field(default_factory=list)
    woken: set[tuple[int, int]] = field(default_factory=set)  # (vCPU, page) of the last call

    # --- what is mapped where ---

    def mmap(self, first: int, count: int, file: NaiveFile) -> None:
        table = NaiveTable(self.geometry, file.hstate, first, first + count, self.tables_max)
        file.maps.append(table)
        file.mms.append(self)
        self.tables.append(table)
        self.vmas.append(NaiveVma(first, first + count, table, file))

    def vma(self, page: int) -> NaiveVma | None:
        return next((vma for vma in self.vmas if vma.first <= page < vma.end), None)

    def here(self, page: int) -> NaiveVma:
        vma = self.vma(page)
        assert vma is not None, f"page {page} is not mapped"
        return vma

    def overlapping(self, first: int, end: int) -> list[NaiveVma]:
        return [vma for vma in self.vmas if vma.first < end and first < vma.end]

    def divide(self, page: int) -> None:
        """SEMANTICS 1.1: a hugetlb VMA is split at hugepage borders only."""
        vma = self.vma(page)
        if vma is None or vma.first == page:
            return
        if page % vma.size:
            raise Refused(EINVAL)
        at = self.vmas.index(vma)
        rest = NaiveVma(page, vma.end, vma.table, vma.file, vma.uffd, vma.modes)
        self.vmas[at : at + 1] = [vma, rest]
        vma.end = page

    def cut_out(self, vma: NaiveVma, first: int, end: int) -> NaiveVma:
        """The VMA of pages `[first, end)`, a part of `vma`."""
        self.divide(first)
        if end < self.here(first).end:
            self.divide(end)
        return self.here(first)

    # --- madvise ---

    def each_vma(self, page: int, count: int, visit: Callable[[NaiveVma, int, int], int]) -> Answer:
        end, covered = page + count, 0
        for vma in self.overlapping(page, end):
            first, stop = max(page, vma.first), min(end, vma.end)
            covered += stop - first
            if failure := visit(vma, first, stop):
                return Answer(errno=failure)
        return Answer(errno=0 if covered == count else ENOMEM)

    def split(self, page: int, count: int) -> Answer:
        """SEMANTICS 1.1. Advice that changes no flag splits nothing."""

        def visit(vma: NaiveVma, first: int, end: int) -> int:
            if not vma.hgm:
                part = self.cut_out(vma, first, end)
                vma.table.hgm |= set(range(part.first, part.end, part.size))
            return 0

        return self.each_vma(page, count, visit)

    def collapse(self, page: int, count: int) -> Answer:
        """SEMANTICS 10.1: the v2 of the model looks for each VMA itself and says EINVAL where there is none."""
        if self.hgm == "v1":
            return self.each_vma(page, count, self.collapse_in)
        at = page
        while at < page + count:
            vma = self.vma(at)
            if vma is None:
                raise Refused(EINVAL)
            end = min(vma.end, page + count)
            if failure := self.collapse_in(vma, at, end):
                return Answer(errno=failure)
            at = end
        return Answer()

    def process_collapse(self, *ranges: tuple[int, int]) -> Answer:
        """SEMANTICS 6.1: in order, up to the first error; the pages of the ranges done, or the errno if none is."""
        done = 0
        for first, count in ranges:
            try:
                failure = self.collapse(first, count).errno
            except Refused as refused:
                failure = refused.number
            if failure:
                return Answer(done) if done else Answer(errno=failure)
            done += count
        return Answer(done)

    def collapse_in(self, vma: NaiveVma, page: int, end: int) -> int:
        """SEMANTICS 2.1: nobody is woken. An errno, or 0."""
        if not vma.hgm:
            return 0
        table, result = vma.table, 0
        while page < end:
            level = table.choose(page, end)
            slot = table.walk_to(page, level)
            result = 0  # v1: what came before is forgotten
            if table.kind(slot) == "table":
                hugepage = vma.hugepage(page)
                if vma.file.poisoned(hugepage):
                    result = EHWPOISON if self.hgm == "v1" else 0
                    page = vma.hugepage_first(page) + vma.size
                    continue
                if hugepage in vma.file.isolated:
                    return EBUSY
                table.clear(slot)
                if hugepage in vma.file.cached:
                    table.install(slot)
            page += table.size(level)
        return result

    def populate_write(self, page: int, count: int) -> Answer:
        for each in range(page, page + count):
            if self.vma(each) is None:
                return Answer(errno=ENOMEM)
            outcome = self.fault(-1, each, True, asleep=False).value
            if outcome in ("waiting", "retry"):
                return Answer(value="waiting")
            if outcome != "mapped":
                return Answer(errno=EHWPOISON if outcome == "mceerr" else EFAULT)
        return Answer()

    def hwpoison_at(self, page: int, count: int) -> Answer:
        """MADV_HWPOISON: each hugepage, or each 4K, is faulted in by a read and then fails (SEMANTICS 3.4)."""
        end = page + count
        while page < end:
            outcome = self.fault(-1, page, False, asleep=False).value
            if outcome != "mapped":
                return Answer(value=outcome) if outcome == "waiting" else Answer(errno=EFAULT)
            vma = self.here(page)
            vma.file.memory_failure(page - vma.table.first)
            page += 1 if vma.file.by_page else vma.size
        return Answer()

    def dontneed(self, page: int, count: int) -> Answer:
        """SEMANTICS 1.2: hugepages only."""

        def visit(vma: NaiveVma, first: int, end: int) -> int:
            end = vma.hugepage_first(end)
            if first % vma.size:
                return EINVAL
            if first < end:
                if vma.uffd and vma.uffd.features & EVENT_REMOVE:
                    vma.uffd.events.append(Message(first, event="remove", end=end))
                self.zap(vma, first, end)
            return 0

        return self.each_vma(page, count, visit)

    def zap(self, vma: NaiveVma, first: int, end: int) -> None:
        table = vma.table
        for slot in table.below(first, end):
            protected = slot in table.wp
            kind = table.remove(slot)
            table.cleared[slot.level] += kind == "leaf"
            if protected or kind == "wp_marker":
                table.entries |= dict.fromkeys(
                    [slot] if slot.level in table.plain_levels else table.children(slot), "wp_marker"
                )

    def munmap(self, page: int, count: int) -> Answer:
        end = page + count
        for border in (page, end):
            self.divide(border)
        gone = self.overlapping(page, end)
        watchers = [vma.uffd for vma in gone if vma.uffd and vma.uffd.features & EVENT_UNMAP]
        for vma in gone:
            self.vmas.remove(vma)
            for first in range(vma.first, vma.end, vma.size):
                vma.table.clear(vma.table.slot(vma.table.hstate, first))
            if not any(vma.table is other.table for other in self.vmas):
                vma.file.maps[:] = [table for table in vma.file.maps if table is not vma.table]
        for uffd in self.uffds:
            if any(uffd is watcher for watcher in watchers):
                uffd.events.append(Message(page, event="unmap", end=end))
        return Answer()

    # --- userfaultfd ---

    def userfaultfd(self, features: int) -> NaiveUffd:
        self.uffds.append(NaiveUffd(self, features))
        return self.uffds[-1]

    def register(self, uffd: NaiveUffd, page: int, count: int, *modes: str) -> Answer:
        """Modes replace earlier ones unless they are a part of them."""
        self.check_range(uffd, page, count)
        for vma in self.overlapping(page, page + count):
            if not (vma.uffd is uffd and set(modes) <= vma.modes):
                part = self.cut_out(vma, max(page, vma.first), min(page + count, vma.end))
                part.uffd, part.modes = uffd, frozenset(modes)
        return Answer()

    def unregister(self, uffd: NaiveUffd, page: int, count: int) -> Answer:
        """Protection goes with the registration, and who sleeps there is woken."""
        self.check_range(uffd, page, count)
        for vma in self.overlapping(page, page + count):
            if vma.uffd is not None:
                part = self.cut_out(vma, max(page, vma.first), min(page + count, vma.end))
                if "wp" in part.modes:
                    protect(part, part.first, part.end, on=False)
                part.uffd, part.modes = None, frozenset()
                uffd.wake_range(part.first, part.end)
        return Answer()

    def check_range(self, uffd: NaiveUffd, page: int, count: int) -> None:
        vmas = self.overlapping(page, page + count)
        if not vmas or any(border % vmas[0].size for border in (page, page + count)):
            raise Refused(EINVAL)
        if any(vma.uffd not in (None, uffd) for vma in vmas):
            raise Refused(EBUSY)

    # --- faults ---

    def fault(self, vcpu: int, page: int, write: bool, asleep: bool = True) -> Answer:
        """3.1, 3.2, 3.4. Without `asleep` the caller cannot wait: nothing is queued."""
        vma = self.vma(page)
        if vma is None:
            return Answer(value="sigsegv")
        missing = self.hugetlb_fault(vma, page, write)
        if missing not in ("minor", "missing", "wp"):
            return Answer(value=missing)
        assert vma.uffd is not None
        return Answer(value=vma.uffd.sleep(vcpu, vma, page, write, missing) if asleep else "waiting")

    def hugetlb_fault(self, vma: NaiveVma, page: int, write: bool) -> str:
        table, file, hugepage = vma.table, vma.file, vma.hugepage(page)
        slot = table.walk(page)
        kind = table.kind(slot)
        if kind in ("migration", "poison"):
            return {"migration": "retry", "poison": "mceerr"}[kind]
        if kind == "leaf":
            if write and slot in table.wp:
                if "wp" in vma.modes and not (vma.uffd and vma.uffd.features & WP_ASYNC):
                    return "wp"
                table.wp.discard(slot)
            return "mapped"
        if hugepage not in file.cached:
            if "missing" in vma.modes:
                return "missing"
            file.cached.add(hugepage)
        elif not file.clean(page - table.first, 1):
            return "mceerr"
        elif "minor" in vma.modes:
            return "minor"
        if file.refs(hugepage) >= file.refs_max:
            return "sigbus"
        level = next(
            level
            for level in table.plain_levels
            if level <= slot.level and file.clean(table.slot(level, page).first - table.first, table.size(level))
        )
        slot = table.walk_to(page, level)
        table.install(slot, wp=table.entries.pop(slot, None) == "wp_marker")
        return self.hugetlb_fault(vma, page, write)

    def touch(self, page: int, write: bool = False) -> Answer:
        """A fault, and a wake for whoever waits then."""
        answer = self.fault(0, page, write)
        vma = self.vma(page)
        if vma is not None and vma.uffd is not None:
            vma.uffd.wake_range(vma.hugepage_first(page), page + 1)
        return answer

    # --- the file below ---

    def populate(self, page: int, count: int) -> Answer:
        """SEMANTICS 3.2: whole hugepages."""
        vmas = self.overlapping(page, page + count)
        if sum(min(vma.end, page + count) - max(vma.first, page) for vma in vmas) < count:
            raise Refused(EFAULT)
        for vma in vmas:
            first, end = max(vma.first, page), min(vma.end, page + count)
            vma.file.cached |= set(range(vma.hugepage(first), vma.hugepage(end - 1) + 1))
        return Answer()

    def gathered(self) -> tuple[Counter[Level], int]:
        """The leaves cleared and the tables freed since the last time it was asked."""
        cleared, freed = Counter[Level](), 0
        for table in self.tables:
            cleared += table.cleared
            freed += table.freed
            table.cleared, table.freed = Counter(), 0
        return cleared, freed

    # --- fork ---

    def fork(self) -> NaiveMm:
        """SEMANTICS 1.8: flags are kept; registrations only with EVENT_FORK, tables only with write-protection."""
        child = NaiveMm(self.geometry, self.hgm, self.scheme, self.hwpoison, self.tables_max)
        tables: dict[int, NaiveTable] = {}
        uffds: dict[int, NaiveUffd] = {}
        for vma in self.vmas:
            if id(vma.table) not in tables:
                old = vma.table
                new = NaiveTable(self.geometry, old.hstate, old.first, old.end, self.tables_max)
                new.hgm |= old.hgm
                tables[id(old)] = new
                vma.file.maps.append(new)
                vma.file.mms.append(child)
                child.tables.append(new)
            copy = NaiveVma(vma.first, vma.end, tables[id(vma.table)], vma.file)
            child.vmas.append(copy)
            if vma.uffd is None or not vma.uffd.features & EVENT_FORK:
                continue
            if id(vma.uffd) not in uffds:
                uffds[id(vma.uffd)] = child.userfaultfd(vma.uffd.features)
                vma.uffd.events.append(Message(0, event="fork"))
            copy.uffd, copy.modes = uffds[id(vma.uffd)], vma.modes
            if "wp" in vma.modes:
                for slot in vma.table.below(vma.first, vma.end):
                    copy.table.install(slot, slot in vma.table.wp, vma.table.entries[slot])
                copy.table.tables |= {table for table in vma.table.tables if vma.first <= table.first < vma.end}
        return child
